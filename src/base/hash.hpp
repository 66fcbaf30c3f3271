// Hashes that do not change between builds, machines or layouts.
#pragma once

#include <Kokkos_Macros.hpp>
#include <cstdint>
#include <string_view>

namespace hearth {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
KOKKOS_INLINE_FUNCTION constexpr std::uint64_t mix_bits(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

// A tensor's checksum is Σ mod 2⁶⁴ over its elements of bits · key, where bits is an element's bit
// pattern and key a pseudo-random number that its index determines: the sum is the same in any
// order, hence on any layout. Keys are odd: no change of a single element leaves the sum as it is.
// A key is the product of two, of the element's place in a tile of consecutive ones and of the
// tile, so that a loop over a tile needs one multiplication an element.
inline constexpr std::uint64_t checksum_tile = 512;

KOKKOS_INLINE_FUNCTION constexpr std::uint64_t place_key(std::uint64_t index) {
  return mix_bits(index % checksum_tile) | 1;
}
KOKKOS_INLINE_FUNCTION constexpr std::uint64_t tile_key(std::uint64_t index) {
  return mix_bits(checksum_tile + index / checksum_tile) | 1;
}

// One term of the sum.
KOKKOS_INLINE_FUNCTION constexpr std::uint64_t hash_element(std::uint64_t index,
                                                            std::uint64_t bits) {
  return bits * place_key(index) * tile_key(index);
}

// FNV-1a, 64 bits.
[[nodiscard]] constexpr std::uint64_t hash_text(std::string_view text) {
  std::uint64_t hash = 0xCBF29CE484222325ULL;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  }
  return hash;
}

}  // namespace hearth
