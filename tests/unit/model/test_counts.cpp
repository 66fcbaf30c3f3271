#include "catch.hpp"
#include "config/deck.hpp"
#include "model/arena.hpp"
#include "model/counts.hpp"

using namespace hearth;

namespace {

struct Expected {
  const char* deck;
  double paper_active, paper_total, true_active, true_total;  // in millions
  double tolerance;
};

double millions(std::int64_t count) {
  return static_cast<double>(count) / 1e6;
}

}  // namespace

TEST_CASE("the decks' models have the published sizes") {
  const Expected expected[] = {
      {"flame-38m", 37.47, 100.2, 38.0, 100.7, 0.06},
      {"flame-98m", 98.35, 349.2, 100.0, 350.9, 0.06},
      {"flame-115m", 114.48, 459.4, 116.2, 461.2, 0.06},
      {"flame-290m", 290.39, 1293.9, 296.5, 1300.0, 0.06},
      {"flame-419m", 419.36, 2175.5, 425.9, 2182.0, 0.06},
      {"flame-721m", 721.21, 3825.7, 734.9, 3839.5, 0.06},
      {"flame-1.7b", 1729.36, 10259.0, 1754.1, 10283.7, 0.06},
  };
  for (const Expected& model : expected) {
    INFO(model.deck);
    const Config config = read_deck("inputs/" + std::string(model.deck) + ".deck", {});
    CHECK(millions(paper_parameters(config).active) == Approx(model.paper_active).margin(0.006));
    CHECK(millions(paper_parameters(config).total) == Approx(model.paper_total).margin(0.06));
    CHECK(millions(true_parameters(config).active) == Approx(model.true_active).margin(0.06));
    CHECK(millions(true_parameters(config).total) == Approx(model.true_total).margin(0.06));
  }
  CHECK(paper_parameters(read_deck("inputs/dense-411m.deck", {})).active == 411303936);
  CHECK(paper_parameters(read_deck("inputs/dense-411m-1x.deck", {})).active == 411303936);
  CHECK(paper_parameters(read_deck("inputs/dense-411m-4x.deck", {})).active == 411303936);
  CHECK(paper_parameters(read_deck("inputs/dense-1.4b.deck", {})).total == 1439170560);
}

TEST_CASE("FLOPs per token are close to six times the active weights") {
  const Config config = read_deck("inputs/flame-1.7b.deck", {});
  // Megatron-LM's count of the run over its tokens, flame-1.7b: 2.39e20 over 23.129e9.
  CHECK(training_flops_per_token(config) == Approx(2.39e20 / 23.129e9).epsilon(0.01));
}

TEST_CASE("shards cover the arena in whole blocks and runs cover the tensors once") {
  const Config config = parse_deck(
      "[model]\nlayers = 2\nhidden = 24\nheads = 4\ndense_ffn = 40\nvocabulary = 300\n"
      "[moe]\nexperts = 5\ntop_k = 2\nexpert_ffn = 20\n",
      "a deck");
  const TensorTable table = make_tensor_table(config);
  for (const Owner owner : {Owner::everyone, Owner::experts}) {
    // Expert 1 of the layers' five is the second of two ranks' first.
    const std::vector<ExpertPlacement> placements(1, ExpertPlacement(5, 2));
    const ArenaLayout layout(table, owner, placements, 1);
    for (const int parts : {1, 2, 3, 50}) {
      Index end = 0, covered = 0;
      for (int part = 0; part < parts; ++part) {
        const Range range = layout.shard(parts, part);
        CHECK(range.begin == end);
        CHECK(range.begin % 4096 == 0);
        end = range.end;
        for (const auto& run : layout.runs(range)) {
          CHECK(run.begin % 4096 == 0);
          covered += run.elements;
        }
      }
      CHECK(end == layout.elements());
      Index all = 0;
      for (const auto& slice : layout.slices()) all += slice.elements;
      CHECK(covered == all);
    }
  }
}

TEST_CASE("A forward pass costs a third of training, and less where experts are skipped") {
  Config config = read_deck("inputs/flame-38m.deck", {});
  std::vector<double> experts(8, 6.0);
  CHECK(forward_flops_per_token(config, experts) ==
        Approx(training_flops_per_token(config) / 3).epsilon(1e-14));
  experts[3] = 4.5;
  CHECK(training_flops_per_token(config) / 3 - forward_flops_per_token(config, experts) ==
        Approx(1.5 * 2 * 3 * 256 * 176));
  config.moe.experts = 0;
  CHECK(forward_flops_per_token(config, {}) == Approx(training_flops_per_token(config) / 3));
}
