// Every router of the table against plain loops: what it chooses, its gates, and its adjoint
// against derivatives by complex steps.
#include "catch.hpp"
#include "kernels/rms_norm.hpp"
#include "model/routers/router_table.hpp"
#include "unit/kernels/support.hpp"
#include "unit/model/reference_routers.hpp"

using namespace hearth;
using namespace hearth::testing;

namespace {

constexpr Index tokens = 53, sequence_length = 20, moe_layer = 1;
constexpr double z_scale = 0.3, entropy_scale = 0.2;

Config config_of(const std::string& router) {
  Config config;
  config.moe.router = router;
  config.moe.experts.values = {6, 8};  // the layer in question has eight
  config.moe.top_k = 3;
  config.model.layers = 3;
  config.model.sequence_length = sequence_length;
  config.bias_balanced.update = 0.05;
  return config;
}

void add_light(Config& config) {
  config.moe.copy_experts = 1;
  config.moe.constant_experts = 2;
  config.moe.zero_experts = 1;
  config.moe.null_experts = 2;
}

struct Variant {
  std::string name;
  Config config;
};

std::vector<Variant> variants() {
  std::vector<Variant> all;
  const auto add = [&](const std::string& router, const std::string& what, const auto& change) {
    Config config = config_of(router);
    change(config);
    all.push_back({router + what, config});
  };
  // As in the deck without further keys, and with experts without matrices.
#define HEARTH_ROUTER(name, text) add(#name, "", [](Config&) {});
#include "config/routers.def"
#undef HEARTH_ROUTER
  for (const char* router :
       {"top_k", "capacity", "top_p", "relu", "bias_balanced", "scaled_input"}) {
    add(router, ", light experts", add_light);
  }
  add("top_k", ", softmax_chosen", [](Config& c) { c.top_k.gate.score = "softmax_chosen"; });
  add("top_k", ", sigmoid", [](Config& c) { c.top_k.gate = {"sigmoid", false, 1}; });
  add("top_k", ", sigmoid renormalised", [](Config& c) { c.top_k.gate = {"sigmoid", true, 2.5}; });
  add("top_k", ", groups", [](Config& c) { c.top_k.group = {4, 2}; });
  add("top_k", ", renormalised over what computes", [](Config& c) {
    c.top_k.gate.renormalise = true;
    add_light(c);
  });
  for (const bool renormalise : {false, true}) {
    add("top_k", renormalise ? ", skipping, renormalised" : ", skipping", [&](Config& c) {
      c.top_k.gate.renormalise = renormalise;
      c.top_k.skip_below.values = {0.9, 0.4};
    });
  }
  add("top_k", ", skipping by sigmoid", [](Config& c) {
    c.top_k.gate = {"sigmoid", true, 1};
    c.top_k.skip_below = 0.5;
  });
  for (const char* drop : {"probability", "position", "rank"}) {
    for (const bool renormalise : {false, true}) {
      add("capacity", std::string(", ") + drop + (renormalise ? ", renormalised" : ""),
          [&](Config& c) {
            c.capacity.factor = 0.7;
            c.capacity.drop = drop;
            c.capacity.gate.renormalise = renormalise;
          });
    }
  }
  add("expert_choice", ", factor", [](Config& c) { c.expert_choice.factor = 1.3; });
  add("top_p", ", most experts", [](Config& c) {
    c.top_p.threshold = 0.9;
    c.top_p.most_experts = 4;
  });
  add("bias_balanced", ", softmax and groups", [](Config& c) {
    c.bias_balanced.gate = {"softmax", false, 1};
    c.bias_balanced.group = {2, 1};
  });
  return all;
}

// A router at work on random logits, and what it should do.
template <class R>
struct Case {
  Config config;
  RoutedCell plain;
  std::vector<double> logits;
  std::unique_ptr<Router<R>> router;
  RouterTraits traits;
  DeviceCell cell;
  Array2<R> device_logits;
  Routing<R> routing;

