#include "kernels/rotary.hpp"

#include <cassert>
#include <cmath>

#include "kernels/team.hpp"

namespace hearth::kernels {

template <class T>
RotaryTable<T>::RotaryTable(Index positions, Index head_dim, double base)
    : cosine(uninitialized<Array2<T>>("rotary_cosine", positions, head_dim / 2)),
      sine(uninitialized<Array2<T>>("rotary_sine", positions, head_dim / 2)) {
  assert(head_dim % 2 == 0);
  const auto host_cosine = Kokkos::create_mirror_view(cosine);
  const auto host_sine = Kokkos::create_mirror_view(sine);
  for (Index p = 0; p < positions; ++p) {
    for (Index i = 0; i < head_dim / 2; ++i) {
      const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
      const double angle = static_cast<double>(p) * std::pow(base, exponent);
      host_cosine(p, i) = static_cast<T>(std::cos(angle));
      host_sine(p, i) = static_cast<T>(std::sin(angle));
    }
  }
  Kokkos::deep_copy(cosine, host_cosine);
  Kokkos::deep_copy(sine, host_sine);
}

namespace {

// direction: 1 turns by the angle, -1 back.
template <class T>
void turn(const char* label, const Array2<T>& x, Index head_dim, const Array1<const int>& position,
          const RotaryTable<Real<T>>& table, Real<T> direction) {
  using R = Real<T>;
  const Index half = head_dim / 2;
  const Index heads = static_cast<Index>(x.extent(1)) / head_dim;
  assert(static_cast<Index>(x.extent(1)) == heads * head_dim);
  assert(static_cast<Index>(table.cosine.extent(1)) == half);
  assert(position.extent(0) == x.extent(0));
  const Array2<const R> cosine = table.cosine, sine = table.sine;
  for_rows(
      label, x.extent(0), KOKKOS_LAMBDA(const Member& member, const Index t) {
        const R* cosines = row(cosine, position(t));
        const R* sines = row(sine, position(t));
        for (Index head = 0; head < heads; ++head) {
          T* first = row(x, t) + head * head_dim;
          T* second = first + half;
          for_columns(member, half, [&](const Index i) {
            const R a = first[i], b = second[i], s = direction * sines[i];
            first[i] = static_cast<T>(a * cosines[i] - b * s);
            second[i] = static_cast<T>(b * cosines[i] + a * s);
          });
        }
      });
}

}  // namespace

template <class T>
void rotate(const Array2<T>& x, Index head_dim, const Array1<const int>& position,
            const RotaryTable<Real<T>>& table) {
  turn<T>("rotary", x, head_dim, position, table, 1);
}

template <class T>
void rotate_backward(const Array2<T>& dx, Index head_dim, const Array1<const int>& position,
                     const RotaryTable<Real<T>>& table) {
  turn<T>("rotary_backward", dx, head_dim, position, table, -1);
}

template struct RotaryTable<float>;
template struct RotaryTable<double>;

#define HEARTH_INSTANTIATE(T)                                                         \
  template void rotate<T>(const Array2<T>&, Index, const Array1<const int>&,          \
                          const RotaryTable<Real<T>>&);                               \
  template void rotate_backward<T>(const Array2<T>&, Index, const Array1<const int>&, \
                                   const RotaryTable<Real<T>>&);
HEARTH_INSTANTIATE(bfloat16)
HEARTH_INSTANTIATE(float)
HEARTH_INSTANTIATE(double)
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
