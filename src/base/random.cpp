#include "base/random.hpp"

#include <cmath>
#include <numbers>

#include "base/hash.hpp"

namespace hearth {

namespace {

struct Product {
  std::uint32_t high, low;
};

Product multiply(std::uint32_t a, std::uint32_t b) {
  const std::uint64_t product = std::uint64_t{a} * b;
  return {static_cast<std::uint32_t>(product >> 32), static_cast<std::uint32_t>(product)};
}

// A number in (0, 1) from 64 random bits: the top 53 and a half, so that log() never sees zero.
double uniform(std::uint32_t high, std::uint32_t low) {
  const std::uint64_t bits = (std::uint64_t{high} << 32) | low;
  return (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53;
}

}  // namespace

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
  constexpr std::uint32_t multiplier0 = 0xD2511F53, multiplier1 = 0xCD9E8D57;
  constexpr std::uint32_t weyl0 = 0x9E3779B9, weyl1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    const Product p0 = multiply(multiplier0, counter[0]);
    const Product p1 = multiply(multiplier1, counter[2]);
    counter = {p1.high ^ counter[1] ^ key[0], p1.low, p0.high ^ counter[3] ^ key[1], p0.low};
    key[0] += weyl0;
    key[1] += weyl1;
  }
  return counter;
}

RandomStream::RandomStream(std::uint64_t seed, std::string_view name)
    : key_(seed), name_hash_(hash_text(name)) {}

double RandomStream::normal(std::uint64_t index) const {
  const std::uint64_t pair = index / 2;
  const auto bits = philox4x32(
      {static_cast<std::uint32_t>(pair), static_cast<std::uint32_t>(pair >> 32),
       static_cast<std::uint32_t>(name_hash_), static_cast<std::uint32_t>(name_hash_ >> 32)},
      {static_cast<std::uint32_t>(key_), static_cast<std::uint32_t>(key_ >> 32)});
  const double radius = std::sqrt(-2.0 * std::log(uniform(bits[0], bits[1])));
  const double angle = 2.0 * std::numbers::pi * uniform(bits[2], bits[3]);
  return radius * (index % 2 == 0 ? std::cos(angle) : std::sin(angle));
}

}  // namespace hearth
