#include "model/routing_layer.hpp"

#include <algorithm>

#include "kernels/permutation.hpp"
#include "kernels/rms_norm.hpp"
#include "kernels/routing/losses.hpp"
#include "kernels/statistics.hpp"

namespace hearth {

template <class T>
RoutingLayer<T>::RoutingLayer(const Config& config, const Parameters<T>& parameters,
                              const std::string& name, Index number, Workspace<T>& workspace)
    : workspace_(workspace),
      config_(config),
      number_(number),
      destinations_(config.destinations(number)),
      router_(make_router<R>(config, number)),
      traits_(router_->traits()),
      sent_("copies sent", destinations_),
      wanted_(traits_.drops ? Array1<int>("copies wanted", destinations_) : sent_),
      earlier_share_("earlier share", destinations_),
      router_sums_(destinations_) {
  if (traits_.has_logits) {
    weight_ = parameters.matrix(name + "router/weight");
    gradient_ = parameters.gradient(name + "router/weight");
  }
  const std::vector<std::int64_t> none(static_cast<std::size_t>(states()), 0);
  set_state(none);
}

template <class T>
typename RoutingLayer<T>::Scope RoutingLayer<T>::scope_of(const MoeConfig& moe) {
  if (moe.balance_scope == "sequence") return Scope::sequence;
  return moe.balance_scope == "global" ? Scope::global : Scope::cell;
}

template <class T>
Index RoutingLayer<T>::groups_of(const Config& config, Index tokens) {
  if (scope_of(config.moe) != Scope::sequence) return 1;
  return std::max<Index>(1, tokens / config.model.sequence_length);
}

template <class T>
typename RoutingLayer<T>::Kept RoutingLayer<T>::take_kept(Activations& activations,
                                                          const RouterTraits& traits, Index tokens,
                                                          Index destinations, Index groups) {
  return {take_logits(activations, traits.has_logits ? tokens : 0, destinations),
          activations.take<R>("router affinity", tokens, destinations),
          activations.take<R>("router log sum", tokens),
          activations.take<R>("router gates", tokens, traits.slots),
          activations.take<int>("positions", tokens, traits.slots),
          activations.take<int>("wanted", traits.drops ? tokens : 0, traits.slots),
          activations.take<double>("balance slopes", groups, destinations)};
}

template <class T>
typename RoutingLayer<T>::Scratch RoutingLayer<T>::take_scratch(Activations& activations,
                                                                const RouterTraits& traits,
                                                                Index tokens, Index destinations,
                                                                Index groups) {
  const Index blocks = kernels::row_blocks(tokens);
  return {activations.take<char>("router scratch", tokens, traits.scratch_bytes),
          activations.take<int>("partial counts", blocks, destinations),
          activations.take<int>("group counts", groups, destinations),
          activations.take<double>("partial router sums", blocks,
                                   kernels::router_sum_columns(destinations))};
}

template <class T>
Array2<Real<T>> RoutingLayer<T>::take_logits(Activations& activations, Index tokens,
                                             Index destinations) {
  return activations.take<R>("router logits", tokens, destinations);  // (tokens, destinations)
}

template <class T>
void RoutingLayer<T>::forward(const DeviceCell& cell, const StepTokens& step,
                              const Array2<const T>& x, const Array2<int>& choice, StepSums* sums,
                              IntervalCounts* counts) {
  Activations& activations = workspace_.activations;
  const Index tokens = cell.tokens, groups = groups_of(config_, tokens);
  x_ = x;
  kept_ = take_kept(activations, traits_, tokens, destinations_, groups);
  routing_ = {kept_.affinity, kept_.log_sum, traits_.drops ? kept_.wanted : choice, choice,
              kept_.gate};
  const Activations::Scope scope(activations);
  const Scratch scratch = take_scratch(activations, traits_, tokens, destinations_, groups);
  if (traits_.has_logits) {
    workspace_.matmul.template multiply_nt<R>(workspace_.in_real(x_), workspace_.in_real(weight_),
                                              kept_.logits);
    if (workspace_.check != nullptr) workspace_.check->template router<R>(kept_.logits);
  }
  router_->choose({cell, kept_.logits, scratch.router}, routing_);
  kernels::count_copies(choice, scratch.partial_counts, sent_, kept_.position);
  if (traits_.drops) {
    kernels::count_groups(routing_.wanted, std::max<Index>(1, tokens),
                          Array2<int>(wanted_.data(), 1, destinations_));
  }
  if (step.tokens > 0) set_slopes(cell, step, scratch);
  if (sums == nullptr && counts == nullptr && workspace_.trace == nullptr) return;
  const auto phase = workspace_.timers.phase("statistics");
  if (sums != nullptr) record(cell, step, scratch, *sums);
  if (counts != nullptr) count_choices(cell, *counts);
  if (workspace_.trace != nullptr) {
    workspace_.trace->template add_layer<R>(number_, cell, routing_.choice, routing_.gate);
  }
}

template <class T>
void RoutingLayer<T>::set_slopes(const DeviceCell& cell, const StepTokens& step,
                                 const Scratch& scratch) {
  step_tokens_ = static_cast<double>(step.tokens);
  const kernels::BalanceRule rule{router_->balance_coefficient(),
                                  step_tokens_,
                                  traits_.copies_of_token,
                                  config_.moe.experts.at(number_),
                                  destinations_ - config_.moe.null_experts,
                                  config_.moe.light_balance};
  switch (scope_of(config_.moe)) {
    case Scope::cell:
      kernels::balance_slopes(rule, cell.tokens, Array2<int>(wanted_.data(), 1, destinations_),
                              kept_.slope);
      break;
    case Scope::sequence:
      kernels::count_groups(routing_.wanted, std::max<Index>(1, cell.sequence_length),
                            scratch.group_counts);
      kernels::balance_slopes(rule, cell.sequence_length, scratch.group_counts, kept_.slope);
      break;
    case Scope::global:
      kernels::balance_slopes(rule, earlier_share_, kept_.slope);
      break;
  }
}

template <class T>
kernels::AffinitySlope RoutingLayer<T>::slope(const DeviceCell& cell) const {
  const Index tokens =
      scope_of(config_.moe) == Scope::sequence ? cell.sequence_length : cell.tokens;
  return {kept_.slope, std::max<Index>(1, tokens)};
}

template <class T>
void RoutingLayer<T>::record(const DeviceCell& cell, const StepTokens& step, const Scratch& scratch,
                             StepSums& sums) {
  const Array1<std::int64_t>& all = sums.values();
  if (traits_.has_logits) {
    kernels::sum_router<R>(kept_.logits, kept_.affinity, kept_.log_sum, routing_.choice, kept_.gate,
                           slope(cell), scratch.partial_sums, router_sums_);
  } else {
    // Its affinities stand for the logits that it has not.
    kernels::sum_router<R>(kept_.affinity, kept_.affinity, kept_.log_sum, routing_.choice,
                           kept_.gate, slope(cell), scratch.partial_sums, router_sums_);
  }
  const auto step_tokens = static_cast<double>(step.tokens);
  kernels::add_router_losses(router_sums_, config_.moe.z_loss / step_tokens,
                             router_->entropy_coefficient() / step_tokens,
                             sums.router_loss(all, number_));
  kernels::add_counts(sent_, sums.counts(all, number_));
  kernels::add_difference(wanted_, sent_, sums.dropped(all, number_));
  kernels::count_tokens_by_copies(routing_.choice, sums.tokens_by_copies(all, number_));
  kernels::add_statistic(router_sums_.affinity, sums.affinity(all, number_));
  kernels::add_statistic(router_sums_.gate, sums.gate(all, number_));
  kernels::add_statistic(router_sums_.entropy, sums.entropy(all, number_));
  kernels::add_statistic(router_sums_.logit_norm, sums.logit_norm(all, number_),
                         kernels::norm_unit);
}

template <class T>
void RoutingLayer<T>::count_choices(const DeviceCell& cell, const IntervalCounts& counts) const {
  const auto layer = static_cast<std::size_t>(number_);
  const Array2<const int> choice = routing_.choice;
  kernels::count_pairs(choice, counts.pairs[layer], counts.weight);
  kernels::count_labelled(cell.source, choice, counts.sources[layer], counts.weight);
  if (counts.tokens.empty()) return;
  if (counts.by_half) {
    kernels::count_labelled(cell.half, cell.token, choice, counts.tokens[layer], counts.weight);
  } else {
    kernels::count_labelled(cell.token, choice, counts.tokens[layer], counts.weight);
  }
  if (number_ == 0) {  // in all layers the same
    const Array1<const int> half = counts.by_half ? cell.half : Array1<const int>();
    kernels::count_occurrences(half, cell.token, counts.occurrences, counts.weight);
  }
}

template <class T>
void RoutingLayer<T>::backward(const DeviceCell& cell, const Array2<R>& dgate, const Array2<T>& dx,
                               kernels::Output output) {
  if (!traits_.has_logits) {
    if (output == kernels::Output::assign) Kokkos::deep_copy(Exec(), dx, T(0));
    return;
  }
  Activations& activations = workspace_.activations;
  const Activations::Scope scope(activations);
  const Array2<R> dlogits = take_logits(activations, cell.tokens, destinations_);
  const RoutingGradient<R> gradient{dgate, slope(cell), 2 * config_.moe.z_loss / step_tokens_,
                                    router_->entropy_coefficient() / step_tokens_};
  router_->backward({cell, kept_.logits, {}}, routing_, gradient, dlogits);
  if (traits_.trains_weight) {
    workspace_.add_real_weight_gradient(dlogits, workspace_.in_real(x_), gradient_);
  }
  const Array2<R> wide_dx = Workspace<T>::take_real(activations, dx);
  if (output == kernels::Output::add) Workspace<T>::widen(dx, wide_dx);
  workspace_.matmul.template multiply_nn<R>(dlogits, workspace_.in_real(weight_), wide_dx, output);
  Workspace<T>::put_back(wide_dx, dx);
}

template <class T>
Index RoutingLayer<T>::states() const {
  return traits_.states + (scope_of(config_.moe) == Scope::global ? destinations_ : 0);
}

template <class T>
void RoutingLayer<T>::advance(const StepSums& layout, const HostArray1<std::int64_t>& sums,
                              std::int64_t tokens, std::span<std::int64_t> state) const {
  const auto own = static_cast<std::size_t>(traits_.states);
  router_->advance(layout, sums, tokens, state.first(own));
  for (std::size_t e = own; e < state.size(); ++e) {
    const auto destination = static_cast<Index>(e - own);
    state[e] =
        layout.counts(sums, number_)(destination) + layout.dropped(sums, number_)(destination);
  }
}

template <class T>
void RoutingLayer<T>::set_state(std::span<const std::int64_t> state) {
  const auto own = static_cast<std::size_t>(traits_.states);
  router_->set_state(state.first(own));
  if (state.size() == own) return;
  // Before the first step all loads are taken to be equal. Null experts share theirs.
  const auto counts = state.subspan(own);
  const auto first_null = static_cast<std::size_t>(destinations_ - config_.moe.null_experts);
  double all = 0, nulls = 0;
  for (std::size_t e = 0; e < counts.size(); ++e) {
    all += static_cast<double>(counts[e]);
    if (e >= first_null) nulls += static_cast<double>(counts[e]);
  }
  const auto share = Kokkos::create_mirror_view(earlier_share_);
  for (std::size_t e = 0; e < counts.size(); ++e) {
    const double load = e < first_null ? static_cast<double>(counts[e])
                                       : nulls / static_cast<double>(config_.moe.null_experts);
    share(e) = all > 0 ? load / all : 1 / static_cast<double>(destinations_);
  }
  Kokkos::deep_copy(earlier_share_, share);
}

template <class T>
void RoutingLayer<T>::count_forward(Activations& activations, const Config& config, Index number,
                                    Index tokens) {
  const RouterTraits traits = make_router<R>(config, number)->traits();
  const Index destinations = config.destinations(number), groups = groups_of(config, tokens);
  take_kept(activations, traits, tokens, destinations, groups);
  const Activations::Scope scope(activations);
  take_scratch(activations, traits, tokens, destinations, groups);
  if (!traits.has_logits) return;
  Workspace<T>::count_real(activations, tokens, config.model.hidden);
  Workspace<T>::count_real(activations, destinations, config.model.hidden);
}

template <class T>
void RoutingLayer<T>::count_backward(Activations& activations, const Config& config, Index number,
                                     Index tokens) {
  const RouterTraits traits = make_router<R>(config, number)->traits();
  if (!traits.has_logits) return;
  const Index destinations = config.destinations(number), hidden = config.model.hidden;
  const Activations::Scope scope(activations);
  take_logits(activations, tokens, destinations);
  if (traits.trains_weight) {
    Workspace<T>::count_real(activations, tokens, hidden);
    Workspace<T>::count_weight_gradient(activations, destinations, hidden);
  }
  Workspace<T>::count_real(activations, tokens, hidden);
  Workspace<T>::count_real(activations, destinations, hidden);
}

template class RoutingLayer<float>;
template class RoutingLayer<double>;
template class RoutingLayer<bfloat16>;

}  // namespace hearth
