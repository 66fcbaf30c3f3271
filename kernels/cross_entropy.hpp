// Cross-entropy of a block of rows and its gradient, equation (14) of docs/equations.md.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

// loss[t] = log Σ exp(logits[t]) - logits[t][target[t]]; a target below zero is masked: loss 0.
template <class T>
void cross_entropy(const Array2<const T>& logits,    // (rows, vocabulary)
                   const Array1<const int>& target,  // (rows)
                   const Array1<double>& loss);      // (rows)

// The same, and logits are replaced by their gradient: scale · (softmax - onehot(target)), zero
// where the target is masked.
template <class T>
void cross_entropy_with_gradient(const Array2<T>& logits, const Array1<const int>& target,
                                 double scale, const Array1<double>& loss);

}  // namespace hearth::kernels
