// What routers with learned scores have in common: they differ in how they select.
#pragma once

#include "kernels/routing/gates.hpp"
#include "kernels/routing/selection.hpp"
#include "model/routers/router.hpp"

namespace hearth {

[[nodiscard]] inline kernels::GateRule gate_rule(const GateConfig& gate, const RouterPlace& place) {
  const bool sigmoid = gate.score == "sigmoid";
  // A softmax over the chosen logits alone is the renormalised softmax over all.
  return {sigmoid ? kernels::Score::sigmoid : kernels::Score::softmax,
          gate.renormalise || gate.score == "softmax_chosen", gate.scale,
          static_cast<int>(place.first_empty())};
}

[[nodiscard]] inline kernels::GroupLimit group_limit(const GroupConfig& group) {
  return {static_cast<int>(group.groups), static_cast<int>(group.groups_chosen)};
}

template <class R>
class LearnedRouter : public Router<R> {
 public:
  LearnedRouter(const RouterPlace& place, const kernels::GateRule& rule)
      : Router<R>(place), rule_(rule) {}

  void choose(const RouterInput<R>& input, const Routing<R>& routing) const override {
    kernels::score<R>(rule_.score, input.logits, routing.affinity, routing.log_sum);
    select(input, routing);
    kernels::take_gates<R>(rule_, input.logits, routing.affinity, routing.wanted, routing.choice,
                           routing.gate);
  }

  void backward(const RouterInput<R>& input, const Routing<R>& routing,
                const RoutingGradient<R>& gradient, const Array2<R>& dlogits) const override {
    kernels::gates_backward<R>(rule_, input.logits, routing.affinity, routing.wanted,
                               routing.choice, routing.gate, gradient.dgate, gradient.dgate);
    kernels::score_backward<R>(rule_.score, input.logits, routing.affinity, routing.log_sum,
                               routing.wanted, gradient.dgate, gradient.slope, gradient.z_scale,
                               dlogits);
  }

 protected:
  // Fills routing.choice, and routing.wanted where that is another array. The gates are scratch.
  virtual void select(const RouterInput<R>& input, const Routing<R>& routing) const = 0;

  [[nodiscard]] const kernels::GateRule& rule() const { return rule_; }

 private:
  kernels::GateRule rule_;
};

}  // namespace hearth