  explicit Case(const Config& c)
      : config(c), router(make_router<R>(c, moe_layer)), traits(router->traits()) {
    plain.tokens = tokens;
    plain.experts = c.moe.experts.at(moe_layer);
    plain.destinations = c.destinations(moe_layer);
    plain.top_k = c.moe.top_k.at(moe_layer);
    plain.token = random_integers("token", tokens, 17);
    plain.state = {3, -2, 0, 0, 5, 1, -1, -4, 2, 0, 1, -3, 4, 0};
    for (Index t = 0; t < tokens; ++t) plain.place.push_back(7 * sequence_length + t);
    logits = rounded<R>(random_values("logits", tokens * plain.destinations, 1.5));
    cell.tokens = tokens;
    cell.sequence_length = sequence_length;
    cell.first_sequence = 7;
    cell.token = to_device<int>(plain.token);
    plain.state.resize(static_cast<std::size_t>(std::max<Index>(traits.states, 14)));
    router->set_state(std::span(plain.state).first(static_cast<std::size_t>(traits.states)));
    device_logits = to_device<R>(logits, tokens, plain.destinations);
    const auto choice = filled_matrix<int>(tokens, traits.slots);
    routing = {filled_matrix<R>(tokens, plain.destinations), filled<R>(tokens),
               traits.drops ? filled_matrix<int>(tokens, traits.slots) : choice, choice,
               filled_matrix<R>(tokens, traits.slots)};
    router->choose(input(), routing);
  }

  [[nodiscard]] RouterInput<R> input() const {
    return {cell, device_logits, filled_matrix<char>(tokens, traits.scratch_bytes, 0)};
  }
  template <class S>
  [[nodiscard]] Reference<S> reference(const std::vector<S>& z) const {
    return reference_route(config, moe_layer, plain, z);
  }
};

// Lists of a token's choices, which end at -1.
Lists lists_of(const Array2<int>& choice) {
  const auto flat = to_host(choice);
  const Index slots = choice.extent(1);
  Lists lists(static_cast<std::size_t>(choice.extent(0)));
  for (Index t = 0; t < static_cast<Index>(lists.size()); ++t) {
    bool ended = false;
    for (Index j = 0; j < slots; ++j) {
      const int e = flat[t * slots + j];
      ended = ended || e < 0;
      if (!ended) lists[t].push_back(e);
      CHECK(ended == (e == -1));
    }
  }
  return lists;
}

}  // namespace

TEMPLATE_TEST_CASE("routers choose and weigh as plain loops do", "", float, double) {
  using R = TestType;
  for (const auto& [name, config] : variants()) {
    INFO(name);
    const Case<R> at(config);
    const auto expected = at.reference(at.logits);
    CHECK(lists_of(at.routing.choice) == expected.choice);
    CHECK(lists_of(at.routing.wanted) == expected.wanted);
    CHECK(relative_difference_of(at.routing.affinity, expected.affinity) < tolerance<R>());
    const auto gate = to_host(at.routing.gate);
    double largest = 0, difference = 0;
    for (Index t = 0; t < tokens; ++t) {
      for (std::size_t j = 0; j < expected.gate[t].size(); ++j) {
        const double found = gate[t * at.traits.slots + static_cast<Index>(j)];
        difference = std::max(difference, std::abs(found - expected.gate[t][j]));
        largest = std::max(largest, std::abs(expected.gate[t][j]));
      }
      if (at.traits.fills_slots) {
        CHECK(static_cast<Index>(expected.wanted[t].size()) == at.traits.slots);
      }
    }
    CHECK(largest > 0);
    CHECK(difference < tolerance<R>() * largest);
  }
}

TEST_CASE("routers' adjoints are the derivatives of their gates and losses") {
  for (const auto& [name, config] : variants()) {
    INFO(name);
    const Case<double> at(config);
    if (!at.traits.has_logits) continue;
    const Index destinations = at.plain.destinations, slots = at.traits.slots;
    const Index groups = (tokens + sequence_length - 1) / sequence_length;
    const auto dgate = random_values("dgate", tokens * slots);
    const auto slope = random_values("slope", groups * destinations);
    const double entropy = at.router->entropy_coefficient() > 0 ? entropy_scale : 0;
    const auto derivative = complex_step(at.logits, [&](const std::vector<Complex>& z) {
      const auto routed = at.reference(z);
      Complex loss = 0;
      for (Index t = 0; t < tokens; ++t) {
        for (std::size_t j = 0; j < routed.gate[t].size(); ++j) {
          loss += dgate[t * slots + static_cast<Index>(j)] * routed.gate[t][j];
        }
        for (Index e = 0; e < destinations; ++e) {
          const Complex a = routed.affinity[t * destinations + e];
          loss += slope[t / sequence_length * destinations + e] * a;
          if (entropy > 0) loss -= entropy * a * std::log(a);
        }
        loss += 0.5 * z_scale * routed.log_sum[t] * routed.log_sum[t];
      }
      return loss;
    });
    const auto dlogits = filled_matrix<double>(tokens, destinations);
    const RoutingGradient<double> gradient{
        to_device<double>(dgate, tokens, slots),
        {to_device<double>(slope, groups, destinations), sequence_length},
        z_scale,
        entropy};
    at.router->backward(at.input(), at.routing, gradient, dlogits);
    CHECK(relative_difference_of(dlogits, derivative) < 1e-12);
  }
}

