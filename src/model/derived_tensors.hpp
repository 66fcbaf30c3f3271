// What the tensors of a model are made of that comes from another model: pruned, merged or
// upcycled. Pure arithmetic on two tensor tables; src/io/derived_checkpoint.hpp does the reading.
#pragma once

#include <string>
#include <vector>

#include "model/tensor_table.hpp"

namespace hearth {

// weight · the elements of the older tensor from `begin`.
struct SourceTerm {
  Index begin = 0;
  double weight = 1;
};

// Where a tensor's elements come from. It is cut into units of equal length in the order of its
// elements; a unit is the sum of its terms, each as long as the unit, and zero where it has none.
struct TensorSource {
  std::string tensor = {};  // of the older model; empty: nothing comes from there
  Index unit = 0;           // elements
  std::vector<std::vector<SourceTerm>> terms = {};  // (units)
};

// One source for each tensor of the newer table.
using TensorSources = std::vector<TensorSource>;

// A layer's experts, each made of older ones: weights of older experts.
struct ExpertTerm {
  Index expert = 0;
  double weight = 1;
};
using ExpertTerms = std::vector<std::vector<ExpertTerm>>;  // (new experts)

// Those older experts, as they are.
[[nodiscard]] ExpertTerms unchanged_experts(const std::vector<Index>& experts);

// A newer model whose layers with experts have those experts and the same rows of their routers;
// all other tensors stay as they are. `experts` is by layer with experts.
[[nodiscard]] TensorSources combined_experts(const TensorTable& older, const TensorTable& newer,
                                             const std::vector<ExpertTerms>& experts);

// A newer model with experts in layers that are dense in the older one (Komatsuzaki et al.,
// arXiv:2212.05055). An expert is a copy of the layer's feed-forward part; where experts are
// narrower, dense_ffn / expert_ffn of them are slices of it and repeat, their output multiplied by
// that number. Routers start afresh, and so does a shared expert, whose output starts at zero.
[[nodiscard]] TensorSources upcycled(const TensorTable& older, const TensorTable& newer);

}  // namespace hearth
