#include "model/moe_layer.hpp"

#include "base/error.hpp"
#include "kernels/permutation.hpp"
#include "kernels/rms_norm.hpp"
#include "kernels/statistics.hpp"
#include "kernels/swiglu.hpp"

namespace hearth {

using kernels::Output;
using kernels::Segment;

template <class T>
MoeLayer<T>::MoeLayer(const Config& config, const Parameters<T>& parameters,
                      const std::string& name, Index number, const ExpertPlacement& placement,
                      const DeviceExchange& exchange, Workspace<T>& workspace)
    : workspace_(workspace),
      placement_(placement),
      exchange_(exchange),
      moe_(config.moe),
      number_(number),
      router_(parameters.matrix(name + "router/weight")),
      router_gradient_(parameters.gradient(name + "router/weight")),
      gate_(parameters.experts(name + "experts/gate")),
      up_(parameters.experts(name + "experts/up")),
      down_(parameters.experts(name + "experts/down")),
      count_("count", moe_.experts),
      segment_begin_("segment begin", moe_.experts),
      slope_("balance slope", moe_.experts),
      router_sums_{Array1<double>("probability mass", moe_.experts), Array1<double>("entropy", 1),
                   Array1<double>("z squared", 1)} {
  if (moe_.shared_ffn > 0) shared_.emplace(parameters, name + "shared/", workspace);
}

template <class T>
void MoeLayer<T>::forward(const DeviceCell& cell, const StepTokens& step, const Array2<const T>& x,
                          const Array2<T>& y, StepSums* sums, IntervalCounts* counts) {
  x_ = x;
  const Index hidden = x.extent(1);
  {
    const auto phase = workspace_.timers.phase("router");
    choose_experts(cell, step, sums, counts);
  }
  plan_exchange(cell.tokens);
  const Array2<T> sent = sent_.rows(route_.sent, hidden);
  const Array2<T> received = received_.rows(route_.received, hidden);
  const Array2<T> outputs = outputs_.rows(route_.received, hidden);
  const Array2<T> returned = returned_.rows(route_.sent, hidden);
  {
    const auto phase = workspace_.timers.phase("dispatch");
    kernels::dispatch<T>(x, choice_, position_, segment_begin_, count_, sent);
    exchange_.template all_to_all<T>(sent, route_.sent_rows, received, route_.received_rows);
  }
  if (shared_) {
    const auto phase = workspace_.timers.phase("shared expert");
    shared_->forward(x, y);
  }
  {
    const auto phase = workspace_.timers.phase("experts");
    run_experts();
  }
  const auto phase = workspace_.timers.phase("combine");
  exchange_.template all_to_all<T>(outputs, route_.received_rows, returned, route_.sent_rows);
  kernels::combine<T>(returned, choice_, position_, segment_begin_, gate_value_, y);
}

template <class T>
void MoeLayer<T>::choose_experts(const DeviceCell& cell, const StepTokens& step, StepSums* sums,
                                 IntervalCounts* counts) {
  const Index tokens = cell.tokens, experts = moe_.experts, k = moe_.top_k;
  const Array2<T> logits = logits_.rows(tokens, experts);
  workspace_.matmul.template multiply_nt<T>(x_, router_, logits);
  probability_ = probability_rows_.rows(tokens, experts);
  choice_ = choice_rows_.rows(tokens, k);
  position_ = position_rows_.rows(tokens, k);
  gate_value_ = gate_rows_.rows(tokens, k);
  const Array1<T> log_sum(log_sum_.rows(tokens, 1).data(), tokens);
  kernels::route_top_k<T>(logits, probability_, choice_, gate_value_, log_sum);
  const Index blocks = kernels::row_blocks(tokens);
  kernels::count_copies(choice_, partial_counts_.rows(blocks, experts), count_, position_);
  if (sums == nullptr) return;

  kernels::sum_router<T>(probability_, log_sum, partial_sums_.rows(blocks, experts + 2),
                         router_sums_);
  loss_scale_ = {moe_.balance_loss, moe_.z_loss, static_cast<double>(tokens),
                 static_cast<double>(step.tokens), static_cast<double>(k)};
  const Array1<std::int64_t>& all = sums->values();
  kernels::router_losses(loss_scale_, router_sums_.probability_mass, router_sums_.z_squared, count_,
                         slope_, sums->router_loss(all, number_));
  kernels::add_counts(count_, sums->counts(all, number_));
  kernels::add_statistic(router_sums_.probability_mass, sums->mass(all, number_));
  kernels::add_statistic(router_sums_.entropy, sums->entropy(all, number_));
  if (counts == nullptr) return;
  const auto layer = static_cast<std::size_t>(number_);
  kernels::count_pairs(choice_, counts->pairs[layer]);
  kernels::count_labelled(cell.source, choice_, counts->sources[layer]);
  if (!counts->tokens.empty()) {
    kernels::count_labelled(cell.token, choice_, counts->tokens[layer]);
  }
}

// The host must know how many rows go where before they can be sent: the one place where a layer
// waits for the device.
template <class T>
void MoeLayer<T>::plan_exchange(Index tokens) {
  const auto phase = workspace_.timers.phase("wait for counts");
  const auto count = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), count_);
  const auto segment_begin = Kokkos::create_mirror_view(segment_begin_);
  const int ranks = exchange_.communicator().size();
  const auto most = static_cast<int>(placement_.experts_of(0).size());

  // Conservation: every token has k copies, none is lost.
  std::int64_t copies = 0;
  for (Index e = 0; e < moe_.experts; ++e) copies += count(e);
  if (copies != tokens * moe_.top_k) {
    throw failure("MoE layer ", number_, ": ", copies, " token copies of ", tokens, " tokens with ",
                  moe_.top_k, " experts each");
  }

  route_ = Route();
  std::vector<int> sent_counts(static_cast<std::size_t>(ranks * most), 0);
  for (int rank = 0; rank < ranks; ++rank) {
    Index rows = 0;
    int slot = rank * most;
    for (const Index expert : placement_.experts_of(rank)) {
      segment_begin(expert) = static_cast<int>(route_.sent + rows);
      rows += kernels::padded_rows(count(expert));
      sent_counts[static_cast<std::size_t>(slot++)] = count(expert);
    }
    route_.sent_rows.push_back(rows);
    route_.sent += rows;
  }
  Kokkos::deep_copy(segment_begin_, segment_begin);

  const std::vector<int> received_counts = exchange_.communicator().all_to_all(sent_counts, most);
  const auto local =
      static_cast<int>(placement_.experts_of(exchange_.communicator().rank()).size());
  for (int rank = 0; rank < ranks; ++rank) {
    Index rows = 0;
    auto& segments = route_.segments.emplace_back();
    for (int e = 0; e < local; ++e) {
      const Index padded =
          kernels::padded_rows(received_counts[static_cast<std::size_t>(rank * most + e)]);
      segments.push_back({route_.received + rows, padded, e});
      rows += padded;
    }
    route_.received_rows.push_back(rows);
    route_.received += rows;
  }
}

