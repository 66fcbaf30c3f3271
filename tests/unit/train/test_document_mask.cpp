// With the document mask a sequence computes what its documents compute as sequences of their own.
#include "catch.hpp"
#include "train/trainer.hpp"
#include "train/upload.hpp"
#include "unit/train/fixture.hpp"

using namespace hearth;

namespace {

// Weights large enough that attention and routing tell tokens apart.
Config small_model() {
  Config config;
  config.model.layers = 3;
  config.model.hidden = 12;
  config.model.heads = 4;
  config.model.kv_heads = 2;
  config.model.head_dim = 6;
  config.model.dense_ffn = 14;
  config.model.vocabulary = 31;
  config.model.sequence_length = 44;
  config.model.init_std = 0.4;
  config.model.qk_norm = true;
  config.model.compute_type = "fp64";
  config.moe.experts = 5;
  config.moe.top_k = 2;
  config.moe.expert_ffn = 7;
  config.moe.shared_ffn = 9;
  config.moe.balance_loss = 0;  // depends on how tokens lie in cells
  config.batch.global_batch = 2;
  config.batch.cell_sequences = 2;
  return config;
}

// Two sequences: the second begins within no document of the first.
constexpr Index length = 44;
const std::vector<int> document_begin = {7, 8, 41, 44 + 34};
const std::vector<std::pair<int, int>> runs = {{0, 7},   {7, 8},   {8, 41},
                                               {41, 44}, {44, 78}, {78, 88}};

Cell two_sequences() {
  std::vector<int> tokens;
  for (int i = 0; i < 2 * (length + 1); ++i) tokens.push_back((i * i + 5 * i) % 31);
  return fixture::make_cell(tokens, length);
}

Cell masked() {
  Cell cell = two_sequences();
  cell.document_begin = document_begin;
  return cell;
}

// Each run of tokens of one document as a cell, with positions from 0.
std::vector<DeviceCell> alone() {
  const Cell whole = two_sequences();
  std::vector<DeviceCell> cells;
  for (const auto& [begin, end] : runs) {
    std::vector<int> tokens(whole.token.begin() + begin, whole.token.begin() + end);
    tokens.push_back(whole.target[static_cast<std::size_t>(end - 1)]);
    cells.push_back(upload(fixture::make_cell(tokens, end - begin)));
  }
  return cells;
}

struct Model {
  Config config = small_model();
  Mesh mesh{Communicator::world(), 1, config.experts_by_layer()};
  Trainer<double> trainer{config, mesh, 1};
  DeviceExchange exchange{mesh.experts};
  kernels::Matmul matmul;
  PhaseTimers timers;
  Transformer<double> transformer{config, trainer.parameters(), mesh, exchange, matmul, timers};

  Model() { trainer.optimizer().initialize(); }

  std::vector<double> token_losses(const DeviceCell& cell) {
    const auto host =
        Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), transformer.evaluate(cell));
    return {host.data(), host.data() + cell.tokens};
  }
};

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

}  // namespace

TEST_CASE("masked documents have the token losses of documents alone") {
  Model model;
  std::vector<double> expected;
  for (const DeviceCell& cell : alone()) {
    const std::vector<double> losses = model.token_losses(cell);
    expected.insert(expected.end(), losses.begin(), losses.end());
  }
  CHECK(largest_difference(model.token_losses(upload(masked())), expected) < 1e-12);

  const std::vector<double> crossing = model.token_losses(upload(two_sequences()));
  const auto part = [](const std::vector<double>& a, int begin, int end) {
    return std::vector<double>(a.begin() + begin, a.begin() + end);
  };
  // Before the first boundary of a sequence the mask changes nothing, afterwards it does.
  CHECK(largest_difference(part(crossing, 0, 7), part(expected, 0, 7)) < 1e-12);
  CHECK(largest_difference(part(crossing, 44, 78), part(expected, 44, 78)) < 1e-12);
  CHECK(largest_difference(part(crossing, 7, 44), part(expected, 7, 44)) > 0.1);
  CHECK(largest_difference(part(crossing, 78, 88), part(expected, 78, 88)) > 0.1);
}

TEST_CASE("masked documents have the gradient of documents alone") {
  const auto step = [](const std::vector<DeviceCell>& cells) {
    return Model().trainer.step(cells, 0, nullptr);
  };
  const StepReport together = step({upload(masked())}), apart = step(alone()),
                   crossing = step({upload(two_sequences())});
  CHECK(together.cross_entropy == Approx(apart.cross_entropy).epsilon(1e-12));
  CHECK(together.z_loss == Approx(apart.z_loss).epsilon(1e-12));
  CHECK(together.gradient_norm == Approx(apart.gradient_norm).epsilon(1e-11));
  CHECK(std::abs(together.gradient_norm - crossing.gradient_norm) > 1e-3);
}
