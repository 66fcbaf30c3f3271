// The memory of a cell: as predicted, and less of it with model.recompute = block.
#include "base/error.hpp"
#include "catch.hpp"
#include "unit/train/small_model.hpp"

using namespace hearth;

namespace {

std::vector<Config> variants() {
  std::vector<Config> configs(6, small_config());
  configs[1].moe.experts = 0;
  configs[2].model.qk_norm = true;
  configs[3].moe.shared_ffn = 0;
  configs[4].model.vocabulary = 2003;  // the head needs the most
  configs[4].batch.cell_sequences = 40;
  configs[5].moe.expert_ffn = 700;  // an expert's gradient does
#define HEARTH_ROUTER(name, text)    \
  configs.push_back(small_config()); \
  configs.back().moe.router = #name;
#include "config/routers.def"
#undef HEARTH_ROUTER
  // Experts without matrices, numbers by layer, and segments of one length.
  configs.push_back(small_config());
  configs.back().moe.experts.values = {7, 4};
  configs.back().moe.top_k.values = {3, 5};
  configs.back().moe.constant_experts = configs.back().moe.copy_experts = 2;
  configs.back().moe.balance_scope = "sequence";
  configs.push_back(configs.back());
  configs.back().moe.router = "capacity";
  configs.back().capacity.padded = true;
  return configs;
}

template <class T>
void check_prediction(Config config, const std::string& type) {
  config.model.compute_type = type;
  for (const char* recompute : {"none", "block"}) {
    config.model.recompute = recompute;
    SmallModel<T> model(config);
    model.train();
    const Index measured = model.transformer.activations().high_water_bytes();
    CHECK(measured == activation_bytes(config, model.mesh.grid, model.transformer.exchange_rows()));
    CHECK(measured <= activation_bytes(config, model.mesh.grid, most_rows(config, {})));
    CHECK(model.transformer.activations().held_bytes() >= measured);
    // Evaluation fits where training does.
    model.transformer.evaluate(model.cell);
    CHECK(model.transformer.activations().high_water_bytes() == measured);
  }
}

template <class T>
std::vector<std::int64_t> results(SmallModel<T>& model) {
  model.train();
  std::vector<std::int64_t> all;
  const auto append = [&](const Array1<std::int64_t>& values) {
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), values);
    all.insert(all.end(), host.data(), host.data() + host.size());
  };
  append(model.sums.values());
  for (const auto& arena : model.parameters.arenas()) append(arena.gradients.fixed);
  return all;
}

}  // namespace

TEST_CASE("a cell takes the memory that was predicted for the rows it exchanged") {
  for (const Config& config : variants()) {
    INFO("variant " << config.moe.router << ", " << config.moe.experts.at(0) << " experts, qk_norm "
                    << config.model.qk_norm << ", expert_ffn " << config.moe.expert_ffn
                    << ", vocabulary " << config.model.vocabulary);
    check_prediction<float>(config, "fp32");
    check_prediction<double>(config, "fp64");
    check_prediction<bfloat16>(config, "bf16");
  }
}

TEST_CASE("keeping only the blocks' inputs takes less memory and changes no bit") {
  for (const Config& config : variants()) {
    SmallModel<float> all(config);
    Config block = config;
    block.model.recompute = "block";
    SmallModel<float> inputs(block);
    CHECK(results(all) == results(inputs));
    CHECK(inputs.transformer.activations().high_water_bytes() <
          all.transformer.activations().high_water_bytes());
    // Nor does memory that an earlier cell has used.
    CHECK(results(inputs) == results(all));
  }
}

TEST_CASE("the rows of balanced and of extreme routing") {
  Config config = small_config();
  config.batch.cell_sequences = 4;  // 64 tokens, 192 copies for 7 experts: 28 for one
  const std::vector<ExchangeRows> balanced = balanced_rows(config, {3, 3});
  REQUIRE(balanced.size() == 2);
  CHECK(balanced[0].sent == 7 * 32);
  CHECK(balanced[0].received == 3 * 3 * 32);
  const std::vector<ExchangeRows> most = most_rows(config, {3, 3});
  // 192 + 7 · 31 = 409 in whole segments; all copies of 3 cells go to the 3 experts of one rank,
  // each of which gets 64 from a cell, which 192 + 3 · 31 bounds.
  CHECK(most[0].sent == 384);
  CHECK(most[0].received == 3 * 256);
  config.moe.experts = 0;
  CHECK(most_rows(config, {3, 3}).empty());
}

TEST_CASE("a cell that does not fit says which layer needed what") {
  const Config config = small_config();
  SmallModel<float> model(config);
  model.transformer.activations().set_limit_bytes(1 << 16);
  try {
    model.train();
    FAIL("it fitted");
  } catch (const Error& error) {
    CHECK(error.status() == Status::failure);
    CHECK(std::string(error.what()).find("layer 0: no memory for '") == 0);
  }
}