template <class T>
std::vector<Segment> MoeLayer<T>::all_segments() const {
  std::vector<Segment> all;
  for (const auto& segments : route_.segments) {
    all.insert(all.end(), segments.begin(), segments.end());
  }
  return all;
}

template <class T>
void MoeLayer<T>::run_experts() {
  const Index rows = route_.received, hidden = x_.extent(1), ffn = gate_.stack.rows;
  const Array2<T> x = received_.rows(rows, hidden), y = outputs_.rows(rows, hidden);
  const Array2<T> gate = expert_gate_.rows(rows, ffn), up = expert_up_.rows(rows, ffn);
  const Array2<T> inner = workspace_.inner.rows(rows, ffn);
  const std::vector<Segment> segments = all_segments();
  kernels::Matmul& matmul = workspace_.matmul;
  matmul.template grouped_nt<T>(x, gate_.stack, gate, segments);
  matmul.template grouped_nt<T>(x, up_.stack, up, segments);
  kernels::swiglu<T>(gate, up, inner);
  matmul.template grouped_nt<T>(inner, down_.stack, y, segments);
}

template <class T>
void MoeLayer<T>::run_experts_backward(const Array2<const T>& dy, const Array2<T>& dx) {
  const Index rows = route_.received, hidden = x_.extent(1), ffn = gate_.stack.rows;
  const Array2<T> x = received_.rows(rows, hidden);
  const Array2<T> gate = expert_gate_.rows(rows, ffn), up = expert_up_.rows(rows, ffn);
  const Array2<T> inner = workspace_.inner.rows(rows, ffn);
  const std::vector<Segment> segments = all_segments();
  kernels::Matmul& matmul = workspace_.matmul;

  // A weight's gradient is summed over the cells as integers: one cell, a home rank, at a time.
  const auto add_weight_gradient = [&](const Array2<const T>& d_out, const Array2<const T>& in,
                                       const ExpertWeights<T>& weights) {
    const kernels::MatrixStack<const T>& shape = weights.stack;
    const Index elements = weights.gradient.sum.extent(0);
    const Array2<T> scratch = workspace_.weight_gradient.rows(1, elements);
    if (shape.stride != shape.rows * shape.columns) Kokkos::deep_copy(Exec(), scratch, T(0));
    const kernels::MatrixStack<T> dw{scratch.data(), shape.stride, shape.rows, shape.columns};
    for (const auto& cell_segments : route_.segments) {
      Index cell_rows = 0;
      for (const Segment& segment : cell_segments) cell_rows += segment.rows;
      if (cell_rows == 0) continue;
      matmul.template grouped_tn<T>(d_out, in, dw, cell_segments);
      kernels::add_gradient<T>(Array1<const T>(scratch.data(), elements), weights.gradient);
    }
  };

  kernels::swiglu<T>(gate, up, inner);  // made again rather than kept
  add_weight_gradient(dy, inner, down_);
  matmul.template grouped_nn<T>(dy, down_.stack, inner, segments);
  kernels::swiglu_backward<T>(inner, gate, up, gate, up);  // gate and up become their gradients
  add_weight_gradient(gate, x, gate_);
  add_weight_gradient(up, x, up_);
  matmul.template grouped_nn<T>(gate, gate_.stack, dx, segments);
  matmul.template grouped_nn<T>(up, up_.stack, dx, segments, Output::add);
}

