#include <bit>
#include <cmath>
#include <limits>

#include "base/bfloat16.hpp"
#include "catch.hpp"

using namespace hearth;

namespace {

std::uint16_t bits_of(float value) {
  return bfloat16(value).bits;
}

// By the definition: of the two neighbours the nearer, of equally near ones the even one.
std::uint16_t nearest(float value) {
  const auto raw = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t below = raw & 0xFFFF0000U, above = below + 0x10000U;
  const std::uint32_t rest = raw - below;  // of 0x10000
  const bool up = rest > 0x8000U || (rest == 0x8000U && (below & 0x10000U) != 0);
  return static_cast<std::uint16_t>((up ? above : below) >> 16);
}

}  // namespace

TEST_CASE("bfloat16 is the upper half of a float") {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    bfloat16 x;
    x.bits = static_cast<std::uint16_t>(bits);
    const float value = x;
    REQUIRE(std::bit_cast<std::uint32_t>(value) == bits << 16);
    REQUIRE(bits_of(value) == (std::isnan(value) ? bits | 0x0040U : bits));
  }
}

TEST_CASE("a float is rounded to the nearest bfloat16, ties to even") {
  CHECK(bits_of(1.0f) == 0x3F80);
  CHECK(bits_of(1.0f + 0x1p-8f) == 0x3F80);             // a tie: down to even
  CHECK(bits_of(1.0f + 0x1p-8f + 0x1p-23f) == 0x3F81);  // just above
  CHECK(bits_of(1.0f + 0x1p-7f + 0x1p-8f) == 0x3F82);   // a tie: up to even
  CHECK(bits_of(1.0f + 0x1p-7f + 0x1p-8f - 0x1p-23f) == 0x3F81);
  CHECK(bits_of(-1.0f - 0x1p-8f) == 0xBF80);
  CHECK(bits_of(2.0f - 0x1p-9f) == 0x4000);  // carries into the exponent
  int different = 0;
  for (std::uint64_t raw = 0; raw < 0x100000000ULL; raw += 4093) {  // a prime: all lower halves
    const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(raw));
    if (!std::isnan(value)) different += bits_of(value) == nearest(value) ? 0 : 1;
  }
  CHECK(different == 0);
}

TEST_CASE("bfloat16 at the ends of its range") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  CHECK(bits_of(0.0f) == 0x0000);
  CHECK(bits_of(-0.0f) == 0x8000);
  CHECK(bits_of(infinity) == 0x7F80);
  CHECK(bits_of(-infinity) == 0xFF80);
  CHECK(bits_of(0x1.FEp127f) == 0x7F7F);                         // the largest
  CHECK(bits_of(0x1.FEFFFEp127f) == 0x7F7F);                     // below half a unit above
  CHECK(bits_of(0x1.FFp127f) == 0x7F80);                         // a tie: to infinity
  CHECK(bits_of(-std::numeric_limits<float>::max()) == 0xFF80);  // overflows
  CHECK(bits_of(std::numeric_limits<float>::denorm_min()) == 0x0000);
  CHECK(bits_of(0x1p-133f) == 0x0001);  // the smallest
  CHECK(bits_of(0x1p-134f) == 0x0000);  // a tie: to zero
  CHECK(bits_of(0x1.0002p-134f) == 0x0001);
  CHECK(bits_of(0x1.FFFFp-127f) == 0x0080);  // up to a normal number
  // A NaN whose digits stand in the lower half alone is not mistaken for infinity, and the largest
  // pattern does not overflow into zero.
  for (const std::uint32_t raw :
       {0x7F800001U, 0xFF800001U, 0x7FFFFFFFU, 0xFFFFFFFFU, 0x7FC00000U}) {
    const bfloat16 x(std::bit_cast<float>(raw));
    CHECK(std::isnan(static_cast<float>(x)));
    CHECK((x.bits >> 15) == (raw >> 31));
  }
}
