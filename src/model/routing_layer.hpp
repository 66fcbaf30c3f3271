// A layer's routing: logits, the router's choices and gates, its losses, and what is recorded of
// them. Whether copies then travel, and where, is moe_layer's.
#pragma once

#include "kernels/routing/balance.hpp"
#include "kernels/routing/sums.hpp"
#include "model/parameters.hpp"
#include "model/routers/router_table.hpp"
#include "model/workspace.hpp"

namespace hearth {

template <class T>
class RoutingLayer {
 public:
  using R = Real<T>;  // a rounded logit would send tokens elsewhere

  // `name`: the layer's prefix in the tensor table; `number`: among the layers with experts.
  RoutingLayer(const Config& config, const Parameters<T>& parameters, const std::string& name,
               Index number, Workspace<T>& workspace);

  // Chooses for x (tokens, hidden) and counts copies. With `sums`, losses and statistics are
  // recorded there. x and choice must live until backward.
  void forward(const DeviceCell& cell, const StepTokens& step, const Array2<const T>& x,
               const Array2<int>& choice,  // (tokens, slots)
               StepSums* sums, IntervalCounts* counts);

  // dx = or += the adjoint by the gates (overwritten) and by the losses; adds the weight's gradient
  // to its sum.
  void backward(const DeviceCell& cell, const Array2<R>& dgate,  // (tokens, slots)
                const Array2<T>& dx, kernels::Output output);

  [[nodiscard]] const RouterTraits& traits() const { return traits_; }
  [[nodiscard]] Index least_rows(Index tokens) const { return router_->least_rows(tokens); }

  [[nodiscard]] const Router<R>& router() const { return *router_; }

  // Of the last forward pass.
  [[nodiscard]] const Array2<R>& logits() const { return kept_.logits; }  // (tokens, destinations)
  [[nodiscard]] const Array2<R>& affinity() const {
    return kept_.affinity;
  }  // (tokens, destinations)
  [[nodiscard]] const Array2<int>& choice() const { return routing_.choice; }   // (tokens, slots)
  [[nodiscard]] const Array2<R>& gate() const { return routing_.gate; }         // (tokens, slots)
  [[nodiscard]] const Array2<int>& position() const { return kept_.position; }  // (tokens, slots)
  [[nodiscard]] const Array1<int>& sent() const { return sent_; }               // (destinations)
  [[nodiscard]] const Array1<int>& wanted() const {
    return wanted_;
  }  // (destinations): before
     // copies were dropped

  // Integers that are handed on from step to step, the same on every rank: how many there are, what
  // they become by a step whose sums over all ranks are given, and taking them up.
  [[nodiscard]] Index states() const;
  void advance(const StepSums& layout, const HostArray1<std::int64_t>& sums, std::int64_t tokens,
               std::span<std::int64_t> state) const;
  void set_state(std::span<const std::int64_t> state);

  // Take from a counting stack what the above take.
  static void count_forward(Activations& activations, const Config& config, Index number,
                            Index tokens);
  static void count_backward(Activations& activations, const Config& config, Index number,
                             Index tokens);

 private:
  enum class Scope { cell, sequence, global };  // of the load that the balance loss looks at

  // Kept for backward.
  struct Kept {
    Array2<R> logits;      // (tokens, destinations)
    Array2<R> affinity;    // (tokens, destinations)
    Array1<R> log_sum;     // (tokens)
    Array2<R> gate;        // (tokens, slots)
    Array2<int> position;  // (tokens, slots)
    Array2<int> wanted;    // (tokens, slots); empty where no copies are dropped
    Array2<double> slope;  // (groups, destinations)
  };
  // Not kept.
  struct Scratch {
    Array2<char> router;          // (tokens, the router's bytes)
    Array2<int> partial_counts;   // (row blocks, destinations)
    Array2<int> group_counts;     // (groups, destinations)
    Array2<double> partial_sums;  // (row blocks, router_sum_columns)
  };
  static Scope scope_of(const MoeConfig& moe);
  static Index groups_of(const Config& config, Index tokens);
  static Kept take_kept(Activations& activations, const RouterTraits& traits, Index tokens,
                        Index destinations, Index groups);
  static Scratch take_scratch(Activations& activations, const RouterTraits& traits, Index tokens,
                              Index destinations, Index groups);
  static Array2<R> take_logits(Activations& activations, Index tokens, Index destinations);

  void set_slopes(const DeviceCell& cell, const StepTokens& step, const Scratch& scratch);
  void record(const DeviceCell& cell, const StepTokens& step, const Scratch& scratch,
              StepSums& sums);
  void count_choices(const DeviceCell& cell, const IntervalCounts& counts) const;
  [[nodiscard]] kernels::AffinitySlope slope(const DeviceCell& cell) const;

  Workspace<T>& workspace_;
  Config config_;
  Index number_, destinations_;
  std::unique_ptr<Router<R>> router_;
  RouterTraits traits_;
  Array2<const T> weight_;  // (destinations, hidden); empty for a router without logits
  kernels::GradientSum<R> gradient_;

  Array2<const T> x_;  // (tokens, hidden)
  Kept kept_;
  Routing<R> routing_;
  Array1<int> sent_, wanted_;     // (destinations)
  Array1<double> earlier_share_;  // (destinations): of the copies of the step before
  kernels::RouterSums router_sums_;
  double step_tokens_ = 1;
};

}  // namespace hearth
