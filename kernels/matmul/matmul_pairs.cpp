#include "kernels/matmul/matmul_pairs.hpp"

#include <algorithm>
#include <array>

#include "kernels/matmul/ahead.hpp"
#include "kernels/matmul/pair_panels.hpp"
#include "kernels/matmul/tiling.hpp"
#include "kernels/register_tile.hpp"

namespace hearth::kernels {

namespace {

// What stands in registers: a strip of rows times a panel of columns, whose sums leave room for a
// row of the panel and for a factor.
constexpr int panel_runs = 2, panel_lanes = panel_runs * lane_count;
constexpr int strip_rows = (vector_registers - panel_runs - 1) / panel_runs;
constexpr int strip_lanes = (strip_rows + lane_count - 1) / lane_count * lane_count;

// Terms of the inner dimension for which operands are packed at a time.
constexpr Index most_depth = 1024;
// Columns of b that are packed together
constexpr Index band = 4 * panel_lanes;
// Pairs between two requests for memory that is read later.
constexpr Index block_pairs = 16;
// Sides of a unit of work.
constexpr Index few_rows = 18 * strip_rows, many_rows = 2 * few_rows;
constexpr Index most_columns = 32 * panel_lanes, least_side = 128;
constexpr Index units_per_thread = 8;

template <class C>
struct Tile {
  const Pair *a, *b;
  Index pairs;
  float* sums;  // (strip_rows, panel_lanes): what has been summed up before, and to be continued
  bool first, last;
  C* c;
  Index ldc;
  int columns;
  bool add;
  Index lines_ahead;  // in every block of pairs
};

template <int rows, int runs, class C>
void multiply_tile(const Tile<C>& tile, Ahead& ahead) {
  using Sums = RegisterTile<rows, runs>;
  Sums sum;
  if (tile.first) {
    sum.clear();
  } else {
    sum.load_from(tile.sums, panel_lanes);
  }
  const Pair *a = tile.a, *b = tile.b;
  if (tile.last) {
    for (int r = 0; r < rows; ++r) {
      for (int n = 0; n < runs; ++n) __builtin_prefetch(tile.c + r * tile.ldc + n * lane_count, 1);
    }
  }
  for (Index left = tile.pairs; left > 0; left -= block_pairs) {
    ahead.fetch(tile.lines_ahead);
    const Pair* end = b + std::min(block_pairs, left) * panel_lanes;
    for (; b < end; a += strip_lanes, b += panel_lanes) sum.template add<1>(a, b);
  }
  if (!tile.last) {
    sum.store_to(tile.sums, panel_lanes);
    return;
  }
  const auto finish = [&](C* to, Index ld) __attribute__((always_inline)) {
    if (tile.add) {
      Sums::each([&](auto r, auto n) __attribute__((always_inline)) {
        sum.value[r][n] += load_lanes(to + r * ld + n * lane_count);
      });
    }
    Sums::each([&](auto r, auto n) __attribute__((always_inline)) {
      store_lanes(to + r * ld + n * lane_count, sum.value[r][n]);
    });
  };
  if (tile.columns == runs * lane_count) {
    finish(tile.c, tile.ldc);
    return;
  }
  C edge[rows * runs * lane_count] = {};
  const auto size = static_cast<std::size_t>(tile.columns) * sizeof(C);
  for (int r = 0; r < rows; ++r) {
    std::memcpy(edge + r * runs * lane_count, tile.c + r * tile.ldc, size);
  }
  finish(edge, runs * lane_count);
  for (int r = 0; r < rows; ++r) {
    std::memcpy(tile.c + r * tile.ldc, edge + r * runs * lane_count, size);
  }
}

template <class C>
using TileFunction = void (*)(const Tile<C>&, Ahead&);

// [runs - 1][rows - 1]
template <class C>
constexpr auto tile_functions =
    []<int... r>(std::integer_sequence<int, r...>) {
      return std::array{std::array<TileFunction<C>, strip_rows>{multiply_tile<r + 1, 1, C>...},
                        std::array<TileFunction<C>, strip_rows>{multiply_tile<r + 1, 2, C>...}};
    }(std::make_integer_sequence<int, strip_rows>());
static_assert(panel_runs == 2);

constexpr Index aligned(Index bytes) {
  return (bytes + 63) / 64 * 64;
}

struct Scratch {
  Index a, b, sums;  // bytes
  [[nodiscard]] Index bytes() const { return a + b + sums; }
};

// A tile of c that one thread computes.
template <class C>
struct Unit {
  const Problem<bfloat16, C>& problem;
  Operation operation;
  Index m0, m, n0, n;
  Cut strips, chunks;

