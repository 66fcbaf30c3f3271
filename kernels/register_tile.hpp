// Sums of products of pairs of bfloat16 in registers: host code.
#pragma once

#include "kernels/bfloat16_pairs.hpp"

namespace hearth::kernels {

// The sums of a product that stand in registers.
template <int rows, int runs>
struct RegisterTile {
  Lanes value[rows][runs];

  [[gnu::always_inline]] void clear() {
    each([&](auto r, auto n) { value[r][n] = Lanes{}; });
  }
  // Rows of an array of floats, and the sums themselves.
  [[gnu::always_inline]] void load_from(const float* from, int stride) {
    each([&](auto r, auto n) __attribute__((always_inline)) {
      value[r][n] = load<Lanes>(from + r * stride + n * lane_count);
    });
  }
  [[gnu::always_inline]] void store_to(float* to, int stride) const {
    each([&](auto r, auto n) __attribute__((always_inline)) {
      store(to + r * stride + n * lane_count, value[r][n]);
    });
  }
  // body(row, run)
  template <class Body>
  [[gnu::always_inline]] static void each(const Body& body) {
    written_out<rows>([&](auto r) __attribute__((always_inline)) {
      written_out<runs>([&](auto n) __attribute__((always_inline)) { body(r, n); });
    });
  }
  // value[r] += a(r, i) b[i] for one i; a(r, i) is a[r · row_step].
  template <int row_step>
  [[gnu::always_inline]] void add(const Pair* a, const Pair* b) {
    PairLanes operand[runs];
    written_out<runs>([&](auto n) __attribute__((always_inline)) {
      operand[n] = load<PairLanes>(b + n * lane_count);
    });
    written_out<rows>([&](auto r) __attribute__((always_inline)) {
      const PairLanes factor = all_lanes(load<Pair>(a + r * row_step));
      written_out<runs>([&](auto n) __attribute__((always_inline)) {
        add_products(value[r][n], factor, operand[n]);
      });
    });
  }
};

}  // namespace hearth::kernels
