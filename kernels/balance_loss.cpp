#include "kernels/balance_loss.hpp"

#include "kernels/fixed_point.hpp"

namespace hearth::kernels {

void router_losses(const RouterLossScale& scale, const Array1<const double>& probability_mass,
                   const Array1<const double>& z_squared, const Array1<const int>& count,
                   const Array1<double>& slope, const Array1<std::int64_t>& loss) {
  if (scale.cell_tokens == 0) return;
  const Index experts = count.extent(0);
  // balance · experts · count_e/(T k) · 1/T · T/step_tokens
  const double factor = scale.balance_loss * static_cast<double>(experts) /
                        (scale.cell_tokens * scale.k * scale.step_tokens);
  const double z_factor = scale.z_loss / scale.step_tokens;
  Kokkos::parallel_for(
      "router_losses", Kokkos::RangePolicy<Exec>(0, 1), KOKKOS_LAMBDA(const Index) {
        double balance = 0;
        for (Index e = 0; e < experts; ++e) {
          slope(e) = factor * count(e);
          balance += slope(e) * probability_mass(e);
        }
        add_statistic_term(loss(0), balance, mean_unit);
        add_statistic_term(loss(1), z_factor * z_squared(0), mean_unit);
      });
}

}  // namespace hearth::kernels
