// One number that tells whether two models have the same weights, on any layout.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/tensor_table.hpp"

namespace hearth {

// Of all tensors' checksums (base/hash.hpp; those of aliases are not looked at) and names, mixed in
// the table's order.
[[nodiscard]] std::uint64_t combined_checksum(const TensorTable& table,
                                              const std::vector<std::uint64_t>& checksums);

// As people read it: 16 hexadecimal digits.
[[nodiscard]] std::string checksum_text(std::uint64_t checksum);

}  // namespace hearth
