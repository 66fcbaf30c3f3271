#include "kernels/light_experts.hpp"

#include <cassert>

#include "kernels/routing/score_of.hpp"
#include "kernels/team.hpp"

namespace hearth::kernels {

namespace {

using Policy = Kokkos::RangePolicy<Exec>;

// α₂ of constant expert c; α₁ is the rest of 1.
template <class R>
KOKKOS_INLINE_FUNCTION R constant_share(const Array2<const R>& mix, Index t, int c) {
  return sigmoid(mix(t, 2 * c + 1) - mix(t, 2 * c));
}

}  // namespace

template <class R>
void mix_light(const LightRange& range, const Array2<const int>& choice,
               const Array2<const R>& gate, const Array2<const R>& mix, const Array2<R>& own,
               const Array2<R>& share) {
  const int slots = static_cast<int>(choice.extent(1));
  assert(static_cast<int>(share.extent(1)) == range.constants);
  Kokkos::parallel_for(
      "mix_light", Policy(0, choice.extent(0)), KOKKOS_LAMBDA(const Index t) {
        R sum = 0;
        for (int c = 0; c < range.constants; ++c) share(t, c) = 0;
        for (int j = 0; j < slots && choice(t, j) >= 0; ++j) {
          const int e = choice(t, j), c = e - range.constant;
          if (e < range.copy || c >= range.constants) continue;
          const R part = c < 0 ? R(0) : constant_share(mix, t, c);
          sum += gate(t, j) * (R(1) - part);
          if (c >= 0) share(t, c) = gate(t, j) * part;
        }
        own(t, 0) = sum;
      });
}

template <class R>
void mix_light_backward(const LightRange& range, const Array2<const int>& choice,
                        const Array2<const R>& gate, const Array2<const R>& mix,
                        const Array2<const R>& down, const Array2<const R>& dshare,
                        const Array2<R>& dgate, const Array2<R>& dmix) {
  const int slots = static_cast<int>(choice.extent(1));
  assert(static_cast<int>(dshare.extent(1)) == range.constants);
  Kokkos::parallel_for(
      "mix_light_backward", Policy(0, choice.extent(0)), KOKKOS_LAMBDA(const Index t) {
        for (int c = 0; c < 2 * range.constants; ++c) dmix(t, c) = 0;
        for (int j = 0; j < slots && choice(t, j) >= 0; ++j) {
          const int e = choice(t, j), c = e - range.constant;
          if (e < range.copy || c >= range.constants) continue;
          const R part = c < 0 ? R(0) : constant_share(mix, t, c);
          const R slope = c < 0 ? R(0) : dshare(t, c) - down(t, 0);  // by `part`, over the gate
          dgate(t, j) = down(t, 0) + part * slope;
          if (c < 0) continue;
          dmix(t, 2 * c + 1) = gate(t, j) * slope * part * (R(1) - part);
          dmix(t, 2 * c) = -dmix(t, 2 * c + 1);
        }
      });
}

template <class T>
void add_light(const Array2<const T>& x, const Array2<const Real<T>>& own,
               const Array2<const Real<T>>& shared, const Array2<T>& y) {
  using R = Real<T>;
  const Index hidden = x.extent(1);
  const bool with_shared = shared.data() != nullptr;
  for_rows(
      "add_light", x.extent(0), KOKKOS_LAMBDA(const Member& member, const Index t) {
        const T* in = row(x, t);
        T* out = row(y, t);
        const R factor = own(t, 0);
        const R* more = with_shared ? row(shared, t) : nullptr;
        for_columns(member, hidden, [&](const Index h) {
          const R added = factor * in[h] + (with_shared ? more[h] : R(0));
          out[h] = static_cast<T>(out[h] + added);
        });
      });
}

template <class T>
void light_slope(const Array2<const T>& dy, const Array2<const T>& x, const Array2<Real<T>>& down) {
  using R = Real<T>;
  const Index hidden = x.extent(1);
  for_rows(
      "light_slope", x.extent(0), KOKKOS_LAMBDA(const Member& member, const Index t) {
        const T *slope = row(dy, t), *in = row(x, t);
        const R sum = lane_sum<R>(member, hidden, [&](const Index h) { return slope[h] * in[h]; });
        Kokkos::single(Kokkos::PerThread(member), [&]() { down(t, 0) = sum; });
      });
}

#define HEARTH_INSTANTIATE(R)                                                                      \
  template void mix_light<R>(const LightRange&, const Array2<const int>&, const Array2<const R>&,  \
                             const Array2<const R>&, const Array2<R>&, const Array2<R>&);          \
  template void mix_light_backward<R>(                                                             \
      const LightRange&, const Array2<const int>&, const Array2<const R>&, const Array2<const R>&, \
      const Array2<const R>&, const Array2<const R>&, const Array2<R>&, const Array2<R>&)
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
#undef HEARTH_INSTANTIATE
#define HEARTH_INSTANTIATE(T)                                                      \
  template void add_light<T>(const Array2<const T>&, const Array2<const Real<T>>&, \
                             const Array2<const Real<T>>&, const Array2<T>&);      \
  template void light_slope<T>(const Array2<const T>&, const Array2<const T>&,     \
                               const Array2<Real<T>>&)
HEARTH_INSTANTIATE(bfloat16);
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
