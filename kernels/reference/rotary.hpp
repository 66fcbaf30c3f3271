// Oracle of kernels/rotary.hpp.
#pragma once

#include "kernels/reference/scalar.hpp"

namespace hearth::kernels::reference {

// direction: 1 rotates, -1 is the adjoint.
template <class S>
Vector<S> rotate(const Vector<S>& x, Index width, Index head_dim, const std::vector<int>& position,
                 double base, double direction = 1) {
  Vector<S> y = x;
  const Index half = head_dim / 2;
  for (std::size_t t = 0; t < position.size(); ++t) {
    for (Index head = 0; head < width / head_dim; ++head) {
      for (Index i = 0; i < half; ++i) {
        const double frequency =
            std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
        const double angle = direction * position[t] * frequency;
        const Index first = static_cast<Index>(t) * width + head * head_dim + i;
        const S a = x[first], b = x[first + half];
        y[first] = a * std::cos(angle) - b * std::sin(angle);
        y[first + half] = a * std::sin(angle) + b * std::cos(angle);
      }
    }
  }
  return y;
}

template <class S>
Vector<S> rotate_backward(const Vector<S>& dy, Index width, Index head_dim,
                          const std::vector<int>& position, double base) {
  return rotate(dy, width, head_dim, position, base, -1);
}

}  // namespace hearth::kernels::reference
