// The experts of some tokens best first, for statistics that look at the best few alone. Kernels
// want choices in ascending order; only what is written down is put in order of rank.
#pragma once

#include <vector>

#include "model/expert_observer.hpp"

namespace hearth {

// Destinations of a token by the router's affinity, the largest first; of equal ones, such as all
// of a router without scores, the lower number. -1 stands in the slots after them.
template <class R>
void rank_choices(const HostArray2<const R>& affinity,  // (tokens, destinations)
                  const HostArray2<int>& choice);       // (tokens, slots): ascending, then -1

// Sees cells go by and keeps the choices of their tokens.
template <class R>
class RankedChoices final : public ExpertObserver<R> {
 public:
  // Of a set of `tokens` tokens in `layers` layers, with room for `slots` experts of each.
  RankedChoices(Index layers, Index tokens, Index slots);

  // The tokens of the next cell are those of the set from `first` on.
  void begin_cell(Index first);

  [[nodiscard]] bool wants_products() const override { return false; }
  void observe(const SeenTokens<R>& seen) override;

  // (layers, tokens, slots): -1 in the slots that a token does not use; 0 for tokens not seen, so
  // that the sum over ranks that see different ones has all.
  [[nodiscard]] std::vector<std::int64_t>& values() { return values_; }

 private:
  Index tokens_, slots_;
  std::vector<Index> next_;  // (layers): the token of the set that comes by next
  std::vector<std::int64_t> values_;
};

}  // namespace hearth
