#include "kernels/permutation.hpp"

#include <cassert>

#include "kernels/rms_norm.hpp"
#include "kernels/team.hpp"

namespace hearth::kernels {

namespace {

// What kernels read of the places.
struct Rows {
  Array2<const int> choice, position;  // (tokens, slots)
  Array1<const int> segment_begin;     // (experts)
  unsigned experts;
  int slots;

  Rows([[maybe_unused]] Index tokens, const CopyPlaces& places)
      : choice(places.choice),
        position(places.position),
        segment_begin(places.segment_begin),
        experts(static_cast<unsigned>(places.segment_begin.extent(0))),
        slots(static_cast<int>(places.choice.extent(1))) {
    assert(static_cast<Index>(choice.extent(0)) == tokens);
    assert(position.extent(0) == choice.extent(0) && position.extent(1) == choice.extent(1));
  }

  // Copies of a token that are sent: they come first.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION int copies(Index token) const {
    int copies = 0;
    while (copies < slots && static_cast<unsigned>(choice(token, copies)) < experts) ++copies;
    return copies;
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION Index row(Index token, int copy) const {
    return Index{segment_begin(choice(token, copy))} + position(token, copy);
  }
};

template <class R>
struct Weight {
  Array2<const R> gate;  // (tokens, slots), or empty
  KOKKOS_INLINE_FUNCTION R operator()(Index t, int j) const {
    return gate.data() == nullptr ? R(1) : gate(t, j);
  }
};

// Zeroes the rows between each segment's last copy and its end.
template <class T>
void clear_padding(const CopyPlaces& places, const Array2<T>& rows) {
  const Index experts = places.segment_begin.extent(0), hidden = rows.extent(1);
  const Array1<const int> begin = places.segment_begin, length = places.segment_rows,
                          count = places.count;
  for_rows(
      "clear_padding", experts, KOKKOS_LAMBDA(const Member& member, const Index e) {
        T* first = row(rows, begin(e) + count(e));
        Kokkos::parallel_for(
            Kokkos::ThreadVectorRange(member, Index{length(e) - count(e)} * hidden),
            [&](const Index i) { first[i] = T(0); });
      });
}

}  // namespace

void count_copies(const Array2<const int>& choice, const Array2<int>& partial,
                  const Array1<int>& count, const Array2<int>& position) {
  const Index tokens = choice.extent(0), experts = count.extent(0);
  const int k = static_cast<int>(choice.extent(1));
  const Index blocks = row_blocks(tokens);
  using Policy = Kokkos::RangePolicy<Exec>;
  // Copies of each block's tokens,
  Kokkos::parallel_for(
      "count_copies", Policy(0, blocks), KOKKOS_LAMBDA(const Index block) {
        for (Index e = 0; e < experts; ++e) partial(block, e) = 0;
        const Index begin = block * rows_per_block;
        const Index end = Kokkos::min(begin + rows_per_block, tokens);
        for (Index t = begin; t < end; ++t) {
          for (int j = 0; j < k && choice(t, j) >= 0; ++j) ++partial(block, choice(t, j));
        }
      });
  // then of all earlier blocks' tokens,
  Kokkos::parallel_for(
      "scan_copies", Policy(0, experts), KOKKOS_LAMBDA(const Index e) {
        int earlier = 0;
        for (Index block = 0; block < blocks; ++block) {
          const int copies = partial(block, e);
          partial(block, e) = earlier;
          earlier += copies;
        }
        count(e) = earlier;
      });
  // from which each copy takes its place.
  Kokkos::parallel_for(
      "place_copies", Policy(0, blocks), KOKKOS_LAMBDA(const Index block) {
        const Index begin = block * rows_per_block;
        const Index end = Kokkos::min(begin + rows_per_block, tokens);
        for (Index t = begin; t < end; ++t) {
          for (int j = 0; j < k && choice(t, j) >= 0; ++j) {
            position(t, j) = partial(block, choice(t, j))++;
          }
        }
      });
}

void count_tokens_by_copies(const Array2<const int>& choice, const Array1<std::int64_t>& count) {
  const int slots = static_cast<int>(choice.extent(1));
  assert(count.extent(0) == choice.extent(1) + 1);
  Kokkos::parallel_for(
      "count_tokens_by_copies", Kokkos::RangePolicy<Exec>(0, choice.extent(0)),
      KOKKOS_LAMBDA(const Index t) {
        int copies = 0;
        while (copies < slots && choice(t, copies) >= 0) ++copies;
        Kokkos::atomic_inc(&count(copies));
      });
}

template <class T>
void dispatch(const Array2<const T>& x, const CopyPlaces& places, const Array2<const Real<T>>& gate,
              const Array2<T>& rows) {
  using R = Real<T>;
  const Index tokens = x.extent(0), hidden = x.extent(1);
  const Rows at(tokens, places);
  const Weight<R> weight{gate};
  const bool scaled = gate.data() != nullptr;
  assert(rows.extent(1) == x.extent(1));
  clear_padding(places, rows);
  for_rows(
      "dispatch", tokens, KOKKOS_LAMBDA(const Member& member, const Index t) {
        const T* from = row(x, t);
        const int copies = at.copies(t);
        for (int j = 0; j < copies; ++j) {
          T* to = row(rows, at.row(t, j));
          if (scaled) {
            const R factor = weight(t, j);
            for_columns(member, hidden,
                        [&](const Index h) { to[h] = static_cast<T>(factor * from[h]); });
          } else {
            for_columns(member, hidden, [&](const Index h) { to[h] = from[h]; });
          }
        }
      });
}

namespace {

// y[t] += Σ_j weight(t, j) · rows[of copy j]: first the sum, in ascending order of expert, then one
// rounding.
template <class T>
void add_copies(const char* label, const Array2<const T>& rows, const Rows& at,
                const Weight<Real<T>>& weight, const Array2<T>& y) {
  using R = Real<T>;
  const Index tokens = y.extent(0), hidden = y.extent(1);
  assert(rows.extent(1) == y.extent(1));
  const Index whole = hidden / lanes_per_thread;
  const Index groups = (hidden + lanes_per_thread - 1) / lanes_per_thread;
  for_rows(
      label, tokens, KOKKOS_LAMBDA(const Member& member, const Index t) {
        const int copies = at.copies(t);
        Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, groups), [&](const Index group) {
          const Index first = group * lanes_per_thread;
          R sum[lanes_per_thread] = {};
          T* out = row(y, t) + first;
          const auto add = [&](const int columns) {
            for (int j = 0; j < copies; ++j) {
              const T* in = row(rows, at.row(t, j)) + first;
              const R factor = weight(t, j);
              for (int c = 0; c < columns; ++c) sum[c] += factor * in[c];
            }
            for (int c = 0; c < columns; ++c) out[c] = static_cast<T>(out[c] + sum[c]);
          };
          // The usual number of columns as a constant, for the compiler.
          if (group < whole) {
            add(lanes_per_thread);
          } else {
            add(static_cast<int>(hidden - first));
          }
        });
      });
}

}  // namespace

