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

 private:
  Workspace<T>& workspace_;
  Array2<const T> gate_, up_, down_;  // (ffn, hidden), (ffn, hidden), (hidden, ffn)
  kernels::GradientSum gate_gradient_, up_gradient_, down_gradient_;

  Array2<const T> x_;                                  // (tokens, hidden)
  GrowingArray<T> gate_rows_{"gate"}, up_rows_{"up"};  // (tokens, ffn)
};

}  // namespace hearth
