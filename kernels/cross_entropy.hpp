// Cross-entropy of a block of rows and its gradient, equation (14) of docs/equations.md.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

// loss[t] = log Σ exp(logits[t]) - logits[t][target[t]]; a target below zero is masked: loss 0.
// T is float or double.
template <class T>
void cross_entropy(const Array2<const T>& logits,    // (rows, vocabulary)
                   const Array1<const int>& target,  // (rows)
                   const Array1<double>& loss);      // (rows)

// The same, and the logits' gradient: scale · (softmax - onehot(target)), zero where the target is
// masked. The logits are used up: they serve as scratch, and `gradient` may be their array.
template <class T>
void cross_entropy_with_gradient(const Array2<Real<T>>& logits, const Array1<const int>& target,
                                 double scale, const Array1<double>& loss,
                                 const Array2<T>& gradient);  // (rows, vocabulary)

}  // namespace hearth::kernels
