#include "model/moe_layer.hpp"

#include <algorithm>

#include "kernels/permutation.hpp"
#include "kernels/rms_norm.hpp"
#include "kernels/statistics.hpp"
#include "kernels/swiglu.hpp"
#include "kernels/team.hpp"
#include "model/conservation.hpp"

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
typename MoeLayer<T>::Routing MoeLayer<T>::take_routing(Activations& activations,
                                                        const MoeConfig& moe, Index tokens) {
  return {activations.take<Real<T>>("router probability", tokens, moe.experts),
          activations.take<Real<T>>("router gates", tokens, moe.top_k),
          activations.take<int>("positions", tokens, moe.top_k),
          activations.take<Real<T>>("router log sum", tokens)};
}

template <class T>
typename MoeLayer<T>::Rows MoeLayer<T>::take_rows(Activations& activations,
                                                  const ExchangeRows& rows, Index hidden,
                                                  Index ffn) {
  return {activations.take<T>("received rows", rows.received, hidden),
          activations.take<T>("returned rows", rows.sent, hidden),
          activations.take<T>("expert gate", rows.received, ffn),
          activations.take<T>("expert up", rows.received, ffn)};
}

template <class T>
typename MoeLayer<T>::RouterScratch MoeLayer<T>::take_router_scratch(Activations& activations,
                                                                     const MoeConfig& moe,
                                                                     Index tokens) {
  const Index blocks = kernels::row_blocks(tokens);
  return {take_router_logits(activations, moe, tokens),
          activations.take<int>("partial counts", blocks, moe.experts),
          activations.take<double>("partial router sums", blocks, moe.experts + 2)};
}

template <class T>
Array2<Real<T>> MoeLayer<T>::take_router_logits(Activations& activations, const MoeConfig& moe,
                                                Index tokens) {
  return activations.take<Real<T>>("router logits", tokens, moe.experts);  // (tokens, experts)
}

template <class T>
Array2<T> MoeLayer<T>::take_outputs(Activations& activations, const ExchangeRows& rows,
                                    Index hidden, const Array2<T>& returned) {
  if (rows.alone()) return returned;
  return activations.take<T>("expert outputs", rows.received, hidden);  // (received, hidden)
}

template <class T>
Array2<T> MoeLayer<T>::take_inner(Activations& activations, Index rows, Index ffn) {
  return activations.take<T>("expert inner", rows, ffn);  // (received, ffn)
}

template <class T>
Array2<Real<T>> MoeLayer<T>::take_gate_gradient(Activations& activations, const MoeConfig& moe,
                                                Index tokens) {
  return activations.take<Real<T>>("d gates", tokens, moe.top_k);  // (tokens, k)
}

template <class T>
Array1<Real<T>> MoeLayer<T>::take_stack_gradient(Activations& activations, Index elements) {
  return activations.take<Real<T>>("expert weight gradient", elements);  // (local_experts · stride)
}

template <class T>
void MoeLayer<T>::forward(const DeviceCell& cell, const StepTokens& step, const Array2<const T>& x,
                          const Array2<T>& y, const Array2<int>& choice, StepSums* sums,
                          IntervalCounts* counts) {
  x_ = x;
  choice_ = choice;
  Activations& activations = workspace_.activations;
  const Index hidden = x.extent(1);
  {
    const auto phase = workspace_.timers.phase("router");
    choose_experts(cell, step, sums);
    if (counts != nullptr) count_choices(cell, *counts);
  }
  plan_exchange(cell.tokens, sums);
  rows_ = take_rows(activations, exchange_rows(), hidden, gate_.stack.rows);
  // The returned rows' place is free until they come back.
  const Array2<T> sent = exchange_rows().alone() ? rows_.received : rows_.returned;
  {
    const auto phase = workspace_.timers.phase("dispatch");
    kernels::dispatch<T>(x, choice_, routing_.position, segment_begin_, count_, sent);
  }
  auto outward = send(sent, rows_.received);
  if (shared_) {
    const auto phase = workspace_.timers.phase("shared expert");
    shared_->forward(x, y);
  }
  finish(outward);
  const Activations::Scope scratch(activations);
  const Array2<T> outputs = take_outputs(activations, exchange_rows(), hidden, rows_.returned);
  {
    const auto phase = workspace_.timers.phase("experts");
    run_experts(outputs);
  }
  if (workspace_.check != nullptr) check_experts(outputs);
  auto homeward = send_back(outputs, rows_.returned);
  finish(homeward);
  const auto phase = workspace_.timers.phase("combine");
  kernels::combine<T>(rows_.returned, choice_, routing_.position, segment_begin_,
                      routing_.gate_value, y);
}