  Unit(const TiledProblem<bfloat16, C>& tiled, Index number, Operation op)
      : problem(tiled.problem),
        operation(op),
        m0(tiled.rows.begin(number / tiled.columns.parts)),
        m(tiled.rows.size(number / tiled.columns.parts)),
        n0(tiled.columns.begin(number % tiled.columns.parts)),
        n(tiled.columns.size(number % tiled.columns.parts)),
        strips(m, strip_rows, 1),
        chunks(problem.k, most_depth, 2 * lane_count) {}

  [[nodiscard]] OperandPart a(Index chunk) const {
    return part(problem.a, problem.lda, operation == Operation::tn, m0, m, chunk);
  }
  // The columns from n0 + first on that are packed together.
  [[nodiscard]] OperandPart b(Index first, Index chunk) const {
    return part(problem.b, problem.ldb, operation != Operation::nt, n0 + first,
                std::min(band, n - first), chunk);
  }

 private:
  [[nodiscard]] OperandPart part(const bfloat16* data, Index ld, bool outer_contiguous, Index first,
                                 Index outer, Index chunk) const {
    const Index k0 = chunks.begin(chunk);
    return {data + (outer_contiguous ? k0 * ld + first : first * ld + k0), ld, outer_contiguous,
            outer, chunks.size(chunk)};
  }
};

// `next`: what is probably computed next on this thread, if anything.
template <class C>
void multiply(const Unit<C>& unit, const Unit<C>* next, Output output, const Scratch& scratch,
              char* memory) {
  const Problem<bfloat16, C>& p = unit.problem;
  auto* a = reinterpret_cast<Pair*>(memory);
  auto* b = reinterpret_cast<Pair*>(memory + scratch.a);
  auto* sums = reinterpret_cast<float*>(memory + scratch.a + scratch.b);
  Ahead ahead;
  Tile<C> tile;
  tile.ldc = p.ldc;
  tile.add = output == Output::add;
  for (Index chunk = 0; chunk < unit.chunks.parts; ++chunk) {
    const OperandPart rows = unit.a(chunk);
    pack<strip_lanes>(rows, unit.strips.part, a);
    const Index pairs = panel_pairs(rows.depth);
    tile.pairs = (rows.depth + 1) / 2;
    tile.first = chunk == 0;
    tile.last = chunk + 1 == unit.chunks.parts;
    for (Index j0 = 0; j0 < unit.n; j0 += band) {
      const OperandPart columns = unit.b(j0, chunk);
      pack<panel_lanes>(columns, panel_lanes, b);
      ahead.clear();
      if (j0 + band < unit.n) {
        ahead.want(unit.b(j0 + band, chunk));
      } else if (!tile.last) {
        ahead.want(unit.a(chunk + 1));
        ahead.want(unit.b(0, chunk + 1));
      } else if (next != nullptr) {
        ahead.want(next->a(0));
        ahead.want(next->b(0, 0));
      }
      const Index blocks = (tile.pairs + block_pairs - 1) / block_pairs * unit.strips.parts *
                           ((columns.outer + panel_lanes - 1) / panel_lanes);
      tile.lines_ahead = (ahead.lines() + blocks - 1) / blocks;
      for (Index j = 0; j < columns.outer; j += panel_lanes) {
        tile.b = b + j * pairs;
        tile.columns = static_cast<int>(std::min(Index{panel_lanes}, columns.outer - j));
        const auto& functions = tile_functions<C>[tile.columns > lane_count ? 1 : 0];
        for (Index s = 0; s < unit.strips.parts; ++s) {
          tile.a = a + s * pairs * strip_lanes;
          tile.c = p.c + (unit.m0 + unit.strips.begin(s)) * p.ldc + unit.n0 + j0 + j;
          tile.sums = sums + ((j0 + j) / panel_lanes * unit.strips.parts + s) * strip_rows * panel_lanes;
          functions[static_cast<std::size_t>(unit.strips.size(s) - 1)](tile, ahead);
        }
      }
    }
  }
}

}  // namespace

template <class C>
void PairProducts::run(const std::vector<Problem<bfloat16, C>>& problems, Operation operation,
                       Output output) {
  const std::lock_guard lock(one_call_);
  const Index threads = tokens_.size();
  Index longest = 0;
  for (const auto& p : problems) longest = std::max(longest, p.k);
  TileShape shape{longest <= most_depth / 2 ? many_rows : few_rows, most_columns, strip_rows,
                  panel_lanes};
  Index units = 0;
  auto tiled = cut_into_tiles(problems, shape, units);
  while (units < units_per_thread * threads && threads > 1 &&
         std::max(shape.rows, shape.columns) > least_side) {
    if (shape.columns >= shape.rows) {
      shape.columns /= 2;
    } else {
      shape.rows = (shape.rows / 2 + strip_rows - 1) / strip_rows * strip_rows;
    }
    tiled = cut_into_tiles(problems, shape, units);
  }
  Scratch scratch{};
  for (const auto& t : tiled) {
    const Cut strips(t.rows.part, strip_rows, 1), depth(t.problem.k, most_depth, 2 * lane_count);
    const Index pairs = panel_pairs(depth.part), panels = (t.columns.part + panel_lanes - 1) / panel_lanes;
    scratch.a = std::max(scratch.a, aligned(strips.parts * pairs * strip_lanes * 4));
    scratch.b = std::max(scratch.b, aligned(band * pairs * 4));
    if (depth.parts > 1) {
      scratch.sums = std::max(scratch.sums,
                              aligned(strips.parts * panels * strip_rows * panel_lanes * 4));
    }
  }
  const Index bytes = scratch.bytes() + 64;
  if (static_cast<Index>(memory_.size()) < bytes * threads) {
    memory_ = {};
    memory_ = uninitialized<Kokkos::View<char*, Kokkos::HostSpace>>("matmul_scratch", bytes * threads);
  }
  const auto* list = tiled.data();
  const Index count = static_cast<Index>(tiled.size());
  using Policy =
      Kokkos::RangePolicy<HostExec, Kokkos::Schedule<Kokkos::Dynamic>, Kokkos::IndexType<Index>>;
  const auto unit = [=](Index number) {
    const auto& t = problem_of_tile(list, count, number);
    return Unit<C>(t, number - t.first, operation);
  };
  char* const memory = memory_.data();
  Kokkos::parallel_for("matmul_pairs", Policy(0, units, Kokkos::ChunkSize(1)),
                       [=, this](const Index number) {
                         const auto token = tokens_.acquire();
                         const Unit<C> next = unit(std::min(number + threads, units - 1));
                         multiply(unit(number), number + threads < units ? &next : nullptr, output,
                                  scratch, memory + bytes * token);
                         tokens_.release(token);
                       });
}

template void PairProducts::run(const std::vector<Problem<bfloat16, bfloat16>>&, Operation, Output);
template void PairProducts::run(const std::vector<Problem<bfloat16, float>>&, Operation, Output);

}  // namespace hearth::kernels
