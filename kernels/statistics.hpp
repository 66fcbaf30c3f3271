// Counts of routing decisions, for the routing statistics. Integers: atomics keep them exact.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

// together[i][j] += tokens that chose both expert i and expert j; the diagonal counts the tokens
// of each expert.
void count_pairs(const Array2<const int>& choice,            // (tokens, k)
                 const Array2<std::int64_t>& together);      // (experts, experts)

// count[label[t]][choice[t][j]] += 1: by token id, or by data source.
void count_labelled(const Array1<const int>& label,          // (tokens)
                    const Array2<const int>& choice,         // (tokens, k)
                    const Array2<std::int64_t>& count);      // (labels, experts)

// sum[label[t]] += value[t] in units of statistic_unit, tokens[label[t]] += 1, over tokens whose
// target is not masked (below zero).
void sum_labelled(const Array1<const int>& label, const Array1<const int>& target,
                  const Array1<const double>& value,         // (tokens)
                  const Array1<std::int64_t>& sum,           // (labels)
                  const Array1<std::int64_t>& tokens);       // (labels)

// total[i] += count[i].
void add_counts(const Array1<const int>& count, const Array1<std::int64_t>& total);

}  // namespace hearth::kernels