template <class T>
void combine(const Array2<const T>& rows, const CopyPlaces& places,
             const Array2<const Real<T>>& gate, const Array2<T>& y) {
  add_copies<T>("combine", rows, Rows(y.extent(0), places), {gate}, y);
}

template <class T>
void combine_backward(const Array2<const T>& dy, const Array2<const T>& rows,
                      const CopyPlaces& places, const Array2<const Real<T>>& gate,
                      const Array2<T>& drows, const Array2<Real<T>>& dgate) {
  using R = Real<T>;
  const Index tokens = dy.extent(0), hidden = dy.extent(1);
  const Rows at(tokens, places);
  const Weight<R> weight{gate};
  const bool has_gate = gate.data() != nullptr;
  assert(rows.extent(1) == dy.extent(1) && drows.extent(1) == dy.extent(1));
  assert(dgate.extent(0) == dy.extent(0) && static_cast<int>(dgate.extent(1)) == at.slots);
  clear_padding(places, drows);
  for_rows(
      "combine_backward", tokens, KOKKOS_LAMBDA(const Member& member, const Index t) {
        const T* slope = row(dy, t);
        const int copies = at.copies(t);
        for (int j = 0; j < copies; ++j) {
          const Index copy = at.row(t, j);
          const T* in = row(rows, copy);
          T* out = row(drows, copy);
          const R factor = weight(t, j);
          const R product = has_gate ? lane_sum<R>(member, hidden,
                                                   [&](const Index h) { return slope[h] * in[h]; })
                                     : R(0);
          // After the sum: drows may be the array `rows`.
          for_columns(member, hidden,
                      [&](const Index h) { out[h] = static_cast<T>(factor * slope[h]); });
          if (has_gate) Kokkos::single(Kokkos::PerThread(member), [&]() { dgate(t, j) = product; });
        }
        if (!has_gate) return;
        Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, copies, at.slots),
                             [&](const int j) { dgate(t, j) = 0; });
      });
}

template <class T>
void dispatch_backward(const Array2<const T>& drows, const CopyPlaces& places,
                       const Array2<const Real<T>>& gate, const Array2<T>& dx) {
  add_copies<T>("dispatch_backward", drows, Rows(dx.extent(0), places), {gate}, dx);
}

template <class T>
void dispatch_gate_backward(const Array2<const T>& x, const Array2<const T>& drows,
                            const CopyPlaces& places, const Array2<Real<T>>& dgate) {
  using R = Real<T>;
  const Index hidden = x.extent(1);
  const Rows at(x.extent(0), places);
  assert(drows.extent(1) == x.extent(1));
  for_rows(
      "dispatch_gate_backward", x.extent(0), KOKKOS_LAMBDA(const Member& member, const Index t) {
        const T* in = row(x, t);
        const int copies = at.copies(t);
        for (int j = 0; j < at.slots; ++j) {
          R product = 0;
          if (j < copies) {
            const T* slope = row(drows, at.row(t, j));
            product = lane_sum<R>(member, hidden, [&](const Index h) { return slope[h] * in[h]; });
          }
          Kokkos::single(Kokkos::PerThread(member), [&]() { dgate(t, j) = product; });
        }
      });
}

#define HEARTH_INSTANTIATE(T)                                                             \
  template void dispatch<T>(const Array2<const T>&, const CopyPlaces&,                    \
                            const Array2<const Real<T>>&, const Array2<T>&);              \
  template void combine<T>(const Array2<const T>&, const CopyPlaces&,                     \
                           const Array2<const Real<T>>&, const Array2<T>&);               \
  template void combine_backward<T>(const Array2<const T>&, const Array2<const T>&,       \
                                    const CopyPlaces&, const Array2<const Real<T>>&,      \
                                    const Array2<T>&, const Array2<Real<T>>&);            \
  template void dispatch_backward<T>(const Array2<const T>&, const CopyPlaces&,           \
                                     const Array2<const Real<T>>&, const Array2<T>&);     \
  template void dispatch_gate_backward<T>(const Array2<const T>&, const Array2<const T>&, \
                                          const CopyPlaces&, const Array2<Real<T>>&)
HEARTH_INSTANTIATE(bfloat16);
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
