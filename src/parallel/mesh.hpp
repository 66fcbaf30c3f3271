// The ranks as a mesh of named axes. A tensor's owner is a set of axes (tensor_table.hpp): its
// gradient is summed, and its optimizer state shared out, over the ranks that hold it.
#pragma once

#include "parallel/communicator.hpp"
#include "parallel/decomposition.hpp"

namespace hearth {

struct Mesh {
  // Splits the world; every rank calls it. Errors as make_rank_grid, collective.
  Mesh(const Communicator& world, Index expert_ranks,
       const std::vector<Index>& experts);  // (moe layers)

  RankGrid grid;
  std::vector<ExpertPlacement> placements;  // (moe layers)
  Communicator world;                       // all axes
  Communicator experts;  // axis "expert": one copy of the experts; dispatch and combine
  Communicator data;     // axis "data": the ranks that hold this rank's experts
};

// Who owns the experts of each layer.
[[nodiscard]] std::vector<ExpertPlacement> make_placements(const RankGrid& grid,
                                                           const std::vector<Index>& experts);

// The grid of make_rank_grid for layers of those many experts.
[[nodiscard]] RankGrid make_rank_grid(int ranks, Index expert_ranks,
                                      const std::vector<Index>& experts);

// Line for people: "6 ranks = 3 expert_ranks x 2 data_ranks, 21 to 22 experts a rank".
[[nodiscard]] std::string describe(const RankGrid& grid, const std::vector<Index>& experts);

}  // namespace hearth
