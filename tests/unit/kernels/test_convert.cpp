#include "catch.hpp"
#include "kernels/convert.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

TEST_CASE("bfloat16 becomes float exactly, and float the nearest bfloat16") {
  const Index elements = GENERATE(0, 1, 511, 512, 5000);
  const auto values = random_values("x", elements);
  const auto single = to_device<float>(values);
  const auto half = filled<bfloat16>(elements);
  convert<float, bfloat16>(single, half);
  std::vector<bfloat16> nearest;
  for (const double x : values) nearest.emplace_back(static_cast<float>(x));
  CHECK(same_bits(to_host(half), nearest));
  const auto back = filled<float>(elements);
  convert<bfloat16, float>(half, back);
  CHECK(relative_difference_of(back, rounded<bfloat16>(values)) == 0);
}

TEST_CASE("every pattern of bfloat16 goes through float and back, in vectors too") {
  std::vector<bfloat16> all(65536);
  for (unsigned bits = 0; bits < 65536; ++bits) all[bits].bits = static_cast<std::uint16_t>(bits);
  const auto device = to_device<bfloat16>(all);
  const auto single = filled<float>(65536);
  convert<bfloat16, float>(device, single);
  const auto back = filled<bfloat16>(65536);
  convert<float, bfloat16>(single, back);
  const auto got = to_host(back);
  int different = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto value = static_cast<float>(all[i]);
    // A NaN becomes a quiet one.
    const unsigned expected = std::isnan(value) ? all[i].bits | 0x0040U : all[i].bits;
    different += got[i].bits == expected ? 0 : 1;
  }
  CHECK(different == 0);
}

TEST_CASE("rows are converted as one run") {
  const auto values = random_values("x", 7 * 33);
  const auto half = filled_matrix<bfloat16>(7, 33);
  convert<float, bfloat16>(to_device<float>(values, 7, 33), half);
  CHECK(relative_difference_of(half, rounded<bfloat16>(values)) == 0);
}
