// Who owns what: pure arithmetic, testable without MPI.
#pragma once

#include <vector>

#include "base/types.hpp"

namespace hearth {

struct Range {
  Index begin = 0, end = 0;
  [[nodiscard]] Index size() const { return end - begin; }
  [[nodiscard]] bool contains(Index i) const { return begin <= i && i < end; }
};

// Part `part` of `items` consecutive items cut into `parts`: sizes differ by at most one, the
// larger ones first. Parts may be empty.
[[nodiscard]] Range share(Index items, Index parts, Index part);

// The part that each item is in: (items).
[[nodiscard]] std::vector<int> shares(Index items, int parts);

// World = expert_ranks × data_ranks. Ranks with the same data index hold one whole copy of the
// experts between them and exchange tokens; ranks with the same expert index hold the same experts.
struct RankGrid {
  int ranks = 1;
  int expert_ranks = 1;
  [[nodiscard]] int data_ranks() const { return ranks / expert_ranks; }
  [[nodiscard]] int expert_index(int rank) const { return rank % expert_ranks; }
  [[nodiscard]] int data_index(int rank) const { return rank / expert_ranks; }
};

// The grid for `expert_ranks` of a deck; 0 chooses the largest divisor of `ranks` that is not
// above the largest number of experts of a layer nor above 8 (a node's worth: dispatch should stay
// inside a node).
// Throws input_error naming the divisors where expert_ranks does not divide the number of ranks.
[[nodiscard]] RankGrid make_rank_grid(int ranks, Index expert_ranks, Index experts);

// Which rank of the exchange group owns which experts: a permutation of the logical experts.
// Nothing else may assume an order. A rank owns as many as its share() of them, whichever they are,
// so that memory does not depend on the placement.
class ExpertPlacement {
 public:
  // Contiguous ranges.
  ExpertPlacement(Index experts, int expert_ranks);
  // Throws input_error, without a place, where a rank does not own its share or there is no such
  // rank.
  ExpertPlacement(std::vector<int> owner, int expert_ranks);  // (experts)
  [[nodiscard]] int owner(Index expert) const { return owner_[static_cast<std::size_t>(expert)]; }
  // Logical experts of a rank, ascending.
  [[nodiscard]] const std::vector<Index>& experts_of(int expert_index) const {
    return experts_of_[static_cast<std::size_t>(expert_index)];
  }

 private:
  std::vector<int> owner_;                      // (experts)
  std::vector<std::vector<Index>> experts_of_;  // (expert_ranks)
};

}  // namespace hearth
