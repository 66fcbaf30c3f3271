#include "model/attention_layer.hpp"

#include <cmath>

namespace hearth {

using kernels::Output;

template <class T>
AttentionLayer<T>::AttentionLayer(const ModelConfig& model, const Parameters<T>& parameters,
                                  const std::string& name, const kernels::RotaryTable<T>& rotary,
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
Array2<T> AttentionLayer<T>::project(Projection& projection, const DeviceCell& cell, bool rotated) {
  const Index width = projection.weight.extent(0);
  const Array2<T> rows = projection.rows.rows(cell.tokens, width);
  if (projection.norm) {
    const Array2<T> unnormed = projection.unnormed.rows(cell.tokens, width);
    workspace_.matmul.template multiply_nt<T>(x_, projection.weight, unnormed);
    projection.norm->forward(by_head(unnormed, head_dim_), by_head(rows, head_dim_));
  } else {
    workspace_.matmul.template multiply_nt<T>(x_, projection.weight, rows);
  }
  if (rotated) kernels::rotate<T>(rows, head_dim_, cell.position, rotary_);
  return rows;
}

template <class T>
void AttentionLayer<T>::project_backward(Projection& projection, const DeviceCell& cell,
                                         const Array2<T>& gradient, bool rotated,
                                         const Array2<T>& dx, Output output) {
  Array2<T> dprojected = gradient;
  if (rotated) kernels::rotate_backward<T>(gradient, head_dim_, cell.position, rotary_);
  if (projection.norm) {
    dprojected = dunnormed_.rows(cell.tokens, gradient.extent(1));
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
  const Array2<T> q = project(query_, cell, true);
  const Array2<T> k = project(key_, cell, true);
  const Array2<T> v = project(value_, cell, false);
  const Array2<T> mixed = mixed_.rows(cell.tokens, q.extent(1));
  kernels::attention<T>(cell.attention, q, k, v, head_dim_, scale_, mixed,
                        log_sum_.rows(cell.tokens, heads_));
  workspace_.matmul.template multiply_nt<T>(mixed, output_, y, Output::add);
}

template <class T>
void AttentionLayer<T>::backward(const DeviceCell& cell, const Array2<const T>& dy,
                                 const Array2<T>& dx) {
  const Index tokens = cell.tokens;
  const Index width = query_.weight.extent(0), kv_width = key_.weight.extent(0);
  const Array2<T> q = query_.rows.rows(tokens, width), k = key_.rows.rows(tokens, kv_width),
                  v = value_.rows.rows(tokens, kv_width), mixed = mixed_.rows(tokens, width);
  const Array2<T> dmixed = dmixed_.rows(tokens, width), dq = dquery_.rows(tokens, width),
                  dk = dkey_.rows(tokens, kv_width), dv = dvalue_.rows(tokens, kv_width);
  workspace_.add_weight_gradient(dy, mixed, output_gradient_);
  workspace_.matmul.template multiply_nn<T>(dy, output_, dmixed);
  kernels::attention_backward<T>(cell.attention, dmixed, q, k, v, mixed,
                                 log_sum_.rows(tokens, heads_), head_dim_, scale_,
                                 delta_.rows(tokens, heads_), dq, dk, dv);
  project_backward(query_, cell, dq, true, dx, Output::assign);
  project_backward(key_, cell, dk, true, dx, Output::add);
  project_backward(value_, cell, dv, false, dx, Output::add);
}

template class AttentionLayer<float>;
template class AttentionLayer<double>;

}  // namespace hearth
