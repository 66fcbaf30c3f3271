// What a cell's losses and its statistics need of a router: fp64 sums over the cell's tokens in
// fixed order.
#pragma once

#include "kernels/routing/scores.hpp"

namespace hearth::kernels {

struct RouterSums {
  Array1<double> affinity;    // (destinations): Σ_t affinity
  Array1<double> gate;        // (destinations): Σ_t gate
  Array1<double> entropy;     // (1): Σ_t -Σ_e a log a in nats, a the affinities over their sum
  Array1<double> z_squared;   // (1): Σ_t log_sum²
  Array1<double> balance;     // (1): Σ_t Σ_e slope · affinity
  Array1<double> logit_norm;  // (1): Σ_t of the logits' Euclidean norm

  explicit RouterSums(Index destinations);
};

// Columns of `partial` for that many destinations.
[[nodiscard]] constexpr Index router_sum_columns(Index destinations) {
  return 2 * destinations + 4;
}

template <class T>
void sum_router(const Array2<const T>& logits, const Array2<const T>& affinity,
                const Array1<const T>& log_sum, const Array2<const int>& choice,
                const Array2<const T>& gate, const AffinitySlope& slope,
                const Array2<double>& partial,  // (row_blocks(tokens), router_sum_columns), scratch
                const RouterSums& sums);

}  // namespace hearth::kernels
