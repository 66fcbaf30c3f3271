#include "model/activation_bytes.hpp"

#include <algorithm>

#include "kernels/permutation.hpp"
#include "model/compute_type.hpp"

namespace hearth {

namespace {

// Experts of the rank that has the most.
Index most_experts(const Config& config, const RankGrid& grid) {
  return share(config.moe.experts, grid.expert_ranks, 0).size();
}

// The most rows that `copies` copies can make in `segments` segments: one copy short of a multiple
// costs the most padding.
Index most_padded_rows(Index copies, Index segments) {
  constexpr Index multiple = kernels::segment_multiple;
  return (copies + (multiple - 1) * std::min(segments, copies)) / multiple * multiple;
}

std::vector<ExchangeRows> in_every_layer(const Config& config, const ExchangeRows& rows) {
  return std::vector<ExchangeRows>(static_cast<std::size_t>(config.moe_layers()), rows);
}

}  // namespace

Index activation_bytes(const Config& config, const RankGrid& grid,
                       const std::vector<ExchangeRows>& rows) {
  Activations counted = Activations::counting();
  const Index tokens = config.cell_tokens(), experts = most_experts(config, grid);
  with_compute_type(config.model, [&](auto type) {
    Transformer<decltype(type)>::count_train(counted, config, tokens, rows, experts);
  });
  return counted.high_water_bytes();
}

std::vector<ExchangeRows> balanced_rows(const Config& config, const RankGrid& grid) {
  if (config.moe_layers() == 0) return {};
  const Index experts = config.moe.experts;
  const Index copies = (config.cell_tokens() * config.moe.top_k + experts - 1) / experts;
  const Index segment = kernels::padded_rows(copies);
  return in_every_layer(
      config, {experts * segment, grid.expert_ranks * most_experts(config, grid) * segment,
               grid.expert_ranks});
}

std::vector<ExchangeRows> most_rows(const Config& config, const RankGrid& grid) {
  if (config.moe_layers() == 0) return {};
  const Index tokens = config.cell_tokens(), here = most_experts(config, grid);
  // The experts of a token are distinct.
  const Index copies_here = tokens * std::min(config.moe.top_k, here);
  return in_every_layer(
      config, {most_padded_rows(tokens * config.moe.top_k, config.moe.experts),
               grid.expert_ranks * most_padded_rows(copies_here, here), grid.expert_ranks});
}

}  // namespace hearth
