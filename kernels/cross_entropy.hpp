// Cross-entropy of a block of rows and its gradient, equation (14) of docs/equations.md, by blocks
// of the vocabulary: the logits of one block exist at a time, and what lies in a cache when it is
// written is still there when it is read. A block leaves its exponentials behind and, for each row,
// its largest logit and the sum of its exponentials; from those of all blocks comes the loss.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

// What is known of each row's softmax, block by block of the vocabulary.
template <class R>
struct SoftmaxSums {
  Array2<R> largest;            // (rows, blocks)
  Array2<double> sum;           // (rows, blocks): Σ exp(logit - largest)
  Array1<double> target_logit;  // (rows), unset where the target is masked
  Array1<double> log_sum;       // (rows): log Σ exp(logit) over the whole vocabulary
};

// The block `block`, which begins at token `first`, of the sums' largest, sum and target_logit.
// With an array of that shape, exponential = exp(logit - largest), rounded to T.
template <class T>
void softmax_block(const Array2<const Real<T>>& logits,  // (rows, columns)
                   const Array1<const int>& target,      // (rows), below zero: masked
                   Index first, Index block, const SoftmaxSums<Real<T>>& sums,
                   const Array2<T>& exponential);  // (rows, columns), or empty

// loss[t] = log_sum[t] - target_logit[t], 0 where the target is masked; sets sums.log_sum.
template <class R>
void cross_entropy(const SoftmaxSums<R>& sums, const Array1<const int>& target,
                   const Array1<double>& loss);  // (rows)

// After cross_entropy: the exponentials of a block become the logits' gradient,
// scale · (softmax - onehot(target)), zero where the target is masked.
template <class T>
void cross_entropy_gradient(const SoftmaxSums<Real<T>>& sums, const Array1<const int>& target,
                            Index first, Index block, double scale,
                            const Array2<T>& exponential);  // (rows, columns)

}  // namespace hearth::kernels
