// Which cells of a step are whose.
#pragma once

#include <vector>

#include "parallel/decomposition.hpp"

namespace hearth {

// `sequences` consecutive sequences cut into cells of `cell_sequences` (the last may be shorter),
// shared out over the ranks. Every rank gets its share() of the cells.
class StepCells {
 public:
  // In contiguous ranges.
  StepCells(Index sequences, Index cell_sequences, int ranks, int rank);
  // As `owner` says.
  StepCells(Index sequences, Index cell_sequences, const std::vector<int>& owner,  // (cells)
            int ranks, int rank);

  // Cells that every rank works through; the last ones of some ranks have no sequences, but the
  // ranks still take part in the exchange.
  [[nodiscard]] Index rounds() const { return rounds_; }

  // First sequence and number of sequences of this rank's cell in a round.
  [[nodiscard]] Range sequences(Index round) const;

 private:
  Index total_, cell_sequences_, rounds_;
  std::vector<Index> cells_;  // of this rank, ascending
};

[[nodiscard]] Index count_cells(Index sequences, Index cell_sequences);

// The rank of each cell, so that the sum of gain[cell][expert rank of its rank] is large: two cells
// change places, from contiguous shares on, as long as that raises it. A pure function of integers,
// hence the same on every rank.
[[nodiscard]] std::vector<int> cells_by_gain(
    const std::vector<std::vector<std::int64_t>>& gain,  // (cells) of (expert_ranks)
    const RankGrid& grid);

}  // namespace hearth
