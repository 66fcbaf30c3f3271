#include "kernels/matmul/portable.hpp"

#include <type_traits>
#include <utility>

#include "kernels/matmul/tiling.hpp"
#include "kernels/team.hpp"

namespace hearth::kernels {

namespace {

// A tile's operands are packed into scratch `depth` terms of the inner dimension at a time; a
// thread computes blocks of rows × columns, whose sums stay in registers.
template <bool host>
struct Blocking {
  static constexpr int rows = 6, columns = 16;
  static constexpr int tile_rows = 96, tile_columns = 128, depth = 256;
  static constexpr int scratch_level = 1;  // level 0 has 32 KiB on the host
};
template <>
struct Blocking<false> {
  static constexpr int rows = 4, columns = 4;
  static constexpr int tile_rows = 64, tile_columns = 64, depth = 32;
  static constexpr int scratch_level = 0;
};

// scratch[strip][p][i] = element (i of the strip, p): strips of `width` rows of `from`, zero
// beyond its end. Elements are `stride` apart along the strip and `depth_stride` along p.
template <int width, class T, class TeamMember>
KOKKOS_INLINE_FUNCTION void pack(const TeamMember& team, const T* from, Index stride,
                                 Index depth_stride, int extent, int depth, Real<T>* scratch) {
  const int strips = (extent + width - 1) / width;
  Kokkos::parallel_for(Kokkos::TeamThreadRange(team, strips * depth), [&](const int item) {
    const int strip = item / depth, p = item % depth;
    const T* source = from + strip * width * stride + p * depth_stride;
    Real<T>* target = scratch + (strip * depth + p) * width;
    const int valid = extent - strip * width;
    if (valid >= width && stride == 1) {
      for (int i = 0; i < width; ++i) target[i] = source[i];
    } else if (valid >= width) {
      for (int i = 0; i < width; ++i) target[i] = source[i * stride];
    } else {
      for (int i = 0; i < width; ++i) {
        target[i] = i < valid ? Real<T>(source[i * stride]) : Real<T>(0);
      }
    }
  });
}

// c[i][j] += Σ_p a[p][i] · b[p][j] for a block, or = where `assign`. The rows are written out by
// the fold over i and the columns are one loop: that keeps the sums in vector registers.
template <int columns, class T, int... i>
KOKKOS_INLINE_FUNCTION void multiply_block(std::integer_sequence<int, i...>, const T* a, const T* b,
                                           int depth, T* c, Index ldc, int valid_rows,
                                           int valid_columns, bool assign) {
  constexpr int rows = sizeof...(i);
  T sum[rows][columns] = {};
  for (int p = 0; p < depth; ++p) {
    const T factor[rows] = {a[p * rows + i]...};
    for (int j = 0; j < columns; ++j) {
      const T element = b[p * columns + j];
      ((sum[i][j] += factor[i] * element), ...);
    }
  }
  for (int row = 0; row < rows; ++row) {
    if (row >= valid_rows) break;
    for (int j = 0; j < columns; ++j) {
      if (j >= valid_columns) break;
      c[row * ldc + j] = assign ? sum[row][j] : c[row * ldc + j] + sum[row][j];
    }
  }
}

// Where the sums of a tile stand.
template <class R>
struct SumTile {
  R* data;
  Index stride;  // from one row to the next
};

// c itself where it has the sums' type, scratch where it is narrower.
template <class R>
KOKKOS_INLINE_FUNCTION SumTile<R> sum_tile(R* c, Index ldc, R*, Index) {
  return {c, ldc};
}
template <class R, class C>
KOKKOS_INLINE_FUNCTION SumTile<R> sum_tile(C*, Index, R* scratch, Index stride) {
  return {scratch, stride};
}

// c = or += the sums, rounded once; nothing where they stand in c.
template <class R, class TeamMember>
KOKKOS_INLINE_FUNCTION void store(const TeamMember&, const SumTile<R>&, R*, Index, int, int, bool) {
}
template <class R, class C, class TeamMember>
KOKKOS_INLINE_FUNCTION void store(const TeamMember& team, const SumTile<R>& sums, C* c, Index ldc,
                                  int m, int n, bool assign) {
  Kokkos::parallel_for(Kokkos::TeamThreadRange(team, m), [&](const int i) {
    for (int j = 0; j < n; ++j) {
      const R sum = sums.data[i * sums.stride + j];
      c[i * ldc + j] = C(assign ? sum : R(c[i * ldc + j]) + sum);
    }
  });
}

}  // namespace

template <class T, class C>
void run_portable(const std::vector<Problem<T, C>>& problems, Operation operation, Output output) {
  using Block = Blocking<on_host>;
  using R = Real<T>;
  constexpr int rows = Block::rows, columns = Block::columns;

  Index tiles = 0;
  const auto list = cut_into_tiles(
      problems, TileShape{Block::tile_rows, Block::tile_columns, rows, columns}, tiles);
  if (tiles == 0) return;
  const Index count = static_cast<Index>(list.size());
  const auto tiled = Kokkos::create_mirror_view_and_copy(
      Memory(), Kokkos::View<const TiledProblem<T, C>*, Kokkos::HostSpace>(list.data(), count));

  // Strides of op(a) along m and k and of op(b) along n and k: one of each pair is 1.
  const bool a_transposed = operation == Operation::tn, b_transposed = operation == Operation::nt;
  const bool assign_first = output == Output::assign;

  using Policy = Kokkos::TeamPolicy<Exec, Kokkos::Schedule<Kokkos::Dynamic>>;
  const std::size_t a_elements = std::size_t{Block::depth} * Block::tile_rows;
  const std::size_t b_elements = std::size_t{Block::depth} * Block::tile_columns;
  // Where c is narrower than its sums, these stand in scratch until they are complete.
  constexpr bool narrow = !std::is_same_v<C, R>;
  const std::size_t sum_elements = narrow ? std::size_t{Block::tile_rows} * Block::tile_columns : 0;
  auto policy =
      Policy(static_cast<int>(tiles), Kokkos::AUTO)
          .set_scratch_size(
              Block::scratch_level,
              Kokkos::PerTeam((a_elements + b_elements + sum_elements) * sizeof(R) + 192));
  Kokkos::parallel_for(
      "matmul_portable", policy, KOKKOS_LAMBDA(const typename Policy::member_type& team) {
        const TiledProblem<T, C>& entry = problem_of_tile(tiled.data(), count, team.league_rank());
        const Problem<T, C>& problem = entry.problem;
        const Index tile = team.league_rank() - entry.first;
        const Index tile_row = tile / entry.columns.parts, tile_column = tile % entry.columns.parts;
        const Index m0 = entry.rows.begin(tile_row), n0 = entry.columns.begin(tile_column);
        const int m = static_cast<int>(entry.rows.size(tile_row));
        const int n = static_cast<int>(entry.columns.size(tile_column));
        const Index a_stride = a_transposed ? 1 : problem.lda;
        const Index a_depth_stride = a_transposed ? problem.lda : 1;
        const Index b_stride = b_transposed ? problem.ldb : 1;
        const Index b_depth_stride = b_transposed ? 1 : problem.ldb;
        const int row_blocks = (m + rows - 1) / rows, column_blocks = (n + columns - 1) / columns;

        constexpr int level = Block::scratch_level;  // a local copy exists on the device
        auto scratch = team.team_scratch(level);
        R* a = static_cast<R*>(scratch.get_shmem_aligned(a_elements * sizeof(R), 64));
        R* b = static_cast<R*>(scratch.get_shmem_aligned(b_elements * sizeof(R), 64));
        R* sums = static_cast<R*>(scratch.get_shmem_aligned(sum_elements * sizeof(R), 64));
        C* c = problem.c + m0 * problem.ldc + n0;
        const SumTile<R> target = sum_tile(c, problem.ldc, sums, Block::tile_columns);

        Index p0 = 0;
        do {  // once even where k = 0
          const Index left = problem.k - p0;
          const int depth = left < Block::depth ? static_cast<int>(left) : Block::depth;
          pack<rows>(team, problem.a + m0 * a_stride + p0 * a_depth_stride, a_stride,
                     a_depth_stride, m, depth, a);
          pack<columns>(team, problem.b + n0 * b_stride + p0 * b_depth_stride, b_stride,
                        b_depth_stride, n, depth, b);
          team.team_barrier();
          const bool assign = p0 == 0 && (narrow || assign_first);
          Kokkos::parallel_for(
              Kokkos::TeamThreadRange(team, row_blocks * column_blocks), [&](const int block) {
                const int i = block % row_blocks, j = block / row_blocks;
                multiply_block<columns>(std::make_integer_sequence<int, rows>(),
                                        a + i * rows * depth, b + j * columns * depth, depth,
                                        target.data + i * rows * target.stride + j * columns,
                                        target.stride, m - i * rows, n - j * columns, assign);
              });
          team.team_barrier();
          p0 += Block::depth;
        } while (p0 < problem.k);
        store(team, target, c, problem.ldc, m, n, assign_first);
      });
}

#define HEARTH_INSTANTIATE(T, C) \
  template void run_portable<T, C>(const std::vector<Problem<T, C>>&, Operation, Output)
HEARTH_FOR_PRODUCT_TYPES(HEARTH_INSTANTIATE)
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