template <class T>
void MoeLayer<T>::choose_experts(const DeviceCell& cell, const StepTokens& step, StepSums* sums) {
  const Index tokens = cell.tokens, k = moe_.top_k;
  routing_ = take_routing(workspace_.activations, moe_, tokens);
  const Activations::Scope scope(workspace_.activations);
  const RouterScratch scratch = take_router_scratch(workspace_.activations, moe_, tokens);
  // The router computes in Real<T>: a rounded logit would send tokens elsewhere.
  workspace_.matmul.template multiply_nt<Real<T>>(workspace_.in_real(x_),
                                                  workspace_.in_real(router_), scratch.logits);
  if (workspace_.check != nullptr) workspace_.check->template router<Real<T>>(scratch.logits);
  kernels::route_top_k<Real<T>>(scratch.logits, routing_.probability, choice_, routing_.gate_value,
                                routing_.log_sum);
  kernels::count_copies(choice_, scratch.partial_counts, count_, routing_.position);
  if (sums == nullptr) return;

  kernels::sum_router<Real<T>>(routing_.probability, routing_.log_sum, scratch.partial_sums,
                               router_sums_);
  loss_scale_ = {moe_.balance_loss, moe_.z_loss, static_cast<double>(tokens),
                 static_cast<double>(step.tokens), static_cast<double>(k)};
  const Array1<std::int64_t>& all = sums->values();
  kernels::router_losses(loss_scale_, router_sums_.probability_mass, router_sums_.z_squared, count_,
                         slope_, sums->router_loss(all, number_));
  kernels::add_counts(count_, sums->counts(all, number_));
  kernels::add_statistic(router_sums_.probability_mass, sums->mass(all, number_));
  kernels::add_statistic(router_sums_.entropy, sums->entropy(all, number_));
}

template <class T>
void MoeLayer<T>::count_choices(const DeviceCell& cell, const IntervalCounts& counts) const {
  const auto layer = static_cast<std::size_t>(number_);
  kernels::count_pairs(choice_, counts.pairs[layer], counts.weight);
  kernels::count_labelled(cell.source, choice_, counts.sources[layer], counts.weight);
  if (!counts.tokens.empty()) {
    kernels::count_labelled(cell.token, choice_, counts.tokens[layer], counts.weight);
  }
}

// The host must know how many rows go where before they can be sent: the one place where a layer
// waits for the device.
template <class T>
void MoeLayer<T>::plan_exchange(Index tokens, StepSums* sums) {
  const auto phase = workspace_.timers.phase("wait for counts");
  const auto count = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), count_);
  const auto segment_begin = Kokkos::create_mirror_view(segment_begin_);
  const int ranks = exchange_.communicator().size();
  const auto most = static_cast<int>(placement_.experts_of(0).size());

  check_copies(number_, {count.data(), count.size()}, tokens, moe_.top_k);

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
  check_not_negative(number_, received_counts);
  const auto& experts = placement_.experts_of(exchange_.communicator().rank());
  const auto local = static_cast<int>(experts.size());
  for (int rank = 0; rank < ranks; ++rank) {
    Index rows = 0;
    auto& segments = route_.segments.emplace_back();
    for (int e = 0; e < local; ++e) {
      const int copies = received_counts[static_cast<std::size_t>(rank * most + e)];
      if (sums != nullptr) {
        const Index expert = experts[static_cast<std::size_t>(e)];
        sums->arrived(number_)[static_cast<std::size_t>(expert)] += copies;
      }
      const Index padded = kernels::padded_rows(copies);
      segments.push_back({route_.received + rows, padded, e});
      rows += padded;
    }
    route_.received_rows.push_back(rows);
    route_.received += rows;
  }
}

template <class T>
DeviceExchange::Transfer MoeLayer<T>::send(const Array2<const T>& rows, const Array2<T>& received) {
  const auto phase = workspace_.timers.phase("exchange");
  return exchange_.template start_all_to_all<T>(rows, route_.sent_rows, received,
                                                route_.received_rows);
}

