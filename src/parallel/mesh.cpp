#include "parallel/mesh.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace hearth {

namespace {

RankGrid agreed_grid(const Communicator& all, Index expert_ranks,
                     const std::vector<Index>& experts) {
  RankGrid grid;
  all.together([&] { grid = make_rank_grid(all.size(), expert_ranks, experts); });
  return grid;
}

}  // namespace

Mesh::Mesh(const Communicator& all, Index expert_ranks, const std::vector<Index>& experts_)
    : grid(agreed_grid(all, expert_ranks, experts_)),
      placements(make_placements(grid, experts_)),
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

std::string describe(const RankGrid& grid, const std::vector<Index>& experts) {
  Index most = 0, least = experts.empty() ? 0 : experts.front();
  for (const Index count : experts) {
    most = std::max(most, share(count, grid.expert_ranks, 0).size());
    least = std::min(least, share(count, grid.expert_ranks, grid.expert_ranks - 1).size());
  }
  return text(grid.ranks, grid.ranks == 1 ? " rank" : " ranks", " = ", grid.expert_ranks,
              " expert_ranks x ", grid.data_ranks(), " data_ranks, ",
              least == most ? text(most) : text(least, " to ", most), " experts a rank");
}

}  // namespace hearth
