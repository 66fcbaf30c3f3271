// Which cells of a step are whose.
#pragma once

#include "parallel/decomposition.hpp"

namespace hearth {

// `sequences` consecutive sequences cut into cells of `cell_sequences` (the last may be shorter),
// shared out over the ranks in contiguous ranges.
class StepCells {
 public:
  StepCells(Index sequences, Index cell_sequences, int ranks, int rank);

  // Cells that every rank works through; the last ones of some ranks have no sequences, but the
  // ranks still take part in the exchange.
  [[nodiscard]] Index rounds() const { return rounds_; }

  // First sequence and number of sequences of this rank's cell in a round.
  [[nodiscard]] Range sequences(Index round) const;

 private:
  Index total_, cell_sequences_, rounds_;
  Range cells_;
};

}  // namespace hearth
