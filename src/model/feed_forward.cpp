#include "model/feed_forward.hpp"

#include "kernels/swiglu.hpp"

namespace hearth {

template <class T>
FeedForward<T>::FeedForward(const Parameters<T>& parameters, const std::string& name,
                            Workspace<T>& workspace)
    : workspace_(workspace),
      gate_(parameters.matrix(name + "gate")),
      up_(parameters.matrix(name + "up")),
      down_(parameters.matrix(name + "down")),
      gate_gradient_(parameters.gradient(name + "gate")),
      up_gradient_(parameters.gradient(name + "up")),
      down_gradient_(parameters.gradient(name + "down")) {}

template <class T>
typename FeedForward<T>::Kept FeedForward<T>::take_kept(Activations& activations, Index tokens,
                                                        Index ffn) {
  return {activations.take<T>("gate", tokens, ffn), activations.take<T>("up", tokens, ffn)};
}

template <class T>
Array2<T> FeedForward<T>::take_inner(Activations& activations, Index tokens, Index ffn) {
  return activations.take<T>("inner", tokens, ffn);  // (tokens, ffn)
}

template <class T>
void FeedForward<T>::forward(const Array2<const T>& x, const Array2<T>& y) {
  x_ = x;
  const Index tokens = x.extent(0), ffn = gate_.extent(0);
  kept_ = take_kept(workspace_.activations, tokens, ffn);
  const Activations::Scope scratch(workspace_.activations);
  const Array2<T> inner = take_inner(workspace_.activations, tokens, ffn);
  const auto [gate, up] = kept_;
  kernels::Matmul& matmul = workspace_.matmul;
  matmul.template multiply_nt<T>(x, gate_, gate);
  matmul.template multiply_nt<T>(x, up_, up);
  kernels::swiglu<T>(gate, up, inner);
  matmul.template multiply_nt<T>(inner, down_, y, kernels::Output::add);
}

template <class T>
void FeedForward<T>::backward(const Array2<const T>& dy, const Array2<T>& dx) {
  const Activations::Scope scratch(workspace_.activations);
  const Array2<T> inner = take_inner(workspace_.activations, dy.extent(0), gate_.extent(0));
  const auto [gate, up] = kept_;
  kernels::Matmul& matmul = workspace_.matmul;
  kernels::swiglu<T>(gate, up, inner);  // made again rather than kept
  workspace_.add_weight_gradient(dy, inner, down_gradient_);
  matmul.template multiply_nn<T>(dy, down_, inner);
  kernels::swiglu_backward<T>(inner, gate, up, gate, up);  // gate and up become their gradients
  workspace_.add_weight_gradient(gate, x_, gate_gradient_);
  workspace_.add_weight_gradient(up, x_, up_gradient_);
  matmul.template multiply_nn<T>(gate, gate_, dx, kernels::Output::add);
  matmul.template multiply_nn<T>(up, up_, dx, kernels::Output::add);
}

template <class T>
void FeedForward<T>::count_forward(Activations& activations, Index tokens, Index ffn) {
  take_kept(activations, tokens, ffn);
  const Activations::Scope scratch(activations);
  take_inner(activations, tokens, ffn);
}

template <class T>
void FeedForward<T>::count_backward(Activations& activations, Index tokens, Index hidden,
                                    Index ffn) {
  const Activations::Scope scratch(activations);
  take_inner(activations, tokens, ffn);
  Workspace<T>::count_weight_gradient(activations, hidden, ffn);
}

template class FeedForward<float>;
template class FeedForward<double>;
template class FeedForward<bfloat16>;

}  // namespace hearth
