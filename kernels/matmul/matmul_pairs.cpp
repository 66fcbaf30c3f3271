#include "kernels/matmul/matmul_pairs.hpp"

#include <algorithm>

#include "kernels/matmul/pair_panels.hpp"
#include "kernels/matmul/pair_tile.hpp"
#include "kernels/matmul/tiling.hpp"

namespace hearth::kernels {

namespace {

// Terms of the inner dimension for which operands are packed at a time, columns of b that are
// packed together, and rows of c in a unit of work, twice as many where the inner dimension is half
// as long: a core's second cache (1 MiB) holds what is packed and what is packed next. Measured on
// Zen 4; with half the terms or twice the columns most products lose a few percent.
constexpr Index most_depth = 1024;
constexpr Index band_columns = 2 * panel_lanes;
constexpr Index most_rows = 18 * strip_rows;
constexpr Index most_columns = 32 * panel_lanes;

// Units are halved until there are so many for a thread, but not below this side: each unit packs
// both operands for itself.
constexpr Index units_per_thread = 4, least_side = 128;

constexpr Index aligned(Index bytes) {
  return (bytes + 63) / 64 * 64;
}

// Bytes of the parts of a thread's memory.
struct PairScratch {
  Index a = 0, b = 0;  // packed
  Index sums = 0;      // a unit's tiles in float, between chunks of the inner dimension

  [[nodiscard]] Index bytes() const { return a + b + sums; }
};

// A part of c that one thread computes.
template <class C>
struct PairUnit {
  const Problem<bfloat16, C>& problem;
  Operation operation;
  Index m0, m, n0, n;
  Cut strips, chunks;

  PairUnit(const TiledProblem<bfloat16, C>& tiled, Index number, Operation op)
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
  // A band from column n0 + first on.
  [[nodiscard]] OperandPart b(Index first, Index chunk) const {
    return part(problem.b, problem.ldb, operation != Operation::nt, n0 + first,
                std::min(band_columns, n - first), chunk);
  }

  void enlarge(PairScratch& scratch) const {
    const Index pairs = panel_pairs(chunks.part), panels = (n + panel_lanes - 1) / panel_lanes;
    const auto larger = [](Index& part, Index elements) {
      part = std::max(part, aligned(elements * Index{sizeof(Pair)}));
    };
    larger(scratch.a, strips.parts * pairs * strip_lanes);
    larger(scratch.b, band_columns * pairs);
    if (chunks.parts > 1) larger(scratch.sums, strips.parts * panels * strip_rows * panel_lanes);
  }

 private:
  [[nodiscard]] OperandPart part(const bfloat16* data, Index ld, bool outer_contiguous, Index first,
                                 Index outer, Index chunk) const {
    const Index k0 = chunks.begin(chunk);
    return {data + (outer_contiguous ? k0 * ld + first : first * ld + k0), ld, outer_contiguous,
            outer, chunks.size(chunk)};
  }
};

// `next`: what this thread probably computes next, if anything.
template <class C>
void multiply(const PairUnit<C>& unit, const PairUnit<C>* next, Output output,
              const PairScratch& scratch, char* memory) {
  const Problem<bfloat16, C>& p = unit.problem;
  auto* const a = reinterpret_cast<Pair*>(memory);
  auto* const b = reinterpret_cast<Pair*>(memory + scratch.a);
  auto* const sums = reinterpret_cast<float*>(memory + scratch.a + scratch.b);
  Ahead ahead;
  PairTile<C> tile{};
  tile.ldc = p.ldc;
  tile.add = output == Output::add;
  for (Index chunk = 0; chunk < unit.chunks.parts; ++chunk) {
    const OperandPart rows = unit.a(chunk);
    pack<strip_lanes>(rows, unit.strips.part, a);
    const Index pairs = panel_pairs(rows.depth);
    tile.pairs = (rows.depth + 1) / 2;
    tile.first = chunk == 0;
    tile.last = chunk + 1 == unit.chunks.parts;
    for (Index band = 0; band < unit.n; band += band_columns) {
      const OperandPart columns = unit.b(band, chunk);
      pack<panel_lanes>(columns, panel_lanes, b);
      ahead.clear();
      if (band + band_columns < unit.n) {
        ahead.want(unit.b(band + band_columns, chunk));
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
        for (Index s = 0; s < unit.strips.parts; ++s) {
          tile.a = a + s * pairs * strip_lanes;
          tile.c = p.c + (unit.m0 + unit.strips.begin(s)) * p.ldc + unit.n0 + band + j;
          tile.sums = sums + ((band + j) * unit.strips.parts + s * panel_lanes) * strip_rows;
          multiply_tile(unit.strips.size(s), tile, ahead);
        }
      }
    }
  }
}

template <class C>
std::vector<TiledProblem<bfloat16, C>> cut_into_units(
    const std::vector<Problem<bfloat16, C>>& problems, Index threads, Index& units) {
  Index k = 0;
  for (const auto& p : problems) k = std::max(k, p.k);
  const Index rows = k > most_depth / 2 ? most_rows : 2 * most_rows;
  TileShape shape{rows, most_columns, strip_rows, panel_lanes};
  auto cut = cut_into_tiles(problems, shape, units);
  while (threads > 1 && units < units_per_thread * threads &&
         std::max(shape.rows, shape.columns) > least_side) {
    if (shape.columns >= shape.rows) {
      shape.columns /= 2;
    } else {
      shape.rows = (shape.rows / 2 + strip_rows - 1) / strip_rows * strip_rows;
    }
    cut = cut_into_tiles(problems, shape, units);
  }
  return cut;
}

}  // namespace

template <class C>
void PairProducts::run(const std::vector<Problem<bfloat16, C>>& problems, Operation operation,
                       Output output) {
  const std::lock_guard lock(one_call_);
  const Index threads = tokens_.size();
  Index units = 0;
  const auto tiled = cut_into_units(problems, threads, units);
  PairScratch scratch;
  for (const auto& t : tiled) PairUnit<C>(t, 0, operation).enlarge(scratch);
  const Index bytes = scratch.bytes();
  if (static_cast<Index>(memory_.size()) < bytes * threads) {
    memory_ = {};
    memory_ =
        uninitialized<Kokkos::View<char*, Kokkos::HostSpace>>("matmul_scratch", bytes * threads);
  }

  const auto* const list = tiled.data();
  const auto count = static_cast<Index>(tiled.size());
  const auto unit = [=](Index number) {
    const auto& t = problem_of_tile(list, count, number);
    return PairUnit<C>(t, number - t.first, operation);
  };
  using Policy =
      Kokkos::RangePolicy<HostExec, Kokkos::Schedule<Kokkos::Dynamic>, Kokkos::IndexType<Index>>;
  Kokkos::parallel_for("matmul_pairs", Policy(0, units, Kokkos::ChunkSize(1)),
                       [&](const Index number) {
                         const auto token = tokens_.acquire();
                         // Threads take turns where their units are alike.
                         const PairUnit<C> next = unit(std::min(number + threads, units - 1));
                         multiply(unit(number), number + threads < units ? &next : nullptr, output,
                                  scratch, memory_.data() + bytes * token);
                         tokens_.release(token);
                       });
}

template void PairProducts::run(const std::vector<Problem<bfloat16, bfloat16>>&, Operation, Output);
template void PairProducts::run(const std::vector<Problem<bfloat16, float>>&, Operation, Output);

}  // namespace hearth::kernels
