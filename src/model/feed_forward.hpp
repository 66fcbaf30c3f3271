// A SwiGLU feed-forward layer that every token visits: the dense layers' and the shared expert.
#pragma once

#include "model/parameters.hpp"
#include "model/workspace.hpp"

namespace hearth {

template <class T>
class FeedForward {
 public:
  // `name`: prefix of gate, up and down in the tensor table.
  FeedForward(const Parameters<T>& parameters, const std::string& name, Workspace<T>& workspace);

  // y += down(silu(gate(x)) · up(x)); x must live until backward.
  void forward(const Array2<const T>& x, const Array2<T>& y);  // (tokens, hidden)

  // dx += the adjoint; adds the weights' gradients to their sums.
  void backward(const Array2<const T>& dy, const Array2<T>& dx);  // (tokens, hidden)

  // Take from a counting stack what the above take.
  static void count_forward(Activations& activations, Index tokens, Index ffn);
  static void count_backward(Activations& activations, Index tokens, Index hidden, Index ffn);

 private:
  struct Kept {
    Array2<T> gate, up;  // (tokens, ffn)
  };
  static Kept take_kept(Activations& activations, Index tokens, Index ffn);
  static Array2<T> take_inner(Activations& activations, Index tokens, Index ffn);

  Workspace<T>& workspace_;
  Array2<const T> gate_, up_, down_;  // (ffn, hidden), (ffn, hidden), (hidden, ffn)
  kernels::GradientSum<Real<T>> gate_gradient_, up_gradient_, down_gradient_;

  Array2<const T> x_;  // (tokens, hidden)
  Kept kept_;
};

}  // namespace hearth
