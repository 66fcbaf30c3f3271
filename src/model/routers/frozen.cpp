// top_k with a router that keeps its initial weights: what learning to route adds.
#include "model/routers/router_table.hpp"
#include "model/routers/top_k.hpp"

namespace hearth {

namespace {

template <class R>
class Frozen final : public TopK<R> {
 public:
  using TopK<R>::TopK;

  [[nodiscard]] RouterTraits traits() const override {
    RouterTraits traits = TopK<R>::traits();
    traits.trains_weight = false;
    return traits;
  }
};

}  // namespace

HEARTH_DEFINE_ROUTER(frozen, Frozen)

}  // namespace hearth
