// The router: top-k of a softmax, its balance and z losses, and their gradient. Equations (8) to
// (13) of docs/equations.md. T is float or double: choices and losses are never made in bfloat16.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

// probability = softmax(logits); choice = the k most probable experts of each token in ascending
// order of expert, ties going to the lower index; gate = their probabilities, not renormalised;
// log_sum = log Σ exp(logits).
template <class T>
void route_top_k(const Array2<const T>& logits,  // (tokens, experts)
                 const Array2<T>& probability,   // (tokens, experts)
                 const Array2<int>& choice,      // (tokens, k)
                 const Array2<T>& gate,          // (tokens, k)
                 const Array1<T>& log_sum);      // (tokens)

// dlogits of three terms:
//   dgate, the gradient of the gates; balance_slope[e] = d(loss)/d(probability[t][e]), the same
//   for every token of the cell; z_scale · log_sum[t] = d(loss)/d(log_sum[t]).
template <class T>
void route_top_k_backward(const Array2<const T>& dgate,               // (tokens, k)
                          const Array2<const T>& probability,         // (tokens, experts)
                          const Array2<const int>& choice,            // (tokens, k)
                          const Array1<const T>& log_sum,             // (tokens)
                          const Array1<const double>& balance_slope,  // (experts)
                          double z_scale,                             //
                          const Array2<T>& dlogits);                  // (tokens, experts)

// What a cell's balance and z losses and its statistics need, each an fp64 sum over the cell's
// tokens in fixed order.
struct RouterSums {
  Array1<double> probability_mass;  // (experts): Σ_t probability
  Array1<double> entropy;           // (1): Σ_t -Σ_e p log p, in nats
  Array1<double> z_squared;         // (1): Σ_t log_sum²
};
template <class T>
void sum_router(const Array2<const T>& probability, const Array1<const T>& log_sum,
                const Array2<double>& partial,  // (row_blocks(tokens), experts + 2), scratch
                const RouterSums& sums);

}  // namespace hearth::kernels
