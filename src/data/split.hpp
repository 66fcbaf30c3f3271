// Which sequences of a token file serve training, validation and test.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace hearth {

enum class Split { train, validation, test };

// "train", "validation" or "test".
[[nodiscard]] const char* split_name(Split split);

// Sequences [begin, end) of a token file.
struct SequenceRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  [[nodiscard]] std::int64_t size() const { return end - begin; }
};

// The value of data.split: the shares of the three splits, in the order of the file.
class SplitShares {
 public:
  // Reads "train[,validation[,test]]", numbers ≥ 0 whose sum is positive and need not be 1 or 100.
  // Throws input_error naming data.split.
  explicit SplitShares(const std::string& shares);

  // Whether the split has a share above 0.
  [[nodiscard]] bool has(Split split) const;

  // The split's part of `sequences` sequences: cumulative normalised shares times their number,
  // rounded to nearest, halves to even. It can be empty although the split has a share.
  [[nodiscard]] SequenceRange range(Split split, std::int64_t sequences) const;

 private:
  std::array<double, 4> bound_{};  // cumulative shares, from 0 to 1
};

}  // namespace hearth
