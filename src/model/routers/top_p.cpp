// Dynamic routing (Huang et al., arXiv:2403.07652): a token gets the fewest experts whose
// probabilities together reach a threshold, the one that crosses it included. Gates are the
// probabilities; their entropy is a loss, or all experts would be used in the end.
#include <algorithm>

#include "kernels/routing/largest.hpp"
#include "kernels/team.hpp"
#include "model/routers/learned_router.hpp"
#include "model/routers/router_table.hpp"

namespace hearth {

namespace {

template <class R>
void select_top_p(const Array2<const R>& probability, double threshold, const Array2<R>& scratch,
                  const Array2<int>& choice) {
  const int destinations = static_cast<int>(probability.extent(1));
  const int slots = static_cast<int>(choice.extent(1));
  const R wanted = static_cast<R>(threshold);
  Kokkos::parallel_for(
      "select_top_p", Kokkos::RangePolicy<Exec>(0, static_cast<Index>(choice.extent(0))),
      KOKKOS_LAMBDA(const Index t) {
        const R* p = kernels::row(probability, t);
        R* largest = kernels::row(scratch, t);
        int* chosen = kernels::row(choice, t);
        kernels::select_largest([&](const int e) { return p[e]; }, [](int) { return true; },
                                destinations, chosen, largest, slots);
        int used = 1;
        for (R sum = largest[0]; used < slots && sum < wanted; ++used) sum += largest[used];
        kernels::sort_ascending(chosen, used);
        for (; used < slots; ++used) chosen[used] = -1;
      });
}

// dlogits += scale · d(-Σ p log p)/d(logits) = -scale · p (log p + entropy)
template <class R>
void add_entropy_gradient(double scale, const Array2<const R>& logits,
                          const Array2<const R>& probability, const Array1<const R>& log_sum,
                          const Array2<R>& dlogits) {
  const Index destinations = probability.extent(1);
  kernels::for_rows(
      "add_entropy_gradient", probability.extent(0),
      KOKKOS_LAMBDA(const kernels::Member& member, const Index t) {
        const R *x = kernels::row(logits, t), *p = kernels::row(probability, t);
        R* out = kernels::row(dlogits, t);
        const R shift = log_sum(t);
        const R entropy = kernels::lane_sum<R>(
            member, destinations, [&](const Index e) { return p[e] * (shift - x[e]); });
        kernels::for_columns(member, destinations, [&](const Index e) {
          out[e] -= static_cast<R>(scale) * p[e] * (x[e] - shift + entropy);
        });
      });
}

template <class R>
class TopP final : public LearnedRouter<R> {
 public:
  explicit TopP(const RouterPlace& place)
      : LearnedRouter<R>(
            place, {kernels::Score::softmax, false, 1, static_cast<int>(place.first_empty())}) {}

  [[nodiscard]] RouterTraits traits() const override {
    RouterTraits traits;
    const Index most = this->place().config.top_p.most_experts;
    traits.slots =
        most == 0 ? this->place().destinations : std::min(most, this->place().destinations);
    traits.fills_slots = false;
    return traits;
  }

  [[nodiscard]] double entropy_coefficient() const override {
    return this->place().config.top_p.entropy_loss;
  }

  void backward(const RouterInput<R>& input, const Routing<R>& routing,
                const RoutingGradient<R>& gradient, const Array2<R>& dlogits) const override {
    LearnedRouter<R>::backward(input, routing, gradient, dlogits);
    add_entropy_gradient<R>(gradient.entropy_scale, input.logits, routing.affinity, routing.log_sum,
                            dlogits);
  }

 protected:
  void select(const RouterInput<R>&, const Routing<R>& routing) const override {
    select_top_p<R>(routing.affinity, this->place().config.top_p.threshold, routing.gate,
                    routing.choice);
  }
};

}  // namespace

HEARTH_DEFINE_ROUTER(top_p, TopP)

}  // namespace hearth
