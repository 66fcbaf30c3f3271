// How large a model is and what a token costs.
#pragma once

#include <vector>

#include "config/config.hpp"

namespace hearth {

struct ParameterCounts {
  std::int64_t active = 0;  // those that one token meets
  std::int64_t total = 0;
};

// Every parameter that exists: from the tensor table, with top_k of the experts as the active ones.
[[nodiscard]] ParameterCounts true_parameters(const Config& config);

// As the FLAME-MoE paper counts: both embeddings, no router, no norms; in a model with experts the
// dense layer has two matrices instead of three. See docs/equations.md, "Counting".
[[nodiscard]] ParameterCounts paper_parameters(const Config& config);

// Floating-point operations of forward and backward for one token: 6 for every active weight of a
// matrix product (router and head included, embedding not), and causal attention's
// 6 · layers · heads · head_dim · sequence_length.
[[nodiscard]] double training_flops_per_token(const Config& config);

// Of forward alone, where a token meets on average that many experts of each layer with experts.
[[nodiscard]] double forward_flops_per_token(const Config& config,
                                             const std::vector<double>& experts);  // (moe layers)

}  // namespace hearth
