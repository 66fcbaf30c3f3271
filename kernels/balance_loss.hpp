// A cell's load-balance and z losses from the router's sums, equations (11) and (12) of
// docs/equations.md.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

struct RouterLossScale {
  double balance_loss, z_loss;  // the deck's coefficients
  double cell_tokens;           // tokens of the cell, T
  double step_tokens;           // tokens of the step: the cell's losses weigh T / step_tokens
  double k;
};

// loss[0] = weight · balance_loss · experts · Σ_e (mass_e/T) (count_e/(T k)), loss[1] = weight ·
// z_loss · z_squared/T, added to `loss` in units of mean_unit; slope[e] = the derivative of
// the former by any token's probability of expert e. The counts are constants, as in FLAME-MoE.
void router_losses(const RouterLossScale& scale,
                   const Array1<const double>& probability_mass,  // (experts)
                   const Array1<const double>& z_squared,         // (1)
                   const Array1<const int>& count,                // (experts)
                   const Array1<double>& slope,                   // (experts)
                   const Array1<std::int64_t>& loss);             // (2), added to

// d(loss[1])/d(log_sum) divided by log_sum, as route_top_k_backward wants it.
[[nodiscard]] inline double z_slope(const RouterLossScale& scale) {
  return 2.0 * scale.z_loss / scale.step_tokens;
}

}  // namespace hearth::kernels
