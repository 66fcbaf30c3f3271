#include "train/step_cells.hpp"

#include <algorithm>

namespace hearth {

StepCells::StepCells(Index sequences, Index cell_sequences, int ranks, int rank)
    : total_(sequences), cell_sequences_(cell_sequences) {
  const Index cells = (sequences + cell_sequences - 1) / cell_sequences;
  rounds_ = share(cells, ranks, 0).size();  // the first rank has the most
  cells_ = share(cells, ranks, rank);
}

Range StepCells::sequences(Index round) const {
  const Index cell = cells_.begin + round;
  if (cell >= cells_.end) return {total_, total_};
  return {cell * cell_sequences_, std::min(total_, (cell + 1) * cell_sequences_)};
}

}  // namespace hearth
