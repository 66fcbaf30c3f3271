#include "kernels/rms_norm.hpp"

#include <cassert>

#include "kernels/team.hpp"

namespace hearth::kernels {

template <class T>
void rms_norm(const Array2<const T>& x, const Array1<const T>& weight, double epsilon,
              const Array2<T>& y, const Array1<Real<T>>& inverse_rms) {
  using R = Real<T>;
  const Index rows = x.extent(0), width = x.extent(1);
  assert(weight.extent(0) == x.extent(1));
  assert(y.extent(0) == x.extent(0) && y.extent(1) == x.extent(1));
  assert(inverse_rms.extent(0) == x.extent(0));
  for_rows(
      "rms_norm", rows, KOKKOS_LAMBDA(const Member& member, const Index t) {
        const T* in = row(x, t);
        const T* w = weight.data();
        T* out = row(y, t);
        const R squares = lane_sum<R>(member, width, [&](const Index c) { return in[c] * in[c]; });
        const R r = R(1) / Kokkos::sqrt(squares / static_cast<R>(width) + static_cast<R>(epsilon));
        for_columns(member, width,
                    [&](const Index c) { out[c] = static_cast<T>(in[c] * r * w[c]); });
        Kokkos::single(Kokkos::PerThread(member), [&]() { inverse_rms(t) = r; });
      });
}

template <class T>
void rms_norm_backward(const Array2<const T>& dy, const Array2<const T>& x,
                       const Array1<const T>& weight, const Array1<const Real<T>>& inverse_rms,
                       const Array2<T>& dx, const Array1<Real<T>>& dweight,
                       const Array2<Real<T>>& partial) {
  using R = Real<T>;
  const Index rows = x.extent(0), width = x.extent(1);
  const Index blocks = row_blocks(rows);
  assert(dy.extent(0) == x.extent(0) && dy.extent(1) == x.extent(1));
  assert(dx.extent(0) == x.extent(0) && dx.extent(1) == x.extent(1));
  assert(weight.extent(0) == x.extent(1) && dweight.extent(0) == x.extent(1));
  assert(static_cast<Index>(partial.extent(0)) >= blocks && partial.extent(1) == x.extent(1));
  // dx = r w dy - x r³/width Σ(dy w x)
  for_rows(
      "rms_norm_backward", rows, KOKKOS_LAMBDA(const Member& member, const Index t) {
        const T* in = row(x, t);
        const T* g = row(dy, t);
        const T* w = weight.data();
        T* out = row(dx, t);
        const R r = inverse_rms(t);
        const R product =
            lane_sum<R>(member, width, [&](const Index c) { return g[c] * w[c] * in[c]; });
        const R slope = product * r * r * r / static_cast<R>(width);
        for_columns(member, width, [&](const Index c) {
          out[c] = static_cast<T>(out[c] + (g[c] * w[c] * r - in[c] * slope));
        });
      });
  for_row_blocks(
      "rms_norm_weight_gradient", rows, rows_per_block, width,
      KOKKOS_LAMBDA(const Index block, const Index begin, const Index end, const Index first,
                    const int columns) {
        R sum[lanes_per_thread] = {};
        for (Index t = begin; t < end; ++t) {
          const T* in = row(x, t) + first;
          const T* g = row(dy, t) + first;
          const R r = inverse_rms(t);
          for (int c = 0; c < columns; ++c) sum[c] += g[c] * in[c] * r;
        }
        R* out = row(partial, block) + first;
        for (int c = 0; c < columns; ++c) out[c] = sum[c];
      });
  for_row_blocks(
      "rms_norm_weight_gradient_sum", 1, 1, width,
      KOKKOS_LAMBDA(const Index, const Index, const Index, const Index first, const int columns) {
        R sum[lanes_per_thread] = {};
        for (Index block = 0; block < blocks; ++block) {
          const R* part = row(partial, block) + first;
          for (int c = 0; c < columns; ++c) sum[c] += part[c];
        }
        for (int c = 0; c < columns; ++c) dweight(first + c) = sum[c];
      });
}

#define HEARTH_INSTANTIATE(T)                                                              \
  template void rms_norm<T>(const Array2<const T>&, const Array1<const T>&, double,        \
                            const Array2<T>&, const Array1<Real<T>>&);                     \
  template void rms_norm_backward<T>(const Array2<const T>&, const Array2<const T>&,       \
                                     const Array1<const T>&, const Array1<const Real<T>>&, \
                                     const Array2<T>&, const Array1<Real<T>>&,             \
                                     const Array2<Real<T>>&);
HEARTH_INSTANTIATE(bfloat16)
HEARTH_INSTANTIATE(float)
HEARTH_INSTANTIATE(double)
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
