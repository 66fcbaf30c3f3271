// What the outputs of all experts for a token are to each other: inner products, from which the
// norm of any weighted sum of them follows without the outputs.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

// product[t][i · experts + j] = ⟨output of expert i, output of expert j⟩ for token t, in double
// precision. Row t of expert e's outputs stands at segment_begin[e] + t.
template <class T>
void expert_products(const Array2<const T>& rows,             // (rows, hidden)
                     const Array1<const int>& segment_begin,  // (experts)
                     const Array2<double>& product);          // (tokens, experts · experts)

// Choices and gates of a router: ascending, then -1.
template <class R>
struct Mixture {
  Array2<const int> choice;  // (tokens, slots)
  Array2<const R> gate;      // (tokens, slots)
};

// squared[t] = ‖Σ gate · output of the one - Σ gate · output of the other‖², not below zero.
template <class R>
void squared_difference(const Mixture<R>& one, const Mixture<R>& other,
                        const Array2<const double>& product,  // (tokens, experts · experts)
                        const Array2<double>& scratch,        // (tokens, experts)
                        const Array1<double>& squared);       // (tokens)

}  // namespace hearth::kernels
