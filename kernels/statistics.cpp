#include "kernels/statistics.hpp"

namespace hearth::kernels {

namespace {

// Of the first half's rows all, where `half` is empty.
void count_rows(const Array1<const int>& half, Index labels, const Array1<const int>& label,
                const Array2<const int>& choice, const Array2<std::int64_t>& count,
                std::int64_t weight) {
  const int k = static_cast<int>(choice.extent(1));
  const bool halves = half.extent(0) > 0;
  Kokkos::parallel_for(
      "count_labelled", Kokkos::RangePolicy<Exec>(0, choice.extent(0)),
      KOKKOS_LAMBDA(const Index t) {
        const Index row = (halves ? half(t) * labels : 0) + label(t);
        for (int j = 0; j < k && choice(t, j) >= 0; ++j) {
          Kokkos::atomic_add(&count(row, choice(t, j)), weight);
        }
      });
}

}  // namespace

void count_pairs(const Array2<const int>& choice, const Array2<std::int64_t>& together,
                 std::int64_t weight) {
  const int k = static_cast<int>(choice.extent(1));
  Kokkos::parallel_for(
      "count_pairs", Kokkos::RangePolicy<Exec>(0, choice.extent(0)), KOKKOS_LAMBDA(const Index t) {
        for (int i = 0; i < k && choice(t, i) >= 0; ++i) {
          for (int j = 0; j < k && choice(t, j) >= 0; ++j) {
            Kokkos::atomic_add(&together(choice(t, i), choice(t, j)), weight);
          }
        }
      });
}

void count_labelled(const Array1<const int>& label, const Array2<const int>& choice,
                    const Array2<std::int64_t>& count, std::int64_t weight) {
  count_rows({}, 0, label, choice, count, weight);
}

void count_labelled(const Array1<const int>& half, const Array1<const int>& label,
                    const Array2<const int>& choice, const Array2<std::int64_t>& count,
                    std::int64_t weight) {
  count_rows(half, static_cast<Index>(count.extent(0)) / 2, label, choice, count, weight);
}

void count_owners(const Array2<const int>& choice, const Array1<const int>& owner, int home,
                  Index layer, const Array2<std::int64_t>& total) {
  const Index tokens = choice.extent(0);
  const int k = static_cast<int>(choice.extent(1)), experts = static_cast<int>(owner.extent(0));
  // So that threads seldom meet at the totals.
  constexpr Index block = 32;
  Kokkos::parallel_for(
      "count_owners", Kokkos::RangePolicy<Exec>(0, (tokens + block - 1) / block),
      KOKKOS_LAMBDA(const Index b) {
        std::int64_t owners = 0, others = 0;
        for (Index t = b * block; t < Kokkos::min((b + 1) * block, tokens); ++t) {
          for (int j = 0; j < k && choice(t, j) >= 0 && choice(t, j) < experts; ++j) {
            const int mine = owner(choice(t, j));
            bool is_new = true;
            for (int i = 0; i < j; ++i) is_new = is_new && owner(choice(t, i)) != mine;
            owners += is_new ? 1 : 0;
            others += is_new && mine != home ? 1 : 0;
          }
        }
        Kokkos::atomic_add(&total(0, layer), owners);
        Kokkos::atomic_add(&total(1, layer), others);
      });
}

void sum_labelled(Index run, const Array1<const int>& label, const Array1<const int>& target,
                  const Array1<const double>& value, const Array1<std::int64_t>& sum,
                  const Array1<std::int64_t>& tokens, const Array1<std::int64_t>& unfit,
                  double unit) {
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
        std::int64_t term = 0;
        if (!add_statistic_term(term, total, unit)) Kokkos::atomic_inc(&unfit(label(r * run)));
        Kokkos::atomic_add(&sum(label(r * run)), term);
        Kokkos::atomic_add(&tokens(label(r * run)), count);
      });
}

template <class T>
std::int64_t count_non_finite(const Array1<const T>& values) {
  std::int64_t count = 0;
  Kokkos::parallel_reduce(
      "count_non_finite", Kokkos::RangePolicy<Exec>(0, static_cast<Index>(values.extent(0))),
      KOKKOS_LAMBDA(const Index i, std::int64_t& partial) {
        partial += Kokkos::isfinite(static_cast<Real<T>>(values(i))) ? 0 : 1;
      },
      count);
  return count;
}

void add_counts(const Array1<const int>& count, const Array1<std::int64_t>& total) {
  Kokkos::parallel_for(
      "add_counts", Kokkos::RangePolicy<Exec>(0, count.extent(0)),
      KOKKOS_LAMBDA(const Index i) { total(i) += count(i); });
}

void add_difference(const Array1<const int>& count, const Array1<const int>& less,
                    const Array1<std::int64_t>& total) {
  Kokkos::parallel_for(
      "add_difference", Kokkos::RangePolicy<Exec>(0, count.extent(0)),
      KOKKOS_LAMBDA(const Index i) { total(i) += count(i) - less(i); });
}

template std::int64_t count_non_finite<bfloat16>(const Array1<const bfloat16>&);
template std::int64_t count_non_finite<float>(const Array1<const float>&);
template std::int64_t count_non_finite<double>(const Array1<const double>&);

}  // namespace hearth::kernels
