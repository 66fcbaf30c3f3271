// Experts without matrices (MoE++, arXiv:2410.07348, eq. 3 to 5; AdaMoE, arXiv:2406.13233): copy
// experts give back what they get, constant experts α₁ x + α₂ v with (α₁, α₂) = softmax(W x), zero
// and null experts nothing. They are computed where the token is.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

// Destinations [copy, constant) are copy experts, [constant, constant + constants) constant ones.
struct LightRange {
  int copy = 0, constant = 0, constants = 0;
};

// What a token's light experts give is own[t] · x[t] + Σ_c share[t][c] · v[c].
// mix: of each constant expert the logits of α₁ and α₂.
template <class R>
void mix_light(const LightRange& range, const Array2<const int>& choice,  // (tokens, slots)
               const Array2<const R>& gate,                               // (tokens, slots)
               const Array2<const R>& mix,  // (tokens, 2 · constants)
               const Array2<R>& own,        // (tokens, 1)
               const Array2<R>& share);     // (tokens, constants)

// dgate of the light experts (others stay as they are) and dmix, from the gradients of own and
// share.
template <class R>
void mix_light_backward(const LightRange& range, const Array2<const int>& choice,
                        const Array2<const R>& gate, const Array2<const R>& mix,
                        const Array2<const R>& down,    // (tokens, 1)
                        const Array2<const R>& dshare,  // (tokens, constants)
                        const Array2<R>& dgate,         // (tokens, slots)
                        const Array2<R>& dmix);         // (tokens, 2 · constants)

// y[t] += own[t] · x[t] + shared[t]; `shared` may be empty.
template <class T>
void add_light(const Array2<const T>& x,             // (tokens, hidden)
               const Array2<const Real<T>>& own,     // (tokens, 1)
               const Array2<const Real<T>>& shared,  // (tokens, hidden)
               const Array2<T>& y);                  // (tokens, hidden)

// down[t] = dy[t] · x[t].
template <class T>
void light_slope(const Array2<const T>& dy, const Array2<const T>& x,
                 const Array2<Real<T>>& down);  // (tokens, 1)

}  // namespace hearth::kernels
