#include "model/activation_bytes.hpp"

#include <algorithm>

#include "kernels/permutation.hpp"
#include "model/compute_type.hpp"

namespace hearth {

namespace {

// Experts of the rank that has the most.
Index most_experts(const Config& config, const RankGrid& grid, Index moe_layer) {
  return share(config.moe.experts.at(moe_layer), grid.expert_ranks, 0).size();
}

// The most rows that `copies` copies can make in `segments` segments of at least `least` rows: one
// copy short of a multiple costs the most padding.
Index most_padded_rows(Index copies, Index segments, Index least) {
  constexpr Index multiple = kernels::segment_multiple;
  const Index rows = (copies + (multiple - 1) * std::min(segments, copies)) / multiple * multiple;
  return rows + segments * kernels::padded_rows(least);
}

template <class Rows>
std::vector<ExchangeRows> by_layer(const Config& config, const Rows& rows) {
  std::vector<ExchangeRows> all;
  for (Index layer = 0; layer < config.moe_layers(); ++layer) all.push_back(rows(layer));
  return all;
}

}  // namespace

Index activation_bytes(const Config& config, const RankGrid& grid,
                       const std::vector<ExchangeRows>& rows) {
  Activations counted = Activations::counting();
  std::vector<Index> experts;
  for (Index layer = 0; layer < config.moe_layers(); ++layer) {
    experts.push_back(most_experts(config, grid, layer));
  }
  with_compute_type(config.model, [&](auto type) {
    Transformer<decltype(type)>::count_train(counted, config, config.cell_tokens(), rows, experts);
  });
  return counted.high_water_bytes();
}

std::vector<ExchangeRows> balanced_rows(const Config& config, const RankGrid& grid) {
  return by_layer(config, [&](Index layer) {
    const Index experts = config.moe.experts.at(layer);
    const Index copies =
        (config.cell_tokens() * config.moe.top_k.at(layer) + experts - 1) / experts;
    const Index least = make_router<float>(config, layer)->least_rows(config.cell_tokens());
    const Index segment = kernels::padded_rows(std::max(copies, least));
    return ExchangeRows{experts * segment,
                        grid.expert_ranks * most_experts(config, grid, layer) * segment,
                        grid.expert_ranks};
  });
}

std::vector<ExchangeRows> most_rows(const Config& config, const RankGrid& grid) {
  return by_layer(config, [&](Index layer) {
    const Index tokens = config.cell_tokens(), here = most_experts(config, grid, layer);
    const auto router = make_router<float>(config, layer);
    const Index slots = router->traits().slots, least = router->least_rows(tokens);
    // The experts of a token are distinct.
    const Index experts = config.moe.experts.at(layer);
    return ExchangeRows{
        most_padded_rows(tokens * std::min(slots, experts), experts, least),
        grid.expert_ranks * most_padded_rows(tokens * std::min(slots, here), here, least),
        grid.expert_ranks};
  });
}

}  // namespace hearth
