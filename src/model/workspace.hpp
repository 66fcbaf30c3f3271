// What layers share: the matrix library, the clock, and the memory of a cell.
#pragma once

#include "base/timers.hpp"
#include "kernels/fixed_point.hpp"
#include "kernels/matmul/matmul.hpp"
#include "model/activations.hpp"

namespace hearth {

template <class T>
struct Workspace {
  kernels::Matmul& matmul;
  PhaseTimers& timers;
  Activations activations = {};

  // dW = dyᵀ x of one cell, added to the weight's gradient sum.
  void add_weight_gradient(const Array2<const T>& dy,  // (tokens, out)
                           const Array2<const T>& x,   // (tokens, in)
                           const kernels::GradientSum& sum) {
    if (dy.extent(0) == 0) return;
    const Activations::Scope scratch(activations);
    const Array2<T> dw = take_weight_gradient(activations, dy.extent(1), x.extent(1));
    matmul.template multiply_tn<T>(dy, x, dw);
    kernels::add_gradient<T>(Array1<const T>(dw.data(), dw.size()), sum);
  }

  // One weight's gradient of one cell, before it is rounded.
  static Array2<T> take_weight_gradient(Activations& activations, Index out, Index in) {
    return activations.take<T>("weight gradient", out, in);  // (out, in)
  }
  static void count_weight_gradient(Activations& activations, Index out, Index in) {
    const Activations::Scope scratch(activations);
    take_weight_gradient(activations, out, in);
  }
};

}  // namespace hearth
