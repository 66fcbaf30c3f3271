// Elementary functions that vectorise: no branch, no table, no library call.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

// eˣ to about one unit in the last place; 0 for -∞ (and below the smallest subnormal), ∞ above
// the largest float, NaN for NaN. The standard library's exp is a call that compilers leave
// scalar unless they may ignore NaN and ∞. Cody and Waite's reduction to |r| ≤ ln(2)/2, then the
// polynomial of Cephes' expf (Moshier 1992).
KOKKOS_INLINE_FUNCTION float exponential(float argument) {
  const float raised = argument < -104.0f ? -104.0f : argument;
  const float x = argument > 89.0f ? 89.0f : raised;
  // Adding 1.5 · 2²³ rounds to an integer, which then stands in the lowest bits of the sum.
  constexpr float shift = 0x1.8p23f;
  const float shifted = x * 0x1.715476p0f + shift;
  const float n = shifted - shift;
  const std::int32_t exponent =
      Kokkos::bit_cast<std::int32_t>(shifted) - Kokkos::bit_cast<std::int32_t>(shift);
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  // 2ⁿ in two factors: n reaches beyond the exponents of normal numbers at both ends.
  const std::int32_t half = exponent >> 1;
  const auto power = [](std::int32_t e) {
    return Kokkos::bit_cast<float>(static_cast<std::uint32_t>(e + 127) << 23);
  };
  return p * power(half) * power(exponent - half);
}

// 2ˣ for x < 128, to about one unit in the last place; 0 for x < -126 and for -∞. With fewer
// instructions than eˣ it serves the softmax of attention, whose exponents are scaled beforehand.
// The polynomial interpolates (2ʳ - 1)/r at Chebyshev's nodes of |r| ≤ ½.
KOKKOS_INLINE_FUNCTION float power_of_two(float x) {
  constexpr float shift = 0x1.8p23f;
  const float shifted = x + shift;
  const float r = x - (shifted - shift);
  float p = 1.5453162942e-4f;
  p = p * r + 1.3390863365e-3f;
  p = p * r + 9.6180825573e-3f;
  p = p * r + 5.5503571142e-2f;
  p = p * r + 2.4022650761e-1f;
  p = p * r + 6.9314718803e-1f;
  p = p * r + 1.0f;
  // The integer stands in the lowest bits of `shifted`; from there it goes into p's exponent.
  const float power = Kokkos::bit_cast<float>(Kokkos::bit_cast<std::uint32_t>(p) +
                                              (Kokkos::bit_cast<std::uint32_t>(shifted) << 23));
  return x < -126.0f ? 0.0f : power;
}

// ln x of a positive finite number, to about one unit in the last place; finite for 0, so that
// x ln x is 0 there. x is taken apart into 2ⁿ m with √½ ≤ m < √2, then the polynomial of Cephes'
// logf (Moshier 1992).
KOKKOS_INLINE_FUNCTION float logarithm(float x) {
  constexpr std::int32_t root_half = 0x3F3504F3;  // the bits of √½
  // What makes a subnormal number normal.
  const std::int32_t lift = Kokkos::bit_cast<std::int32_t>(x) < 0x00800000 ? 23 : 0;
  const float normal = x * Kokkos::bit_cast<float>((127 + lift) << 23);
  const std::int32_t bits = Kokkos::bit_cast<std::int32_t>(normal) - root_half;
  const float n = static_cast<float>((bits >> 23) - lift);
  const float f = Kokkos::bit_cast<float>((bits & 0x007FFFFF) + root_half) - 1.0f;
  const float square = f * f;
  float p = 7.0376836292e-2f;
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  const float small = p * f * square + n * -2.12194440e-4f - 0.5f * square;
  return f + small + n * 0.693359375f;
}

// The oracle's precision needs no speed.
KOKKOS_INLINE_FUNCTION double power_of_two(double x) {
  return Kokkos::exp2(x);
}
KOKKOS_INLINE_FUNCTION double exponential(double x) {
  return Kokkos::exp(x);
}
KOKKOS_INLINE_FUNCTION double logarithm(double x) {
  return Kokkos::log(x < 0x1p-1074 ? 0x1p-1074 : x);  // finite for 0 as well
}

}  // namespace hearth::kernels
