#include "catch.hpp"
#include "train/schedule.hpp"
#include "train/step_cells.hpp"

using namespace hearth;

TEST_CASE("the learning rate warms up, stays and decays") {
  Config config;
  config.run.steps = 1000;  // warm-up 10 steps, decay 100
  const OptimizerConfig& o = config.optimizer;
  CHECK(learning_rate(config, 0) == 0);
  CHECK(learning_rate(config, 5) == Approx(o.learning_rate / 2));
  CHECK(learning_rate(config, 10) == Approx(o.learning_rate));
  CHECK(learning_rate(config, 900) == Approx(o.learning_rate));
  // Half way: 2 · 0.5^(1/2) - 1.
  CHECK(learning_rate(config, 950) ==
        Approx(o.min_learning_rate + 0.41421356237 * (o.learning_rate - o.min_learning_rate)));
  CHECK(learning_rate(config, 1000) == Approx(o.min_learning_rate));
  CHECK(learning_rate(config, 2000) == Approx(o.min_learning_rate));
}

TEST_CASE("without warm-up and decay the rate is constant") {
  Config config;
  config.optimizer.warmup_fraction = config.optimizer.decay_fraction = 0;
  CHECK(learning_rate(config, 0) == config.optimizer.learning_rate);
  CHECK(learning_rate(config, config.run.steps) == config.optimizer.learning_rate);
}

TEST_CASE("the ranks' cells are the step's cells, whatever the number of ranks") {
  for (const Index sequences : {0, 1, 9, 32}) {
    for (const int ranks : {1, 2, 3, 7}) {
      Index next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const StepCells cells(sequences, 2, ranks, rank);
        CHECK(cells.rounds() == StepCells(sequences, 2, ranks, 0).rounds());
        for (Index round = 0; round < cells.rounds(); ++round) {
          const Range range = cells.sequences(round);
          if (range.size() == 0) continue;
          CHECK(range.begin == next);
          CHECK(range.begin % 2 == 0);
          CHECK(range.size() <= 2);
          next = range.end;
        }
      }
      CHECK(next == sequences);
    }
  }
}

TEST_CASE("cells change ranks where that brings more") {
  using Gain = std::vector<std::vector<std::int64_t>>;  // (cells) of (expert_ranks)
  CHECK(cells_by_gain(Gain{{0, 9}, {9, 0}, {5, 5}, {1, 3}}, {2, 2}) ==
        std::vector<int>{1, 0, 0, 1});
  // Nothing to bring: as they were.
  CHECK(cells_by_gain(Gain(5, {1, 1, 1}), {3, 3}) == std::vector<int>{0, 0, 1, 1, 2});
  CHECK(cells_by_gain({}, {3, 3}).empty());
  // Four ranks, two expert ranks: those of one expert rank are alike.
  const std::vector<int> owner = cells_by_gain(Gain{{0, 9}, {9, 0}, {0, 9}, {9, 0}}, {4, 2});
  CHECK(owner == std::vector<int>{1, 0, 3, 2});
  // Every rank works on its own, and the fifth cell is shorter.
  const std::vector<int> five = {1, 0, 0, 1, 0};
  const StepCells first(9, 2, five, 2, 0), second(9, 2, five, 2, 1);
  CHECK(first.rounds() == 3);
  CHECK(second.rounds() == 3);
  CHECK(first.sequences(0).begin == 2);
  CHECK(first.sequences(2).begin == 8);
  CHECK(first.sequences(2).size() == 1);
  CHECK(second.sequences(1).begin == 6);
  CHECK(second.sequences(2).size() == 0);
}
