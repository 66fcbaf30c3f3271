#include "model/weights_checksum.hpp"

#include <cstdio>

#include "base/hash.hpp"

namespace hearth {

std::uint64_t combined_checksum(const TensorTable& table,
                                const std::vector<std::uint64_t>& checksums) {
  std::uint64_t combined = 0;
  for (std::size_t tensor = 0; tensor < table.size(); ++tensor) {
    if (!table[tensor].alias_of.empty()) continue;
    combined = mix_bits(combined ^ hash_text(table[tensor].name));
    combined = mix_bits(combined ^ checksums[tensor]);
  }
  return combined;
}

std::string checksum_text(std::uint64_t checksum) {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(checksum));
  return digits;
}

}  // namespace hearth
