// A cell's router losses from its sums. Equations (11) to (13) of docs/equations.md.
#pragma once

#include "kernels/routing/sums.hpp"

namespace hearth::kernels {

// loss[0] += balance, whose coefficient is in the slopes; loss[1] += z_scale · z_squared; loss[2]
// += entropy_scale · entropy: in units of mean_unit. The scales are coefficient / tokens of the
// step.
void add_router_losses(const RouterSums& sums, double z_scale, double entropy_scale,
                       const Array1<std::int64_t>& loss);  // (3)

}  // namespace hearth::kernels
