#include "kernels/routing/gates.hpp"

#include <cassert>

#include "kernels/routing/score_of.hpp"
#include "kernels/team.hpp"

namespace hearth::kernels {

namespace {

using Policy = Kokkos::RangePolicy<Exec>;

// Σ of a token's scores that compute something; its choices end at -1 or at `slots`.
template <class T>
KOKKOS_INLINE_FUNCTION T sum_of_scores(const GateRule& rule, const T* x, const T* a,
                                       const int* choice, int slots) {
  T sum = 0;
  for (int j = 0; j < slots && choice[j] >= 0 && choice[j] < rule.computing; ++j) {
    sum += score_of(rule.score, x[choice[j]], a[choice[j]]);
  }
  return sum;
}

}  // namespace

template <class T>
void take_gates(const GateRule& rule, const Array2<const T>& logits,
                const Array2<const T>& affinity, const Array2<const int>& wanted,
                const Array2<const int>& choice, const Array2<T>& gate) {
  const int slots = static_cast<int>(choice.extent(1));
  assert(gate.extent(0) == choice.extent(0) && gate.extent(1) == choice.extent(1));
  Kokkos::parallel_for(
      "take_gates", Policy(0, choice.extent(0)), KOKKOS_LAMBDA(const Index t) {
        const T *x = row(logits, t), *a = row(affinity, t);
        const int* chosen = row(choice, t);
        T scale = static_cast<T>(rule.scale);
        if (rule.renormalise) {
          const T sum = sum_of_scores(rule, x, a, row(wanted, t), slots);
          scale = sum > 0 ? scale / sum : T(0);
        }
        for (int j = 0; j < slots; ++j) {
          const int e = chosen[j];
          gate(t, j) =
              e >= 0 && e < rule.computing ? scale * score_of(rule.score, x[e], a[e]) : T(0);
        }
      });
}

template <class T>
void gates_backward(const GateRule& rule, const Array2<const T>& logits,
                    const Array2<const T>& affinity, const Array2<const int>& wanted,
                    const Array2<const int>& choice, const Array2<const T>& gate,
                    const Array2<const T>& dgate, const Array2<T>& dscore) {
  const int slots = static_cast<int>(choice.extent(1));
  assert(gate.extent(0) == choice.extent(0) && gate.extent(1) == choice.extent(1));
  assert(dgate.extent(0) == choice.extent(0) && dgate.extent(1) == choice.extent(1));
  assert(dscore.extent(0) == choice.extent(0) && dscore.extent(1) == choice.extent(1));
  Kokkos::parallel_for(
      "gates_backward", Policy(0, choice.extent(0)), KOKKOS_LAMBDA(const Index t) {
        const int *wish = row(wanted, t), *chosen = row(choice, t);
        T scale = static_cast<T>(rule.scale), mean = 0;
        int j = 0;  // copies that were not dropped
        for (; j < slots && chosen[j] >= 0; ++j) mean += dgate(t, j) * gate(t, j);
        if (rule.renormalise) {
          // gate_j = scale s_j / S, so ds_i = scale/S (dgate_i - Σ_j dgate_j s_j/S); a copy that
          // was dropped has no gate, but is in S.
          const T sum = sum_of_scores(rule, row(logits, t), row(affinity, t), wish, slots);
          mean /= scale;
          scale = sum > 0 ? scale / sum : T(0);
        } else {
          mean = 0;
        }
        // From the end: what is written stands at or behind what is read next.
        for (int i = slots - 1; i >= 0; --i) {
          T slope = 0;
          if (j > 0 && chosen[j - 1] == wish[i]) slope = dgate(t, --j);
          const bool computes = wish[i] >= 0 && wish[i] < rule.computing;
          dscore(t, i) = computes ? scale * (slope - mean) : T(0);
        }
      });
}

#define HEARTH_INSTANTIATE(T)                                                                    \
  template void take_gates<T>(const GateRule&, const Array2<const T>&, const Array2<const T>&,   \
                              const Array2<const int>&, const Array2<const int>&,                \
                              const Array2<T>&);                                                 \
  template void gates_backward<T>(                                                               \
      const GateRule&, const Array2<const T>&, const Array2<const T>&, const Array2<const int>&, \
      const Array2<const int>&, const Array2<const T>&, const Array2<const T>&, const Array2<T>&)
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
