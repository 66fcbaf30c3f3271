// Balance without a loss (DeepSeek-V3, arXiv:2412.19437, section 2.1.2; Wang et al.,
// arXiv:2408.15664): experts are chosen by score plus a bias that enters no gate. After each step
// an expert's bias moves by `update` towards balance; it is `update` times an integer, so that it
// is the same on any layout.
#include "kernels/routing/score_of.hpp"
#include "model/routers/learned_router.hpp"
#include "model/routers/router_table.hpp"

namespace hearth {

namespace {

template <class R>
void add_bias(kernels::Score kind, const Array2<const R>& logits, const Array2<const R>& affinity,
              const Array1<const double>& bias, const Array2<R>& value) {
  const Index destinations = logits.extent(1);
  Kokkos::parallel_for(
      "add_bias", Kokkos::RangePolicy<Exec>(0, static_cast<Index>(logits.extent(0))),
      KOKKOS_LAMBDA(const Index t) {
        for (Index e = 0; e < destinations; ++e) {
          value(t, e) =
              kernels::score_of(kind, logits(t, e), affinity(t, e)) + static_cast<R>(bias(e));
        }
      });
}

template <class R>
class BiasBalanced final : public LearnedRouter<R> {
 public:
  explicit BiasBalanced(const RouterPlace& place)
      : LearnedRouter<R>(place, gate_rule(place.config.bias_balanced.gate, place)),
        bias_("router bias", place.destinations) {}

  [[nodiscard]] RouterTraits traits() const override {
    RouterTraits traits;
    traits.slots = this->place().top_k;
    traits.states = this->place().destinations;  // each bias, in updates
    traits.scratch_bytes = this->place().destinations * Index{sizeof(R)};
    return traits;
  }

  void advance(const StepSums& layout, const HostArray1<std::int64_t>& sums, std::int64_t,
               std::span<std::int64_t> state) const override {
    const Index layer = this->place().layer, destinations = this->place().destinations;
    std::int64_t all = 0;
    for (Index e = 0; e < destinations; ++e) all += layout.counts(sums, layer)(e);
    for (Index e = 0; e < destinations; ++e) {
      const std::int64_t load = layout.counts(sums, layer)(e) * destinations;
      state[static_cast<std::size_t>(e)] += load < all ? 1 : load > all ? -1 : 0;
    }
  }
  void set_state(std::span<const std::int64_t> state) override {
    const auto host = Kokkos::create_mirror_view(bias_);
    for (std::size_t e = 0; e < host.extent(0); ++e) {
      host(e) = this->place().config.bias_balanced.update * static_cast<double>(state[e]);
    }
    Kokkos::deep_copy(bias_, host);
  }

 protected:
  void select(const RouterInput<R>& input, const Routing<R>& routing) const override {
    const RouterPlace& place = this->place();
    const Array2<R> value = input.template scratch_of<R>(place.destinations);
    add_bias<R>(this->rule().score, input.logits, routing.affinity, bias_, value);
    kernels::select_top_k<R>(value, group_limit(place.config.bias_balanced.group), routing.gate,
                             routing.choice);
  }

 private:
  Array1<double> bias_;  // (destinations)
};

}  // namespace

HEARTH_DEFINE_ROUTER(bias_balanced, BiasBalanced)

}  // namespace hearth
