// A model without an optimizer, and cells of given tokens, for tests.
#pragma once

#include <random>

#include "model/activation_bytes.hpp"
#include "train/upload.hpp"
#include "unit/train/fixture.hpp"

namespace hearth {

// Dimensions that are small and differ from each other.
inline Config small_config() {
  Config config;
  config.model.layers = 3;
  config.model.hidden = 24;
  config.model.heads = 4;
  config.model.kv_heads = 2;
  config.model.dense_ffn = 40;
  config.model.vocabulary = 67;
  config.model.sequence_length = 16;
  config.moe.experts = 7;
  config.moe.top_k = 3;
  config.moe.expert_ffn = 20;
  config.moe.shared_ffn = 28;
  config.batch.global_batch = config.batch.cell_sequences = 5;
  return config;
}

// Weights, gradients and layers of one rank, and a cell of random tokens.
template <class T>
struct SmallModel {
  explicit SmallModel(const Config& c, Index expert_ranks = 1)
      : config(c),
        mesh(Communicator::world(), expert_ranks, c.experts_by_layer()),
        exchange(mesh.experts),
        parameters(make_tensor_table(c), mesh, c.cells_per_step()),
        transformer(c, parameters, mesh, exchange, matmul, timers),
        sums(c, 1) {
    for (Arena<T>& arena : parameters.arenas()) {
      const HostArray1<Real<T>> weights("weights", arena.layout.elements());
      initialize(parameters.table(), arena.layout, 1, {0, arena.layout.elements()}, weights);
      const auto rounded = Kokkos::create_mirror_view(arena.weights);
      for (std::size_t i = 0; i < weights.size(); ++i) rounded(i) = static_cast<T>(weights(i));
      Kokkos::deep_copy(arena.weights, rounded);
    }
    const Index length = c.model.sequence_length;
    std::mt19937 random(static_cast<unsigned>(mesh.world.rank()));
    std::vector<int> tokens;
    for (Index i = 0; i < c.batch.cell_sequences * (length + 1); ++i) {
      tokens.push_back(static_cast<int>(random() % static_cast<unsigned>(c.model.vocabulary)));
    }
    cell = upload(fixture::make_cell(tokens, length));
  }

  // Forward and backward of the cell, into cleared sums.
  void train() {
    parameters.clear_gradients();
    sums.clear();
    const Index ranks = mesh.world.size();
    transformer.train(cell, {cell.tokens * ranks, cell.targets * ranks}, sums, nullptr);
  }

  // Loss of the last train(), on one rank.
  [[nodiscard]] double loss() const {
    const auto all = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), sums.values());
    double loss = static_cast<double>(sums.loss(all)(0)) * kernels::statistic_unit /
                  static_cast<double>(cell.targets);
    for (Index layer = 0; layer < sums.moe_layers(); ++layer) {
      const auto router = sums.router_loss(all, layer);
      loss += static_cast<double>(router(0) + router(1) + router(2)) * kernels::mean_unit;
    }
    return loss;
  }

  Config config;
  Mesh mesh;
  PhaseTimers timers;
  kernels::Matmul matmul;
  DeviceExchange exchange;
  Parameters<T> parameters;
  Transformer<T> transformer;
  StepSums sums;
  DeviceCell cell;
};

}  // namespace hearth
