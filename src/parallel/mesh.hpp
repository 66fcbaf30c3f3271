// The ranks as a mesh of named axes. A tensor's owner is a set of axes (tensor_table.hpp): its
// gradient is summed, and its optimizer state shared out, over the ranks that hold it.
#pragma once

#include "config/config.hpp"
#include "parallel/communicator.hpp"
#include "parallel/placement_file.hpp"

namespace hearth {

// Who is where, and who owns what.
struct Decomposition {
  RankGrid grid;
  std::vector<ExpertPlacement> placements;  // (moe layers)
  std::vector<SourceCopies> sources = {};   // what a placement file says about data sources
};

// Of that many ranks, as the deck wants them. Reads parallel.placement, which a dense model has no
// use for. Throws input_error where it does not fit the model or the ranks, or expert_ranks does
// not.
[[nodiscard]] Decomposition decompose(int ranks, const Config& config);

struct Mesh {
  // Splits the world; every rank calls it. Errors as decompose, collective.
  Mesh(const Communicator& world, const Config& config);
  // Contiguous ranges of experts. Errors as make_rank_grid, collective.
  Mesh(const Communicator& world, Index expert_ranks,
       const std::vector<Index>& experts);  // (moe layers)

  RankGrid grid;
  std::vector<ExpertPlacement> placements;  // (moe layers)
  std::vector<SourceCopies> sources;
  Communicator world;    // all axes
  Communicator experts;  // axis "expert": one copy of the experts; dispatch and combine
  Communicator data;     // axis "data": the ranks that hold this rank's experts

 private:
  Mesh(const Communicator& world, Decomposition decomposition);
};

// Contiguous ranges for each layer.
[[nodiscard]] std::vector<ExpertPlacement> make_placements(const RankGrid& grid,
                                                           const std::vector<Index>& experts);

// The grid of make_rank_grid for layers of those many experts.
[[nodiscard]] RankGrid make_rank_grid(int ranks, Index expert_ranks,
                                      const std::vector<Index>& experts);

// Line for people: "6 ranks = 3 expert_ranks x 2 data_ranks, 21 to 22 experts a rank", and how
// experts are placed and cells shared out where that is not in their order.
[[nodiscard]] std::string describe(const RankGrid& grid, const Config& config);

}  // namespace hearth
