// Which destinations a token is sent to. A token's choices stand in ascending order, and -1 in the
// slots after them; ties go to the lower number.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

// Destinations in `groups` runs of equal length, of which a token uses the `chosen` ones whose two
// largest values have the largest sum (DeepSeek-V3, arXiv:2412.19437, section 2.1.2).
struct GroupLimit {
  int groups = 1, chosen = 1;
};
inline constexpr int most_groups = 64;

// The k destinations of the largest values.
template <class T>
void select_top_k(const Array2<const T>& value,  // (tokens, destinations)
                  const GroupLimit& limit,       //
                  const Array2<T>& scratch,      // (tokens, k)
                  const Array2<int>& choice);    // (tokens, k)

// Leaves out of a token's choices those whose value is below `share` of the largest one's.
template <class T>
void skip_small(const Array2<const T>& value,  // (tokens, destinations)
                double share,                  //
                const Array2<int>& choice);    // (tokens, k)

// How many choices are destinations below `end`.
[[nodiscard]] std::int64_t count_choices(const Array2<const int>& choice, Index end);

// Those that are marked, of which a token has at most `slots`.
void select_marked(const Array2<const char>& mark,  // (tokens, destinations), 0 or 1
                   const Array2<int>& choice);      // (tokens, slots)

// The k destinations of the largest mix_bits(key[t] + destination), as good as at random.
void select_hashed(const Array1<const std::uint64_t>& key,          // (tokens)
                   Index destinations, const Array2<int>& choice);  // (tokens, k)

// Gates and affinities of 1/k for the chosen ones, 0 for the others; log_sum = 0.
template <class T>
void share_equally(const Array2<const int>& choice,  // (tokens, k)
                   const Array2<T>& affinity,        // (tokens, destinations)
                   const Array1<T>& log_sum,         // (tokens)
                   const Array2<T>& gate);           // (tokens, k)

}  // namespace hearth::kernels
