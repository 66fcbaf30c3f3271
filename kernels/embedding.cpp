#include "kernels/embedding.hpp"

#include <cassert>

#include "kernels/team.hpp"

namespace hearth::kernels {

template <class T>
void embed(const Array2<const T>& weight, const Array1<const int>& token, const Array2<T>& x) {
  const Index hidden = x.extent(1);
  assert(weight.extent(1) == x.extent(1) && token.extent(0) == x.extent(0));
  for_rows(
      "embedding", x.extent(0), KOKKOS_LAMBDA(const Member& member, const Index t) {
        const T* from = row(weight, token(t));
        T* to = row(x, t);
        for_columns(member, hidden, [&](const Index c) { to[c] = from[c]; });
      });
}

template <class T>
void embed_backward(const Array2<const T>& dx, const Array1<const int>& token,
                    const Array1<const int>& order, const Array1<const int>& run_begin,
                    const GradientSum<Real<T>>& gradient) {
  const Index hidden = dx.extent(1);
  assert(token.extent(0) == dx.extent(0) && order.extent(0) == dx.extent(0));
  if (dx.extent(0) == 0) return;
  const Index runs = static_cast<Index>(run_begin.extent(0)) - 1;
  for_row_blocks(
      "embedding_backward", runs, 1, hidden,
      KOKKOS_LAMBDA(const Index run, const Index, const Index, const Index first,
                    const int columns) {
        Real<T> sum[lanes_per_thread] = {};
        for (int i = run_begin(run); i < run_begin(run + 1); ++i) {
          const T* from = row(dx, order(i)) + first;
          for (int c = 0; c < columns; ++c) sum[c] += from[c];
        }
        const Index t = token(order(run_begin(run)));
        if (gradient.is_plain()) {
          Real<T>* to = gradient.sum.plain.data() + t * hidden + first;
          for (int c = 0; c < columns; ++c) to[c] += sum[c];
          return;
        }
        std::int64_t* to = gradient.sum.fixed.data() + t * hidden + first;
        std::int64_t overflow = 0;
        for (int c = 0; c < columns; ++c) overflow += add_term(to[c], sum[c], gradient.cells);
        if (overflow == 0) return;
        std::int64_t infinite = 0;
        for (int c = 0; c < columns; ++c) infinite += Kokkos::isfinite(sum[c]) ? 0 : 1;
        note_overflow(gradient, 0, overflow, infinite);
      });
}

#define HEARTH_INSTANTIATE(T)                                                                 \
  template void embed<T>(const Array2<const T>&, const Array1<const int>&, const Array2<T>&); \
  template void embed_backward<T>(const Array2<const T>&, const Array1<const int>&,           \
                                  const Array1<const int>&, const Array1<const int>&,         \
                                  const GradientSum<Real<T>>&);
HEARTH_INSTANTIATE(bfloat16)
HEARTH_INSTANTIATE(float)
HEARTH_INSTANTIATE(double)
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
