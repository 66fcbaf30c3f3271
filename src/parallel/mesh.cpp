#include "parallel/mesh.hpp"

#include "base/error.hpp"

namespace hearth {

namespace {

RankGrid agreed_grid(const Communicator& all, Index expert_ranks, Index experts) {
  RankGrid grid;
  all.together([&] { grid = make_rank_grid(all.size(), expert_ranks, experts); });
  return grid;
}

}  // namespace

Mesh::Mesh(const Communicator& all, Index expert_ranks, Index experts_)
    : grid(agreed_grid(all, expert_ranks, experts_)),
      placement(experts_, grid.expert_ranks),
      world(all),
      experts(all.split(grid.data_index(all.rank()))),
      data(all.split(grid.expert_index(all.rank()))) {}

std::string describe(const RankGrid& grid, Index experts) {
  const Index most = share(experts, grid.expert_ranks, 0).size();
  const Index least = share(experts, grid.expert_ranks, grid.expert_ranks - 1).size();
  return text(grid.ranks, grid.ranks == 1 ? " rank" : " ranks", " = ", grid.expert_ranks,
              " expert_ranks x ", grid.data_ranks(), " data_ranks, ",
              least == most ? text(most) : text(least, " to ", most), " experts a rank");
}

}  // namespace hearth
