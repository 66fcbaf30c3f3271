// Token embedding, equation (7) of docs/equations.md.
#pragma once

#include "base/types.hpp"
#include "kernels/fixed_point.hpp"

namespace hearth::kernels {

template <class T>
void embed(const Array2<const T>& weight,   // (vocabulary, hidden)
           const Array1<const int>& token,  // (tokens)
           const Array2<T>& x);             // (tokens, hidden)

// Adds to the gradient accumulator of row `token` the sum of dx over the positions where the
// token stands, in ascending order of position.
template <class T>
void embed_backward(const Array2<const T>& dx,           // (tokens, hidden)
                    const Array1<const int>& token,      // (tokens)
                    const Array1<const int>& order,      // (tokens): positions by (token, position)
                    const Array1<const int>& run_begin,  // (distinct tokens + 1): runs in `order`
                    const GradientSum<Real<T>>& gradient);  // (vocabulary · hidden)

}  // namespace hearth::kernels
