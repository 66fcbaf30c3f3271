// The k largest of a row, by one thread.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

// The k largest of those values v(e), e < n, that `allowed(e)`: they stand in (value, choice) in
// descending order, equal ones in ascending order of e. Not-a-numbers compare as smallest, so that
// choices are always valid. Returns how many there are, k at most.
template <class T, class Value, class Allowed>
KOKKOS_INLINE_FUNCTION int select_largest(const Value& v, const Allowed& allowed, int n,
                                          int* choice, T* value, int k) {
  int found = 0;
  for (int e = 0; e < n; ++e) {
    if (!allowed(e)) continue;
    const T x = v(e);
    if (found == k && !(x > value[k - 1])) continue;
    int j = found < k ? found++ : k - 1;
    for (; j > 0 && x > value[j - 1]; --j) {
      value[j] = value[j - 1];
      choice[j] = choice[j - 1];
    }
    value[j] = x;
    choice[j] = e;
  }
  return found;
}

KOKKOS_INLINE_FUNCTION void sort_ascending(int* choice, int k) {
  for (int i = 1; i < k; ++i) {
    const int moved = choice[i];
    int j = i;
    for (; j > 0 && choice[j - 1] > moved; --j) choice[j] = choice[j - 1];
    choice[j] = moved;
  }
}

}  // namespace hearth::kernels
