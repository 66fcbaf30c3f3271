#include "base/error.hpp"
#include "catch.hpp"
#include "unit/train/one_layer.hpp"

using namespace hearth;

namespace {

Config dense_config() {
  Config config = one_layer_config();
  config.moe.experts = 0;
  return config;
}

Config upcycled_config() {
  Config config = one_layer_config();
  config.moe.experts = 6;
  config.moe.top_k = 2;
  config.moe.expert_ffn = config.model.dense_ffn;
  config.moe.shared_ffn = 0;
  config.top_k.gate.renormalise = true;
  return config;
}

double loss_of(SmallModel<double>& model) {
  const auto losses = model.transformer.evaluate(model.cell);
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), losses);
  return std::accumulate(host.data(), host.data() + host.size(), 0.0) /
         static_cast<double>(host.size());
}

double upcycled_loss(SmallModel<double>& dense, const Config& config) {
  SmallModel<double> model(config);
  derive(dense, model, upcycled(dense.parameters.table(), model.parameters.table()));
  return loss_of(model);
}

}  // namespace

TEST_CASE("Copies of a dense layer with gates that add up to one give its loss") {
  SmallModel<double> dense(dense_config());
  const double before = loss_of(dense);
  CHECK(upcycled_loss(dense, upcycled_config()) == Approx(before).epsilon(1e-12));

  // A shared expert says nothing yet.
  Config shared = upcycled_config();
  shared.moe.shared_ffn = 28;
  CHECK(upcycled_loss(dense, shared) == Approx(before).epsilon(1e-12));

  // Gates that do not add up to one give another.
  Config plain = upcycled_config();
  plain.top_k.gate.renormalise = false;
  CHECK(std::abs(upcycled_loss(dense, plain) - before) > 1e-4);
}

TEST_CASE("Slices of a dense layer that a token all visits give its loss") {
  SmallModel<double> dense(dense_config());
  Config config = upcycled_config();
  config.moe.experts = 4;
  config.moe.top_k = 4;
  config.moe.expert_ffn = config.model.dense_ffn / 4;
  // Four slices with gates of 1/4, the output of each times 4: a sigmoid of 0 for every expert.
  config.top_k.gate.score = "sigmoid";
  config.model.init_std = 0;  // of the router alone, for all else comes from the dense model
  CHECK(upcycled_loss(dense, config) == Approx(loss_of(dense)).epsilon(1e-12));
}

TEST_CASE("Experts repeat the slices in their order") {
  SmallModel<double> dense(dense_config());
  Config config = upcycled_config();
  config.moe.experts = 5;
  config.moe.expert_ffn = 20;  // two slices of 40
  SmallModel<double> model(config);
  derive(dense, model, upcycled(dense.parameters.table(), model.parameters.table()));
  const Index hidden = 24, ffn = 20;
  for (const Index expert : {0, 1, 2, 3, 4}) {
    const Index slice = expert % 2;
    for (Index i = 0; i < ffn; ++i) {
      for (Index h = 0; h < hidden; ++h) {
        const Index at = (expert * ffn + i) * hidden + h, from = (slice * ffn + i) * hidden + h;
        for (const std::string part : {"gate", "up"}) {
          CHECK(element(model, "layers/00/experts/" + part, at) ==
                element(dense, "layers/00/dense/" + part, from));
        }
        CHECK(element(model, "layers/00/experts/down", (expert * hidden + h) * ffn + i) ==
              2 * element(dense, "layers/00/dense/down", h * 40 + slice * ffn + i));
      }
    }
  }
}

TEST_CASE("Combined experts are the sums of their terms, with the same rows of the router") {
  Config config = one_layer_config();
  SmallModel<double> older(config);
  config.moe.experts = 2;
  SmallModel<double> newer(config);
  const ExpertTerms experts = {{{5, 1}}, {{1, 0.25}, {3, 0.75}}};
  derive(older, newer,
         combined_experts(older.parameters.table(), newer.parameters.table(), {experts}));
  for (const auto& [name, unit] :
       {std::pair("router/weight", 24), std::pair("experts/up", 20 * 24)}) {
    const std::string tensor = text("layers/00/", name);
    for (Index i = 0; i < unit; ++i) {
      const auto of = [&](Index expert) { return element(older, tensor, expert * unit + i); };
      CHECK(element(newer, tensor, i) == of(5));
      CHECK(element(newer, tensor, unit + i) == Approx(0.25 * of(1) + 0.75 * of(3)));
    }
  }
  for (const std::string name : {"embedding/weight", "layers/00/attention/key", "head/weight"}) {
    CHECK(element(newer, name, 101) == element(older, name, 101));
  }
}

TEST_CASE("A tensor that the older model has not is an error") {
  const TensorTable table = make_tensor_table(one_layer_config());
  Config other = one_layer_config();
  other.model.layers = 2;
  CHECK_THROWS_AS(combined_experts(table, make_tensor_table(other), {{}, {}}), Error);
}
