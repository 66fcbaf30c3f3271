#include "kernels/routing/balance.hpp"

#include <cassert>

namespace hearth::kernels {

namespace {

using Policy = Kokkos::RangePolicy<Exec>;

// Σ over a group's destinations.
KOKKOS_INLINE_FUNCTION double sum_of(const Array2<const int>& count, Index group, Index first,
                                     Index end) {
  double sum = 0;
  for (Index e = first; e < end; ++e) sum += count(group, e);
  return sum;
}

KOKKOS_INLINE_FUNCTION double slope_of(const BalanceRule& rule, Index destinations, Index e,
                                       double share) {
  const double weight = e < rule.experts ? 1 : rule.light_weight;
  return rule.coefficient * static_cast<double>(destinations) * weight * share / rule.step_tokens;
}

}  // namespace

void count_groups(const Array2<const int>& choice, Index group_tokens, const Array2<int>& count) {
  const int slots = static_cast<int>(choice.extent(1));
  assert(static_cast<Index>(count.extent(0)) * group_tokens >=
         static_cast<Index>(choice.extent(0)));
  Kokkos::deep_copy(Exec(), count, 0);
  Kokkos::parallel_for(
      "count_groups", Policy(0, choice.extent(0)), KOKKOS_LAMBDA(const Index t) {
        for (int j = 0; j < slots && choice(t, j) >= 0; ++j) {
          Kokkos::atomic_inc(&count(t / group_tokens, choice(t, j)));
        }
      });
}

void balance_slopes(const BalanceRule& rule, Index group_tokens, const Array2<const int>& count,
                    const Array2<double>& slope) {
  const Index destinations = count.extent(1);
  assert(slope.extent(0) == count.extent(0) && slope.extent(1) == count.extent(1));
  Kokkos::parallel_for(
      "balance_slopes", Policy(0, count.extent(0)), KOKKOS_LAMBDA(const Index g) {
        double copies = rule.copies_of_token * static_cast<double>(group_tokens);
        if (rule.copies_of_token == 0) copies = sum_of(count, g, 0, destinations);
        const Index nulls = destinations - rule.first_null;
        const double null_load = nulls == 0 ? 0
                                            : sum_of(count, g, rule.first_null, destinations) /
                                                  static_cast<double>(nulls);
        for (Index e = 0; e < destinations; ++e) {
          const double load = e < rule.first_null ? count(g, e) : null_load;
          slope(g, e) = slope_of(rule, destinations, e, copies > 0 ? load / copies : 0);
        }
      });
}

void balance_slopes(const BalanceRule& rule, const Array1<const double>& share,
                    const Array2<double>& slope) {
  const Index destinations = share.extent(0);
  assert(slope.extent(0) == 1 && slope.extent(1) == share.extent(0));
  Kokkos::parallel_for(
      "balance_slopes", Policy(0, destinations),
      KOKKOS_LAMBDA(const Index e) { slope(0, e) = slope_of(rule, destinations, e, share(e)); });
}

}  // namespace hearth::kernels
