// The n largest of many values, by one thread: where the line runs.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

// Values above `bits` belong to the n largest, and so do the first `ties` of those that equal it.
struct Cutoff {
  std::uint64_t bits = 0;
  Index ties = 0;
};

// The order of values that are not negative is that of their bits.
KOKKOS_INLINE_FUNCTION std::uint64_t order_bits(double value) {
  return Kokkos::bit_cast<std::uint64_t>(value);
}

// Radix selection over for_each(visit), which calls visit(order_bits(value)) for each of `count`
// values, the same ones at each call; 0 < n ≤ count.
template <class ForEach>
KOKKOS_INLINE_FUNCTION Cutoff find_cutoff(const ForEach& for_each, Index n) {
  Cutoff cutoff{0, n};
  std::uint64_t known = 0;  // bits of the cutoff that are decided
  for (int shift = 56; shift >= 0; shift -= 8) {
    Index histogram[256] = {};
    for_each([&](const std::uint64_t bits) {
      if ((bits & known) == cutoff.bits) ++histogram[bits >> shift & 255];
    });
    int digit = 255;
    for (; digit > 0 && histogram[digit] < cutoff.ties; --digit) cutoff.ties -= histogram[digit];
    cutoff.bits |= static_cast<std::uint64_t>(digit) << shift;
    known |= std::uint64_t{255} << shift;
  }
  return cutoff;
}

}  // namespace hearth::kernels
