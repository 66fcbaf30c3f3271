// Operands of bfloat16 as products of pairs read them: host code. An operand's outer dimension (the
// rows of c, or its columns) is cut into panels; in a panel the neighbours along the inner
// dimension are pairs, and the outer dimension is contiguous:
//
//   panels[panel][pair][lane] = (x(lane, 2 pair), x(lane, 2 pair + 1))
//
// A missing last neighbour is zero. Lanes without a row hold anything, and so do rows of pairs
// beyond the last one.
#pragma once

#include <algorithm>

#include "base/types.hpp"
#include "kernels/bfloat16_pairs.hpp"

namespace hearth::kernels {

// A part of an operand, `outer` by `depth`: x(o, d) is data[o · ld + d], or where the outer
// dimension is the contiguous one data[d · ld + o].
struct OperandPart {
  const bfloat16* data;
  Index ld;
  bool outer_contiguous;
  Index outer, depth;
};

// Rows of pairs in a panel of so many terms of the inner dimension.
[[nodiscard]] constexpr Index panel_pairs(Index depth) {
  return (depth + 2 * lane_count - 1) / (2 * lane_count) * lane_count;
}

// Shuffles within 16 bytes, quarters of two lanes: lanes of a and b in turns, pairs of them in
// turns. `high`: of the upper half of every quarter.
template <bool high, int... i>
[[nodiscard]] inline PairLanes lanes_in_turns(const PairLanes& a, const PairLanes& b,
                                              std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(a, b,
                                 (i / 4 * 4 + (high ? 2 : 0) + i % 4 / 2 + i % 2 * lane_count)...);
}
template <bool high, int... i>
[[nodiscard]] inline PairLanes twos_in_turns(const PairLanes& a, const PairLanes& b,
                                             std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(a, b,
                                 (i / 4 * 4 + (high ? 2 : 0) + i % 2 + i % 4 / 2 * lane_count)...);
}
// Every second quarter of a, then of b.
template <bool odd, int... i>
[[nodiscard]] inline PairLanes every_second(const PairLanes& a, const PairLanes& b,
                                            std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(a, b, (i / 4 * 8 + (odd ? 4 : 0) + i % 4)...);
}

// x[i][j] becomes x[j][i].
[[gnu::always_inline]] inline void transpose(PairLanes (&x)[lane_count]) {
  constexpr auto lanes = std::make_integer_sequence<int, lane_count>();
  constexpr int quarters = lane_count / 4;
  // Blocks of 4 x 4: x[4 g + i] has in quarter q what belongs to x[4 q + i] there in quarter g.
  written_out<quarters>([&](auto g) __attribute__((always_inline)) {
    PairLanes* const y = x + 4 * g;
    const PairLanes a = lanes_in_turns<false>(y[0], y[1], lanes);
    const PairLanes b = lanes_in_turns<true>(y[0], y[1], lanes);
    const PairLanes c = lanes_in_turns<false>(y[2], y[3], lanes);
    const PairLanes d = lanes_in_turns<true>(y[2], y[3], lanes);
    y[0] = twos_in_turns<false>(a, c, lanes);
    y[1] = twos_in_turns<true>(a, c, lanes);
    y[2] = twos_in_turns<false>(b, d, lanes);
    y[3] = twos_in_turns<true>(b, d, lanes);
  });
  written_out<4>([&](auto i) __attribute__((always_inline)) {
    if constexpr (quarters == 2) {
      const PairLanes a = x[i], b = x[i + 4];
      x[i] = every_second<false>(a, b, lanes);
      x[i + 4] = every_second<true>(a, b, lanes);
    } else if constexpr (quarters == 4) {
      const PairLanes a = every_second<false>(x[i], x[i + 4], lanes);
      const PairLanes b = every_second<true>(x[i], x[i + 4], lanes);
      const PairLanes c = every_second<false>(x[i + 8], x[i + 12], lanes);
      const PairLanes d = every_second<true>(x[i + 8], x[i + 12], lanes);
      x[i] = every_second<false>(a, c, lanes);
      x[i + 4] = every_second<false>(b, d, lanes);
      x[i + 8] = every_second<true>(a, c, lanes);
      x[i + 12] = every_second<true>(b, d, lanes);
    }
  });
}

// One panel of `rows` rows that are contiguous along the inner dimension.
template <int width>
void pack_rows(const bfloat16* from, Index ld, Index rows, Index depth, Pair* panel) {
  constexpr Index block = 2 * lane_count;
  for (Index first = 0; first < rows; first += lane_count) {
    const bfloat16* row[lane_count];
    for (Index i = 0; i < lane_count; ++i) row[i] = from + std::min(first + i, rows - 1) * ld;
    Pair* to = panel + first;
    PairLanes x[lane_count];
    const auto put = [&]() __attribute__((always_inline)) {
      transpose(x);
      written_out<lane_count>([&](auto i)
                                  __attribute__((always_inline)) { store(to + i * width, x[i]); });
      to += lane_count * width;
    };
    Index d = 0;
    for (; d + block <= depth; d += block) {
      written_out<lane_count>([&](auto i) __attribute__((always_inline)) {
        x[i] = load<PairLanes>(row[i] + d);
      });
      put();
    }
    if (d < depth) {
      written_out<lane_count>([&](auto i) __attribute__((always_inline)) {
        x[i] = load_first<PairLanes>(row[i] + d, static_cast<int>(depth - d));
      });
      put();
    }
  }
}

// Rows of pairs that are made of rows of memory at a time, panel after panel: as many streams as a
// processor reads ahead.
inline constexpr Index interleaved_pairs = 4;

// `pairs` rows of pairs from the rows of memory at `from`, each contiguous along the outer
// dimension, of which `lanes` are read.
template <int width>
[[gnu::always_inline]] inline void interleave(const bfloat16* from, Index ld, Index pairs,
                                              Pair* to) {
  for (Index p = 0; p < pairs; ++p, from += 2 * ld, to += width) {
    written_out<width / lane_count>([&](auto n) __attribute__((always_inline)) {
      const PairLanes low = widen(load<HalfLanes>(from + n * lane_count));
      const PairLanes high = widen(load<HalfLanes>(from + ld + n * lane_count));
      store(to + n * lane_count, low | high << 16);
    });
  }
}

// The same of the first `rows` lanes, and of an odd number of rows of memory.
template <int width>
void interleave_edge(const bfloat16* from, Index ld, Index rows, Index depth, Pair* to) {
  for (Index d = 0; d < depth; d += 2, from += 2 * ld, to += width) {
    for (Index lane = 0; lane < rows; lane += lane_count) {
      const int lanes = static_cast<int>(std::min(Index{lane_count}, rows - lane));
      const PairLanes low = widen(load_first<HalfLanes>(from + lane, lanes));
      const PairLanes high =
          widen(load_first<HalfLanes>(from + ld + lane, d + 1 < depth ? lanes : 0));
      store(to + lane, low | high << 16);
    }
  }
}

// Packs x into panels of `step` rows each, `width` lanes wide.
template <int width>
void pack(const OperandPart& x, Index step, Pair* panels) {
  const Index panel_size = panel_pairs(x.depth) * width;
  if (!x.outer_contiguous) {
    for (Index o = 0; o < x.outer; o += step, panels += panel_size) {
      pack_rows<width>(x.data + o * x.ld, x.ld, std::min(step, x.outer - o), x.depth, panels);
    }
    return;
  }
  for (Index d = 0; d < x.depth; d += 2 * interleaved_pairs, panels += interleaved_pairs * width) {
    const bfloat16* from = x.data + d * x.ld;
    const Index terms = std::min(2 * interleaved_pairs, x.depth - d);
    Pair* to = panels;
    for (Index o = 0; o < x.outer; o += step, to += panel_size) {
      if (o + width <= x.outer && terms % 2 == 0) {
        interleave<width>(from + o, x.ld, terms / 2, to);
      } else {
        interleave_edge<width>(from + o, x.ld, std::min(step, x.outer - o), terms, to);
      }
    }
  }
}

}  // namespace hearth::kernels
