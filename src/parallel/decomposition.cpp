#include "parallel/decomposition.hpp"

#include <algorithm>
#include <utility>

#include "base/error.hpp"

namespace hearth {

Range share(Index items, Index parts, Index part) {
  const Index base = items / parts, larger = items % parts;
  const Index begin = part * base + std::min(part, larger);
  return {begin, begin + base + (part < larger ? 1 : 0)};
}

std::vector<int> shares(Index items, int parts) {
  std::vector<int> part_of;
  for (int part = 0; part < parts; ++part) {
    part_of.insert(part_of.end(), static_cast<std::size_t>(share(items, parts, part).size()), part);
  }
  return part_of;
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
    : ExpertPlacement(shares(experts, expert_ranks), expert_ranks) {}

ExpertPlacement::ExpertPlacement(std::vector<int> owner, int expert_ranks)
    : owner_(std::move(owner)), experts_of_(static_cast<std::size_t>(expert_ranks)) {
  const auto experts = static_cast<Index>(owner_.size());
  for (Index expert = 0; expert < experts; ++expert) {
    const int rank = owner_[static_cast<std::size_t>(expert)];
    if (rank < 0 || rank >= expert_ranks) {
      throw input_error("expert ", expert, " has the expert rank ", rank, "; expected 0 to ",
                        expert_ranks - 1);
    }
    experts_of_[static_cast<std::size_t>(rank)].push_back(expert);
  }
  for (int rank = 0; rank < expert_ranks; ++rank) {
    const auto owned = static_cast<Index>(experts_of(rank).size());
    const Index expected = share(experts, expert_ranks, rank).size();
    if (owned != expected) {
      throw input_error("expert rank ", rank, " owns ", owned, " of ", experts,
                        " experts; expected ", expected);
    }
  }
}

}  // namespace hearth
