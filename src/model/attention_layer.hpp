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
                 const kernels::RotaryTable<T>& rotary, Workspace<T>& workspace);

  // y += output(attention(x)); x must live until backward.
  void forward(const DeviceCell& cell, const Array2<const T>& x,  // (tokens, hidden)
               const Array2<T>& y);                               // (tokens, hidden)

  // dx = the adjoint; adds the weights' gradients to their sums.
  void backward(const DeviceCell& cell, const Array2<const T>& dy, const Array2<T>& dx);

 private:
  struct Projection {
    Array2<const T> weight;  // (heads · head_dim, hidden)
    kernels::GradientSum gradient;
    std::optional<Norm<T>> norm;
    GrowingArray<T> rows{"projection"};      // (tokens, heads · head_dim), rotated
    GrowingArray<T> unnormed{"projection"};  // the same before the norm, if there is one
  };
  Projection make_projection(const ModelConfig& model, const Parameters<T>& parameters,
                             const std::string& name);
  // Project, norm, rotate; and back.
  Array2<T> project(Projection& projection, const DeviceCell& cell, bool rotated);
  void project_backward(Projection& projection, const DeviceCell& cell, const Array2<T>& gradient,
                        bool rotated, const Array2<T>& dx, kernels::Output output);

  Workspace<T>& workspace_;
  const kernels::RotaryTable<T>& rotary_;
  Index heads_, head_dim_;
  double scale_;
  Projection query_, key_, value_;
  Array2<const T> output_;  // (hidden, heads · head_dim)
  kernels::GradientSum output_gradient_;

  Array2<const T> x_;                   // (tokens, hidden)
  GrowingArray<T> mixed_{"attention"};  // (tokens, heads · head_dim)
  GrowingArray<T> log_sum_{"attention log sum"}, delta_{"attention delta"};  // (tokens, heads)
  GrowingArray<T> dmixed_{"d attention"}, dquery_{"d query"}, dkey_{"d key"}, dvalue_{"d value"};
  GrowingArray<T> dunnormed_{"d unnormed"};
};

}  // namespace hearth
