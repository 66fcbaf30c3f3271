#include "kernels/routing/selection.hpp"

#include <cassert>

#include "base/hash.hpp"
#include "kernels/routing/largest.hpp"
#include "kernels/team.hpp"

namespace hearth::kernels {

namespace {

using Policy = Kokkos::RangePolicy<Exec>;

// A bit for each group that a token may use.
template <class T>
KOKKOS_INLINE_FUNCTION std::uint64_t chosen_groups(const T* value, int group_size,
                                                   const GroupLimit& limit) {
  constexpr T lowest = -Kokkos::Experimental::infinity_v<T>;
  T strength[most_groups];
  for (int g = 0; g < limit.groups; ++g) {
    T first = lowest, second = lowest;
    for (int e = g * group_size; e < (g + 1) * group_size; ++e) {
      if (value[e] > first) {
        second = first;
        first = value[e];
      } else if (value[e] > second) {
        second = value[e];
      }
    }
    strength[g] = group_size > 1 ? first + second : first;
  }
  std::uint64_t allowed = 0;
  for (int i = 0; i < limit.chosen; ++i) {
    int best = -1;
    for (int g = 0; g < limit.groups; ++g) {
      if ((allowed >> g & 1) != 0) continue;
      if (best < 0 || strength[g] > strength[best]) best = g;
    }
    allowed |= std::uint64_t{1} << best;
  }
  return allowed;
}

}  // namespace

template <class T>
void select_top_k(const Array2<const T>& value, const GroupLimit& limit, const Array2<T>& scratch,
                  const Array2<int>& choice) {
  const int destinations = static_cast<int>(value.extent(1));
  const int k = static_cast<int>(choice.extent(1));
  const int group_size = destinations / limit.groups;
  assert(k <= destinations && scratch.extent(1) == choice.extent(1));
  assert(limit.groups <= most_groups && limit.chosen <= limit.groups);
  Kokkos::parallel_for(
      "select_top_k", Policy(0, value.extent(0)), KOKKOS_LAMBDA(const Index t) {
        const T* v = row(value, t);
        int* chosen = row(choice, t);
        const auto at = [&](const int e) { return v[e]; };
        int found = 0;
        if (limit.groups == 1) {
          found = select_largest(
              at, [](int) { return true; }, destinations, chosen, row(scratch, t), k);
        } else {
          const std::uint64_t groups = chosen_groups(v, group_size, limit);
          const auto allowed = [&](const int e) { return (groups >> (e / group_size) & 1) != 0; };
          found = select_largest(at, allowed, destinations, chosen, row(scratch, t), k);
        }
        sort_ascending(chosen, found);
        for (int j = found; j < k; ++j) chosen[j] = -1;
      });
}

template <class T>
void skip_small(const Array2<const T>& value, double share, const Array2<int>& choice) {
  const int k = static_cast<int>(choice.extent(1));
  Kokkos::parallel_for(
      "skip_small", Policy(0, choice.extent(0)), KOKKOS_LAMBDA(const Index t) {
        const T* v = row(value, t);
        int* chosen = row(choice, t);
        T largest = 0;
        for (int j = 0; j < k && chosen[j] >= 0; ++j) {
          largest = v[chosen[j]] > largest ? v[chosen[j]] : largest;
        }
        const T least = static_cast<T>(share) * largest;
        int used = 0;
        for (int j = 0; j < k && chosen[j] >= 0; ++j) {
          const bool small = v[chosen[j]] < least;  // not for a not-a-number
          if (!small) chosen[used++] = chosen[j];
        }
        for (; used < k; ++used) chosen[used] = -1;
      });
}

std::int64_t count_choices(const Array2<const int>& choice, Index end) {
  std::int64_t count = 0;
  Kokkos::parallel_reduce(
      "count_choices", Policy(0, static_cast<Index>(choice.size())),
      KOKKOS_LAMBDA(const Index i, std::int64_t& sum) {
        sum += choice.data()[i] >= 0 && choice.data()[i] < end ? 1 : 0;
      },
      count);
  return count;
}

void select_marked(const Array2<const char>& mark, const Array2<int>& choice) {
  const int destinations = static_cast<int>(mark.extent(1));
  const int slots = static_cast<int>(choice.extent(1));
  Kokkos::parallel_for(
      "select_marked", Policy(0, mark.extent(0)), KOKKOS_LAMBDA(const Index t) {
        int used = 0;
        for (int e = 0; e < destinations && used < slots; ++e) {
          if (mark(t, e) != 0) choice(t, used++) = e;
        }
        for (; used < slots; ++used) choice(t, used) = -1;
      });
}

void select_hashed(const Array1<const std::uint64_t>& key, Index destinations,
                   const Array2<int>& choice) {
  const int n = static_cast<int>(destinations), k = static_cast<int>(choice.extent(1));
  assert(choice.extent(1) <= static_cast<std::size_t>(destinations));
  Kokkos::parallel_for(
      "select_hashed", Policy(0, key.extent(0)), KOKKOS_LAMBDA(const Index t) {
        // By turns the largest one below the last: hashes differ but for one chance in 2⁶⁴, and
        // then the lower destination comes first.
        const std::uint64_t start = key(t);
        int* chosen = row(choice, t);
        for (int j = 0; j < k; ++j) {
          std::uint64_t best_hash = 0;
          int best = -1;
          for (int e = 0; e < n; ++e) {
            bool taken = false;
            for (int i = 0; i < j; ++i) taken = taken || chosen[i] == e;
            const std::uint64_t hash = mix_bits(start + static_cast<std::uint64_t>(e));
            if (taken || (best >= 0 && hash <= best_hash)) continue;
            best_hash = hash;
            best = e;
          }
          chosen[j] = best;
        }
        sort_ascending(chosen, k);
      });
}

template <class T>
void share_equally(const Array2<const int>& choice, const Array2<T>& affinity,
                   const Array1<T>& log_sum, const Array2<T>& gate) {
  const int destinations = static_cast<int>(affinity.extent(1));
  const int k = static_cast<int>(choice.extent(1));
  Kokkos::parallel_for(
      "share_equally", Policy(0, choice.extent(0)), KOKKOS_LAMBDA(const Index t) {
        const T share = T(1) / static_cast<T>(k);
        for (int e = 0; e < destinations; ++e) affinity(t, e) = 0;
        for (int j = 0; j < k; ++j) {
          affinity(t, choice(t, j)) = share;
          gate(t, j) = share;
        }
        log_sum(t) = 0;
      });
}

template void share_equally<float>(const Array2<const int>&, const Array2<float>&,
                                   const Array1<float>&, const Array2<float>&);
template void share_equally<double>(const Array2<const int>&, const Array2<double>&,
                                    const Array1<double>&, const Array2<double>&);
template void skip_small<float>(const Array2<const float>&, double, const Array2<int>&);
template void skip_small<double>(const Array2<const double>&, double, const Array2<int>&);
template void select_top_k<float>(const Array2<const float>&, const GroupLimit&,
                                  const Array2<float>&, const Array2<int>&);
template void select_top_k<double>(const Array2<const double>&, const GroupLimit&,
                                   const Array2<double>&, const Array2<int>&);

}  // namespace hearth::kernels
