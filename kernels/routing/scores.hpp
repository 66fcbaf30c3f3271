// A router's scores of its destinations (experts, and light experts after them): from logits, and
// the way back. Equations (8), (11) and (12) of docs/equations.md. T is float or double: choices
// and losses are never made in bfloat16.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

// softmax: over all destinations. sigmoid, relu: of each logit alone (DeepSeek-V3,
// arXiv:2412.19437, eq. 15; ReMoE, arXiv:2412.14711, eq. 4).
enum class Score { softmax, sigmoid, relu };

// affinity: what balance and statistics read: the scores, those of sigmoid over their sum.
// log_sum = log Σ exp(logits).
template <class T>
void score(Score kind, const Array2<const T>& logits,  // (tokens, destinations)
           const Array2<T>& affinity,                  // (tokens, destinations)
           const Array1<T>& log_sum);                  // (tokens)

// A loss's derivatives by affinities, the same for all tokens of a group: groups are runs of
// `group_tokens` tokens.
struct AffinitySlope {
  Array2<const double> slope;  // (groups, destinations)
  Index group_tokens = 1;
};

// dlogits of three terms: dscore, the gradient of the chosen destinations' scores; the slope of the
// affinities; z_scale · log_sum[t] = d(loss)/d(log_sum[t]).
template <class T>
void score_backward(Score kind, const Array2<const T>& logits, const Array2<const T>& affinity,
                    const Array1<const T>& log_sum,
                    const Array2<const int>& choice,  // (tokens, slots), -1: none, at the end
                    const Array2<const T>& dscore,    // (tokens, slots)
                    const AffinitySlope& slope, double z_scale,
                    const Array2<T>& dlogits);  // (tokens, destinations)

}  // namespace hearth::kernels
