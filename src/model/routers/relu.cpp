// ReMoE (arXiv:2412.14711): gates are rectified logits, and an expert is used where its gate is
// positive. A penalty on the gates, weighted by load, keeps about top_k experts a token: its
// coefficient λ grows by a factor at every step with more, and shrinks by it otherwise (eq. 9, 12).
#include <cmath>

#include "kernels/team.hpp"
#include "model/routers/learned_router.hpp"
#include "model/routers/router_table.hpp"

namespace hearth {

namespace {

template <class R>
void select_positive(const Array2<const R>& logits, const Array2<int>& choice) {
  const int destinations = static_cast<int>(logits.extent(1));
  Kokkos::parallel_for(
      "select_positive", Kokkos::RangePolicy<Exec>(0, static_cast<Index>(logits.extent(0))),
      KOKKOS_LAMBDA(const Index t) {
        int used = 0;
        for (int e = 0; e < destinations; ++e) {
          if (logits(t, e) > 0) choice(t, used++) = e;
        }
        for (; used < destinations; ++used) choice(t, used) = -1;
      });
}

template <class R>
class Relu final : public LearnedRouter<R> {
 public:
  explicit Relu(const RouterPlace& place)
      : LearnedRouter<R>(place,
                         {kernels::Score::relu, false, 1, static_cast<int>(place.first_empty())}) {}

  [[nodiscard]] RouterTraits traits() const override {
    RouterTraits traits;
    traits.slots = this->place().destinations;
    traits.fills_slots = false;
    traits.states = 1;  // steps at which λ grew, less those at which it shrank
    traits.copies_of_token = static_cast<double>(this->place().top_k);
    return traits;
  }

  [[nodiscard]] double balance_coefficient() const override {
    const ReluConfig& relu = this->place().config.relu;
    return relu.initial_lambda * std::pow(relu.lambda_factor, static_cast<double>(growth_));
  }

  void advance(const StepSums& layout, const HostArray1<std::int64_t>& sums, std::int64_t tokens,
               std::span<std::int64_t> state) const override {
    // Sparsity is that of all layers together.
    std::int64_t copies = 0, wished = 0;
    for (Index layer = 0; layer < layout.moe_layers(); ++layer) {
      for (Index e = 0; e < layout.destinations(layer); ++e) {
        copies += layout.counts(sums, layer)(e);
      }
      wished += tokens * this->place().config.moe.top_k.at(layer);
    }
    state[0] += copies > wished ? 1 : -1;
  }
  void set_state(std::span<const std::int64_t> state) override { growth_ = state[0]; }

 protected:
  void select(const RouterInput<R>& input, const Routing<R>& routing) const override {
    select_positive<R>(input.logits, routing.choice);
  }

 private:
  std::int64_t growth_ = 0;
};

}  // namespace

HEARTH_DEFINE_ROUTER(relu, Relu)

}  // namespace hearth
