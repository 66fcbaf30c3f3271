// What layers share: the matrix library, the clock, and scratch whose contents nobody keeps.
#pragma once

#include "base/timers.hpp"
#include "kernels/fixed_point.hpp"
#include "kernels/matmul/matmul.hpp"
#include "model/growing_array.hpp"

namespace hearth {

template <class T>
struct Workspace {
  kernels::Matmul& matmul;
  PhaseTimers& timers;

  GrowingArray<T> weight_gradient{"weight gradient"};  // one tensor's, of one cell
  GrowingArray<T> inner{"inner"};                      // (tokens or rows, ffn)
  GrowingArray<T> expert_gradient{"expert gradient"};  // (rows, hidden)
  GrowingArray<T> norm_partial{"norm partial"};        // (row blocks, width)

  // dW = dyᵀ x of one cell, added to the weight's gradient sum.
  void add_weight_gradient(const Array2<const T>& dy,  // (tokens, out)
                           const Array2<const T>& x,   // (tokens, in)
                           const kernels::GradientSum& sum) {
    if (dy.extent(0) == 0) return;
    const Array2<T> dw = weight_gradient.rows(dy.extent(1), x.extent(1));
    matmul.template multiply_tn<T>(dy, x, dw);
    kernels::add_gradient<T>(Array1<const T>(dw.data(), dw.size()), sum);
  }
};

}  // namespace hearth
