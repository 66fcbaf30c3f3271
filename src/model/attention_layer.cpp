#include "model/attention_layer.hpp"

#include <cmath>

namespace hearth {

using kernels::Output;

static_assert(largest_head_width == kernels::max_head_dim);

template <class T>
AttentionLayer<T>::AttentionLayer(const ModelConfig& model, const Parameters<T>& parameters,
                                  const std::string& name,
                                  const kernels::RotaryTable<Real<T>>& rotary,
                                  Workspace<T>& workspace)
    : workspace_(workspace),
      rotary_(rotary),
      heads_(model.heads),
      head_dim_(model.head_width()),
      scale_(1.0 / std::sqrt(static_cast<double>(head_dim_))),
      query_(make_projection(model, parameters, name + "query")),
      key_(make_projection(model, parameters, name + "key")),
      value_(make_projection(model, parameters, name + "value")),
      output_(parameters.matrix(name + "output")),
      output_gradient_(parameters.gradient(name + "output")) {}

template <class T>
typename AttentionLayer<T>::Projection AttentionLayer<T>::make_projection(
    const ModelConfig& model, const Parameters<T>& parameters, const std::string& name) {
  Projection projection{parameters.matrix(name), parameters.gradient(name), std::nullopt};
  if (model.qk_norm && !name.ends_with("value")) {
    projection.norm.emplace(parameters, name + "_norm", model.norm_epsilon, workspace_);
  }
  return projection;
}

namespace {

// (tokens, heads · head_dim) as (tokens · heads, head_dim).
template <class T>
Array2<T> by_head(const Array2<T>& a, Index head_dim) {
  return Array2<T>(a.data(), a.size() / static_cast<std::size_t>(head_dim), head_dim);
}

}  // namespace

template <class T>
Array2<T> AttentionLayer<T>::take_projection(Activations& activations, Index tokens, Index width) {
  return activations.take<T>("projection", tokens, width);  // (tokens, heads · head_dim)
}

// Rows before their norm, and in backward their gradient.
template <class T>
Array2<T> AttentionLayer<T>::take_unnormed(Activations& activations, Index tokens, Index width) {
  return activations.take<T>("unnormed projection", tokens, width);  // (tokens, heads · head_dim)
}

template <class T>
typename AttentionLayer<T>::Mixed AttentionLayer<T>::take_mixed(Activations& activations,
                                                                Index tokens, Index width,
                                                                Index heads) {
  return {activations.take<T>("attention", tokens, width),
          activations.take<Real<T>>("attention log sum", tokens, heads)};
}

template <class T>
typename AttentionLayer<T>::Gradients AttentionLayer<T>::take_gradients(Activations& activations,
                                                                        Index tokens, Index width,
                                                                        Index kv_width,
                                                                        Index heads) {
  return {activations.take<T>("d attention", tokens, width),
          activations.take<T>("d query", tokens, width),
          activations.take<T>("d key", tokens, kv_width),
          activations.take<T>("d value", tokens, kv_width),
          activations.take<Real<T>>("attention delta", tokens, heads),
          activations.take<Real<T>>("d query sum", kernels::attention_needs_dq_sum<T> ? tokens : 0,
                                    width)};
}

template <class T>
void AttentionLayer<T>::project(Projection& projection, const DeviceCell& cell, bool rotated) {
  const Index width = projection.weight.extent(0);
  projection.rows = take_projection(workspace_.activations, cell.tokens, width);
  if (projection.norm) {
    const Array2<T> unnormed = take_unnormed(workspace_.activations, cell.tokens, width);
    workspace_.matmul.template multiply_nt<T>(x_, projection.weight, unnormed);
    projection.norm->forward(by_head(unnormed, head_dim_), by_head(projection.rows, head_dim_));
  } else {
    workspace_.matmul.template multiply_nt<T>(x_, projection.weight, projection.rows);
  }
  if (rotated) kernels::rotate<T>(projection.rows, head_dim_, cell.position, rotary_);
}

template <class T>
void AttentionLayer<T>::project_backward(Projection& projection, const DeviceCell& cell,
                                         const Array2<T>& gradient, bool rotated,
                                         const Array2<T>& dx, Output output) {
  const Activations::Scope scratch(workspace_.activations);
  Array2<T> dprojected = gradient;
  if (rotated) kernels::rotate_backward<T>(gradient, head_dim_, cell.position, rotary_);
  if (projection.norm) {
    dprojected = take_unnormed(workspace_.activations, cell.tokens, gradient.extent(1));
    Kokkos::deep_copy(Exec(), dprojected, T(0));
    projection.norm->backward(by_head(gradient, head_dim_), by_head(dprojected, head_dim_));
  }
  workspace_.add_weight_gradient(dprojected, x_, projection.gradient);
  workspace_.matmul.template multiply_nn<T>(dprojected, projection.weight, dx, output);
}

template <class T>
void AttentionLayer<T>::forward(const DeviceCell& cell, const Array2<const T>& x,
                                const Array2<T>& y) {
  x_ = x;
  project(query_, cell, true);
  project(key_, cell, true);
  project(value_, cell, false);
  mixed_ = take_mixed(workspace_.activations, cell.tokens, query_.weight.extent(0), heads_);
  kernels::attention<T>(cell.attention, query_.rows, key_.rows, value_.rows, head_dim_, scale_,
                        mixed_.rows, mixed_.log_sum);
  workspace_.matmul.template multiply_nt<T>(mixed_.rows, output_, y, Output::add);
}

template <class T>
void AttentionLayer<T>::backward(const DeviceCell& cell, const Array2<const T>& dy,
                                 const Array2<T>& dx) {
  const Activations::Scope scratch(workspace_.activations);
  const Gradients d = take_gradients(workspace_.activations, cell.tokens, query_.weight.extent(0),
                                     key_.weight.extent(0), heads_);
  workspace_.add_weight_gradient(dy, mixed_.rows, output_gradient_);
  workspace_.matmul.template multiply_nn<T>(dy, output_, d.mixed);
  kernels::attention_backward<T>(cell.attention, d.mixed, query_.rows, key_.rows, value_.rows,
                                 mixed_.rows, mixed_.log_sum, head_dim_, scale_, d.delta, d.query,
                                 d.key, d.value, d.query_sum);
  project_backward(query_, cell, d.query, true, dx, Output::assign);
  project_backward(key_, cell, d.key, true, dx, Output::add);
  project_backward(value_, cell, d.value, false, dx, Output::add);
}

template <class T>
void AttentionLayer<T>::count_forward(Activations& activations, const ModelConfig& model,
                                      Index tokens) {
  const Index width = model.heads * model.head_width();
  const Index kv_width = model.key_value_heads() * model.head_width();
  const auto count_projection = [&](Index columns, bool normed) {
    take_projection(activations, tokens, columns);
    if (!normed) return;
    take_unnormed(activations, tokens, columns);
    Norm<T>::count_forward(activations, tokens * columns / model.head_width());
  };
  count_projection(width, model.qk_norm);
  count_projection(kv_width, model.qk_norm);
  count_projection(kv_width, false);
  take_mixed(activations, tokens, width, model.heads);
}

template <class T>
void AttentionLayer<T>::count_backward(Activations& activations, const ModelConfig& model,
                                       Index tokens) {
  const Index width = model.heads * model.head_width();
  const Index kv_width = model.key_value_heads() * model.head_width();
  const Activations::Scope scratch(activations);
  take_gradients(activations, tokens, width, kv_width, model.heads);
  Workspace<T>::count_weight_gradient(activations, model.hidden, width);
  const auto count_projection = [&](Index columns, bool normed) {
    const Activations::Scope inner(activations);
    if (normed) {
      take_unnormed(activations, tokens, columns);
      Norm<T>::count_backward(activations, tokens * columns / model.head_width(),
                              model.head_width());
    }
    Workspace<T>::count_weight_gradient(activations, columns, model.hidden);
  };
  count_projection(width, model.qk_norm);
  count_projection(kv_width, model.qk_norm);
  count_projection(kv_width, false);
}

template class AttentionLayer<float>;
template class AttentionLayer<double>;
template class AttentionLayer<bfloat16>;

}  // namespace hearth
