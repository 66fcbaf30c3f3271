#include "train/ranked_choices.hpp"

#include <algorithm>

namespace hearth {

template <class R>
void rank_choices(const HostArray2<const R>& affinity, const HostArray2<int>& choice) {
  const Index tokens = choice.extent(0), slots = choice.extent(1);
  for (Index t = 0; t < tokens; ++t) {
    int* const begin = choice.data() + t * slots;
    int* const end = std::find(begin, begin + slots, -1);
    std::stable_sort(begin, end, [&](int a, int b) { return affinity(t, a) > affinity(t, b); });
  }
}

template <class R>
RankedChoices<R>::RankedChoices(Index layers, Index tokens, Index slots)
    : tokens_(tokens),
      slots_(slots),
      next_(static_cast<std::size_t>(layers), 0),
      values_(static_cast<std::size_t>(layers * tokens * slots), 0) {}

template <class R>
void RankedChoices<R>::begin_cell(Index first) {
  std::fill(next_.begin(), next_.end(), first);
}

template <class R>
void RankedChoices<R>::observe(const SeenTokens<R>& seen) {
  const Index count = seen.choice.extent(0), used = seen.choice.extent(1);
  const HostArray2<int> choice("choice", count, used);
  Kokkos::deep_copy(choice, seen.choice);
  rank_choices<R>(Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), seen.affinity), choice);
  Index& next = next_[static_cast<std::size_t>(seen.layer)];
  auto slot = values_.begin() + (seen.layer * tokens_ + next) * slots_;
  for (Index t = 0; t < count; ++t) {
    for (Index j = 0; j < slots_; ++j) *slot++ = j < used ? choice(t, j) : -1;
  }
  next += count;
}

#define HEARTH_INSTANTIATE(R)                                                        \
  template void rank_choices<R>(const HostArray2<const R>&, const HostArray2<int>&); \
  template class RankedChoices<R>
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
#undef HEARTH_INSTANTIATE

}  // namespace hearth
