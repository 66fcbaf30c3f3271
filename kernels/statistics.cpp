#include "kernels/statistics.hpp"

#include <Kokkos_ScatterView.hpp>

namespace hearth::kernels {

namespace {

namespace scatter = Kokkos::Experimental;

template <class AddToken, class Counts>
void add_tokens(const char* name, Index tokens, const AddToken& add_token, const Counts& counts) {
  Kokkos::parallel_for(
      name, Kokkos::RangePolicy<Exec>(0, tokens), KOKKOS_LAMBDA(const Index t) {
        const auto access = counts.access();
        add_token(t, access);
      });
}

// Adds every token to the counts. Few counts are kept by thread and summed afterwards: threads
// would meet at them. Many are counted in place, where threads seldom meet.
template <class AddToken>
void count_tokens(const char* name, Index tokens, const Array2<std::int64_t>& count,
                  const AddToken& add_token) {
  constexpr std::size_t few = std::size_t{1} << 14;
  if (count.size() <= few) {
    auto by_thread = scatter::create_scatter_view(count);
    add_tokens(name, tokens, add_token, by_thread);
    Array2<std::int64_t> total = count;
    scatter::contribute(total, by_thread);
  } else {
    add_tokens(name, tokens, add_token,
               scatter::create_scatter_view<scatter::ScatterSum, scatter::ScatterNonDuplicated,
                                            scatter::ScatterAtomic>(count));
  }
}

// Without effect on a device.
KOKKOS_INLINE_FUNCTION void prefetch_to_write([[maybe_unused]] const void* address) {
  KOKKOS_IF_ON_HOST((__builtin_prefetch(address, 1);))
}

struct AddPairs {
  Array2<const int> choice;  // (tokens, slots)
  std::int64_t weight;

  template <class Counts>
  KOKKOS_FUNCTION void operator()(Index t, const Counts& together) const {
    const int k = static_cast<int>(choice.extent(1));
    for (int i = 0; i < k && choice(t, i) >= 0; ++i) {
      for (int j = 0; j < k && choice(t, j) >= 0; ++j) {
        together(choice(t, i), choice(t, j)) += weight;
      }
    }
  }
};

struct AddLabelled {
  Array1<const int> half;  // (tokens), or empty: all count as of the first
  Array1<const int> label;
  Array2<const int> choice;    // (tokens, slots)
  Array2<std::int64_t> count;  // (labels of one half or of both, experts)
  Index labels;
  std::int64_t weight;

