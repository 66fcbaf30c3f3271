#include <cmath>

#include "base/hash.hpp"
#include "base/random.hpp"
#include "catch.hpp"

using namespace hearth;

TEST_CASE("philox agrees with the authors' known answers") {
  // Random123's kat_vectors for philox4x32 with 10 rounds.
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) ==
        std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        std::array<std::uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("normal deviates have the moments of a normal distribution") {
  const RandomStream stream(7, "a tensor");
  constexpr int n = 200000;
  double sum = 0, squares = 0, fourth = 0, neighbours = 0, previous = 0;
  for (int i = 0; i < n; ++i) {
    const double x = stream.normal(static_cast<std::uint64_t>(i));
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
    neighbours += x * previous;
    previous = x;
  }
  // Five standard errors.
  CHECK(std::fabs(sum / n) < 5 / std::sqrt(n));
  CHECK(std::fabs(squares / n - 1) < 5 * std::sqrt(2.0 / n));
  CHECK(std::fabs(fourth / n - 3) < 5 * std::sqrt(96.0 / n));
  CHECK(std::fabs(neighbours / n) < 5 / std::sqrt(n));
}

TEST_CASE("streams differ by seed and by name and repeat themselves") {
  const RandomStream stream(7, "a");
  CHECK(stream.normal(12) == RandomStream(7, "a").normal(12));
  CHECK(stream.normal(12) != RandomStream(8, "a").normal(12));
  CHECK(stream.normal(12) != RandomStream(7, "b").normal(12));
}

TEST_CASE("a checksum term depends on place and on every bit") {
  CHECK(hash_element(1, 5) != hash_element(2, 5));
  for (const std::uint64_t i : {0, 1, 511, 512, 1 << 20}) {
    const std::uint64_t j = i + 512;  // the same place of the next tile
    CHECK(hash_element(i, 5) + hash_element(j, 6) != hash_element(i, 6) + hash_element(j, 5));
  }
  for (int bit = 0; bit < 64; ++bit) {
    CHECK(hash_element(1, 5) != hash_element(1, 5 ^ (std::uint64_t{1} << bit)));
  }
}
