#include "kernels/swiglu.hpp"

#include <cassert>

#include "kernels/team.hpp"
#include "kernels/vector_math.hpp"

namespace hearth::kernels {

template <class T>
void swiglu(const Array2<const T>& gate, const Array2<const T>& up, const Array2<T>& out) {
  using R = Real<T>;
  const Index width = gate.extent(1);
  assert(up.extent(0) == gate.extent(0) && up.extent(1) == gate.extent(1));
  assert(out.extent(0) == gate.extent(0) && out.extent(1) == gate.extent(1));
  for_rows(
      "swiglu", gate.extent(0), KOKKOS_LAMBDA(const Member& member, const Index t) {
        const T* z = row(gate, t);
        const T* u = row(up, t);
        T* y = row(out, t);
        for_columns(member, width, [&](const Index c) {
          const R x = z[c];
          y[c] = static_cast<T>(x / (R(1) + exponential(-x)) * u[c]);
        });
      });
}

template <class T>
void swiglu_backward(const Array2<const T>& dout, const Array2<const T>& gate,
                     const Array2<const T>& up, const Array2<T>& dgate, const Array2<T>& dup) {
  using R = Real<T>;
  const Index width = gate.extent(1);
  assert(dout.extent(0) == gate.extent(0) && dout.extent(1) == gate.extent(1));
  assert(up.extent(0) == gate.extent(0) && up.extent(1) == gate.extent(1));
  assert(dgate.extent(0) == gate.extent(0) && dgate.extent(1) == gate.extent(1));
  assert(dup.extent(0) == gate.extent(0) && dup.extent(1) == gate.extent(1));
  for_rows(
      "swiglu_backward", gate.extent(0), KOKKOS_LAMBDA(const Member& member, const Index t) {
        const T* dy = row(dout, t);
        const T* z = row(gate, t);
        const T* u = row(up, t);
        T* dz = row(dgate, t);
        T* du = row(dup, t);
        for_columns(member, width, [&](const Index c) {
          // silu'(z) = σ + z σ (1 - σ). All is read before anything is written: arrays may
          // coincide.
          const R gradient = dy[c], linear = u[c], x = z[c];
          const R sigma = R(1) / (R(1) + exponential(-x));
          const R silu = x * sigma;
          dz[c] = static_cast<T>(gradient * linear * (sigma + silu * (R(1) - sigma)));
          du[c] = static_cast<T>(gradient * silu);
        });
      });
}

#define HEARTH_INSTANTIATE(T)                                                                \
  template void swiglu<T>(const Array2<const T>&, const Array2<const T>&, const Array2<T>&); \
  template void swiglu_backward<T>(const Array2<const T>&, const Array2<const T>&,           \
                                   const Array2<const T>&, const Array2<T>&, const Array2<T>&);
HEARTH_INSTANTIATE(bfloat16)
HEARTH_INSTANTIATE(float)
HEARTH_INSTANTIATE(double)
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
