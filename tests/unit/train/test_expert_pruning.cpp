#include "base/error.hpp"
#include "catch.hpp"
#include "train/expert_pruning.hpp"
#include "unit/train/one_layer.hpp"

using namespace hearth;

namespace {

using Set = std::vector<Index>;

// All subsets of a size, by counting through all of them.
std::vector<Set> subsets(Index experts, std::size_t size) {
  std::vector<Set> found;
  for (unsigned bits = 0; bits < 1U << experts; ++bits) {
    Set set;
    for (Index e = 0; e < experts; ++e) {
      if ((bits >> e & 1) != 0) set.push_back(e);
    }
    if (set.size() == size) found.push_back(set);
  }
  std::sort(found.begin(), found.end());
  return found;
}

Set without(Index experts, const Set& dropped) {
  Set kept;
  for (Index e = 0; e < experts; ++e) {
    if (std::find(dropped.begin(), dropped.end(), e) == dropped.end()) kept.push_back(e);
  }
  return kept;
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

// The layer with the dropped experts cut out of it.
std::vector<double> output_without(OneLayer<double>& whole, const Set& dropped,
                                   const std::vector<double>& x) {
  Config config = whole.model.config;
  const Set kept = without(config.moe.experts.at(0), dropped);
  config.moe.experts = static_cast<std::int64_t>(kept.size());
  OneLayer<double> cut(config);
  ExpertTerms experts;
  for (const Index expert : kept) experts.push_back({{expert, 1}});
  derive(whole.model, cut.model,
         combined_experts(whole.model.parameters.table(), cut.model.parameters.table(), {experts}));
  return cut.output(x);
}

Config config_of(const std::string& router) {
  Config config = one_layer_config();
  config.moe.router = router == "top_p" ? router : "top_k";
  config.top_k.gate.renormalise = router == "renormalised";
  config.top_k.gate.score = router == "sigmoid" ? "sigmoid" : "softmax";
  return config;
}

CompareSets compare_in(OneLayer<double>& layer, const std::vector<double>& x) {
  return [&](const DropSets& sets) {
    DropTrial<double> trial(sets);
    (void)layer.output(x, &trial);
    trial.end_cell();
    return trial.sums(Communicator::world());
  };
}

}  // namespace

TEST_CASE("Sets to drop are all there are, in order") {
  for (Index experts = 1; experts <= 8; ++experts) {
    for (Index dropped = 0; dropped <= experts; ++dropped) {
      const auto expected = subsets(experts, static_cast<std::size_t>(dropped));
      CHECK(drop_sets(experts, dropped) == expected);
      CHECK(count_drop_sets(experts, dropped) == static_cast<std::int64_t>(expected.size()));
    }
  }
  CHECK(count_drop_sets(64, 32) == most_drop_sets + 1);
  CHECK(count_drop_sets(4096, 1) == 4096);
  CHECK(grown_sets(4, {1, 3}) == std::vector<Set>{{0, 1, 3}, {1, 2, 3}});
}

TEST_CASE("The change of a layer's output is that of the layer without the experts") {
  for (const std::string router : {"softmax", "renormalised", "sigmoid", "top_p"}) {
    OneLayer<double> layer(config_of(router));
    const std::vector<double> x = layer.input();
    const std::vector<double> whole = layer.output(x);
    for (const std::size_t dropped : {1, 2, 4}) {
      CAPTURE(router, dropped);
      const auto sets = subsets(7, dropped);
      const auto changes = compare_in(layer, x)({sets}).at(0);
      REQUIRE(changes.size() == sets.size() + 1);
      for (std::size_t i = 0; i < sets.size(); ++i) {
        CHECK(changes[i] ==
              Approx(distance(whole, output_without(layer, sets[i], x))).epsilon(1e-8));
      }
    }
  }
}

TEST_CASE("Enumeration finds the best set of an exhaustive search, greed none that is better") {
  bool greed_misses = false;
  for (const std::int64_t seed : {1, 3, 6}) {
    Config config = config_of("renormalised");
    config.model.init_std = 0.3 + 0.1 * static_cast<double>(seed);
    OneLayer<double> layer(config);
    const std::vector<double> x = layer.input(), whole = layer.output(x);
    for (const Index kept : {3, 4, 5}) {
      double best = std::numeric_limits<double>::infinity();
      Set best_set;
      for (const Set& set : subsets(7, static_cast<std::size_t>(7 - kept))) {
        const double change = distance(whole, output_without(layer, set, x));
        if (change < best) {
          best = change;
          best_set = set;
        }
      }
      const auto all = choose_drops({7}, kept, most_drop_sets, compare_in(layer, x)).at(0);
      CHECK(all.enumerated);
      CHECK(all.sets == count_drop_sets(7, kept));
      CHECK(all.dropped == best_set);
      CHECK(all.kept == without(7, best_set));
      CHECK(all.change == Approx(best).epsilon(1e-8));
      const auto greedy = choose_drops({7}, kept, 0, compare_in(layer, x)).at(0);
      CHECK(!greedy.enumerated);
      CHECK(greedy.dropped.size() == static_cast<std::size_t>(7 - kept));
      CHECK(greedy.change >= all.change);
      CHECK(greedy.norm == all.norm);
      greed_misses = greed_misses || greedy.change > all.change;
    }
  }
  CHECK(greed_misses);  // or the two were not told apart
}

TEST_CASE("Dropping nothing changes nothing, and the norm is that of the routed experts") {
  Config config = config_of("softmax");
  OneLayer<double> layer(config);
  const std::vector<double> x = layer.input();
  const auto pruned = choose_drops({7}, 7, most_drop_sets, compare_in(layer, x)).at(0);
  CHECK(pruned.dropped.empty());
  CHECK(pruned.change == 0);
  // The same experts without the shared one.
  config.moe.shared_ffn = 0;
  OneLayer<double> routed(config);
  CHECK(pruned.norm ==
        Approx(distance(routed.output(x), std::vector<double>(x.size()))).epsilon(1e-8));
}

TEST_CASE("Experts' outputs that are not finite are an error") {
  OneLayer<double> layer(config_of("softmax"));
  std::vector<double> x = layer.input();
  x[5] = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(compare_in(layer, x)({subsets(7, 1)}), CollectiveError);
}
