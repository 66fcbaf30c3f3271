// Controls: what routers without scores have in common. The chosen experts' gates are equal.
#pragma once

#include "base/hash.hpp"
#include "kernels/routing/selection.hpp"
#include "model/routers/router.hpp"

namespace hearth {

template <class R>
class UnlearnedRouter : public Router<R> {
 public:
  using Router<R>::Router;

  [[nodiscard]] RouterTraits traits() const override {
    RouterTraits traits;
    traits.slots = this->place().top_k;
    traits.has_logits = traits.trains_weight = false;
    traits.scratch_bytes = sizeof(std::uint64_t);
    return traits;
  }

  void choose(const RouterInput<R>& input, const Routing<R>& routing) const override {
    const Array1<std::uint64_t> keys(input.template scratch_of<std::uint64_t>(1).data(),
                                     input.cell.tokens);
    make_keys(input.cell, keys);
    kernels::select_hashed(keys, this->place().experts, routing.choice);
    kernels::share_equally<R>(routing.choice, routing.affinity, routing.log_sum, routing.gate);
  }

  void backward(const RouterInput<R>&, const Routing<R>&, const RoutingGradient<R>&,
                const Array2<R>&) const override {}

  [[nodiscard]] double balance_coefficient() const override { return 0; }

 protected:
  // A number for each token that determines its experts.
  virtual void make_keys(const DeviceCell& cell,
                         const Array1<std::uint64_t>& keys) const = 0;  // (tokens)

  // Of the run and the layer.
  [[nodiscard]] std::uint64_t seed() const {
    const auto run = static_cast<std::uint64_t>(this->place().config.run.seed);
    return mix_bits(mix_bits(run) + static_cast<std::uint64_t>(this->place().layer));
  }
};

}  // namespace hearth
