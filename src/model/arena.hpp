// All tensors of one owner laid end to end in one array, so that one collective serves them all.
//
// Each slice (tensor_table.hpp) starts at a multiple of 4096 elements and is padded with zeros:
// blocks of 4096 elements are the unit of norms and of shards, and no shard boundary cuts one.
#pragma once

#include <vector>

#include "model/tensor_table.hpp"
#include "parallel/decomposition.hpp"

namespace hearth {

// Where one slice of a tensor lies.
struct ArenaSlice {
  int tensor;      // index in the table
  Index slice;     // logical slice: an expert, or 0
  Index begin;     // first element in the arena
  Index elements;  // without the padding
};

class ArenaLayout {
 public:
  // The tensors of `owner` that the ranks with `expert_index` hold: with `placements`, by layer
  // with experts.
  ArenaLayout(const TensorTable& table, Owner owner, const std::vector<ExpertPlacement>& placements,
              int expert_index);

  [[nodiscard]] Index elements() const { return elements_; }
  [[nodiscard]] const std::vector<ArenaSlice>& slices() const { return slices_; }

  // First element of a tensor: of its first local slice; the next ones follow at a fixed stride.
  [[nodiscard]] Index begin(int tensor) const { return begin_[static_cast<std::size_t>(tensor)]; }

  // The part of rank `part` of `parts`, in elements, whole blocks; parts may be empty.
  [[nodiscard]] Range shard(int parts, int part) const;
  [[nodiscard]] std::vector<Index> shard_sizes(int parts) const;

  // The runs of tensor elements inside arena elements [range.begin, range.end).
  struct Run {
    int tensor;
    Index slice;
    Index first;  // element within the slice
    Index elements;
    Index begin;  // element within the arena
  };
  [[nodiscard]] std::vector<Run> runs(Range range) const;

 private:
  std::vector<ArenaSlice> slices_;
  std::vector<Index> begin_;  // (tensors), -1: not in this arena
  Index elements_ = 0;
};

// Elements from one slice to the next.
[[nodiscard]] Index padded_slice(const TensorInfo& tensor);

}  // namespace hearth
