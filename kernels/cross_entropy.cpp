#include "kernels/cross_entropy.hpp"

#include <cassert>

#include "kernels/team.hpp"
#include "kernels/vector_math.hpp"

namespace hearth::kernels {

template <class T>
void softmax_block(const Array2<const Real<T>>& logits, const Array1<const int>& target,
                   Index first, Index block, const SoftmaxSums<Real<T>>& sums,
                   const Array2<T>& exponential) {
  using R = Real<T>;
  const Index rows = logits.extent(0), columns = logits.extent(1);
  const bool keep = exponential.size() > 0;
  assert(target.extent(0) == logits.extent(0) && sums.largest.extent(0) >= logits.extent(0));
  assert(!keep ||
         (exponential.extent(0) == logits.extent(0) && exponential.extent(1) == logits.extent(1)));
  if (rows == 0) return;
  Team policy = team_policy(rows, 8);
  const int bytes = static_cast<int>(TeamArray<double>::shmem_size(chunks(columns)));
  const int level = scratch_level(policy, bytes);
  policy.set_scratch_size(level, Kokkos::PerTeam(bytes));
  Kokkos::parallel_for(
      "softmax_block", policy, KOKKOS_LAMBDA(const Member& member) {
        const Index t = member.league_rank();
        const R* z = row(logits, t);
        const TeamArray<double> partial(member.team_scratch(level), chunks(columns));
        // Finite, so that the difference to a logit of -∞ is that and not NaN.
        constexpr R lowest = Kokkos::Experimental::finite_min_v<R>;
        const R found =
            team_max<R>(member, partial.data(), columns, [&](const Index i) { return z[i]; });
        const R largest = found > lowest ? found : lowest;
        double sum = 0;
        if (keep) {
          T* e = row(exponential, t);
          sum = team_sum<R>(member, partial.data(), columns, [&](const Index i) {
            const R value = kernels::exponential(z[i] - largest);
            e[i] = static_cast<T>(value);
            return value;
          });
        } else {
          sum = team_sum<R>(member, partial.data(), columns,
                            [&](const Index i) { return kernels::exponential(z[i] - largest); });
        }
        Kokkos::single(Kokkos::PerTeam(member), [&]() {
          sums.largest(t, block) = largest;
          sums.sum(t, block) = sum;
          const Index at = target(t) - first;
          if (at >= 0 && at < columns) sums.target_logit(t) = z[at];
        });
      });
}

template <class R>
void cross_entropy(const SoftmaxSums<R>& sums, const Array1<const int>& target,
                   const Array1<double>& loss) {
  const Index rows = loss.extent(0), blocks = sums.largest.extent(1);
  assert(target.extent(0) == loss.extent(0));
  Kokkos::parallel_for(
      "cross_entropy", Kokkos::RangePolicy<Exec>(0, rows), KOKKOS_LAMBDA(const Index t) {
        double largest = sums.largest(t, 0);
        for (Index b = 1; b < blocks; ++b) {
          largest = Kokkos::max(largest, static_cast<double>(sums.largest(t, b)));
        }
        double sum = 0;
        for (Index b = 0; b < blocks; ++b) {
          sum += sums.sum(t, b) * Kokkos::exp(static_cast<double>(sums.largest(t, b)) - largest);
        }
        sums.log_sum(t) = Kokkos::log(sum) + largest;
        loss(t) = target(t) >= 0 ? sums.log_sum(t) - sums.target_logit(t) : 0.0;
      });
}

template <class T>
void cross_entropy_gradient(const SoftmaxSums<Real<T>>& sums, const Array1<const int>& target,
                            Index first, Index block, double scale, const Array2<T>& exponential) {
  using R = Real<T>;
  const Index columns = exponential.extent(1);
  assert(target.extent(0) == exponential.extent(0));
  for_rows(
      "cross_entropy_gradient", exponential.extent(0),
      KOKKOS_LAMBDA(const Member& member, const Index t) {
        T* e = row(exponential, t);
        const Index at = target(t) - first;
        if (target(t) < 0) {
          for_columns(member, columns, [&](const Index i) { e[i] = T(R(0)); });
          return;
        }
        const R factor = static_cast<R>(
            scale * Kokkos::exp(static_cast<double>(sums.largest(t, block)) - sums.log_sum(t)));
        const R one = static_cast<R>(scale);
        for_columns(member, columns, [&](const Index i) {
          e[i] = static_cast<T>(e[i] * factor - (i == at ? one : R(0)));
        });
      });
}

#define HEARTH_INSTANTIATE(T)                                                                    \
  template void softmax_block<T>(const Array2<const Real<T>>&, const Array1<const int>&, Index,  \
                                 Index, const SoftmaxSums<Real<T>>&, const Array2<T>&);          \
  template void cross_entropy_gradient<T>(const SoftmaxSums<Real<T>>&, const Array1<const int>&, \
                                          Index, Index, double, const Array2<T>&);
HEARTH_INSTANTIATE(bfloat16)
HEARTH_INSTANTIATE(float)
HEARTH_INSTANTIATE(double)
#undef HEARTH_INSTANTIATE

template void cross_entropy<float>(const SoftmaxSums<float>&, const Array1<const int>&,
                                   const Array1<double>&);
template void cross_entropy<double>(const SoftmaxSums<double>&, const Array1<const int>&,
                                    const Array1<double>&);

}  // namespace hearth::kernels
