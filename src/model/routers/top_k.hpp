// Token choice: the k destinations of the largest score (FLAME-MoE, arXiv:2505.20225; OLMoE,
// arXiv:2409.02060); with skip_below, without those whose score is small beside the largest (Lu et
// al., arXiv:2402.14800, section 3.3).
#pragma once

#include "model/routers/learned_router.hpp"

namespace hearth {

template <class R>
class TopK : public LearnedRouter<R> {
 public:
  explicit TopK(const RouterPlace& place)
      : LearnedRouter<R>(place, gate_rule(place.config.top_k.gate, place)) {}

  [[nodiscard]] RouterTraits traits() const override {
    RouterTraits traits;
    traits.slots = this->place().top_k;
    traits.fills_slots = skip_below() == 0;
    return traits;
  }

 protected:
  void select(const RouterInput<R>&, const Routing<R>& routing) const override {
    kernels::select_top_k<R>(routing.affinity, group_limit(this->place().config.top_k.group),
                             routing.gate, routing.choice);
    if (skip_below() > 0) {
      kernels::skip_small<R>(routing.affinity, skip_below(), routing.choice);
    }
  }

 private:
  [[nodiscard]] double skip_below() const {
    return this->place().config.top_k.skip_below.at(this->place().layer);
  }
};

}  // namespace hearth
