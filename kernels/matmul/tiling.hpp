// Cutting the output of problems into tiles, by shape alone.
#pragma once

#include <algorithm>
#include <vector>

#include "base/types.hpp"
#include "kernels/matmul/backend.hpp"

namespace hearth::kernels {

// One axis cut into parts as even as multiples of `multiple` allow, none above `limit` (which is a
// multiple itself).
struct Cut {
  Index extent, part, parts;

  Cut(Index extent_, Index limit, Index multiple) : extent(extent_) {
    const Index least = divide_up(std::max(extent, Index{1}), limit);
    part = std::max(divide_up(divide_up(extent, least), multiple), Index{1}) * multiple;
    parts = divide_up(extent, part);
  }

  [[nodiscard]] KOKKOS_INLINE_FUNCTION Index begin(Index i) const { return i * part; }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION Index size(Index i) const {
    return extent - i * part < part ? extent - i * part : part;
  }

 private:
  static Index divide_up(Index a, Index b) { return (a + b - 1) / b; }
};

// A problem and the numbers [first, first + rows.parts · columns.parts) of its tiles.
template <class T, class C>
struct TiledProblem {
  Problem<T, C> problem;
  Cut rows, columns;
  Index first;
};

// The problem that a tile, or another piece of work, belongs to; `count` problems stand in the
// order of the numbers of their first pieces.
template <class Numbered>
KOKKOS_INLINE_FUNCTION const Numbered& problem_of_tile(const Numbered* problems, Index count,
                                                       Index tile) {
  Index low = 0, high = count;  // problems[low].first <= tile < problems[high].first
  while (high - low > 1) {
    const Index middle = (low + high) / 2;
    (problems[middle].first <= tile ? low : high) = middle;
  }
  return problems[low];
}

struct TileShape {
  Index rows, columns;                    // at most
  Index rows_multiple, columns_multiple;  // of all but the last
};

// The problems in order, with their tiles numbered; `tiles` is set to the number of all tiles.
template <class T, class C>
std::vector<TiledProblem<T, C>> cut_into_tiles(const std::vector<Problem<T, C>>& problems,
                                               const TileShape& shape, Index& tiles) {
  std::vector<TiledProblem<T, C>> tiled;
  tiled.reserve(problems.size());
  tiles = 0;
  for (const Problem<T, C>& p : problems) {
    const Cut rows(p.m, shape.rows, shape.rows_multiple);
    const Cut columns(p.n, shape.columns, shape.columns_multiple);
    tiled.push_back({p, rows, columns, tiles});
    tiles += rows.parts * columns.parts;
  }
  return tiled;
}

}  // namespace hearth::kernels
