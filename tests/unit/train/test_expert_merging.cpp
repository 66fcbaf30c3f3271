#include "train/expert_merging.hpp"

#include "base/error.hpp"
#include "catch.hpp"
#include "train/skip_calibration.hpp"
#include "unit/train/one_layer.hpp"

using namespace hearth;

namespace {

// Experts whose outputs are the same vectors for every token: rows of `outputs`.
ExpertLikeness likeness_of(const std::vector<std::vector<double>>& outputs,
                           std::vector<std::int64_t> chosen) {
  ExpertLikeness likeness{std::move(chosen), {}};
  for (const auto& a : outputs) {
    for (const auto& b : outputs) {
      likeness.products.push_back(std::inner_product(a.begin(), a.end(), b.begin(), 0.0));
    }
  }
  return likeness;
}

// A test's observer: gates and choices as they come.
struct Gates final : ExpertObserver<double> {
  std::vector<int> choice;
  std::vector<double> share;  // of the largest, without that one
  [[nodiscard]] bool wants_products() const override { return false; }
  void observe(const SeenTokens<double>& seen) override {
    CHECK(seen.product.size() == 0);
    const auto chosen = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), seen.choice);
    const auto gate = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), seen.gate);
    for (std::size_t t = 0; t < seen.choice.extent(0); ++t) {
      std::vector<double> gates;
      for (std::size_t j = 0; j < seen.choice.extent(1); ++j) {
        choice.push_back(chosen(t, j));
        gates.push_back(gate(t, j));
      }
      std::sort(gates.rbegin(), gates.rend());
      for (std::size_t j = 1; j < gates.size(); ++j) share.push_back(gates[j] / gates[0]);
    }
  }
};

}  // namespace

TEST_CASE("Experts with outputs of one direction are merged first, whatever their length") {
  const auto likeness =
      likeness_of({{1, 0, 0}, {0, 1, 0}, {3, 0.1, 0}, {0, 0.2, 2}, {0, 5, 0.3}}, {10, 3, 30, 0, 1});
  CHECK(group_experts(likeness, 5) == ExpertGroups{{0}, {1}, {2}, {3}, {4}});
  CHECK(group_experts(likeness, 3) == ExpertGroups{{0, 2}, {1, 4}, {3}});
  CHECK(group_experts(likeness, 2) == ExpertGroups{{0, 2}, {1, 3, 4}});
  CHECK(group_experts(likeness, 1) == ExpertGroups{{0, 1, 2, 3, 4}});

  const ExpertTerms merged = merged_terms(likeness, {{0, 2}, {1, 4}, {3}});
  REQUIRE(merged.size() == 3);
  CHECK(merged[0][0].weight == 0.25);
  CHECK(merged[0][1].expert == 2);
  CHECK(merged[0][1].weight == 0.75);
  CHECK(merged[2][0].weight == 1);  // though it was never chosen
  const ExpertTerms idle = merged_terms(likeness_of({{1}, {1}}, {0, 0}), {{0, 1}});
  CHECK(idle[0][0].weight == 0.5);
}

TEST_CASE("Likeness is measured on all tokens, and choices are counted") {
  OneLayer<double> layer(one_layer_config());
  const std::vector<double> x = layer.input();
  LikenessSums<double> sums({7});
  (void)layer.output(x, &sums);
  sums.end_cell();
  const ExpertLikeness likeness = sums.sums(Communicator::world()).at(0);
  Gates gates;
  (void)layer.output(x, &gates);
  for (int e = 0; e < 7; ++e) {
    CHECK(likeness.chosen[static_cast<std::size_t>(e)] ==
          std::count(gates.choice.begin(), gates.choice.end(), e));
  }
  // Plain loops over the weights.
  SmallModel<double>& model = layer.model;
  const Index hidden = 24, ffn = 20, tokens = model.cell.tokens;
  const auto output = [&](Index expert, Index token) {
    const auto weight = [&](const std::string& part, Index i) {
      return element(model, "layers/00/experts/" + part, expert * ffn * hidden + i);
    };
    std::vector<double> inner, out;
    for (Index f = 0; f < ffn; ++f) {
      double gate = 0, up = 0;
      for (Index h = 0; h < hidden; ++h) {
        gate += weight("gate", f * hidden + h) * x[static_cast<std::size_t>(token * hidden + h)];
        up += weight("up", f * hidden + h) * x[static_cast<std::size_t>(token * hidden + h)];
      }
      inner.push_back(gate / (1 + std::exp(-gate)) * up);
    }
    for (Index h = 0; h < hidden; ++h) {
      double sum = 0;
      for (Index f = 0; f < ffn; ++f) {
        sum += weight("down", h * ffn + f) * inner[static_cast<std::size_t>(f)];
      }
      out.push_back(sum);
    }
    return out;
  };
  double product = 0, square = 0;
  for (Index t = 0; t < tokens; ++t) {
    const auto a = output(2, t), b = output(6, t);
    product += std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
    square += std::inner_product(a.begin(), a.end(), a.begin(), 0.0);
  }
  CHECK(likeness.products[2 * 7 + 6] == Approx(product).epsilon(1e-7));
  CHECK(likeness.products[6 * 7 + 2] == likeness.products[2 * 7 + 6]);
  CHECK(likeness.products[2 * 7 + 2] == Approx(square).epsilon(1e-7));
}

TEST_CASE("The share below which choices are skipped is the median of what was seen") {
  std::vector<std::int64_t> counts(share_steps + 1, 0);
  CHECK(median_share(counts) == 0);
  counts[share_steps] = 1;
  CHECK(median_share(counts) == 1);
  counts[share_steps / 4] = 1;
  CHECK(median_share(counts) == 0.25);  // the lower of two
  counts[share_steps / 2] = 1;
  CHECK(median_share(counts) == 0.5);

  for (const std::int64_t top_k : {1, 2, 3}) {
    Config config = one_layer_config();
    config.moe.top_k = top_k;
    OneLayer<double> layer(config);
    const std::vector<double> x = layer.input();
    Gates gates;
    (void)layer.output(x, &gates);
    ShareCounts<double> shares(1);
    (void)layer.output(x, &shares);
    const double found = median_share(shares.counts(Communicator::world()).at(0));
    if (top_k == 1) {
      CHECK(found == 0);
      continue;
    }
    std::sort(gates.share.begin(), gates.share.end());
    const double median = gates.share[(gates.share.size() + 1) / 2 - 1];
    CHECK(found <= median);
    CHECK(found > median - 1.0 / share_steps);

    // With it, half of the lower choices are skipped.
    config.top_k.skip_below = found;
    OneLayer<double> skipping(config);
    Gates fewer;
    (void)skipping.output(x, &fewer);
    const auto skipped = std::count(fewer.choice.begin(), fewer.choice.end(), -1);
    const auto all = static_cast<double>(gates.share.size());
    CHECK(static_cast<double>(skipped) == Approx(all / 2).margin(1 + 0.02 * all));
  }
}
