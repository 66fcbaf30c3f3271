#include "base/random.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "base/hash.hpp"

namespace hearth {

namespace {

// Pairs of deviates that are made at a time, in loops that compilers turn into vector
// instructions. A deviate is always computed as a member of its block, so that it has the same
// bits however many are asked for.
constexpr int block_pairs = 32;
constexpr int block = 2 * block_pairs;

// One of Philox's rounds, on one of four counters.
struct Counter {
  std::uint32_t c0, c1, c2, c3;
};

constexpr Counter philox_round(Counter c, std::uint32_t key0, std::uint32_t key1) {
  const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c.c0;
  const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * c.c2;
  return {static_cast<std::uint32_t>(p1 >> 32) ^ c.c1 ^ key0, static_cast<std::uint32_t>(p1),
          static_cast<std::uint32_t>(p0 >> 32) ^ c.c3 ^ key1, static_cast<std::uint32_t>(p0)};
}

constexpr Counter philox(Counter c, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    c = philox_round(c, key0, key1);
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return c;
}

// A number in (0, 1) from 64 random bits: the top 52 and a half, so that the logarithm never sees
// zero. The bits become a number in [1, 2) by their place in it, since conversions of integers
// are slow on some machines.
double uniform(std::uint32_t high, std::uint32_t low) {
  const std::uint64_t bits = (std::uint64_t{high} << 32) | low;
  const auto from_one = std::bit_cast<double>((bits >> 12) | 0x3FF0000000000000ULL);
  return (from_one - 1.0) + 0x1p-53;
}

// ln x for 0 < x < 1 to about a unit in the last place: x = 2ᵉ m with m from √½ to √2, then the
// series of 2 artanh((m - 1)/(m + 1)). The library's function is a call for every element.
double logarithm(double x) {
  constexpr auto least = std::bit_cast<std::int64_t>(0.70710678118654752440);
  const std::int64_t from_least = std::bit_cast<std::int64_t>(x) - least;
  const std::int64_t exponent = from_least >> 52;  // negative or zero
  const auto m = std::bit_cast<double>((from_least & 0x000FFFFFFFFFFFFFLL) + least);
  // exponent as a double: 2⁵² + 2⁵¹ + exponent has it in its lowest bits.
  constexpr double shift = 0x1.8p52;
  const double e = std::bit_cast<double>(std::bit_cast<std::int64_t>(shift) + exponent) - shift;
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  double p = 1.0 / 21;
  p = p * z + 1.0 / 19;
  p = p * z + 1.0 / 17;
  p = p * z + 1.0 / 15;
  p = p * z + 1.0 / 13;
  p = p * z + 1.0 / 11;
  p = p * z + 1.0 / 9;
  p = p * z + 1.0 / 7;
  p = p * z + 1.0 / 5;
  p = p * z + 1.0 / 3;
  return e * std::numbers::ln2 + 2.0 * (s + s * z * p);
}

// cos(2π u) and sin(2π u) for 0 ≤ u < 1: Taylor's series on an eighth of a turn.
void cosine_and_sine(double u, double& cosine, double& sine) {
  constexpr double shift = 0x1.8p52;
  const double turns = 4.0 * u, shifted = turns + shift;
  const double quarter = shifted - shift;  // nearest integer
  const std::int64_t n = std::bit_cast<std::int64_t>(shifted);
  const double r = (turns - quarter) * (std::numbers::pi / 2), z = r * r;
  double s = 1.0 / 355687428096000;
  s = s * z - 1.0 / 1307674368000;
  s = s * z + 1.0 / 6227020800;
  s = s * z - 1.0 / 39916800;
  s = s * z + 1.0 / 362880;
  s = s * z - 1.0 / 5040;
  s = s * z + 1.0 / 120;
  s = s * z - 1.0 / 6;
  s = r + r * z * s;
  double c = 1.0 / 20922789888000;
  c = c * z - 1.0 / 87178291200;
  c = c * z + 1.0 / 479001600;
  c = c * z - 1.0 / 3628800;
  c = c * z + 1.0 / 40320;
  c = c * z - 1.0 / 720;
  c = c * z + 1.0 / 24;
  c = c * z - 1.0 / 2;
  c = 1.0 + z * c;
  const bool odd = (n & 1) != 0;
  const double first = odd ? s : c, second = odd ? c : s;
  cosine = ((n + 1) & 2) != 0 ? -first : first;
  sine = (n & 2) != 0 ? -second : second;
}

void fill_block(std::uint64_t number, std::uint64_t key, std::uint64_t name, double* deviates) {
  const std::uint64_t first_pair = number * block_pairs;
  const auto low = static_cast<std::uint32_t>(first_pair);  // a block never carries
  const auto high = static_cast<std::uint32_t>(first_pair >> 32);
  const auto name0 = static_cast<std::uint32_t>(name),
             name1 = static_cast<std::uint32_t>(name >> 32);
  const auto key0 = static_cast<std::uint32_t>(key), key1 = static_cast<std::uint32_t>(key >> 32);
  double radial[block_pairs], angular[block_pairs];
  for (int i = 0; i < block_pairs; ++i) {
    const Counter c = philox({low + static_cast<std::uint32_t>(i), high, name0, name1}, key0, key1);
    radial[i] = uniform(c.c0, c.c1);
    angular[i] = uniform(c.c2, c.c3);
  }
  for (int i = 0; i < block_pairs; ++i) {
    const double radius = std::sqrt(-2.0 * logarithm(radial[i]));
    double cosine, sine;
    cosine_and_sine(angular[i], cosine, sine);
    deviates[2 * i] = radius * cosine;
    deviates[2 * i + 1] = radius * sine;
  }
}

}  // namespace

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
  const Counter c = philox({counter[0], counter[1], counter[2], counter[3]}, key[0], key[1]);
  return {c.c0, c.c1, c.c2, c.c3};
}

RandomStream::RandomStream(std::uint64_t seed, std::string_view name)
    : key_(seed), name_hash_(hash_text(name)) {}

void RandomStream::normals(std::uint64_t first, std::span<double> deviates) const {
  double made[block];
  for (std::size_t done = 0; done < deviates.size();) {
    const std::uint64_t index = first + done;
    const std::size_t skip = index % block;
    const std::size_t count = std::min(deviates.size() - done, block - skip);
    fill_block(index / block, key_, name_hash_, made);
    std::copy_n(made + skip, count, deviates.data() + done);
    done += count;
  }
}

double RandomStream::normal(std::uint64_t index) const {
  double deviate = 0;
  normals(index, {&deviate, 1});
  return deviate;
}

}  // namespace hearth
