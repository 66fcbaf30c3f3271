// Counts of routing decisions, for the routing statistics. Integers: atomics keep them exact. A
// token's choices stand in ascending order, and -1 in the slots after them.
#pragma once

#include "kernels/fixed_point.hpp"

namespace hearth::kernels {

// together[i][j] += `weight` times the tokens that chose both expert i and expert j; the diagonal
// counts the tokens of each expert. A weight of -1 takes back what was counted.
void count_pairs(const Array2<const int>& choice,       // (tokens, slots)
                 const Array2<std::int64_t>& together,  // (experts, experts)
                 std::int64_t weight = 1);

// count[label[t]][choice[t][j]] += `weight`: by token id, or by data source.
void count_labelled(const Array1<const int>& label,     // (tokens)
                    const Array2<const int>& choice,    // (tokens, slots)
                    const Array2<std::int64_t>& count,  // (labels, experts)
                    std::int64_t weight = 1);

// The same apart for each half of the data: count[half[t]][label[t]][choice[t][j]] += `weight`.
void count_labelled(const Array1<const int>& half,      // (tokens): 0 or 1
                    const Array1<const int>& label,     // (tokens)
                    const Array2<const int>& choice,    // (tokens, slots)
                    const Array2<std::int64_t>& count,  // (2 · labels, experts)
                    std::int64_t weight = 1);

// count[half[t]][label[t]] += `weight`; without halves, of one row, all count as of the first.
void count_occurrences(const Array1<const int>& half,      // (tokens): 0 or 1, or empty
                       const Array1<const int>& label,     // (tokens)
                       const Array2<std::int64_t>& count,  // (1 or 2, labels)
                       std::int64_t weight = 1);

// total[0][layer] += Σ over tokens of the different owners of their choices; total[1][layer] += the
// same without `home`. Choices at or beyond owner's extent have none.
void count_owners(const Array2<const int>& choice,                            // (tokens, slots)
                  const Array1<const int>& owner,                             // (experts)
                  int home, Index layer, const Array2<std::int64_t>& total);  // (2, layers)

// sum[label] += Σ value over each run of `run` consecutive tokens, which have one label (a
// sequence and its data source), summed in fp64 in order and then in units of `unit`;
// tokens[label] += its tokens. Tokens whose target is masked (below zero) are left out. A run whose
// sum is not finite or too large for an integer is counted in unfit[label].
void sum_labelled(Index run, const Array1<const int>& label,  // (tokens)
                  const Array1<const int>& target,            // (tokens)
                  const Array1<const double>& value,          // (tokens)
                  const Array1<std::int64_t>& sum,            // (labels)
                  const Array1<std::int64_t>& tokens,         // (labels)
                  const Array1<std::int64_t>& unfit,          // (labels)
                  double unit = statistic_unit);

// Elements that are infinite or not a number.
template <class T>
[[nodiscard]] std::int64_t count_non_finite(const Array1<const T>& values);

// total[i] += count[i].
void add_counts(const Array1<const int>& count, const Array1<std::int64_t>& total);

// total[i] += count[i] - less[i].
void add_difference(const Array1<const int>& count, const Array1<const int>& less,
                    const Array1<std::int64_t>& total);

}  // namespace hearth::kernels
