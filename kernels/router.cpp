#include "kernels/router.hpp"

#include <cassert>

#include "kernels/rms_norm.hpp"
#include "kernels/team.hpp"
#include "kernels/vector_math.hpp"

namespace hearth::kernels {

namespace {

// The k largest of p: those seen so far stand in (gate, choice) in descending order, equal ones in
// ascending order of expert. Not-a-numbers compare as smallest, so that choices are always valid.
template <class T>
KOKKOS_INLINE_FUNCTION void select_largest(const T* p, int experts, int* choice, T* gate, int k) {
  for (int e = 0; e < experts; ++e) {
    int j = e < k ? e : k;
    if (j == k && !(p[e] > gate[k - 1])) continue;
    for (j = j < k ? j : k - 1; j > 0 && p[e] > gate[j - 1]; --j) {
      gate[j] = gate[j - 1];
      choice[j] = choice[j - 1];
    }
    gate[j] = p[e];
    choice[j] = e;
  }
}

template <class T>
KOKKOS_INLINE_FUNCTION void sort_by_expert(int* choice, T* gate, int k) {
  for (int i = 1; i < k; ++i) {
    const int expert = choice[i];
    const T value = gate[i];
    int j = i;
    for (; j > 0 && choice[j - 1] > expert; --j) {
      choice[j] = choice[j - 1];
      gate[j] = gate[j - 1];
    }
    choice[j] = expert;
    gate[j] = value;
  }
}

}  // namespace

template <class T>
void route_top_k(const Array2<const T>& logits, const Array2<T>& probability,
                 const Array2<int>& choice, const Array2<T>& gate, const Array1<T>& log_sum) {
  const Index tokens = logits.extent(0);
  const int experts = static_cast<int>(logits.extent(1)), k = static_cast<int>(choice.extent(1));
  assert(probability.extent(0) == logits.extent(0) && probability.extent(1) == logits.extent(1));
  assert(choice.extent(0) == logits.extent(0) && choice.extent(1) <= logits.extent(1));
  assert(gate.extent(0) == choice.extent(0) && gate.extent(1) == choice.extent(1));
  assert(log_sum.extent(0) == logits.extent(0));
  for_rows(
      "route_top_k", tokens, KOKKOS_LAMBDA(const Member& member, const Index t) {
        const T* x = row(logits, t);
        T* p = row(probability, t);
        const T largest = lane_max<T>(member, experts, [&](const Index e) { return x[e]; });
        for_columns(member, experts, [&](const Index e) { p[e] = exponential(x[e] - largest); });
        const T sum = lane_sum<T>(member, experts, [&](const Index e) { return p[e]; });
        const T scale = T(1) / sum;
        for_columns(member, experts, [&](const Index e) { p[e] *= scale; });
        Kokkos::single(Kokkos::PerThread(member), [&]() {
          log_sum(t) = largest + Kokkos::log(sum);
          select_largest(p, experts, row(choice, t), row(gate, t), k);
          sort_by_expert(row(choice, t), row(gate, t), k);
        });
      });
}

template <class T>
void route_top_k_backward(const Array2<const T>& dgate, const Array2<const T>& probability,
                          const Array2<const int>& choice, const Array1<const T>& log_sum,
                          const Array1<const double>& balance_slope, double z_scale,
                          const Array2<T>& dlogits) {
  const Index tokens = probability.extent(0);
  const int experts = static_cast<int>(probability.extent(1));
  const int k = static_cast<int>(choice.extent(1));
  assert(dgate.extent(0) == choice.extent(0) && dgate.extent(1) == choice.extent(1));
  assert(choice.extent(0) == probability.extent(0));
  assert(log_sum.extent(0) == probability.extent(0));
  assert(balance_slope.extent(0) == probability.extent(1));
  assert(dlogits.extent(0) == probability.extent(0) && dlogits.extent(1) == probability.extent(1));
  // dlogits = p (dp - Σ p dp + z_scale log_sum), dp = balance_slope + Σ_j dgate_j onehot(choice_j)
  for_rows(
      "route_top_k_backward", tokens, KOKKOS_LAMBDA(const Member& member, const Index t) {
        const T* p = row(probability, t);
        const double* slope = balance_slope.data();
        T* out = row(dlogits, t);
        T mean = lane_sum<T>(member, experts,
                             [&](const Index e) { return p[e] * static_cast<T>(slope[e]); });
        for (int j = 0; j < k; ++j) mean += p[choice(t, j)] * dgate(t, j);
        const T shift = static_cast<T>(z_scale) * log_sum(t) - mean;
        for_columns(member, experts,
                    [&](const Index e) { out[e] = p[e] * (static_cast<T>(slope[e]) + shift); });
        Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, k), [&](const int j) {
          out[choice(t, j)] += p[choice(t, j)] * dgate(t, j);
        });
      });
}

