// Token choice: the k destinations of the largest score (FLAME-MoE, arXiv:2505.20225; OLMoE,
// arXiv:2409.02060).
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
    return traits;
  }

 protected:
  void select(const RouterInput<R>&, const Routing<R>& routing) const override {
    kernels::select_top_k<R>(routing.affinity, group_limit(this->place().config.top_k.group),
                             routing.gate, routing.choice);
  }
};

}  // namespace hearth
