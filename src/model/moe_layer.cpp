#include "model/moe_layer.hpp"

#include <algorithm>

#include "kernels/expert_products.hpp"
#include "kernels/statistics.hpp"
#include "kernels/swiglu.hpp"
#include "kernels/team.hpp"
#include "model/conservation.hpp"

namespace hearth {

using kernels::Output;
using kernels::Segment;

namespace {

void send_to_all(const Array2<int>& choice,    // (tokens, experts)
                 const Array2<int>& position,  // (tokens, experts)
                 const Array1<int>& sent) {    // (experts)
  const auto tokens = static_cast<int>(choice.extent(0));
  Kokkos::deep_copy(sent, tokens);
  Kokkos::parallel_for(
      "send_to_all", Kokkos::RangePolicy<Exec>(0, static_cast<Index>(choice.size())),
      KOKKOS_LAMBDA(const Index i) {
        const Index experts = static_cast<Index>(choice.extent(1));
        choice.data()[i] = static_cast<int>(i % experts);
        position.data()[i] = static_cast<int>(i / experts);
      });
}

}  // namespace

template <class T>
MoeLayer<T>::MoeLayer(const Config& config, const Parameters<T>& parameters,
                      const std::string& name, Index number, const ExpertPlacement& placement,
                      const DeviceExchange& exchange, Workspace<T>& workspace)
    : workspace_(workspace),
      placement_(placement),
      exchange_(exchange),
      number_(number),
      most_tokens_(config.cell_tokens()),
      routing_(config, parameters, name, number, workspace),
      gate_(parameters.experts(name + "experts/gate")),
      up_(parameters.experts(name + "experts/up")),
      down_(parameters.experts(name + "experts/down")),
      segment_begin_("segment begin", config.moe.experts.at(number)),
      segment_rows_("segment rows", config.moe.experts.at(number)),
      owner_("owners", config.moe.experts.at(number)) {
  const auto owner = Kokkos::create_mirror_view(owner_);
  for (std::size_t e = 0; e < owner.extent(0); ++e)
    owner(e) = placement.owner(static_cast<Index>(e));
  Kokkos::deep_copy(owner_, owner);
  if (config.moe.shared_ffn > 0) shared_.emplace(parameters, name + "shared/", workspace);
  if (config.moe.light_experts() > 0) light_.emplace(config, parameters, name, number, workspace);
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
Array2<Real<T>> MoeLayer<T>::take_gate_gradient(Activations& activations, Index tokens,
                                                Index slots) {
  return activations.take<Real<T>>("d gates", tokens, slots);  // (tokens, slots)
}

template <class T>
Array1<Real<T>> MoeLayer<T>::take_stack_gradient(Activations& activations, Index elements) {
  return activations.take<Real<T>>("expert weight gradient", elements);  // (local_experts · stride)
}

template <class T>
kernels::CopyPlaces MoeLayer<T>::places() const {
  return {routing_.choice(), routing_.position(), segment_begin_, segment_rows_, routing_.sent()};
}

template <class T>
Array2<const Real<T>> MoeLayer<T>::gate_before() const {
  if (!routing_.traits().scales_input) return {};
  return routing_.gate();
}

template <class T>
Array2<const Real<T>> MoeLayer<T>::gate_behind() const {
  if (routing_.traits().scales_input) return {};
  return routing_.gate();
}

template <class T>
void MoeLayer<T>::forward(const DeviceCell& cell, const StepTokens& step, const Array2<const T>& x,
                          const Array2<T>& y, const Array2<int>& choice, StepSums* sums,
                          IntervalCounts* counts) {
  x_ = x;
  Activations& activations = workspace_.activations;
  const Index hidden = x.extent(1);
  {
    const auto phase = workspace_.timers.phase("router");
    routing_.forward(cell, step, x, choice, sums, counts);
  }
  const RouterTraits& router = routing_.traits();
  plan_exchange({routing_.wanted(), routing_.sent(), router.fills_slots ? router.slots : 0,
                 routing_.least_rows(cell.tokens)},
                cell.tokens, sums);
  if (sums != nullptr) count_exchange(choice, *sums);
  rows_ = take_rows(activations, exchange_rows(), hidden, gate_.stack.rows);
  // The returned rows' place is free until they come back.
  const Array2<T> sent = exchange_rows().alone() ? rows_.received : rows_.returned;
  {
    const auto phase = workspace_.timers.phase("dispatch");
    kernels::dispatch<T>(x, places(), gate_before(), sent);
  }
  auto outward = send(sent, rows_.received);
  if (shared_) {
    const auto phase = workspace_.timers.phase("shared expert");
    shared_->forward(x, y);
  }
  if (light_) {
    const auto phase = workspace_.timers.phase("light experts");
    light_->forward(x, choice, routing_.gate(), y);
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
  {
    const auto phase = workspace_.timers.phase("combine");
    kernels::combine<T>(rows_.returned, places(), gate_behind(), y);
  }
  if (workspace_.observer != nullptr) show_experts(cell.tokens);
}

// A few tokens at a time, since each goes to all experts: as often on every rank.
template <class T>
void MoeLayer<T>::show_experts(Index tokens) {
  constexpr Index most = 256;
  const auto experts = static_cast<Index>(segment_begin_.extent(0));
  Activations& activations = workspace_.activations;
  const bool products = workspace_.observer->wants_products();
  for (Index first = 0; first < most_tokens_; first += most) {
    const Index begin = std::min(first, tokens), end = std::min(first + most, tokens);
    const Activations::Scope scratch(activations);
    Array2<double> product;
    if (products) {
      run_all_experts(rows_of(x_, begin, end));
      product = activations.take<double>("expert products", end - begin, experts * experts);
      kernels::expert_products<T>(rows_.returned, segment_begin_, product);
    }
    workspace_.observer->observe(
        {number_, routing_.router(), rows_of(Array2<const Real<T>>(routing_.logits()), begin, end),
         rows_of(Array2<const Real<T>>(routing_.affinity()), begin, end),
         rows_of(Array2<const int>(routing_.choice()), begin, end),
         rows_of(Array2<const Real<T>>(routing_.gate()), begin, end), product});
  }
}

template <class T>
void MoeLayer<T>::run_all_experts(const Array2<const T>& x) {
  Activations& activations = workspace_.activations;
  const Index tokens = x.extent(0), hidden = x.extent(1);
  const auto experts = static_cast<Index>(segment_begin_.extent(0));
  const Array2<int> choice = activations.take<int>("all experts", tokens, experts);
  const Array2<int> position = activations.take<int>("positions in all", tokens, experts);
  const Array1<int> sent("copies to all", experts);
  send_to_all(choice, position, sent);
  plan_exchange({sent, sent, experts, 0}, tokens, nullptr);
  rows_ = take_rows(activations, exchange_rows(), hidden, gate_.stack.rows);
  const Array2<T> outgoing = exchange_rows().alone() ? rows_.received : rows_.returned;
  kernels::dispatch<T>(x, {choice, position, segment_begin_, segment_rows_, sent}, {}, outgoing);
  auto outward = send(outgoing, rows_.received);
  finish(outward);
  const Array2<T> outputs = take_outputs(activations, exchange_rows(), hidden, rows_.returned);
  run_experts(outputs);
  auto homeward = send_back(outputs, rows_.returned);
  finish(homeward);
}

// The host must know how many rows go where before they can be sent: the one place where a layer
// waits for the device.
template <class T>
void MoeLayer<T>::plan_exchange(const Copies& copies, Index tokens, StepSums* sums) {
  const auto phase = workspace_.timers.phase("wait for counts");
  const auto on_host = [](const Array1<int>& counts) {
    return Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), counts);
  };
  const auto sent = on_host(copies.sent), wanted = on_host(copies.wanted);
  check_copies(number_, {wanted.data(), wanted.size()}, {sent.data(), sent.size()}, tokens,
               copies.slots);

  const auto segment_begin = Kokkos::create_mirror_view(segment_begin_);
  const auto segment_rows = Kokkos::create_mirror_view(segment_rows_);
  const int ranks = exchange_.communicator().size();
  // Of each expert, copies and rows.
  const auto most = 2 * static_cast<int>(placement_.experts_of(0).size());
  route_ = Route();
  std::vector<int> outgoing(static_cast<std::size_t>(ranks * most), 0);
  for (int rank = 0; rank < ranks; ++rank) {
    Index rows = 0;
    auto slot = outgoing.begin() + rank * most;
    for (const Index expert : placement_.experts_of(rank)) {
      const Index padded = kernels::padded_rows(std::max<Index>(sent(expert), copies.least_rows));
      segment_begin(expert) = static_cast<int>(route_.sent + rows);
      segment_rows(expert) = static_cast<int>(padded);
      rows += padded;
      route_.copies += sent(expert);
      if (rank == exchange_.communicator().rank()) route_.copies_kept += sent(expert);
      *slot++ = sent(expert);
      *slot++ = static_cast<int>(padded);
    }
    route_.sent_rows.push_back(rows);
    route_.sent += rows;
  }
  Kokkos::deep_copy(segment_begin_, segment_begin);
  Kokkos::deep_copy(segment_rows_, segment_rows);

  const std::vector<int> incoming = exchange_.communicator().all_to_all(outgoing, most);
  check_not_negative(number_, incoming);
  const auto& experts = placement_.experts_of(exchange_.communicator().rank());
  const auto local = static_cast<int>(experts.size());
  for (int rank = 0; rank < ranks; ++rank) {
    Index rows = 0;
    auto& segments = route_.segments.emplace_back();
    auto slot = incoming.begin() + rank * most;
    for (int e = 0; e < local; ++e) {
      const int arrived = *slot++, padded = *slot++;
      if (sums != nullptr) {
        const Index expert = experts[static_cast<std::size_t>(e)];
        sums->arrived(number_)[static_cast<std::size_t>(expert)] += arrived;
      }
      segments.push_back({route_.received + rows, padded, e});
      rows += padded;
    }
    route_.received_rows.push_back(rows);
    route_.received += rows;
  }
}

template <class T>
void MoeLayer<T>::count_exchange(const Array2<const int>& choice, StepSums& sums) const {
  const int home = exchange_.communicator().rank();
  sums.exchange().add_copies(number_, route_.copies, route_.copies_kept);
  kernels::count_owners(choice, owner_, home, number_, sums.exchange().reached());
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
  const Index hidden = x_.extent(1);
  const bool gates_before = routing_.traits().scales_input;
  Activations& activations = workspace_.activations;
  const Activations::Scope scratch(activations);
  const Array2<Real<T>> dgate =
      take_gate_gradient(activations, cell.tokens, routing_.traits().slots);
  // Of the experts' outputs, then of their inputs.
  const Array2<T> drows = take_outputs(activations, exchange_rows(), hidden, rows_.returned);
  {
    const auto phase = workspace_.timers.phase("combine backward");
    // The returned outputs become their gradients.
    kernels::combine_backward<T>(dy, rows_.returned, places(), gate_behind(), rows_.returned,
                                 dgate);
  }
  auto outward = send(rows_.returned, drows);
  if (gates_before) {
    Kokkos::deep_copy(Exec(), dx, T(0));
  } else {
    route_backward(cell, dy, dgate, dx, Output::assign);
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
  {
    const auto phase = workspace_.timers.phase("dispatch backward");
    kernels::dispatch_backward<T>(rows_.returned, places(), gate_before(), dx);
    if (gates_before) kernels::dispatch_gate_backward<T>(x_, rows_.returned, places(), dgate);
  }
  if (gates_before) route_backward(cell, dy, dgate, dx, Output::add);
}

template <class T>
void MoeLayer<T>::route_backward(const DeviceCell& cell, const Array2<const T>& dy,
                                 const Array2<Real<T>>& dgate, const Array2<T>& dx, Output output) {
  const Activations::Scope scope(workspace_.activations);
  if (light_) {
    const auto phase = workspace_.timers.phase("light experts backward");
    light_->backward_gates(dy, dgate);
  }
  {
    const auto phase = workspace_.timers.phase("router backward");
    routing_.backward(cell, dgate, dx, output);
  }
  if (light_) {
    const auto phase = workspace_.timers.phase("light experts backward");
    light_->backward_input(dy, dx);
  }
}

template <class T>
void MoeLayer<T>::count_forward(Activations& activations, const Config& config, Index number,
                                Index tokens, const ExchangeRows& rows) {
  const MoeConfig& moe = config.moe;
  const Index hidden = config.model.hidden;
  RoutingLayer<T>::count_forward(activations, config, number, tokens);
  take_rows(activations, rows, hidden, moe.expert_ffn);
  if (moe.shared_ffn > 0) FeedForward<T>::count_forward(activations, tokens, moe.shared_ffn);
  if (moe.light_experts() > 0) LightExperts<T>::count_forward(activations, config, tokens);
  const Activations::Scope scope(activations);
  take_outputs(activations, rows, hidden);
  take_inner(activations, rows.received, moe.expert_ffn);
}

template <class T>
void MoeLayer<T>::count_backward(Activations& activations, const Config& config, Index number,
                                 Index tokens, const ExchangeRows& rows, Index local_experts) {
  const MoeConfig& moe = config.moe;
  const Index hidden = config.model.hidden;
  const Activations::Scope scope(activations);
  take_gate_gradient(activations, tokens, router_traits(config, number).slots);
  take_outputs(activations, rows, hidden);
  {
    const Activations::Scope inner(activations);
    take_inner(activations, rows.received, moe.expert_ffn);
    const Index stride = kernels::whole_blocks(moe.expert_ffn * hidden) * kernels::block_elements;
    take_stack_gradient(activations, gradient_experts(stride, local_experts) * stride);
  }
  {
    const Activations::Scope inner(activations);
    if (moe.light_experts() > 0) LightExperts<T>::count_backward_gates(activations, config, tokens);
    RoutingLayer<T>::count_backward(activations, config, number, tokens);
    if (moe.light_experts() > 0) LightExperts<T>::count_backward_input(activations, config, tokens);
  }
  if (moe.shared_ffn > 0) {
    FeedForward<T>::count_backward(activations, tokens, hidden, moe.shared_ffn);
  }
}

template class MoeLayer<float>;
template class MoeLayer<double>;
template class MoeLayer<bfloat16>;

}  // namespace hearth
