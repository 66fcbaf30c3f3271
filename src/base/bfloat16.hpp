// The 16-bit type with the exponent of a float: storage alone, arithmetic is done in float.
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>

namespace hearth {

struct bfloat16 {
  std::uint16_t bits;

  bfloat16() = default;
  // Rounds to nearest, ties to even; a NaN stays one.
  KOKKOS_INLINE_FUNCTION explicit bfloat16(float value) {
    const auto raw = Kokkos::bit_cast<std::uint32_t>(value);
    const std::uint32_t rounded = raw + 0x7FFFU + ((raw >> 16) & 1U);
    const std::uint32_t kept = value != value ? raw | 0x00400000U : rounded;
    bits = static_cast<std::uint16_t>(kept >> 16);
  }
  KOKKOS_INLINE_FUNCTION operator float() const {
    return Kokkos::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};
static_assert(sizeof(bfloat16) == 2);

namespace detail {
template <class T>
struct RealOf {
  using type = T;
};
template <>
struct RealOf<bfloat16> {
  using type = float;
};
}  // namespace detail

// In what values of type T are computed, summed and, where it matters, kept.
template <class T>
using Real = typename detail::RealOf<T>::type;

}  // namespace hearth
