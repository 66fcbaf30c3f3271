// A layer's experts without matrices: computed where the token is.
#pragma once

#include "kernels/light_experts.hpp"
#include "model/parameters.hpp"
#include "model/workspace.hpp"

namespace hearth {

template <class T>
class LightExperts {
 public:
  using R = Real<T>;

  LightExperts(const Config& config, const Parameters<T>& parameters, const std::string& name,
               Index moe_layer, Workspace<T>& workspace);

  // y += Σ gate · light expert(x). x, choice and gate must live until backward.
  void forward(const Array2<const T>& x, const Array2<const int>& choice,
               const Array2<const R>& gate, const Array2<T>& y);

  // dgate of the light experts, and the weights' gradients; then dx += the adjoint. What the first
  // takes from the stack must live until the second.
  void backward_gates(const Array2<const T>& dy, const Array2<R>& dgate);  // (tokens, slots)
  void backward_input(const Array2<const T>& dy, const Array2<T>& dx);     // (tokens, hidden)

  static void count_forward(Activations& activations, const Config& config, Index tokens);
  static void count_backward_gates(Activations& activations, const Config& config, Index tokens);
  static void count_backward_input(Activations& activations, const Config& config, Index tokens);

 private:
  // Kept for backward.
  struct Kept {
    Array2<R> mix;    // (tokens, 2 · constants)
    Array2<R> own;    // (tokens, 1)
    Array2<R> share;  // (tokens, constants)
  };
  static Kept take_kept(Activations& activations, Index tokens, Index constants);
  static Array2<R> take_mix(Activations& activations, Index tokens, Index constants);
  static Array2<R> take_shared(Activations& activations, Index tokens, Index hidden);

  Workspace<T>& workspace_;
  kernels::LightRange range_;
  Array2<const T> value_, mix_;  // (constants, hidden), (2 · constants, hidden)
  kernels::GradientSum<R> value_gradient_, mix_gradient_;

  Array2<const T> x_;         // (tokens, hidden)
  Array2<const int> choice_;  // (tokens, slots)
  Array2<const R> gate_;      // (tokens, slots)
  Kept kept_;
  Array2<R> dmix_;  // (tokens, 2 · constants)
};

}  // namespace hearth
