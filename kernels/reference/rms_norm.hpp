// Oracle of kernels/rms_norm.hpp.
#pragma once

#include "kernels/reference/scalar.hpp"

namespace hearth::kernels::reference {

template <class S>
struct Normed {
  Vector<S> y, inverse_rms;
};

template <class S>
Normed<S> rms_norm(const Vector<S>& x, const Vector<S>& weight, double epsilon, Index rows) {
  using std::sqrt;
  const Index width = static_cast<Index>(weight.size());
  Normed<S> result{zeros<S>(rows * width), zeros<S>(rows)};
  for (Index t = 0; t < rows; ++t) {
    S squares(0);
    for (Index c = 0; c < width; ++c) squares += x[t * width + c] * x[t * width + c];
    const S r = S(1) / sqrt(squares / static_cast<double>(width) + epsilon);
    for (Index c = 0; c < width; ++c) result.y[t * width + c] = x[t * width + c] * r * weight[c];
    result.inverse_rms[t] = r;
  }
  return result;
}

template <class S>
struct NormGradients {
  Vector<S> dx, dweight;
};

template <class S>
NormGradients<S> rms_norm_backward(const Vector<S>& dy, const Vector<S>& x, const Vector<S>& weight,
                                   double epsilon, Index rows) {
  const Index width = static_cast<Index>(weight.size());
  const Normed<S> forward = rms_norm(x, weight, epsilon, rows);
  NormGradients<S> result{zeros<S>(rows * width), zeros<S>(width)};
  for (Index t = 0; t < rows; ++t) {
    const S r = forward.inverse_rms[t];
    S dr(0);
    for (Index c = 0; c < width; ++c) {
      const Index i = t * width + c;
      result.dweight[c] += dy[i] * x[i] * r;
      result.dx[i] = dy[i] * weight[c] * r;
      dr += dy[i] * weight[c] * x[i];
    }
    const S dsquares = dr * -0.5 * r * r * r / static_cast<double>(width);
    for (Index c = 0; c < width; ++c) result.dx[t * width + c] += dsquares * 2.0 * x[t * width + c];
  }
  return result;
}

}  // namespace hearth::kernels::reference