TEST_CASE("a softmax over the chosen experts is the softmax over all, renormalised") {
  Config after = config_of("top_k"), renormalised = after;
  after.top_k.gate.score = "softmax_chosen";
  renormalised.top_k.gate.renormalise = true;
  const Case<double> a(after), b(renormalised);
  CHECK(same_bits(to_host(a.routing.gate), to_host(b.routing.gate)));
  const auto gate = to_host(a.routing.gate);
  const auto choice = to_host(a.routing.choice);
  for (Index t = 0; t < tokens; ++t) {
    double sum = 0;
    for (Index j = 0; j < 3; ++j) sum += std::exp(a.logits[t * 8 + choice[t * 3 + j]]);
    for (Index j = 0; j < 3; ++j) {
      CHECK(gate[t * 3 + j] ==
            Approx(std::exp(a.logits[t * 8 + choice[t * 3 + j]]) / sum).epsilon(1e-12));
    }
  }
}

TEST_CASE("expert choice loads all experts equally; capacity bounds them") {
  const auto loads = [](const Case<float>& at) {
    std::vector<Index> count(static_cast<std::size_t>(at.plain.destinations), 0);
    for (const auto& list : lists_of(at.routing.choice)) {
      for (const int e : list) ++count[e];
    }
    return count;
  };
  const Case<float> choice(config_of("expert_choice"));
  for (const Index load : loads(choice)) CHECK(load == 20);  // ⌈53 · 3 / 8⌉
  Config config = config_of("capacity");
  config.capacity.factor.values = {9, 0.5};  // by layer
  const Case<float> capacity(config);
  for (const Index load : loads(capacity)) CHECK(load == 10);  // ⌈0.5 · 53 · 3 / 8⌉

  // However large the factor, an expert has no more rows than there are tokens.
  for (const double factor : {5.0, 1e9, 1e300}) {
    config.capacity.factor.values = {factor};
    config.capacity.padded = true;
    CHECK(Case<float>(config).router->least_rows(53) == 53);
  }
}

TEST_CASE("what routers hand on from step to step follows from counts alone") {
  const auto advance = [](const Config& config, const std::vector<std::int64_t>& counts,
                          std::vector<std::int64_t> state) {
    const StepSums layout(config, 1);
    const HostArray1<std::int64_t> sums("sums", layout.values().extent(0));
    for (Index layer = 0; layer < 2; ++layer) {
      for (Index e = 0; e < layout.destinations(layer); ++e) {
        layout.counts(sums, layer)(e) = counts[static_cast<std::size_t>(e)];
      }
    }
    make_router<float>(config, moe_layer)->advance(layout, sums, 10, state);
    return state;
  };
  const std::vector<std::int64_t> uneven = {3, 5, 4, 4, 4, 4, 0, 8};  // 32: 4 each
  CHECK(advance(config_of("bias_balanced"), uneven, {0, 0, 7, 0, 0, 0, 2, 0}) ==
        std::vector<std::int64_t>{1, -1, 7, 0, 0, 0, 3, -1});

  // ReMoE: 24 and 32 copies for 10 tokens with 3 experts in two layers, 60.
  CHECK(advance(config_of("relu"), uneven, {5}) == std::vector<std::int64_t>{4});
  std::vector<std::int64_t> more = uneven;
  more[0] += 3;
  CHECK(advance(config_of("relu"), more, {5}) == std::vector<std::int64_t>{6});
  const auto relu = make_router<float>(config_of("relu"), moe_layer);
  const std::vector<std::int64_t> ten = {10};
  CHECK(relu->balance_coefficient() == Approx(1e-8));
  relu->set_state(ten);
  CHECK(relu->balance_coefficient() == Approx(1e-8 * std::pow(1.2, 10)));
}