template <class T>
void sum_router(const Array2<const T>& probability, const Array1<const T>& log_sum,
                const Array2<double>& partial, const RouterSums& sums) {
  const Index tokens = probability.extent(0), experts = probability.extent(1);
  const Index blocks = row_blocks(tokens);
  assert(log_sum.extent(0) == probability.extent(0));
  assert(static_cast<Index>(partial.extent(0)) >= blocks);
  assert(static_cast<Index>(partial.extent(1)) == experts + 2);
  assert(sums.probability_mass.extent(0) == probability.extent(1));
  // Columns of `partial`: probability mass by expert, entropy, squared log_sum.
  for_row_blocks(
      "sum_router_mass", tokens, rows_per_block, experts,
      KOKKOS_LAMBDA(const Index block, const Index begin, const Index end, const Index first,
                    const int columns) {
        double sum[lanes_per_thread] = {};
        for (Index t = begin; t < end; ++t) {
          const T* p = row(probability, t) + first;
          for (int c = 0; c < columns; ++c) sum[c] += static_cast<double>(p[c]);
        }
        double* out = row(partial, block) + first;
        for (int c = 0; c < columns; ++c) out[c] = sum[c];
      });
  for_rows(
      "sum_router_entropy", blocks, KOKKOS_LAMBDA(const Member& member, const Index block) {
        const Index begin = block * rows_per_block;
        const Index end = Kokkos::min(begin + rows_per_block, tokens);
        double entropy = 0, z_squared = 0;
        for (Index t = begin; t < end; ++t) {
          const T* p = row(probability, t);
          entropy -= lane_sum<double>(member, experts, [&](const Index e) {
            return static_cast<double>(p[e] * logarithm(p[e]));
          });
          z_squared += static_cast<double>(log_sum(t)) * static_cast<double>(log_sum(t));
        }
        Kokkos::single(Kokkos::PerThread(member), [&]() {
          partial(block, experts) = entropy;
          partial(block, experts + 1) = z_squared;
        });
      });
  Kokkos::parallel_for(
      "sum_router_blocks", Kokkos::RangePolicy<Exec>(0, experts + 2),
      KOKKOS_LAMBDA(const Index column) {
        double sum = 0;
        for (Index block = 0; block < blocks; ++block) sum += partial(block, column);
        if (column < experts) {
          sums.probability_mass(column) = sum;
        } else if (column == experts) {
          sums.entropy(0) = sum;
        } else {
          sums.z_squared(0) = sum;
        }
      });
}

#define HEARTH_INSTANTIATE(T)                                                                   \
  template void route_top_k<T>(const Array2<const T>&, const Array2<T>&, const Array2<int>&,    \
                               const Array2<T>&, const Array1<T>&);                             \
  template void route_top_k_backward<T>(const Array2<const T>&, const Array2<const T>&,         \
                                        const Array2<const int>&, const Array1<const T>&,       \
                                        const Array1<const double>&, double, const Array2<T>&); \
  template void sum_router<T>(const Array2<const T>&, const Array1<const T>&,                   \
                              const Array2<double>&, const RouterSums&)
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
