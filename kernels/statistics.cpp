#include "kernels/statistics.hpp"

#include "kernels/fixed_point.hpp"

namespace hearth::kernels {

void count_pairs(const Array2<const int>& choice, const Array2<std::int64_t>& together) {
  const int k = static_cast<int>(choice.extent(1));
  Kokkos::parallel_for(
      "count_pairs", Kokkos::RangePolicy<Exec>(0, choice.extent(0)), KOKKOS_LAMBDA(const Index t) {
        for (int i = 0; i < k; ++i) {
          for (int j = 0; j < k; ++j) {
            Kokkos::atomic_inc(&together(choice(t, i), choice(t, j)));
          }
        }
      });
}

void count_labelled(const Array1<const int>& label, const Array2<const int>& choice,
                    const Array2<std::int64_t>& count) {
  const int k = static_cast<int>(choice.extent(1));
  Kokkos::parallel_for(
      "count_labelled", Kokkos::RangePolicy<Exec>(0, choice.extent(0)),
      KOKKOS_LAMBDA(const Index t) {
        for (int j = 0; j < k; ++j) Kokkos::atomic_inc(&count(label(t), choice(t, j)));
      });
}

void sum_labelled(Index run, const Array1<const int>& label, const Array1<const int>& target,
                  const Array1<const double>& value, const Array1<std::int64_t>& sum,
                  const Array1<std::int64_t>& tokens) {
  const Index runs = run == 0 ? 0 : static_cast<Index>(label.extent(0)) / run;
  Kokkos::parallel_for(
      "sum_labelled", Kokkos::RangePolicy<Exec>(0, runs), KOKKOS_LAMBDA(const Index r) {
        double total = 0;
        std::int64_t count = 0;
        for (Index t = r * run; t < (r + 1) * run; ++t) {
          if (target(t) < 0) continue;
          total += value(t);
          ++count;
        }
        Kokkos::atomic_add(&sum(label(r * run)), to_fixed(total, statistic_unit));
        Kokkos::atomic_add(&tokens(label(r * run)), count);
      });
}

void add_counts(const Array1<const int>& count, const Array1<std::int64_t>& total) {
  Kokkos::parallel_for(
      "add_counts", Kokkos::RangePolicy<Exec>(0, count.extent(0)),
      KOKKOS_LAMBDA(const Index i) { total(i) += count(i); });
}

}  // namespace hearth::kernels
