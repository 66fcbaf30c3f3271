#include "parallel/decomposition.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace hearth {

Range share(Index items, Index parts, Index part) {
  const Index base = items / parts, larger = items % parts;
  const Index begin = part * base + std::min(part, larger);
  return {begin, begin + base + (part < larger ? 1 : 0)};
}

RankGrid make_rank_grid(int ranks, Index expert_ranks, Index experts) {
  constexpr Index node = 8;
  if (expert_ranks == 0) {
    expert_ranks = 1;
    for (Index d = 2; d <= std::min<Index>({ranks, experts, node}); ++d) {
      if (ranks % d == 0) expert_ranks = d;
    }
  }
  if (expert_ranks > ranks || ranks % expert_ranks != 0) {
    std::string divisors;
    for (int d = 1; d <= ranks; ++d) {
      if (ranks % d == 0) divisors += text(divisors.empty() ? "" : ", ", d);
    }
    throw input_error("parallel.expert_ranks = ", expert_ranks, " does not divide the ", ranks,
                      " ranks of this run; expected one of ", divisors, ", or 0");
  }
  return {ranks, static_cast<int>(expert_ranks)};
}

ExpertPlacement::ExpertPlacement(Index experts, int expert_ranks)
    : owner_(static_cast<std::size_t>(experts)),
      experts_of_(static_cast<std::size_t>(expert_ranks)) {
  for (int rank = 0; rank < expert_ranks; ++rank) {
    const Range range = share(experts, expert_ranks, rank);
    for (Index expert = range.begin; expert < range.end; ++expert) {
      owner_[static_cast<std::size_t>(expert)] = rank;
      experts_of_[static_cast<std::size_t>(rank)].push_back(expert);
    }
  }
}

}  // namespace hearth
