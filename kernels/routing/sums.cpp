#include "kernels/routing/sums.hpp"

#include <cassert>

#include "kernels/rms_norm.hpp"
#include "kernels/team.hpp"
#include "kernels/vector_math.hpp"

namespace hearth::kernels {

RouterSums::RouterSums(Index destinations)
    : affinity("affinity mass", destinations),
      gate("gate mass", destinations),
      entropy("entropy", 1),
      z_squared("z squared", 1),
      balance("balance", 1),
      logit_norm("logit norm", 1) {}

template <class T>
void sum_router(const Array2<const T>& logits, const Array2<const T>& affinity,
                const Array1<const T>& log_sum, const Array2<const int>& choice,
                const Array2<const T>& gate, const AffinitySlope& slope,
                const Array2<double>& partial, const RouterSums& sums) {
  const Index tokens = affinity.extent(0), destinations = affinity.extent(1);
  const Index blocks = row_blocks(tokens);
  const int slots = static_cast<int>(choice.extent(1));
  assert(static_cast<Index>(partial.extent(0)) >= blocks);
  assert(static_cast<Index>(partial.extent(1)) == router_sum_columns(destinations));
  assert(slope.slope.extent(1) == affinity.extent(1));
  for_row_blocks(
      "sum_affinity", tokens, rows_per_block, destinations,
      KOKKOS_LAMBDA(const Index block, const Index begin, const Index end, const Index first,
                    const int columns) {
        double sum[lanes_per_thread] = {};
        for (Index t = begin; t < end; ++t) {
          const T* a = row(affinity, t) + first;
          for (int c = 0; c < columns; ++c) sum[c] += static_cast<double>(a[c]);
        }
        double* out = row(partial, block) + first;
        for (int c = 0; c < columns; ++c) out[c] = sum[c];
      });
  Kokkos::parallel_for(
      "sum_gates", Kokkos::RangePolicy<Exec>(0, blocks), KOKKOS_LAMBDA(const Index block) {
        double* out = row(partial, block) + destinations;
        for (Index e = 0; e < destinations; ++e) out[e] = 0;
        const Index begin = block * rows_per_block;
        const Index end = Kokkos::min(begin + rows_per_block, tokens);
        for (Index t = begin; t < end; ++t) {
          for (int j = 0; j < slots && choice(t, j) >= 0; ++j) {
            out[choice(t, j)] += static_cast<double>(gate(t, j));
          }
        }
      });
  for_rows(
      "sum_tokens", blocks, KOKKOS_LAMBDA(const Member& member, const Index block) {
        const Index begin = block * rows_per_block;
        const Index end = Kokkos::min(begin + rows_per_block, tokens);
        double entropy = 0, z_squared = 0, balance = 0, logit_norm = 0;
        for (Index t = begin; t < end; ++t) {
          const T *x = row(logits, t), *a = row(affinity, t);
          const double* s = row(slope.slope, t / slope.group_tokens);
          const auto sum = [&](const auto& term) {
            return lane_sum<double>(member, destinations, term);
          };
          const double mass = sum([&](const Index e) { return static_cast<double>(a[e]); });
          const double logs =
              sum([&](const Index e) { return static_cast<double>(a[e] * logarithm(a[e])); });
          if (mass > 0) entropy += Kokkos::log(mass) - logs / mass;
          balance += sum([&](const Index e) { return static_cast<double>(a[e]) * s[e]; });
          logit_norm += Kokkos::sqrt(sum([&](const Index e) {
            return static_cast<double>(x[e]) * static_cast<double>(x[e]);
          }));
          z_squared += static_cast<double>(log_sum(t)) * static_cast<double>(log_sum(t));
        }
        Kokkos::single(Kokkos::PerThread(member), [&]() {
          double* out = row(partial, block) + 2 * destinations;
          out[0] = entropy;
          out[1] = z_squared;
          out[2] = balance;
          out[3] = logit_norm;
        });
      });
  const RouterSums to = sums;
  Kokkos::parallel_for(
      "sum_router_blocks", Kokkos::RangePolicy<Exec>(0, router_sum_columns(destinations)),
      KOKKOS_LAMBDA(const Index column) {
        double sum = 0;
        for (Index block = 0; block < blocks; ++block) sum += partial(block, column);
        const Index scalar = column - 2 * destinations;
        if (column < destinations) {
          to.affinity(column) = sum;
        } else if (scalar < 0) {
          to.gate(column - destinations) = sum;
        } else if (scalar == 0) {
          to.entropy(0) = sum;
        } else if (scalar == 1) {
          to.z_squared(0) = sum;
        } else if (scalar == 2) {
          to.balance(0) = sum;
        } else {
          to.logit_norm(0) = sum;
        }
      });
}

#define HEARTH_INSTANTIATE(T)                                                                      \
  template void sum_router<T>(const Array2<const T>&, const Array2<const T>&,                      \
                              const Array1<const T>&, const Array2<const int>&,                    \
                              const Array2<const T>&, const AffinitySlope&, const Array2<double>&, \
                              const RouterSums&)
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