  KOKKOS_FUNCTION Index row_of(Index t) const {
    return (half.extent(0) > 0 ? half(t) * labels : 0) + label(t);
  }
  template <class Counts>
  KOKKOS_FUNCTION void operator()(Index t, const Counts& counts) const {
    const int k = static_cast<int>(choice.extent(1));
    // Rows lie far apart, and an atomic operation waits for its memory before the next may begin.
    constexpr Index ahead = 4;
    if (const Index next = t + ahead; next < static_cast<Index>(label.extent(0))) {
      for (int j = 0; j < k && choice(next, j) >= 0; ++j) {
        prefetch_to_write(&count(row_of(next), choice(next, j)));
      }
    }
    for (int j = 0; j < k && choice(t, j) >= 0; ++j) counts(row_of(t), choice(t, j)) += weight;
  }
};

}  // namespace

void count_pairs(const Array2<const int>& choice, const Array2<std::int64_t>& together,
                 std::int64_t weight) {
  count_tokens("count_pairs", static_cast<Index>(choice.extent(0)), together,
               AddPairs{choice, weight});
}

void count_labelled(const Array1<const int>& label, const Array2<const int>& choice,
                    const Array2<std::int64_t>& count, std::int64_t weight) {
  count_tokens("count_labelled", static_cast<Index>(choice.extent(0)), count,
               AddLabelled{{}, label, choice, count, 0, weight});
}

void count_labelled(const Array1<const int>& half, const Array1<const int>& label,
                    const Array2<const int>& choice, const Array2<std::int64_t>& count,
                    std::int64_t weight) {
  count_tokens(
      "count_labelled", static_cast<Index>(choice.extent(0)), count,
      AddLabelled{half, label, choice, count, static_cast<Index>(count.extent(0)) / 2, weight});
}

void count_occurrences(const Array1<const int>& half, const Array1<const int>& label,
                       const Array2<std::int64_t>& count, std::int64_t weight) {
  Kokkos::parallel_for(
      "count_occurrences", Kokkos::RangePolicy<Exec>(0, label.extent(0)),
      KOKKOS_LAMBDA(const Index t) {
        const int row = half.extent(0) > 0 ? half(t) : 0;
        Kokkos::atomic_add(&count(row, label(t)), weight);
      });
}

void count_owners(const Array2<const int>& choice, const Array1<const int>& owner, int home,
                  Index layer, const Array2<std::int64_t>& total) {
  const Index tokens = choice.extent(0);
  const int k = static_cast<int>(choice.extent(1)), experts = static_cast<int>(owner.extent(0));
  // So that threads seldom meet at the totals.
  constexpr Index block = 32;
  Kokkos::parallel_for(
      "count_owners", Kokkos::RangePolicy<Exec>(0, (tokens + block - 1) / block),
      KOKKOS_LAMBDA(const Index b) {
        std::int64_t owners = 0, others = 0;
        for (Index t = b * block; t < Kokkos::min((b + 1) * block, tokens); ++t) {
          for (int j = 0; j < k && choice(t, j) >= 0 && choice(t, j) < experts; ++j) {
            const int mine = owner(choice(t, j));
            bool is_new = true;
            for (int i = 0; i < j; ++i) is_new = is_new && owner(choice(t, i)) != mine;
            owners += is_new ? 1 : 0;
            others += is_new && mine != home ? 1 : 0;
          }
        }
        Kokkos::atomic_add(&total(0, layer), owners);
        Kokkos::atomic_add(&total(1, layer), others);
      });
}

void sum_labelled(Index run, const Array1<const int>& label, const Array1<const int>& target,
                  const Array1<const double>& value, const Array1<std::int64_t>& sum,
                  const Array1<std::int64_t>& tokens, const Array1<std::int64_t>& unfit,
                  double unit) {
  const Index runs = run == 0 ? 0 : static_cast<Index>(label.extent(0)) / run;
  Kokkos::parallel_for(
      "sum_labelled", Kokkos::RangePolicy<Exec>(0, runs), KOKKOS_LAMBDA(const Index r) {
        double total = 0;
        std::int64_t count = 0;
        for (Index t = r * run; t < (r + 1) * run; ++t) {
          if (target(t) < 0) continue;
          total += value(t);
          ++count;
        }
        std::int64_t term = 0;
        if (!add_statistic_term(term, total, unit)) Kokkos::atomic_inc(&unfit(label(r * run)));
        Kokkos::atomic_add(&sum(label(r * run)), term);
        Kokkos::atomic_add(&tokens(label(r * run)), count);
      });
}

template <class T>
std::int64_t count_non_finite(const Array1<const T>& values) {
  std::int64_t count = 0;
  Kokkos::parallel_reduce(
      "count_non_finite", Kokkos::RangePolicy<Exec>(0, static_cast<Index>(values.extent(0))),
      KOKKOS_LAMBDA(const Index i, std::int64_t& partial) {
        partial += Kokkos::isfinite(static_cast<Real<T>>(values(i))) ? 0 : 1;
      },
      count);
  return count;
}

void add_counts(const Array1<const int>& count, const Array1<std::int64_t>& total) {
  Kokkos::parallel_for(
      "add_counts", Kokkos::RangePolicy<Exec>(0, count.extent(0)),
      KOKKOS_LAMBDA(const Index i) { total(i) += count(i); });
}

void add_difference(const Array1<const int>& count, const Array1<const int>& less,
                    const Array1<std::int64_t>& total) {
  Kokkos::parallel_for(
      "add_difference", Kokkos::RangePolicy<Exec>(0, count.extent(0)),
      KOKKOS_LAMBDA(const Index i) { total(i) += count(i) - less(i); });
}

template std::int64_t count_non_finite<bfloat16>(const Array1<const bfloat16>&);
template std::int64_t count_non_finite<float>(const Array1<const float>&);
template std::int64_t count_non_finite<double>(const Array1<const double>&);

}  // namespace hearth::kernels
