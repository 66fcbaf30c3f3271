// Vectors of floats, and products of pairs of bfloat16 that are summed in them: host code, and the
// one place with instructions for them. Other processors do the same in float.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "base/bfloat16.hpp"
#include "kernels/processor.hpp"

#if defined(HEARTH_BFLOAT16_INSTRUCTIONS)
#include <immintrin.h>
#endif

namespace hearth::kernels {

// Two neighbours along the dimension that is summed over; the first in the lower half.
using Pair = std::uint32_t;

// One vector of the processor. Compilers keep it in a register, without being asked to vectorise.
typedef float Lanes __attribute__((vector_size(lane_bytes)));
typedef Pair PairLanes __attribute__((vector_size(lane_bytes)));
typedef std::int32_t LaneIndices __attribute__((vector_size(lane_bytes)));
typedef std::uint16_t HalfLanes __attribute__((vector_size(lane_bytes / 2)));

[[nodiscard]] inline Pair pair_of(bfloat16 first, bfloat16 second) {
  return Pair{first.bits} | Pair{second.bits} << 16;
}

// Arrays are read and written as what they hold, wherever they lie.
template <class Vector>
[[nodiscard]] inline Vector load(const void* from) {
  Vector x;
  std::memcpy(&x, from, sizeof x);
  return x;
}
template <class Vector>
inline void store(void* to, const Vector& x) {
  std::memcpy(to, &x, sizeof x);
}

// Numbers of bfloat16 as pairs without a second, and as floats.
[[nodiscard]] inline PairLanes widen(HalfLanes x) {
  return __builtin_convertvector(x, PairLanes);
}
[[nodiscard]] inline Lanes load_lanes(const float* from) {
  return load<Lanes>(from);
}
[[nodiscard]] inline Lanes load_lanes(const bfloat16* from) {
  return (Lanes)(widen(load<HalfLanes>(from)) << 16);
}

[[nodiscard]] inline Lanes all_lanes(float x) {
  return x - Lanes{};
}
[[nodiscard]] inline PairLanes all_lanes(Pair x) {
  return x | PairLanes{};
}
// 0, 1, 2, ...
[[nodiscard]] inline LaneIndices lane_indices() {
  LaneIndices index;
  for (int l = 0; l < lane_count; ++l) index[l] = l;
  return index;
}

[[nodiscard]] inline Lanes larger(Lanes a, Lanes b) {
  return a > b ? a : b;
}

#if defined(HEARTH_BFLOAT16_INSTRUCTIONS)

// The first `count` numbers of bfloat16 of an array, zero beyond; as many as fit the vector at
// most.
template <class Vector>
[[nodiscard]] inline Vector load_first(const bfloat16* from, int count) {
  const __mmask32 wanted = count < 32 ? (__mmask32{1} << count) - 1 : ~__mmask32{0};
  const __m512i x = _mm512_maskz_loadu_epi16(wanted, from);
  Vector first;
  std::memcpy(&first, &x, sizeof first);
  return first;
}

// sum += first(a) first(b) + second(a) second(b)
inline void add_products(Lanes& sum, PairLanes a, PairLanes b) {
  sum = (Lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}

// The lanes rounded to bfloat16.
[[nodiscard]] inline HalfLanes round_lanes(Lanes x) {
  return (HalfLanes)_mm512_cvtneps_pbh((__m512)x);
}

// Pairs of the rounded lanes.
[[nodiscard]] inline PairLanes round_pairs(Lanes first, Lanes second) {
  const auto both = (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return (PairLanes)_mm512_permutexvar_epi16(order, both);
}

// 2ˣ to 8·10⁻⁶, which is enough for what becomes a bfloat16; 0 for -∞, 1 for 0. The polynomial
// interpolates (2ʳ - 1)/r at Chebyshev's nodes of 0 ≤ r < 1.
[[nodiscard]] inline Lanes short_power_of_two(Lanes x) {
  constexpr int downwards = 0x09;
  constexpr __mmask16 all = 0xFFFF;  // without a mask GCC warns of what it does not use
  const auto r =
      (Lanes)_mm512_maskz_reduce_ps(all, (__m512)x, downwards);  // x less the next lower integer
  Lanes p = r * 1.2763113886e-2f + 5.3441029271e-2f;
  p = p * r + 2.4064704812e-1f;
  p = p * r + 6.9313399262e-1f;
  p = p * r + 1.0f;
  return (Lanes)_mm512_maskz_scalef_ps(all, (__m512)p, (__m512)x);
}

#else

// The first `count` numbers of bfloat16 of an array, zero beyond; as many as fit the vector at
// most.
template <class Vector>
[[nodiscard]] inline Vector load_first(const bfloat16* from, int count) {
  Vector first{};
  std::memcpy(&first, from, static_cast<std::size_t>(count) * sizeof(bfloat16));
  return first;
}

// sum += first(a) first(b) + second(a) second(b)
inline void add_products(Lanes& sum, PairLanes a, PairLanes b) {
  constexpr Pair second = 0xFFFF0000U;
  sum += (Lanes)(a << 16) * (Lanes)(b << 16);
  sum += (Lanes)(a & second) * (Lanes)(b & second);
}

// As the constructor of bfloat16 rounds; the result stands in the upper halves.
[[nodiscard]] inline PairLanes rounded_bits(Lanes x) {
  const auto raw = (PairLanes)x;
  const PairLanes rounded = raw + 0x7FFFU + ((raw >> 16) & 1U);
  return x != x ? raw | 0x00400000U : rounded;
}

// The lanes rounded to bfloat16.
[[nodiscard]] inline HalfLanes round_lanes(Lanes x) {
  return __builtin_convertvector(rounded_bits(x) >> 16, HalfLanes);
}

// Pairs of the rounded lanes.
[[nodiscard]] inline PairLanes round_pairs(Lanes first, Lanes second) {
  return rounded_bits(first) >> 16 | (rounded_bits(second) & 0xFFFF0000U);
}

// 2ˣ for x < 128 to 7·10⁻⁶, which is enough for what becomes a bfloat16; 0 for -∞, 1 for 0. As
// power_of_two of kernels/vector_math.hpp, with fewer terms.
[[nodiscard]] inline Lanes short_power_of_two(Lanes x) {
  constexpr float shift = 0x1.8p23f;
  const Lanes shifted = x + shift;
  const Lanes r = x - (shifted - shift);
  Lanes p = r * 9.6567102885e-3f + 5.5838282946e-2f;
  p = p * r + 2.4022530097e-1f;
  p = p * r + 6.9313673388e-1f;
  p = p * r + 1.0f;
  const Lanes power = (Lanes)((PairLanes)p + ((PairLanes)shifted << 23));
  return x < -126.0f ? Lanes{} : power;
}

#endif

inline void store_lanes(float* to, const Lanes& x) {
  store(to, x);
}
// Rounded.
inline void store_lanes(bfloat16* to, const Lanes& x) {
  store(to, round_lanes(x));
}

// body(integral_constant) for 0, 1, ... n - 1, written out: arrays of vectors whose indices are
// constants stay in registers.
template <int n, class Body>
[[gnu::always_inline]] inline void written_out(const Body& body) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    (body(std::integral_constant<int, i>()), ...);
  }
  (std::make_integer_sequence<int, n>());
}

}  // namespace hearth::kernels
