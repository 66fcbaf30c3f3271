// Why a step could not be taken.
#pragma once

#include <string>
#include <vector>

#include "model/forward_check.hpp"
#include "model/tensor_table.hpp"

namespace hearth {

// Over all ranks, in integers: the same on any layout. Slices are those of the whole tensor table
// (first_slices).
struct StepFault {
  explicit StepFault(const Config& config) : forward(config) {}

  std::vector<std::int64_t> weights;    // (slices): elements that are not finite
  ForwardCheck forward;                 // elements that are not finite, by place
  std::vector<std::int64_t> losses;     // (sources): sequences whose loss is unfit
  std::vector<std::int64_t> gradients;  // (2 · slices): elements not finite, too large

  // Whether losses are not finite, or what they are made of.
  [[nodiscard]] bool in_forward_pass() const;
};

// One line: weights that are not finite, where the forward pass first met such values, whose losses
// are not, and the gradients that are not or are too large, in the order in which backward comes
// by; of each the first few.
[[nodiscard]] std::string describe(const StepFault& fault, const TensorTable& table,
                                   const std::vector<std::string>& sources);

}  // namespace hearth
