// Expert choice (Zhou et al., arXiv:2202.09368): every expert takes the tokens of the cell that
// give it the largest probabilities, all experts equally many. A token may be taken by any number
// of experts, and which they are depends on tokens after it: not causal, so that its losses are not
// those of a model that generates.
#include <cmath>

#include "kernels/routing/nth_largest.hpp"
#include "model/routers/learned_router.hpp"
#include "model/routers/router_table.hpp"

namespace hearth {

namespace {

// Marks each expert's `taken` tokens of the largest probability, ties going to the earlier token.
template <class R>
void mark_taken(const Array2<const R>& probability, Index taken, const Array2<char>& mark) {
  const Index tokens = probability.extent(0);
  if (tokens == 0) return;
  Kokkos::parallel_for(
      "mark_taken", Kokkos::RangePolicy<Exec>(0, static_cast<Index>(mark.extent(1))),
      KOKKOS_LAMBDA(const Index e) {
        const auto bits = [&](const Index t) {
          return kernels::order_bits(static_cast<double>(probability(t, e)));
        };
        const auto for_each = [&](const auto& visit) {
          for (Index t = 0; t < tokens; ++t) visit(bits(t));
        };
        kernels::Cutoff cutoff = kernels::find_cutoff(for_each, taken);
        for (Index t = 0; t < tokens; ++t) {
          const bool tie = bits(t) == cutoff.bits && cutoff.ties > 0;
          if (tie) --cutoff.ties;
          mark(t, e) = tie || bits(t) > cutoff.bits ? 1 : 0;
        }
      });
}

template <class R>
class ExpertChoice final : public LearnedRouter<R> {
 public:
  explicit ExpertChoice(const RouterPlace& place)
      : LearnedRouter<R>(
            place, {kernels::Score::softmax, false, 1, static_cast<int>(place.destinations)}) {}

  [[nodiscard]] RouterTraits traits() const override {
    RouterTraits traits;
    traits.slots = this->place().destinations;
    traits.fills_slots = false;
    traits.scratch_bytes = traits.slots;
    return traits;
  }

 protected:
  void select(const RouterInput<R>& input, const Routing<R>& routing) const override {
    const Index tokens = input.cell.tokens;
    const Array2<char> mark = input.template scratch_of<char>(this->place().destinations);
    mark_taken<R>(routing.affinity, taken(tokens), mark);
    kernels::select_marked(mark, routing.choice);
  }

 private:
  // Tokens of each expert: ⌈tokens · factor / experts⌉, at most all.
  [[nodiscard]] Index taken(Index tokens) const {
    const RouterPlace& place = this->place();
    const double asked = place.config.expert_choice.factor;
    const double factor = asked == 0 ? static_cast<double>(place.top_k) : asked;
    const double share = static_cast<double>(tokens) * factor / static_cast<double>(place.experts);
    return static_cast<Index>(std::min(static_cast<double>(tokens), std::ceil(share)));
  }
};

}  // namespace

HEARTH_DEFINE_ROUTER(expert_choice, ExpertChoice)

}  // namespace hearth
