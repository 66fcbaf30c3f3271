// How far the rows of a matrix are from those of another, as sums that do not depend on their order
// or on how the matrix is cut.
#pragma once

#include "kernels/fixed_point.hpp"

namespace hearth::kernels {

// Columns of sums by row: SquaredNorm's two parts, and the pieces that are not finite or too large
// to be summed, which are left out.
inline constexpr Index squared_distance_columns = 3;

// sums[row] += Σ (a − b)² over the row's elements. `a` and `b` are elements `first`, `first` + 1, …
// of matrices with rows of `width`; `first` is a multiple of block_elements, and so is the size
// unless the matrix ends there. `b` may be empty: zeros. Each piece of a row that lies in one block
// is summed in fp64 in fixed order; pieces are added as integers.
template <class R>
void add_squared_distance(const Array1<const R>& a, const Array1<const R>& b, Index first,
                          Index width,
                          const Array2<std::int64_t>& sums);  // (rows, 3)

}  // namespace hearth::kernels
