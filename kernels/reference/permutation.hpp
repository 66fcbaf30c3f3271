// Oracle of kernels/permutation.hpp.
#pragma once

#include <algorithm>

#include "kernels/reference/scalar.hpp"

namespace hearth::kernels::reference {

// Where the copies of tokens go: as the kernel's arguments, with the row of each copy.
struct Copies {
  Index k;
  std::vector<int> choice, position;                    // (tokens, k)
  std::vector<int> count, segment_begin, segment_rows;  // (experts)
  Index rows;                                           // of all segments, padded to a multiple

  [[nodiscard]] Index tokens() const { return static_cast<Index>(choice.size()) / k; }
  // Copies without a choice, and those for destinations that are no experts, go nowhere.
  [[nodiscard]] bool sent(Index copy) const {
    return choice[copy] >= 0 && choice[copy] < static_cast<int>(count.size());
  }
  [[nodiscard]] Index row(Index copy) const { return segment_begin[choice[copy]] + position[copy]; }
};

// Segments stand in the order of experts, each padded to a multiple of `multiple` rows, at least
// `least`.
inline Copies count_copies(const std::vector<int>& choice, Index k, Index experts, int multiple,
                           int least = 0) {
  Copies copies{k, choice, {}, std::vector<int>(experts, 0), {}, {}, 0};
  for (const int e : choice) {
    copies.position.push_back(e >= 0 && e < experts ? copies.count[e]++ : 0);
  }
  for (const int count : copies.count) {
    copies.segment_begin.push_back(static_cast<int>(copies.rows));
    copies.segment_rows.push_back((std::max(count, least) + multiple - 1) / multiple * multiple);
    copies.rows += copies.segment_rows.back();
  }
  return copies;
}

template <class S>
Vector<S> dispatch(const Vector<S>& x, Index hidden, const Copies& copies) {
  Vector<S> rows = zeros<S>(copies.rows * hidden);
  for (Index copy = 0; copy < copies.tokens() * copies.k; ++copy) {
    if (!copies.sent(copy)) continue;
    for (Index h = 0; h < hidden; ++h) {
      rows[copies.row(copy) * hidden + h] = x[copy / copies.k * hidden + h];
    }
  }
  return rows;
}

template <class S>
Vector<S> combine(const Vector<S>& rows, Index hidden, const Copies& copies,
                  const Vector<S>& gate) {
  Vector<S> y = zeros<S>(copies.tokens() * hidden);
  for (Index copy = 0; copy < copies.tokens() * copies.k; ++copy) {
    if (!copies.sent(copy)) continue;
    for (Index h = 0; h < hidden; ++h) {
      y[copy / copies.k * hidden + h] += gate[copy] * rows[copies.row(copy) * hidden + h];
    }
  }
  return y;
}

template <class S>
struct CombineGradients {
  Vector<S> drows, dgate;
};

template <class S>
CombineGradients<S> combine_backward(const Vector<S>& dy, const Vector<S>& rows, Index hidden,
                                     const Copies& copies, const Vector<S>& gate) {
  CombineGradients<S> result{zeros<S>(copies.rows * hidden), zeros<S>(copies.tokens() * copies.k)};
  for (Index copy = 0; copy < copies.tokens() * copies.k; ++copy) {
    if (!copies.sent(copy)) continue;
    for (Index h = 0; h < hidden; ++h) {
      const Index at = copies.row(copy) * hidden + h, from = copy / copies.k * hidden + h;
      result.drows[at] += gate[copy] * dy[from];
      result.dgate[copy] += dy[from] * rows[at];
    }
  }
  return result;
}

template <class S>
Vector<S> dispatch_backward(const Vector<S>& drows, Index hidden, const Copies& copies) {
  Vector<S> dx = zeros<S>(copies.tokens() * hidden);
  for (Index copy = 0; copy < copies.tokens() * copies.k; ++copy) {
    if (!copies.sent(copy)) continue;
    for (Index h = 0; h < hidden; ++h) {
      dx[copy / copies.k * hidden + h] += drows[copies.row(copy) * hidden + h];
    }
  }
  return dx;
}

}  // namespace hearth::kernels::reference
