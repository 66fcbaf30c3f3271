// Token copies to their experts' rows and back: dispatch and combine on one rank. The exchange
// between ranks is parallel/'s. Equation (10) of docs/equations.md.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

// Rows of a (cell, expert) segment are padded with zero rows to a multiple of this.
inline constexpr Index segment_multiple = 32;
[[nodiscard]] KOKKOS_INLINE_FUNCTION constexpr Index padded_rows(Index rows) {
  return (rows + segment_multiple - 1) / segment_multiple * segment_multiple;
}

// count[e] = copies sent to expert e; position[t][j] = number of earlier tokens that chose
// choice[t][j]: the copy's row within its segment.
void count_copies(const Array2<const int>& choice,  // (tokens, k), ascending experts
                  const Array2<int>& partial,       // (row_blocks(tokens), experts), scratch
                  const Array1<int>& count,         // (experts)
                  const Array2<int>& position);     // (tokens, k)

// rows[segment_begin[e] + position] = x[token] for every copy, zero in the segments' padding.
template <class T>
void dispatch(const Array2<const T>& x,                // (tokens, hidden)
              const Array2<const int>& choice,         // (tokens, k)
              const Array2<const int>& position,       // (tokens, k)
              const Array1<const int>& segment_begin,  // (experts): first row of each segment
              const Array1<const int>& count,          // (experts)
              const Array2<T>& rows);                  // (rows, hidden)

// y[t] += Σ_j gate[t][j] · rows[of copy j], in ascending order of expert.
template <class T>
void combine(const Array2<const T>& rows,  // (rows, hidden): the experts' outputs
             const Array2<const int>& choice, const Array2<const int>& position,
             const Array1<const int>& segment_begin,
             const Array2<const Real<T>>& gate,  // (tokens, k)
             const Array2<T>& y);                // (tokens, hidden), added to

// drows = gate · dy in the copies' rows, zero in the padding; dgate = dy · rows. `drows` may be
// `rows`.
template <class T>
void combine_backward(const Array2<const T>& dy,    // (tokens, hidden)
                      const Array2<const T>& rows,  // (rows, hidden)
                      const Array2<const int>& choice, const Array2<const int>& position,
                      const Array1<const int>& segment_begin, const Array1<const int>& count,
                      const Array2<const Real<T>>& gate,
                      const Array2<T>& drows,         // (rows, hidden)
                      const Array2<Real<T>>& dgate);  // (tokens, k)

// dx[t] += Σ_j drows[of copy j], in ascending order of expert.
template <class T>
void dispatch_backward(const Array2<const T>& drows, const Array2<const int>& choice,
                       const Array2<const int>& position, const Array1<const int>& segment_begin,
                       const Array2<T>& dx);  // (tokens, hidden), added to

}  // namespace hearth::kernels