template <class T>
void MoeLayer<T>::backward(const DeviceCell& cell, const Array2<const T>& dy, const Array2<T>& dx) {
  const Index tokens = cell.tokens, hidden = x_.extent(1);
  const Array2<T> dgate = dgate_.rows(tokens, moe_.top_k);
  const Array2<T> returned = returned_.rows(route_.sent, hidden);
  const Array2<T> doutputs = outputs_.rows(route_.received, hidden);
  const Array2<T> dsent = sent_.rows(route_.sent, hidden);
  const Array2<T> dinputs = workspace_.expert_gradient.rows(route_.received, hidden);
  {
    const auto phase = workspace_.timers.phase("combine backward");
    // The returned outputs become their gradients.
    kernels::combine_backward<T>(dy, returned, choice_, position_, segment_begin_, count_,
                                 gate_value_, returned, dgate);
    exchange_.template all_to_all<T>(returned, route_.sent_rows, doutputs, route_.received_rows);
  }
  {
    const auto phase = workspace_.timers.phase("experts backward");
    run_experts_backward(doutputs, dinputs);
  }
  {
    const auto phase = workspace_.timers.phase("router backward");
    const Array2<T> dlogits = logits_.rows(tokens, moe_.experts);
    kernels::route_top_k_backward<T>(dgate, probability_, choice_,
                                     Array1<const T>(log_sum_.rows(tokens, 1).data(), tokens),
                                     slope_, kernels::z_slope(loss_scale_), dlogits);
    workspace_.add_weight_gradient(dlogits, x_, router_gradient_);
    workspace_.matmul.template multiply_nn<T>(dlogits, router_, dx);
  }
  if (shared_) {
    const auto phase = workspace_.timers.phase("shared expert backward");
    shared_->backward(dy, dx);
  }
  const auto phase = workspace_.timers.phase("dispatch backward");
  exchange_.template all_to_all<T>(dinputs, route_.received_rows, dsent, route_.sent_rows);
  kernels::dispatch_backward<T>(dsent, choice_, position_, segment_begin_, dx);
}

template class MoeLayer<float>;
template class MoeLayer<double>;

}  // namespace hearth
