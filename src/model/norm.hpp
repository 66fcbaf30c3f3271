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
    inverse_rms_ = take_inverse_rms(workspace_.activations, x.extent(0));
    kernels::rms_norm<T>(x, weight_, epsilon_, y, inverse_rms_);
  }

  // dx += the adjoint; adds the weight's gradient to its sum.
  void backward(const Array2<const T>& dy, const Array2<T>& dx) {  // (rows, width)
    if (dy.extent(0) == 0) return;
    const Activations::Scope scratch(workspace_.activations);
    const Scratch s = take_scratch(workspace_.activations, dy.extent(0), dy.extent(1));
    kernels::rms_norm_backward<T>(dy, x_, weight_, inverse_rms_, dx, s.dweight, s.partial);
    kernels::add_gradient<Real<T>>(s.dweight, gradient_);
  }

  // Take from a counting stack what the above take.
  static void count_forward(Activations& activations, Index rows) {
    take_inverse_rms(activations, rows);
  }
  static void count_backward(Activations& activations, Index rows, Index width) {
    const Activations::Scope scratch(activations);
    take_scratch(activations, rows, width);
  }

 private:
  struct Scratch {
    Array2<Real<T>> partial;  // (row blocks, width)
    Array1<Real<T>> dweight;  // (width)
  };
  static Array1<Real<T>> take_inverse_rms(Activations& activations, Index rows) {
    return activations.take<Real<T>>("inverse rms", rows);  // (rows)
  }
  static Scratch take_scratch(Activations& activations, Index rows, Index width) {
    return {activations.take<Real<T>>("norm partial", kernels::row_blocks(rows), width),
            activations.take<Real<T>>("norm gradient", width)};
  }

  Workspace<T>& workspace_;
  Array1<const T> weight_;  // (width)
  kernels::GradientSum<Real<T>> gradient_;
  double epsilon_;
  Array2<const T> x_;            // (rows, width)
  Array1<Real<T>> inverse_rms_;  // (rows)
};

}  // namespace hearth
