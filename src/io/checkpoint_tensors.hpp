// What writing and reading a checkpoint share: where the ranks' parts lie in its tensors, and the
// sums over them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"

namespace hearth {

inline constexpr const char* checkpoint_format = "hearth checkpoint";
inline constexpr std::int64_t checkpoint_format_version = 2;
inline constexpr const char* statistics_group = "/statistics";

// "/model/layers/01/norm/weight".
[[nodiscard]] std::string dataset_name(const std::string& group, const TensorInfo& tensor);

// "(3, 5000)".
[[nodiscard]] std::string shape_text(const std::vector<Index>& dims);

// Of whole counters, as of a tensor.
[[nodiscard]] std::uint64_t counter_checksum(const std::vector<std::int64_t>& values);

// The groups of the parts, in the order of first mention.
template <class T>
[[nodiscard]] std::vector<std::string> groups_of(const std::vector<TensorPart<T>>& parts);

// A stretch of a tensor that a part holds: elements `range` of the whole tensor lie in the part's
// values from `offset`.
struct TensorStretch {
  std::size_t tensor;  // index in the table
  Range range;
  Index offset;
};

// The stretches of a part, as long as they can be, a tensor's after each other.
template <class T>
[[nodiscard]] std::vector<TensorStretch> stretches_of(const TensorTable& table,
                                                      const TensorPart<T>& part);

// Of each tensor of one group, over all ranks' parts: (tensors of the table), zero for an alias.
struct TensorSums {
  std::vector<std::uint64_t> checksums;  // tensor_checksums()
  std::vector<std::int64_t> not_finite;  // elements
};

// Makes sure that the parts cover each tensor once. Collective; throws CollectiveError.
template <class T>
[[nodiscard]] TensorSums tensor_sums(const Communicator& world, const TensorTable& table,
                                     const std::vector<TensorPart<T>>& parts,
                                     const std::string& group);

}  // namespace hearth
