// What layers share: the matrix library, the clock, and the memory of a cell.
#pragma once

#include <type_traits>

#include "base/timers.hpp"
#include "kernels/convert.hpp"
#include "kernels/fixed_point.hpp"
#include "kernels/matmul/matmul.hpp"
#include "model/activations.hpp"
#include "model/expert_observer.hpp"
#include "model/forward_check.hpp"
#include "model/step_trace.hpp"

namespace hearth {

template <class T>
struct Workspace {
  kernels::Matmul& matmul;
  PhaseTimers& timers;
  Activations activations = {};
  ForwardCheck* check = nullptr;                // looks at what forward makes; null: nothing does
  ExpertObserver<Real<T>>* observer = nullptr;  // sees what all experts make of all tokens
  StepTrace* trace = nullptr;                   // gets what is decided about single tokens

  // dW = dyᵀ x of one cell, added to the weight's gradient sum.
  void add_weight_gradient(const Array2<const T>& dy,  // (tokens, out)
                           const Array2<const T>& x,   // (tokens, in)
                           const kernels::GradientSum<Real<T>>& sum) {
    add_product<T>(dy, x, sum);
  }
  void add_real_weight_gradient(const Array2<const Real<T>>& dy, const Array2<const Real<T>>& x,
                                const kernels::GradientSum<Real<T>>& sum) {
    add_product<Real<T>>(dy, x, sum);
  }

  // One weight's gradient of one cell, before it is rounded.
  static Array2<Real<T>> take_weight_gradient(Activations& activations, Index out, Index in) {
    return activations.take<Real<T>>("weight gradient", out, in);  // (out, in)
  }
  static void count_weight_gradient(Activations& activations, Index out, Index in) {
    const Activations::Scope scratch(activations);
    take_weight_gradient(activations, out, in);
  }

  // For what is computed in Real<T>: an array itself where T is that, otherwise scratch beside it,
  // with its elements or to be put back into it.
  static Array2<Real<T>> take_real(Activations& activations, const Array2<T>& a) {
    if constexpr (std::is_same_v<T, Real<T>>) {
      return a;
    } else {
      return take_wide(activations, a.extent(0), a.extent(1));
    }
  }
  Array2<const Real<T>> in_real(const Array2<const T>& a) {
    if constexpr (std::is_same_v<T, Real<T>>) {
      return a;
    } else {
      const Array2<Real<T>> wide = take_wide(activations, a.extent(0), a.extent(1));
      kernels::convert<T, Real<T>>(a, wide);
      return wide;
    }
  }
  static void widen(const Array2<const T>& a, const Array2<Real<T>>& wide) {
    if constexpr (!std::is_same_v<T, Real<T>>) kernels::convert<T, Real<T>>(a, wide);
  }
  static void put_back(const Array2<const Real<T>>& wide, const Array2<T>& a) {
    if constexpr (!std::is_same_v<T, Real<T>>) kernels::convert<Real<T>, T>(wide, a);
  }
  static void count_real(Activations& activations, Index rows, Index width) {
    if constexpr (!std::is_same_v<T, Real<T>>) take_wide(activations, rows, width);
  }

 private:
  static Array2<Real<T>> take_wide(Activations& activations, Index rows, Index width) {
    return activations.take<Real<T>>("wide copy", rows, width);  // (rows, width)
  }

  template <class U>
  void add_product(const Array2<const U>& dy, const Array2<const U>& x,
                   const kernels::GradientSum<Real<T>>& sum) {
    if (dy.extent(0) == 0) return;
    if (sum.is_plain()) {
      const Array2<Real<T>> whole(sum.sum.plain.data(), dy.extent(1), x.extent(1));
      matmul.template multiply_tn<U>(dy, x, whole, kernels::Output::add);
      return;
    }
    const Activations::Scope scratch(activations);
    const Array2<Real<T>> dw = take_weight_gradient(activations, dy.extent(1), x.extent(1));
    matmul.template multiply_tn<U>(dy, x, dw);
    kernels::add_gradient<Real<T>>(Array1<const Real<T>>(dw.data(), dw.size()), sum);
  }
};

}  // namespace hearth
