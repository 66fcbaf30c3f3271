// A range of elements of a row-major array, counted flat, as boxes of the array.
#pragma once

#include <vector>

#include "parallel/decomposition.hpp"

namespace hearth {

// The box [start, start + count) on every axis.
struct Box {
  std::vector<Index> start, count;
  [[nodiscard]] Index elements() const;
};

// The boxes that make up flat elements [range.begin, range.end) of an array of shape `dims`, in
// the elements' order: at most 2·N - 1 of them for N axes, each contiguous in the array. None for
// an empty range.
[[nodiscard]] std::vector<Box> flat_boxes(const std::vector<Index>& dims, Range range);

}  // namespace hearth
