// The tensors' checksums over one shard of an arena, filled in by a pass over it.
#pragma once

#include "kernels/checksum.hpp"
#include "model/arena.hpp"

namespace hearth {

class ShardChecksums {
 public:
  ShardChecksums() = default;  // of no elements
  // Of arena elements `range`, whole blocks.
  ShardChecksums(const TensorTable& table, const ArenaLayout& layout, Range range);

  // Filled in by whoever writes the weights: kernels::adam, or kernels::take_checksums.
  [[nodiscard]] const kernels::ChunkChecksums& chunks() const { return chunks_; }

  // sums[tensor] += the checksum of the tensor's elements in this shard, mod 2⁶⁴: (tensors).
  void add_to(std::vector<std::int64_t>& sums) const;
  // The same of any other number by chunk: (chunks).
  void add_to(std::vector<std::int64_t>& sums, const Array1<const std::uint64_t>& chunks) const;

 private:
  kernels::ChunkChecksums chunks_;
  std::vector<int> tensor_;  // (stretches): tensors that lie in the shard, one after the other
  Array1<const Index> begin_, end_;  // (stretches): their chunks
  Array1<std::uint64_t> sum_;        // (stretches)
};

}  // namespace hearth
