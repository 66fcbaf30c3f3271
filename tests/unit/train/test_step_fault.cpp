#include "catch.hpp"
#include "train/step_fault.hpp"

using namespace hearth;

namespace {

Config small() {
  Config config;
  config.model.layers = 2;
  config.moe.experts = 7;
  config.moe.dense_layers = 1;
  return config;
}

struct Case {
  Case() : config(small()), table(make_tensor_table(config)), fault(config) {
    const auto slices = static_cast<std::size_t>(first_slices(table).back());
    fault.weights.resize(slices);
    fault.gradients.resize(2 * slices);
    fault.losses.resize(2);
  }
  std::size_t slice(const std::string& name, Index number = 0) const {
    const std::vector<Index> first = first_slices(table);
    for (std::size_t t = 0; t < table.size(); ++t) {
      if (table[t].name == name) return static_cast<std::size_t>(first[t] + number);
    }
    throw std::out_of_range(name);
  }
  std::string line() const { return describe(fault, table, {"code", "news"}); }

  Config config;
  TensorTable table;
  StepFault fault;
};

}  // namespace

TEST_CASE("a fault in the gradient alone names tensors and experts in the order of backward") {
  Case c;
  CHECK(c.line() == "the gradient's norm is not finite");
  for (const Index expert : {1, 4}) {
    c.fault.gradients[2 * c.slice("layers/01/experts/gate", expert)] = 3;
  }
  c.fault.gradients[2 * c.slice("layers/01/experts/gate", 4) + 1] = 1;
  c.fault.gradients[2 * c.slice("embedding/weight") + 1] = 9;
  c.fault.gradients[2 * c.slice("head/weight")] = 2;
  CHECK(c.line() ==
        "gradient: head/weight (2 not finite), layers/01/experts/gate of experts 1, 4 (6 not "
        "finite, 1 too large), embedding/weight (9 too large)");
  CHECK_FALSE(c.fault.in_forward_pass());
}

TEST_CASE("a fault in the forward pass names its first place, and sources") {
  Case c;
  const Array2<float> bad("bad", 2, 3), good("good", 2, 3);
  Kokkos::deep_copy(bad, std::numeric_limits<float>::infinity());
  ForwardCheck& check = c.fault.forward;
  for (int cell = 0; cell < 2; ++cell) {
    check.begin_cell();
    check.embedding<float>(good);
    check.attention<float>(good);
    check.block<float>(good);
    check.attention<float>(good);
    check.router<float>(good);
    check.expert<float>(5, cell == 0 ? good : bad);
    check.block<float>(cell == 0 ? good : bad);
    check.final_norm<float>(bad);
  }
  c.fault.losses[1] = 3;
  c.fault.weights[c.slice("layers/01/experts/up", 5)] = 8;
  CHECK(c.fault.in_forward_pass());
  CHECK(c.line() ==
        "weights not finite: layers/01/experts/up of expert 5 (8); values not finite from expert 5 "
        "of layer 1 on (6); loss not finite: news (3 sequences)");
}

TEST_CASE("many names are counted, not listed") {
  Case c;
  for (Index expert = 0; expert < 7; ++expert) {
    c.fault.gradients[2 * c.slice("layers/01/experts/down", expert)] = 1;
  }
  for (const char* name : {"head/weight", "final_norm/weight", "layers/01/shared/down",
                           "layers/01/shared/up", "layers/01/shared/gate"}) {
    c.fault.gradients[2 * c.slice(name)] = 1;
  }
  CHECK(c.line() ==
        "gradient: head/weight (1 not finite), final_norm/weight (1 not finite), "
        "layers/01/shared/down (1 not finite), layers/01/shared/up (1 not finite) and 2 more");
}
