#include "catch.hpp"
#include "model/conservation.hpp"
#include "parallel/communicator.hpp"

using namespace hearth;

namespace {

Config two_layers_of_three_experts() {
  Config config;
  config.model.layers = 2;
  config.moe.dense_layers = 0;
  config.moe.experts = 3;
  config.moe.top_k = 2;
  return config;
}

// A step of 4 tokens, 3 of them targets, as it should be.
struct Step {
  Step() : layout(two_layers_of_three_experts(), 2), sums("sums", layout.values().extent(0)) {
    layout.tokens(sums)(0) = 2;
    layout.tokens(sums)(1) = 1;
    const std::int64_t counts[2][3] = {{3, 1, 4}, {0, 4, 4}};
    for (Index layer = 0; layer < 2; ++layer) {
      for (Index expert = 0; expert < 3; ++expert) {
        layout.counts(sums, layer)(expert) = counts[layer][expert];
        layout.arrived(layer)[static_cast<std::size_t>(expert)] = counts[layer][expert];
      }
      layout.tokens_by_copies(sums, layer)(2) = 4;
    }
  }
  // What the check says; "" where it finds nothing.
  std::string check() {
    try {
      check_step(layout, sums, layout.arrived(), 4, 3);
    } catch (const CollectiveError& error) {
      return error.what();
    }
    return "";
  }
  StepSums layout;
  HostArray1<std::int64_t> sums;
};

}  // namespace

TEST_CASE("a cell's copies are k of each token, none negative") {
  const std::vector<int> good = {3, 0, 5}, lost = {3, 0, 4}, negative = {9, -1, 0};
  CHECK_NOTHROW(check_copies(1, good, good, 4, 2));
  CHECK_NOTHROW(check_copies(1, good, lost, 4, 2));  // one was dropped
  CHECK_NOTHROW(check_copies(1, lost, lost, 4, 0));  // the router decides how many
  CHECK_THROWS_WITH(check_copies(1, lost, lost, 4, 2),
                    "MoE layer 1: 7 token copies of 4 tokens with 2 experts each");
  CHECK_THROWS_WITH(check_copies(1, lost, good, 4, 0),
                    "MoE layer 1: 5 token copies for expert 2, which 4 chose");
  CHECK_THROWS_WITH(check_copies(1, negative, negative, 4, 2),
                    "MoE layer 1: -1 token copies for expert 1");
  CHECK_THROWS(check_not_negative(0, negative));
}

TEST_CASE("a step conserves its token copies") {
  Step step;
  CHECK(step.check().empty());
}

TEST_CASE("a copy that went to another expert than it was sent to is found") {
  Step step;
  --step.layout.arrived(1)[1];
  ++step.layout.arrived(1)[2];
  CHECK(step.check() == "MoE layer 1, all ranks: 4 token copies were sent to expert 1, 3 arrived");
}

TEST_CASE("copies that were lost before they were sent are found") {
  Step step;
  --step.layout.counts(step.sums, 0)(2);
  --step.layout.arrived(0)[2];
  CHECK(step.check() ==
        "MoE layer 0, all ranks: 7 token copies and 0 dropped ones of 4 tokens with 2 experts "
        "each");
}

TEST_CASE("copies that tokens have and nobody sent are found") {
  Step step;
  --step.layout.tokens_by_copies(step.sums, 1)(2);
  ++step.layout.tokens_by_copies(step.sums, 1)(1);
  CHECK(step.check() == "MoE layer 1, all ranks: 8 token copies were sent, 4 of 4 tokens have 7");
}

TEST_CASE("a target token without a loss is found") {
  Step step;
  --step.layout.tokens(step.sums)(1);
  CHECK(step.check() == "all ranks: 2 target tokens have a loss, of 3");
}
