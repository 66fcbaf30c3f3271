// Root-mean-square normalisation (Zhang, Sennrich 2019), equations (1) and (2) of
// docs/equations.md.
//
// Rule of all kernels' adjoints: a gradient of an activation that feeds the residual stream is
// added to (+=), every other output is assigned (=).
//
// Rule of all kernels' types: activations and compute weights are T, which may be bfloat16; what is
// computed, summed or kept for precision is Real<T>; a result is rounded to T once, when stored.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

// y[t] = x[t] · r[t] · weight, with r[t] = 1/sqrt(mean(x[t]²) + epsilon) kept for the adjoint.
template <class T>
void rms_norm(const Array2<const T>& x,             // (tokens, width)
              const Array1<const T>& weight,        // (width)
              double epsilon,                       //
              const Array2<T>& y,                   // (tokens, width)
              const Array1<Real<T>>& inverse_rms);  // (tokens)

// dx += adjoint; dweight = sum over rows, in blocks of fixed size, in order.
template <class T>
void rms_norm_backward(const Array2<const T>& dy,                 // (tokens, width)
                       const Array2<const T>& x,                  // (tokens, width)
                       const Array1<const T>& weight,             // (width)
                       const Array1<const Real<T>>& inverse_rms,  // (tokens)
                       const Array2<T>& dx,                       // (tokens, width), added to
                       const Array1<Real<T>>& dweight,            // (width)
                       const Array2<Real<T>>& partial);  // (row_blocks(tokens), width), scratch

// Sums over rows are made of partial sums over this many rows each.
inline constexpr Index rows_per_block = 64;
[[nodiscard]] constexpr Index row_blocks(Index rows) {
  return (rows + rows_per_block - 1) / rows_per_block;
}

}  // namespace hearth::kernels
