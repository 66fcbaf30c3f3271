#include "model/light_experts.hpp"

namespace hearth {

template <class T>
LightExperts<T>::LightExperts(const Config& config, const Parameters<T>& parameters,
                              const std::string& name, Index moe_layer, Workspace<T>& workspace)
    : workspace_(workspace) {
  const auto experts = static_cast<int>(config.moe.experts.at(moe_layer));
  range_ = {experts, experts + static_cast<int>(config.moe.copy_experts),
            static_cast<int>(config.moe.constant_experts)};
  if (range_.constants == 0) return;
  value_ = parameters.matrix(name + "constant/value");
  mix_ = parameters.matrix(name + "constant/mix");
  value_gradient_ = parameters.gradient(name + "constant/value");
  mix_gradient_ = parameters.gradient(name + "constant/mix");
}

template <class T>
typename LightExperts<T>::Kept LightExperts<T>::take_kept(Activations& activations, Index tokens,
                                                          Index constants) {
  return {take_mix(activations, tokens, constants), activations.take<R>("light own", tokens, 1),
          activations.take<R>("light share", tokens, constants)};
}

template <class T>
Array2<Real<T>> LightExperts<T>::take_mix(Activations& activations, Index tokens, Index constants) {
  return activations.take<R>("constant mix", tokens, 2 * constants);  // (tokens, 2 · constants)
}

template <class T>
Array2<Real<T>> LightExperts<T>::take_shared(Activations& activations, Index tokens, Index hidden) {
  return activations.take<R>("constant outputs", tokens, hidden);  // (tokens, hidden)
}

template <class T>
void LightExperts<T>::forward(const Array2<const T>& x, const Array2<const int>& choice,
                              const Array2<const R>& gate, const Array2<T>& y) {
  Activations& activations = workspace_.activations;
  const Index tokens = x.extent(0), constants = range_.constants;
  x_ = x;
  choice_ = choice;
  gate_ = gate;
  kept_ = take_kept(activations, tokens, constants);
  const Activations::Scope scope(activations);
  Array2<R> shared;
  if (constants > 0) {
    workspace_.matmul.template multiply_nt<R>(workspace_.in_real(x), workspace_.in_real(mix_),
                                              kept_.mix);
  }
  kernels::mix_light<R>(range_, choice, gate, kept_.mix, kept_.own, kept_.share);
  if (constants > 0) {
    shared = take_shared(activations, tokens, x.extent(1));
    workspace_.matmul.template multiply_nn<R>(kept_.share, workspace_.in_real(value_), shared);
  }
  kernels::add_light<T>(x, kept_.own, shared, y);
}

template <class T>
void LightExperts<T>::backward_gates(const Array2<const T>& dy, const Array2<R>& dgate) {
  Activations& activations = workspace_.activations;
  const Index tokens = dy.extent(0), constants = range_.constants;
  const Kept gradients = take_kept(activations, tokens, constants);
  dmix_ = gradients.mix;
  const Activations::Scope scope(activations);
  kernels::light_slope<T>(dy, x_, gradients.own);
  Array2<const R> wide_dy;
  if (constants > 0) {
    wide_dy = workspace_.in_real(dy);
    workspace_.matmul.template multiply_nt<R>(wide_dy, workspace_.in_real(value_), gradients.share);
  }
  kernels::mix_light_backward<R>(range_, choice_, gate_, kept_.mix, gradients.own, gradients.share,
                                 dgate, dmix_);
  if (constants == 0) return;
  workspace_.add_real_weight_gradient(kept_.share, wide_dy, value_gradient_);
  workspace_.add_real_weight_gradient(dmix_, workspace_.in_real(x_), mix_gradient_);
}

template <class T>
void LightExperts<T>::backward_input(const Array2<const T>& dy, const Array2<T>& dx) {
  const Activations::Scope scope(workspace_.activations);
  Array2<R> shared;
  if (range_.constants > 0) {
    shared = take_shared(workspace_.activations, dy.extent(0), dy.extent(1));
    workspace_.matmul.template multiply_nn<R>(dmix_, workspace_.in_real(mix_), shared);
  }
  kernels::add_light<T>(dy, kept_.own, shared, dx);
}

template <class T>
void LightExperts<T>::count_forward(Activations& activations, const Config& config, Index tokens) {
  const Index constants = config.moe.constant_experts, hidden = config.model.hidden;
  take_kept(activations, tokens, constants);
  if (constants == 0) return;
  const Activations::Scope scope(activations);
  Workspace<T>::count_real(activations, tokens, hidden);
  Workspace<T>::count_real(activations, 2 * constants, hidden);
  take_shared(activations, tokens, hidden);
  Workspace<T>::count_real(activations, constants, hidden);
}

template <class T>
void LightExperts<T>::count_backward_gates(Activations& activations, const Config& config,
                                           Index tokens) {
  const Index constants = config.moe.constant_experts, hidden = config.model.hidden;
  take_kept(activations, tokens, constants);
  if (constants == 0) return;
  const Activations::Scope scope(activations);
  Workspace<T>::count_real(activations, tokens, hidden);
  Workspace<T>::count_real(activations, constants, hidden);
  Workspace<T>::count_weight_gradient(activations, constants, hidden);
  Workspace<T>::count_real(activations, tokens, hidden);
  Workspace<T>::count_weight_gradient(activations, 2 * constants, hidden);
}

template <class T>
void LightExperts<T>::count_backward_input(Activations& activations, const Config& config,
                                           Index tokens) {
  const Index constants = config.moe.constant_experts, hidden = config.model.hidden;
  if (constants == 0) return;
  const Activations::Scope scope(activations);
  take_shared(activations, tokens, hidden);
  Workspace<T>::count_real(activations, 2 * constants, hidden);
}

template class LightExperts<float>;
template class LightExperts<double>;
template class LightExperts<bfloat16>;

}  // namespace hearth
