// Order, not only value: halving a difference step quarters the error of the derivative.
#include "base/error.hpp"
#include "catch.hpp"
#include "model/routers/router_table.hpp"
#include "unit/train/small_model.hpp"

using namespace hearth;

namespace {

using HostArenas = std::array<HostArray1<double>, 2>;

// A normal number for every element of every tensor, in units of the initial weights' deviation.
HostArenas random_direction(SmallModel<double>& model, unsigned seed) {
  HostArenas direction;
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, model.config.model.init_std);
  for (std::size_t owner = 0; owner < direction.size(); ++owner) {
    const ArenaLayout& layout = model.parameters.arenas()[owner].layout;
    direction[owner] = HostArray1<double>("direction", layout.elements());
    for (const ArenaSlice& slice : layout.slices()) {
      for (Index i = 0; i < slice.elements; ++i) {
        direction[owner](slice.begin + i) = normal(random);
      }
    }
  }
  return direction;
}

HostArenas weights_of(SmallModel<double>& model) {
  HostArenas weights;
  for (std::size_t owner = 0; owner < weights.size(); ++owner) {
    const auto& arena = model.parameters.arenas()[owner].weights;
    weights[owner] = HostArray1<double>("weights", arena.extent(0));
    Kokkos::deep_copy(weights[owner], arena);
  }
  return weights;
}

struct Point {
  double loss, slope;        // along the direction
  std::vector<int> choices;  // (moe layers, tokens, k)
};

// The model at weights + step · direction.
Point at(SmallModel<double>& model, const HostArenas& weights, const HostArenas& direction,
         double step) {
  for (std::size_t owner = 0; owner < weights.size(); ++owner) {
    const HostArray1<double> moved("moved", weights[owner].extent(0));
    for (std::size_t i = 0; i < moved.extent(0); ++i) {
      moved(i) = weights[owner](i) + step * direction[owner](i);
    }
    Kokkos::deep_copy(model.parameters.arenas()[owner].weights, moved);
  }
  model.train();
  Point point{model.loss(), 0, {}};
  for (std::size_t owner = 0; owner < weights.size(); ++owner) {
    const auto gradient = Kokkos::create_mirror_view_and_copy(
        Kokkos::HostSpace(), model.parameters.arenas()[owner].gradients.fixed);
    for (std::size_t i = 0; i < gradient.extent(0); ++i) {
      point.slope +=
          static_cast<double>(gradient(i)) * kernels::gradient_unit * direction[owner](i);
    }
  }
  for (const auto& choice : model.transformer.choices()) {
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), choice);
    point.choices.insert(point.choices.end(), host.data(), host.data() + host.size());
  }
  return point;
}

// A random direction in which no token changes its experts within the largest step: there the loss
// jumps.
HostArenas smooth_direction(SmallModel<double>& model, const HostArenas& weights, double step) {
  const auto choices_at = [&](const HostArenas& direction, double distance) {
    return at(model, weights, direction, distance).choices;
  };
  for (unsigned seed = 1; seed < 50; ++seed) {
    HostArenas direction = random_direction(model, seed);
    const std::vector<int> here = choices_at(direction, 0);
    if (choices_at(direction, step) == here && choices_at(direction, -step) == here) {
      return direction;
    }
  }
  throw failure("every direction crosses a tie of the router");
}

// All of the table but those whose weight stays as it is, without a gradient.
std::vector<std::string> routers_with_whole_gradients() {
  std::vector<std::string> names = {
#define HEARTH_ROUTER(name, text) #name,
#include "config/routers.def"
#undef HEARTH_ROUTER
  };
  std::erase_if(names, [](const std::string& name) {
    Config config = small_config();
    config.moe.router = name;
    const RouterTraits traits = router_traits(config, 0);
    return traits.has_logits && !traits.trains_weight;
  });
  return names;
}

void check_order(Config config) {
  config.model.compute_type = "fp64";
  config.model.init_std = 0.2;  // far from linear
  // Few tokens: none is near a tie of the router.
  config.model.sequence_length = 6;
  config.batch.global_batch = config.batch.cell_sequences = 2;
  SmallModel<double> model(config);
  const HostArenas weights = weights_of(model);
  const double steps[] = {2e-3, 1e-3, 5e-4};
  const HostArenas direction = smooth_direction(model, weights, steps[0]);
  const double slope = at(model, weights, direction, 0).slope;
  std::vector<double> errors;
  for (const double step : steps) {
    const double after = at(model, weights, direction, step).loss;
    const double before = at(model, weights, direction, -step).loss;
    errors.push_back((after - before) / (2 * step) - slope);
  }
  CAPTURE(slope, errors[0], errors[1], errors[2]);
  CHECK(std::abs(errors[2]) > 1e-8 * std::abs(slope));  // the step's error, not rounding
  CHECK(std::abs(errors[2]) < 1e-3 * std::abs(slope));
  CHECK(errors[0] / errors[1] == Approx(4).epsilon(0.02));
  CHECK(errors[1] / errors[2] == Approx(4).epsilon(0.02));
}

}  // namespace

TEST_CASE("halving a difference step quarters the error of the loss's derivative") {
  Config config = small_config();
  SECTION("experts") {
    check_order(config);
  }
  // Where the choice jumps: ReMoE's gates are continuous there, their derivative is not.
  for (const std::string& router : routers_with_whole_gradients()) {
    DYNAMIC_SECTION("router " << router) {
      config.moe.router = router;
      config.moe.balance_loss = 0.3;
      config.top_p.entropy_loss = 0.3;
      config.relu.initial_lambda = 0.3;
      // At the usual width some logit is so near zero that every direction crosses it.
      if (config.moe.router == "relu") config.model.hidden = 32;
      check_order(config);
    }
  }
  SECTION("experts without matrices, numbers by layer") {
    config.moe.experts.values = {7, 4};
    config.moe.top_k.values = {3, 4};
    config.moe.copy_experts = config.moe.zero_experts = config.moe.null_experts = 1;
    config.moe.constant_experts = 2;
    config.moe.light_balance = 0.5;
    config.top_k.gate.renormalise = true;
    config.moe.balance_loss = 0.3;
    SECTION("balance by cell") {
      check_order(config);
    }
    SECTION("balance by sequence") {
      config.moe.balance_scope = "sequence";
      check_order(config);
    }
    SECTION("balance by the step before") {
      config.moe.balance_scope = "global";
      check_order(config);
    }
  }
  SECTION("no experts") {
    config.moe.experts = 0;
    check_order(config);
  }
  SECTION("normed queries and keys, tied embeddings") {
    config.model.qk_norm = config.model.tie_embeddings = true;
    check_order(config);
  }
}
