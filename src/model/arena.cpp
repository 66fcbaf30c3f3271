#include "model/arena.hpp"

#include <algorithm>

#include "kernels/fixed_point.hpp"

namespace hearth {

using kernels::block_elements;

Index padded_slice(const TensorInfo& tensor) {
  return kernels::whole_blocks(tensor.slice_elements()) * block_elements;
}

ArenaLayout::ArenaLayout(const TensorTable& table, Owner owner,
                         const std::vector<ExpertPlacement>& placements, int expert_index)
    : begin_(table.size(), -1) {
  const auto slices_of = [&](const TensorInfo& info) -> std::vector<Index> {
    if (owner == Owner::everyone) return {0};
    return placements.at(static_cast<std::size_t>(info.moe_layer)).experts_of(expert_index);
  };
  for (std::size_t tensor = 0; tensor < table.size(); ++tensor) {
    const TensorInfo& info = table[tensor];
    if (info.owner != owner || !info.alias_of.empty()) continue;
    begin_[tensor] = elements_;
    for (const Index slice : slices_of(info)) {
      slices_.push_back({static_cast<int>(tensor), slice, elements_, info.slice_elements()});
      elements_ += padded_slice(info);
    }
  }
}

Range ArenaLayout::shard(int parts, int part) const {
  const Range blocks = share(elements_ / block_elements, parts, part);
  return {blocks.begin * block_elements, blocks.end * block_elements};
}

std::vector<Index> ArenaLayout::shard_sizes(int parts) const {
  std::vector<Index> sizes;
  for (int part = 0; part < parts; ++part) sizes.push_back(shard(parts, part).size());
  return sizes;
}

std::vector<ArenaLayout::Run> ArenaLayout::runs(Range range) const {
  std::vector<Run> result;
  for (const ArenaSlice& slice : slices_) {
    const Index begin = std::max(range.begin, slice.begin);
    const Index end = std::min(range.end, slice.begin + slice.elements);
    if (begin < end) {
      result.push_back({slice.tensor, slice.slice, begin - slice.begin, end - begin, begin});
    }
  }
  return result;
}

}  // namespace hearth