template <class T>
DeviceExchange::Transfer MoeLayer<T>::send_back(const Array2<const T>& rows,
                                                const Array2<T>& returned) {
  const auto phase = workspace_.timers.phase("exchange");
  return exchange_.template start_all_to_all<T>(rows, route_.received_rows, returned,
                                                route_.sent_rows);
}

template <class T>
void MoeLayer<T>::finish(DeviceExchange::Transfer& transfer) {
  const auto phase = workspace_.timers.phase("exchange");
  transfer.finish();
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
void MoeLayer<T>::run_experts(const Array2<T>& y) {
  const Activations::Scope scratch(workspace_.activations);
  const Array2<T> inner = take_inner(workspace_.activations, route_.received, gate_.stack.rows);
  const std::vector<Segment> segments = all_segments();
  kernels::Matmul& matmul = workspace_.matmul;
  matmul.template grouped_nt<T>(rows_.received, gate_.stack, rows_.gate, segments);
  matmul.template grouped_nt<T>(rows_.received, up_.stack, rows_.up, segments);
  kernels::swiglu<T>(rows_.gate, rows_.up, inner);
  matmul.template grouped_nt<T>(inner, down_.stack, y, segments);
}

template <class T>
void MoeLayer<T>::check_experts(const Array2<const T>& outputs) const {
  const auto& local = placement_.experts_of(exchange_.communicator().rank());
  for (const Segment& segment : all_segments()) {
    workspace_.check->template expert<T>(
        local[static_cast<std::size_t>(segment.matrix)],
        rows_of(outputs, segment.begin, segment.begin + segment.rows));
  }
}

// A weight's gradient is summed over the cells as integers: one cell, a home rank, at a time, and a
// few experts at a time, so that what is about to be summed is still in the cache.
template <class T>
void MoeLayer<T>::add_weight_gradient(const Array2<const T>& d_out, const Array2<const T>& in,
                                      const ExpertWeights<T>& weights) {
  const kernels::MatrixStack<const T>& shape = weights.stack;
  if (weights.gradient.is_plain()) {
    Real<T>* const sums = weights.gradient.sum.plain.data();
    const kernels::MatrixStack<Real<T>> dw{sums, shape.stride, shape.rows, shape.columns};
    for (const auto& cell_segments : route_.segments) {
      workspace_.matmul.template grouped_tn<T>(d_out, in, dw, cell_segments, Output::add);
    }
    return;
  }
  const Index experts = static_cast<Index>(weights.gradient.sum.fixed.extent(0)) / shape.stride;
  const Index most = gradient_experts(shape.stride, experts);
  const Activations::Scope scope(workspace_.activations);
  const Array1<Real<T>> scratch = take_stack_gradient(workspace_.activations, most * shape.stride);
  if (shape.stride != shape.rows * shape.columns) Kokkos::deep_copy(Exec(), scratch, Real<T>(0));
  const kernels::MatrixStack<Real<T>> dw{scratch.data(), shape.stride, shape.rows, shape.columns};
  for (const auto& cell_segments : route_.segments) {
    for (Index first = 0; first < experts; first += most) {
      const Index end = std::min(experts, first + most);
      std::vector<Segment> segments;
      Index rows = 0;
      for (const Segment& segment : cell_segments) {
        if (segment.matrix < first || segment.matrix >= end) continue;
        segments.push_back({segment.begin, segment.rows, segment.matrix - first});
        rows += segment.rows;
      }
      if (rows == 0) continue;
      workspace_.matmul.template grouped_tn<T>(d_out, in, dw, segments);
      kernels::add_gradient<Real<T>>(
          run_of(scratch, 0, (end - first) * shape.stride),
          weights.gradient.part(first * shape.stride, end * shape.stride));
    }
  }
}

template <class T>
Index MoeLayer<T>::gradient_experts(Index stride, Index experts) {
  // About the caches of a few cores. A GPU wants all experts' work at once.
  constexpr Index cached_bytes = Index{4} << 20;
  const Index wanted =
      kernels::on_host ? cached_bytes / (stride * Index{sizeof(Real<T>)}) : experts;
  return std::clamp<Index>(wanted, 1, std::max<Index>(experts, 1));
}

template <class T>
void MoeLayer<T>::run_experts_backward(const Array2<const T>& dy, const Array2<T>& dx) {
  const Activations::Scope scope(workspace_.activations);
  const Array2<T> inner = take_inner(workspace_.activations, route_.received, gate_.stack.rows);
  const Array2<T> x = rows_.received, gate = rows_.gate, up = rows_.up;
  const std::vector<Segment> segments = all_segments();
  kernels::Matmul& matmul = workspace_.matmul;

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
  Activations& activations = workspace_.activations;
  const Activations::Scope scratch(activations);
  const Array2<Real<T>> dgate = take_gate_gradient(activations, moe_, tokens);
  // Of the experts' outputs, then of their inputs.
  const Array2<T> drows = take_outputs(activations, exchange_rows(), hidden, rows_.returned);
  {
    const auto phase = workspace_.timers.phase("combine backward");
    // The returned outputs become their gradients.
    kernels::combine_backward<T>(dy, rows_.returned, choice_, routing_.position, segment_begin_,
                                 count_, routing_.gate_value, rows_.returned, dgate);
  }
  auto outward = send(rows_.returned, drows);
  {
    const auto phase = workspace_.timers.phase("router backward");
    const Activations::Scope scope(activations);
    const Array2<Real<T>> dlogits = take_router_logits(activations, moe_, tokens);
    kernels::route_top_k_backward<Real<T>>(dgate, routing_.probability, choice_, routing_.log_sum,
                                           slope_, kernels::z_slope(loss_scale_), dlogits);
    workspace_.add_real_weight_gradient(dlogits, workspace_.in_real(x_), router_gradient_);
    const Array2<Real<T>> wide_dx = Workspace<T>::take_real(activations, dx);
    workspace_.matmul.template multiply_nn<Real<T>>(dlogits, workspace_.in_real(router_), wide_dx);
    Workspace<T>::put_back(wide_dx, dx);
  }
  finish(outward);
  {
    const auto phase = workspace_.timers.phase("experts backward");
    run_experts_backward(drows, drows);
  }
  // The rows that were sent get the place of those that were returned.
  auto homeward = send_back(drows, rows_.returned);
  if (shared_) {
    const auto phase = workspace_.timers.phase("shared expert backward");
    shared_->backward(dy, dx);
  }
  finish(homeward);
  const auto phase = workspace_.timers.phase("dispatch backward");
  kernels::dispatch_backward<T>(rows_.returned, choice_, routing_.position, segment_begin_, dx);
}

template <class T>
void MoeLayer<T>::count_forward(Activations& activations, const Config& config, Index tokens,
                                const ExchangeRows& rows) {
  const MoeConfig& moe = config.moe;
  const Index hidden = config.model.hidden;
  take_routing(activations, moe, tokens);
  {
    const Activations::Scope scope(activations);
    take_router_scratch(activations, moe, tokens);
    Workspace<T>::count_real(activations, tokens, hidden);
    Workspace<T>::count_real(activations, moe.experts, hidden);
  }
  take_rows(activations, rows, hidden, moe.expert_ffn);
  if (moe.shared_ffn > 0) FeedForward<T>::count_forward(activations, tokens, moe.shared_ffn);
  const Activations::Scope scope(activations);
  take_outputs(activations, rows, hidden);
  take_inner(activations, rows.received, moe.expert_ffn);
}

template <class T>
void MoeLayer<T>::count_backward(Activations& activations, const Config& config, Index tokens,
                                 const ExchangeRows& rows, Index local_experts) {
  const MoeConfig& moe = config.moe;
  const Index hidden = config.model.hidden;
  const Activations::Scope scope(activations);
  take_gate_gradient(activations, moe, tokens);
  take_outputs(activations, rows, hidden);
  {
    const Activations::Scope inner(activations);
    take_inner(activations, rows.received, moe.expert_ffn);
    const Index stride = kernels::whole_blocks(moe.expert_ffn * hidden) * kernels::block_elements;
    take_stack_gradient(activations, gradient_experts(stride, local_experts) * stride);
  }
  {
    const Activations::Scope inner(activations);
    take_router_logits(activations, moe, tokens);
    Workspace<T>::count_real(activations, tokens, hidden);
    Workspace<T>::count_weight_gradient(activations, moe.experts, hidden);
    Workspace<T>::count_real(activations, tokens, hidden);
    Workspace<T>::count_real(activations, moe.experts, hidden);
  }
  if (moe.shared_ffn > 0) {
    FeedForward<T>::count_backward(activations, tokens, hidden, moe.shared_ffn);
  }
}

template class MoeLayer<float>;
template class MoeLayer<double>;
template class MoeLayer<bfloat16>;

}  // namespace hearth
