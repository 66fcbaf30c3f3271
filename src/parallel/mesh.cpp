#include "parallel/mesh.hpp"

#include <algorithm>
#include <utility>

#include "base/error.hpp"

namespace hearth {

namespace {

// The same on every rank, or the error of the lowest that had one.
template <class Make>
Decomposition agreed(const Communicator& all, const Make& make) {
  Decomposition decomposition;
  all.together([&] { decomposition = make(); });
  return decomposition;
}

}  // namespace

Decomposition decompose(int ranks, const Config& config) {
  const std::vector<Index> experts = config.experts_by_layer();
  const Index wanted = config.parallel.expert_ranks;
  const std::string& file = config.parallel.placement;
  if (file.empty() || !config.has_experts()) {
    const RankGrid grid = make_rank_grid(ranks, wanted, experts);
    return {grid, make_placements(grid, experts)};
  }
  PlacementFile placement = read_placement(file, experts, config.moe.dense_layers);
  const int placed = placement.expert_ranks;
  if (wanted != 0 && wanted != placed) {
    throw input_error(file, ": is for expert_ranks = ", placed,
                      ", but parallel.expert_ranks = ", wanted, "; expected the same, or 0");
  }
  if (ranks % placed != 0) {
    throw input_error(file, ": is for expert_ranks = ", placed, ", which does not divide the ",
                      ranks, ranks == 1 ? " rank" : " ranks",
                      " of this run; expected a multiple, another file, or parallel.placement ",
                      "without a value");
  }
  return {make_rank_grid(ranks, placed, experts), std::move(placement.placements),
          std::move(placement.sources)};
}

Mesh::Mesh(const Communicator& all, const Config& config)
    : Mesh(all, agreed(all, [&] { return decompose(all.size(), config); })) {}

Mesh::Mesh(const Communicator& all, Index expert_ranks, const std::vector<Index>& experts_)
    : Mesh(all, agreed(all, [&]() -> Decomposition {
             const RankGrid made = make_rank_grid(all.size(), expert_ranks, experts_);
             return {made, make_placements(made, experts_)};
           })) {}

Mesh::Mesh(const Communicator& all, Decomposition decomposition)
    : grid(decomposition.grid),
      placements(std::move(decomposition.placements)),
      sources(std::move(decomposition.sources)),
      world(all),
      experts(all.split(grid.data_index(all.rank()))),
      data(all.split(grid.expert_index(all.rank()))) {}

std::vector<ExpertPlacement> make_placements(const RankGrid& grid,
                                             const std::vector<Index>& experts) {
  std::vector<ExpertPlacement> placements;
  placements.reserve(experts.size());
  for (const Index count : experts) placements.emplace_back(count, grid.expert_ranks);
  return placements;
}

RankGrid make_rank_grid(int ranks, Index expert_ranks, const std::vector<Index>& experts) {
  const auto largest = std::max_element(experts.begin(), experts.end());
  return make_rank_grid(ranks, expert_ranks, largest == experts.end() ? 0 : *largest);
}

std::string describe(const RankGrid& grid, const Config& config) {
  const std::vector<Index> experts = config.experts_by_layer();
  const bool placed = config.has_experts() && !config.parallel.placement.empty();
  Index most = 0, least = experts.empty() ? 0 : experts.front();
  for (const Index count : experts) {
    most = std::max(most, share(count, grid.expert_ranks, 0).size());
    least = std::min(least, share(count, grid.expert_ranks, grid.expert_ranks - 1).size());
  }
  return text(grid.ranks, grid.ranks == 1 ? " rank" : " ranks", " = ", grid.expert_ranks,
              " expert_ranks x ", grid.data_ranks(), " data_ranks, ",
              least == most ? text(most) : text(least, " to ", most), " experts a rank",
              placed ? text(", placed by ", config.parallel.placement) : text(""),
              config.has_experts() && config.parallel.cells == "source" ? ", cells by source" : "");
}

}  // namespace hearth
