#include "kernels/permutation.hpp"

#include <cassert>

#include "kernels/rms_norm.hpp"
#include "kernels/team.hpp"

namespace hearth::kernels {

namespace {

// Where the copies of tokens stand, in segments' rows.
struct Placement {
  Array2<const int> choice, position;  // (tokens, k)
  Array1<const int> segment_begin;     // (experts)

  Placement([[maybe_unused]] Index tokens, const Array2<const int>& choice_,
            const Array2<const int>& position_, const Array1<const int>& segment_begin_)
      : choice(choice_), position(position_), segment_begin(segment_begin_) {
    assert(static_cast<Index>(choice.extent(0)) == tokens);
    assert(position.extent(0) == choice.extent(0) && position.extent(1) == choice.extent(1));
  }

  [[nodiscard]] KOKKOS_INLINE_FUNCTION Index row(Index token, int copy) const {
    return Index{segment_begin(choice(token, copy))} + position(token, copy);
  }
};

// Zeroes the rows between each segment's last copy and its padded end.
template <class T>
void clear_padding(const Array1<const int>& segment_begin, const Array1<const int>& count,
                   const Array2<T>& rows) {
  const Index experts = count.extent(0), hidden = rows.extent(1);
  for_rows(
      "clear_padding", experts, KOKKOS_LAMBDA(const Member& member, const Index e) {
        const Index copies = count(e);
        T* first = row(rows, segment_begin(e) + copies);
        Kokkos::parallel_for(
            Kokkos::ThreadVectorRange(member, (padded_rows(copies) - copies) * hidden),
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
          for (int j = 0; j < k; ++j) ++partial(block, choice(t, j));
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
          for (int j = 0; j < k; ++j) position(t, j) = partial(block, choice(t, j))++;
        }
      });
}

template <class T>
void dispatch(const Array2<const T>& x, const Array2<const int>& choice,
              const Array2<const int>& position, const Array1<const int>& segment_begin,
              const Array1<const int>& count, const Array2<T>& rows) {
  const Index tokens = x.extent(0), hidden = x.extent(1);
  const int k = static_cast<int>(choice.extent(1));
  const Placement placement(tokens, choice, position, segment_begin);
  assert(rows.extent(1) == x.extent(1));
  clear_padding(segment_begin, count, rows);
  for_rows(
      "dispatch", tokens, KOKKOS_LAMBDA(const Member& member, const Index t) {
        const T* from = row(x, t);
        for (int j = 0; j < k; ++j) {
          T* to = row(rows, placement.row(t, j));
          for_columns(member, hidden, [&](const Index h) { to[h] = from[h]; });
        }
      });
}

namespace {

// y[t] += Σ_j weight(t, j) · rows[of copy j]: first the sum, in ascending order of expert, then one
// rounding.
template <class T, class Weight>
void add_copies(const char* label, const Array2<const T>& rows, const Placement& placement,
                const Weight& weight, const Array2<T>& y) {
  using R = Real<T>;
  const Index tokens = y.extent(0), hidden = y.extent(1);
  const int k = static_cast<int>(placement.choice.extent(1));
  assert(rows.extent(1) == y.extent(1));
  const Index whole = hidden / lanes_per_thread;
  const Index groups = (hidden + lanes_per_thread - 1) / lanes_per_thread;
  for_rows(
      label, tokens, KOKKOS_LAMBDA(const Member& member, const Index t) {
        Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, groups), [&](const Index group) {
          const Index first = group * lanes_per_thread;
          R sum[lanes_per_thread] = {};
          T* out = row(y, t) + first;
          const auto add = [&](const int columns) {
            for (int j = 0; j < k; ++j) {
              const T* in = row(rows, placement.row(t, j)) + first;
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

template <class R>
struct GateWeight {
  Array2<const R> gate;
  KOKKOS_INLINE_FUNCTION R operator()(Index t, int j) const { return gate(t, j); }
};
template <class R>
struct UnitWeight {
  KOKKOS_INLINE_FUNCTION R operator()(Index, int) const { return R(1); }
};

}  // namespace

template <class T>
void combine(const Array2<const T>& rows, const Array2<const int>& choice,
             const Array2<const int>& position, const Array1<const int>& segment_begin,
             const Array2<const Real<T>>& gate, const Array2<T>& y) {
  assert(gate.extent(0) == choice.extent(0) && gate.extent(1) == choice.extent(1));
  add_copies("combine", rows, Placement(y.extent(0), choice, position, segment_begin),
             GateWeight<Real<T>>{gate}, y);
}

template <class T>
void combine_backward(const Array2<const T>& dy, const Array2<const T>& rows,
                      const Array2<const int>& choice, const Array2<const int>& position,
                      const Array1<const int>& segment_begin, const Array1<const int>& count,
                      const Array2<const Real<T>>& gate, const Array2<T>& drows,
                      const Array2<Real<T>>& dgate) {
  using R = Real<T>;
  const Index tokens = dy.extent(0), hidden = dy.extent(1);
  const int k = static_cast<int>(choice.extent(1));
  const Placement placement(tokens, choice, position, segment_begin);
  assert(rows.extent(1) == dy.extent(1) && drows.extent(1) == dy.extent(1));
  assert(gate.extent(0) == choice.extent(0) && gate.extent(1) == choice.extent(1));
  assert(dgate.extent(0) == choice.extent(0) && dgate.extent(1) == choice.extent(1));
  clear_padding(segment_begin, count, drows);
  for_rows(
      "combine_backward", tokens, KOKKOS_LAMBDA(const Member& member, const Index t) {
        const T* slope = row(dy, t);
        for (int j = 0; j < k; ++j) {
          const Index copy = placement.row(t, j);
          const T* in = row(rows, copy);
          T* out = row(drows, copy);
          const R factor = gate(t, j);
          const R product =
              lane_sum<R>(member, hidden, [&](const Index h) { return slope[h] * in[h]; });
          // After the sum: drows may be the array `rows`.
          for_columns(member, hidden,
                      [&](const Index h) { out[h] = static_cast<T>(factor * slope[h]); });
          Kokkos::single(Kokkos::PerThread(member), [&]() { dgate(t, j) = product; });
        }
      });
}

template <class T>
void dispatch_backward(const Array2<const T>& drows, const Array2<const int>& choice,
                       const Array2<const int>& position, const Array1<const int>& segment_begin,
                       const Array2<T>& dx) {
  add_copies("dispatch_backward", drows, Placement(dx.extent(0), choice, position, segment_begin),
             UnitWeight<Real<T>>{}, dx);
}

#define HEARTH_INSTANTIATE(T)                                                            \
  template void dispatch<T>(const Array2<const T>&, const Array2<const int>&,            \
                            const Array2<const int>&, const Array1<const int>&,          \
                            const Array1<const int>&, const Array2<T>&);                 \
  template void combine<T>(const Array2<const T>&, const Array2<const int>&,             \
                           const Array2<const int>&, const Array1<const int>&,           \
                           const Array2<const Real<T>>&, const Array2<T>&);              \
  template void combine_backward<T>(                                                     \
      const Array2<const T>&, const Array2<const T>&, const Array2<const int>&,          \
      const Array2<const int>&, const Array1<const int>&, const Array1<const int>&,      \
      const Array2<const Real<T>>&, const Array2<T>&, const Array2<Real<T>>&);           \
  template void dispatch_backward<T>(const Array2<const T>&, const Array2<const int>&,   \
                                     const Array2<const int>&, const Array1<const int>&, \
                                     const Array2<T>&)
HEARTH_INSTANTIATE(bfloat16);
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
