// Counts of routing decisions since the last row by checkpoint: what the next row of routing.h5
// holds, and what a checkpoint between two rows carries. As tensors they are named like their
// datasets in routing.h5:
//   coactivation         (layer, expert, expert_with)
//   source_expert_count  (layer, source, expert)
//   token_expert_count   (layer, token, expert); not with statistics.token_counts = false. With
//                        statistics.token_halves (layer, half, token, expert)
//   token_count          (token) or (half, token), where there is token_expert_count
#pragma once

#include <vector>

#include "io/checkpoint.hpp"
#include "model/diagnostics.hpp"

namespace hearth {

// The tensors without values: none for a model without experts.
[[nodiscard]] std::vector<CounterTensor> expert_count_tensors(const IntervalCounts& counts);

// The tensors with what all ranks have counted, on the first rank. Collective.
[[nodiscard]] std::vector<CounterTensor> collect(const IntervalCounts& counts,
                                                 const Communicator& world);

// Puts the values of such tensors in the place of this rank's counts; other tensors are left out.
void restore(const std::vector<CounterTensor>& tensors, const IntervalCounts& counts);

}  // namespace hearth
