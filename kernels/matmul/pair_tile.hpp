// Tiles of a product whose sums stand in registers: host code.
#pragma once

#include <algorithm>
#include <array>

#include "kernels/matmul/ahead.hpp"
#include "kernels/register_tile.hpp"

namespace hearth::kernels {

// A strip of rows times a panel of columns: as many sums as leave registers for a row of the panel
// and for a factor, which serves two columns of vectors. A strip of 4 rows is hardly slower on
// Zen 4.
inline constexpr int panel_runs = 2, panel_lanes = panel_runs * lane_count;
inline constexpr int strip_rows = (vector_registers - panel_runs - 1) / panel_runs;
inline constexpr int strip_lanes = (strip_rows + lane_count - 1) / lane_count * lane_count;

// c (rows, columns) = or += a · b, over one chunk of the inner dimension.
template <class C>
struct PairTile {
  const Pair* a;     // (pairs, strip_lanes)
  const Pair* b;     // (pairs, panel_lanes)
  float* sums;       // (strip_rows, panel_lanes), between the chunks
  C* c;              // (rows, columns), from one row to the next ldc
  Index pairs, ldc;  // pairs of this chunk
  int columns;
  bool first, last;   // of the chunks
  bool add;           // to what stands in c
  Index lines_ahead;  // asked for every block_pairs pairs
};

// Pairs between two requests for memory, and rows of c that are asked for with one.
inline constexpr Index block_pairs = 16, rows_asked_for = 4;

template <int rows, int runs, class C>
void multiply_tile(const PairTile<C>& tile, Ahead& ahead) {
  using Sums = RegisterTile<rows, runs>;
  Sums sum;
  if (tile.first) {
    sum.clear();
  } else {
    sum.load_from(tile.sums, panel_lanes);
  }
  const Pair *a = tile.a, *b = tile.b;
  const C *c = tile.c, *const c_end = tile.last ? c + rows * tile.ldc : c;
  for (Index left = tile.pairs; left > 0; left -= block_pairs) {
    ahead.fetch(tile.lines_ahead);
    for (Index r = 0; r < rows_asked_for && c < c_end; ++r, c += tile.ldc) {
      constexpr int to_be_written = 1;
      for (int n = 0; n < runs; ++n) __builtin_prefetch(c + n * lane_count, to_be_written);
    }
    const Pair* const end = b + std::min(block_pairs, left) * panel_lanes;
    for (; b < end; a += strip_lanes, b += panel_lanes) sum.template add<1>(a, b);
  }
  if (!tile.last) {
    sum.store_to(tile.sums, panel_lanes);
    return;
  }

  const auto finish = [&](C * to, Index ld) __attribute__((always_inline)) {
    if (tile.add) {
      Sums::each([&](auto r, auto n) __attribute__((always_inline)) {
        sum.value[r][n] += load_lanes(to + r * ld + n * lane_count);
      });
    }
    Sums::each([&](auto r, auto n) __attribute__((always_inline)) {
      store_lanes(to + r * ld + n * lane_count, sum.value[r][n]);
    });
  };
  constexpr int width = runs * lane_count;
  if (tile.columns == width) {
    finish(tile.c, tile.ldc);
    return;
  }
  C edge[rows * width] = {};
  const auto bytes = static_cast<std::size_t>(tile.columns) * sizeof(C);
  for (int r = 0; r < rows && tile.add; ++r) {
    std::memcpy(edge + r * width, tile.c + r * tile.ldc, bytes);
  }
  finish(edge, width);
  for (int r = 0; r < rows; ++r) std::memcpy(tile.c + r * tile.ldc, edge + r * width, bytes);
}

// multiply_tile by columns of vectors less one and by rows less one.
template <class C>
inline constexpr auto tile_functions = []<int... row>(std::integer_sequence<int, row...>) {
  using Function = void (*)(const PairTile<C>&, Ahead&);
  using OfRuns = std::array<Function, strip_rows>;
  return std::array{OfRuns{multiply_tile<row + 1, 1, C>...},
                    OfRuns{multiply_tile<row + 1, 2, C>...}};
}
(std::make_integer_sequence<int, strip_rows>());
static_assert(panel_runs == 2);

template <class C>
void multiply_tile(Index rows, const PairTile<C>& tile, Ahead& ahead) {
  const std::size_t runs = tile.columns > lane_count ? 2 : 1;
  tile_functions<C>[runs - 1][static_cast<std::size_t>(rows - 1)](tile, ahead);
}

}  // namespace hearth::kernels
