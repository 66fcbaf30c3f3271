// Gates: what the outputs of a token's experts are multiplied by, made of their scores. Equation
// (9) of docs/equations.md.
#pragma once

#include "kernels/routing/scores.hpp"

namespace hearth::kernels {

struct GateRule {
  Score score = Score::softmax;
  bool renormalise = false;  // over those of the token's destinations that compute something
  double scale = 1;
  int computing = 0;  // destinations from here on give nothing (zero and null experts): gate 0
};

// gate = scale · score, with `renormalise` over the sum of the scores of what the token wanted; 0
// where there is no choice. Of a token's `choice`, what it wanted holds all, in the same order.
template <class T>
void take_gates(const GateRule& rule, const Array2<const T>& logits,
                const Array2<const T>& affinity,
                const Array2<const int>& wanted,  // (tokens, slots): before copies were dropped
                const Array2<const int>& choice,  // (tokens, slots)
                const Array2<T>& gate);           // (tokens, slots): of choice

// dscore, of the scores of what was wanted, from dgate; it may be the same array.
template <class T>
void gates_backward(const GateRule& rule, const Array2<const T>& logits,
                    const Array2<const T>& affinity, const Array2<const int>& wanted,
                    const Array2<const int>& choice, const Array2<const T>& gate,
                    const Array2<const T>& dgate, const Array2<T>& dscore);

}  // namespace hearth::kernels
