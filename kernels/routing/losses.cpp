#include "kernels/routing/losses.hpp"

#include "kernels/fixed_point.hpp"

namespace hearth::kernels {

void add_router_losses(const RouterSums& sums, double z_scale, double entropy_scale,
                       const Array1<std::int64_t>& loss) {
  const RouterSums from = sums;
  Kokkos::parallel_for(
      "add_router_losses", Kokkos::RangePolicy<Exec>(0, 1), KOKKOS_LAMBDA(const Index) {
        add_statistic_term(loss(0), from.balance(0), mean_unit);
        add_statistic_term(loss(1), z_scale * from.z_squared(0), mean_unit);
        add_statistic_term(loss(2), entropy_scale * from.entropy(0), mean_unit);
      });
}

}  // namespace hearth::kernels
