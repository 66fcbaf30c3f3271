#include "train/step_cells.hpp"

#include <algorithm>
#include <utility>

namespace hearth {

Index count_cells(Index sequences, Index cell_sequences) {
  return (sequences + cell_sequences - 1) / cell_sequences;
}

StepCells::StepCells(Index sequences, Index cell_sequences, int ranks, int rank)
    : StepCells(sequences, cell_sequences, shares(count_cells(sequences, cell_sequences), ranks),
                ranks, rank) {}

StepCells::StepCells(Index sequences, Index cell_sequences, const std::vector<int>& owner,
                     int ranks, int rank)
    : total_(sequences), cell_sequences_(cell_sequences) {
  const auto cells = static_cast<Index>(owner.size());
  rounds_ = share(cells, ranks, 0).size();  // the first rank has the most
  for (Index cell = 0; cell < cells; ++cell) {
    if (owner[static_cast<std::size_t>(cell)] == rank) cells_.push_back(cell);
  }
}

Range StepCells::sequences(Index round) const {
  if (round >= static_cast<Index>(cells_.size())) return {total_, total_};
  const Index cell = cells_[static_cast<std::size_t>(round)];
  return {cell * cell_sequences_, std::min(total_, (cell + 1) * cell_sequences_)};
}

std::vector<int> cells_by_gain(const std::vector<std::vector<std::int64_t>>& gain,
                               const RankGrid& grid) {
  const std::size_t cells = gain.size();
  std::vector<int> owner = shares(static_cast<Index>(cells), grid.ranks);
  const auto gain_of = [&](std::size_t cell, int rank) {
    return gain[cell][static_cast<std::size_t>(grid.expert_index(rank))];
  };
  bool changed = true;
  while (changed) {  // ends: each exchange raises an integer that is bounded
    changed = false;
    for (std::size_t a = 0; a < cells; ++a) {
      for (std::size_t b = a + 1; b < cells; ++b) {
        const std::int64_t now = gain_of(a, owner[a]) + gain_of(b, owner[b]);
        if (gain_of(a, owner[b]) + gain_of(b, owner[a]) <= now) continue;
        std::swap(owner[a], owner[b]);
        changed = true;
      }
    }
  }
  return owner;
}

}  // namespace hearth
