// One destination's score, for kernels that need a few of them.
#pragma once

#include "kernels/routing/scores.hpp"
#include "kernels/vector_math.hpp"

namespace hearth::kernels {

template <class T>
KOKKOS_INLINE_FUNCTION T sigmoid(T x) {
  return T(1) / (T(1) + exponential(-x));
}

// Its affinity is the score of softmax and of relu.
template <class T>
KOKKOS_INLINE_FUNCTION T score_of(Score kind, T logit, T affinity) {
  return kind == Score::sigmoid ? sigmoid(logit) : affinity;
}

}  // namespace hearth::kernels
