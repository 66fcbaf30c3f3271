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

// count[e] = copies sent to destination e; position[t][j] = number of earlier tokens that chose
// choice[t][j]: the copy's row within its segment.
void count_copies(const Array2<const int>& choice,  // (tokens, slots): ascending, then -1
                  const Array2<int>& partial,       // (row_blocks(tokens), destinations), scratch
                  const Array1<int>& count,         // (destinations)
                  const Array2<int>& position);     // (tokens, slots)

// count[n] += tokens with n copies.
void count_tokens_by_copies(const Array2<const int>& choice,     // (tokens, slots)
                            const Array1<std::int64_t>& count);  // (slots + 1)

// Where the copies of tokens stand. Destinations beyond the segments are not sent anywhere.
struct CopyPlaces {
  Array2<const int> choice, position;  // (tokens, slots)
  Array1<const int> segment_begin;     // (experts): first row of each segment
  Array1<const int> segment_rows;      // (experts): rows of each segment, padding included
  Array1<const int> count;             // (destinations): copies
};

// Gates may stand on either side of the experts: before, they multiply what an expert reads;
// behind, what it gives. On the other side `gate` is empty and stands for 1. (tokens, slots)

// rows[of copy j] = gate[t][j] · x[t] for every copy, zero in the segments' padding.
template <class T>
void dispatch(const Array2<const T>& x,  // (tokens, hidden)
              const CopyPlaces& places, const Array2<const Real<T>>& gate,
              const Array2<T>& rows);  // (rows, hidden)

// y[t] += Σ_j gate[t][j] · rows[of copy j], in ascending order of expert.
template <class T>
void combine(const Array2<const T>& rows,  // (rows, hidden): the experts' outputs
             const CopyPlaces& places, const Array2<const Real<T>>& gate,
             const Array2<T>& y);  // (tokens, hidden), added to

// drows = gate · dy in the copies' rows, zero in the padding; dgate = dy · rows, 0 for copies that
// are not sent, and not written where `gate` is empty. `drows` may be `rows`.
template <class T>
void combine_backward(const Array2<const T>& dy,    // (tokens, hidden)
                      const Array2<const T>& rows,  // (rows, hidden)
                      const CopyPlaces& places, const Array2<const Real<T>>& gate,
                      const Array2<T>& drows,         // (rows, hidden)
                      const Array2<Real<T>>& dgate);  // (tokens, slots)

// dx[t] += Σ_j gate[t][j] · drows[of copy j], in ascending order of expert.
template <class T>
void dispatch_backward(const Array2<const T>& drows, const CopyPlaces& places,
                       const Array2<const Real<T>>& gate,
                       const Array2<T>& dx);  // (tokens, hidden), added to

// dgate = x · drows where gates multiply what experts read, 0 for copies that are not sent.
template <class T>
void dispatch_gate_backward(const Array2<const T>& x, const Array2<const T>& drows,
                            const CopyPlaces& places,
                            const Array2<Real<T>>& dgate);  // (tokens, slots)

}  // namespace hearth::kernels
