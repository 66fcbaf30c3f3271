// Llama 4's routing: the sigmoid of a chosen expert's logit multiplies what the expert reads, and
// its output is added as it is.
#include "model/routers/learned_router.hpp"
#include "model/routers/router_table.hpp"

namespace hearth {

namespace {

template <class R>
class ScaledInput final : public LearnedRouter<R> {
 public:
  explicit ScaledInput(const RouterPlace& place)
      : LearnedRouter<R>(
            place, {kernels::Score::sigmoid, false, 1, static_cast<int>(place.first_empty())}) {}

  [[nodiscard]] RouterTraits traits() const override {
    RouterTraits traits;
    traits.slots = this->place().top_k;
    traits.scales_input = true;
    return traits;
  }

 protected:
  void select(const RouterInput<R>&, const Routing<R>& routing) const override {
    kernels::select_top_k<R>(routing.affinity, {}, routing.gate, routing.choice);
  }
};

}  // namespace

HEARTH_DEFINE_ROUTER(scaled_input, ScaledInput)

}  // namespace hearth
