// Causal self-attention with rotary embedding, grouped key-value heads and, where the deck says
// so, normed queries and keys.
#pragma once

#include <optional>

#include "kernels/rotary.hpp"
#include "model/device_cell.hpp"
#include "model/norm.hpp"

namespace hearth {

template <class T>
class AttentionLayer {
 public:
  AttentionLayer(const ModelConfig& model, const Parameters<T>& parameters, const std::string& name,
                 const kernels::RotaryTable<Real<T>>& rotary, Workspace<T>& workspace);

  // y += output(attention(x)); x must live until backward.
  void forward(const DeviceCell& cell, const Array2<const T>& x,  // (tokens, hidden)
               const Array2<T>& y);                               // (tokens, hidden)

  // dx = the adjoint; adds the weights' gradients to their sums.
  void backward(const DeviceCell& cell, const Array2<const T>& dy, const Array2<T>& dx);

  // Take from a counting stack what the above take.
  static void count_forward(Activations& activations, const ModelConfig& model, Index tokens);
  static void count_backward(Activations& activations, const ModelConfig& model, Index tokens);

 private:
  struct Projection {
    Array2<const T> weight;  // (heads · head_dim, hidden)
    kernels::GradientSum<Real<T>> gradient;
    std::optional<Norm<T>> norm;
    Array2<T> rows = {};  // (tokens, heads · head_dim), rotated
  };
  Projection make_projection(const ModelConfig& model, const Parameters<T>& parameters,
                             const std::string& name);
  struct Mixed {
    Array2<T> rows;           // (tokens, heads · head_dim)
    Array2<Real<T>> log_sum;  // (tokens, heads)
  };
  struct Gradients {
    Array2<T> mixed, query, key, value;  // (tokens, heads · head_dim)
    Array2<Real<T>> delta;               // (tokens, heads)
    Array2<Real<T>> query_sum;           // (tokens, heads · head_dim), where it is needed
  };
  static Array2<T> take_projection(Activations& activations, Index tokens, Index width);
  static Array2<T> take_unnormed(Activations& activations, Index tokens, Index width);
  static Mixed take_mixed(Activations& activations, Index tokens, Index width, Index heads);
  static Gradients take_gradients(Activations& activations, Index tokens, Index width,
                                  Index kv_width, Index heads);

  // Project, norm, rotate; and back.
  void project(Projection& projection, const DeviceCell& cell, bool rotated);
  void project_backward(Projection& projection, const DeviceCell& cell, const Array2<T>& gradient,
                        bool rotated, const Array2<T>& dx, kernels::Output output);

  Workspace<T>& workspace_;
  const kernels::RotaryTable<Real<T>>& rotary_;
  Index heads_, head_dim_;
  double scale_;
  Projection query_, key_, value_;
  Array2<const T> output_;  // (hidden, heads · head_dim)
  kernels::GradientSum<Real<T>> output_gradient_;

  Array2<const T> x_;  // (tokens, hidden)
  Mixed mixed_;
};

}  // namespace hearth
