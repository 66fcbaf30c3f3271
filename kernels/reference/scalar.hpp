// What the reference kernels share: arrays are row-major std::vector, extents are arguments.
#pragma once

#include <cmath>
#include <complex>
#include <vector>

#include "base/types.hpp"

namespace hearth::kernels::reference {

template <class S>
using Vector = std::vector<S>;

// Comparisons go by the real part, so that a complex step does not change a branch.
inline double real_part(double x) {
  return x;
}
inline double real_part(const std::complex<double>& x) {
  return x.real();
}

template <class S>
Vector<S> zeros(Index elements) {
  return Vector<S>(static_cast<std::size_t>(elements), S(0));
}

}  // namespace hearth::kernels::reference
