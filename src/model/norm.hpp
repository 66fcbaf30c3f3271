// RMSNorm with its weight: of the residual stream, or of every head of queries or keys.
#pragma once

#include "kernels/rms_norm.hpp"
#include "model/parameters.hpp"
#include "model/workspace.hpp"

namespace hearth {

template <class T>
class Norm {
 public:
  Norm(const Parameters<T>& parameters, const std::string& name, double epsilon,
       Workspace<T>& workspace)
      : workspace_(workspace),
        weight_(parameters.vector(name)),
        gradient_(parameters.gradient(name)),
        epsilon_(epsilon) {}

  // y = norm(x) · weight; x must live until backward.
  void forward(const Array2<const T>& x, const Array2<T>& y) {  // (rows, width)
    x_ = x;
    kernels::rms_norm<T>(x, weight_, epsilon_, y, inverse_rms());
  }

  // dx += the adjoint; adds the weight's gradient to its sum.
  void backward(const Array2<const T>& dy, const Array2<T>& dx) {  // (rows, width)
    if (dy.extent(0) == 0) return;
    const Index width = dy.extent(1);
    const Array2<T> partial =
        workspace_.norm_partial.rows(kernels::row_blocks(dy.extent(0)), width);
    const Array2<T> dw = workspace_.weight_gradient.rows(1, width);
    const Array1<T> dweight(dw.data(), width);
    kernels::rms_norm_backward<T>(dy, x_, weight_, inverse_rms(), dx, dweight, partial);
    kernels::add_gradient<T>(dweight, gradient_);
  }

 private:
  Array1<T> inverse_rms() {
    return Array1<T>(inverse_rms_.rows(x_.extent(0), 1).data(), x_.extent(0));
  }

  Workspace<T>& workspace_;
  Array1<const T> weight_;  // (width)
  kernels::GradientSum gradient_;
  double epsilon_;
  Array2<const T> x_;                           // (rows, width)
  GrowingArray<T> inverse_rms_{"inverse rms"};  // (rows)
};

}  // namespace hearth
