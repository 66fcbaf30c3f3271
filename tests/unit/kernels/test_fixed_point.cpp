#include "catch.hpp"
#include "kernels/fixed_point.hpp"
#include "kernels/reference.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

TEMPLATE_TEST_CASE("a gradient's terms are summed in units of 2^-50", "", float, double) {
  using T = TestType;
  const Index elements = GENERATE(0, 1, 511, 4097, 9000);
  const double cells = 8;
  auto g = rounded<T>(random_values("g", elements, 1e-3));
  if (elements > 500) {
    g[3] = std::numeric_limits<double>::infinity();
    g[17] = std::numeric_limits<double>::quiet_NaN();
    g[200] = -1024;    // 8192 with its cells
    g[201] = -1023.5;  // still fits
    g[400] = 1e30;
  }
  const GradientSum<T> gradient{
      {filled<std::int64_t>(elements, 5), {}}, filled_matrix<std::int64_t>(1, 2, 0), cells};
  add_gradient<T>(to_device<T>(g), gradient);
  add_gradient<T>(to_device<T>(g), gradient);
  std::vector<std::int64_t> expected;
  std::vector<std::int64_t> overflow = {0, 0};  // not finite, too large
  for (const double value : g) {
    const auto term = reference::fixed_term(value, cells);
    expected.push_back(5 + 2 * term.value);
    if (term.overflow) overflow[std::isfinite(value) ? 1 : 0] += 2;
  }
  CHECK(to_host(gradient.sum.fixed) == expected);
  CHECK(to_host(gradient.overflow) == overflow);
  if (elements > 500) CHECK(overflow == std::vector<std::int64_t>{4, 4});
}

TEST_CASE("gradients that cannot be summed are counted by slice") {
  const Index slice = 2 * block_elements;
  std::vector<double> g(static_cast<std::size_t>(3 * slice), 1e-3);
  g[0] = g[4095] = std::numeric_limits<double>::quiet_NaN();
  g[static_cast<std::size_t>(slice - 1)] = -1e9;
  g[static_cast<std::size_t>(3 * slice - 1)] = std::numeric_limits<double>::infinity();
  const GradientSum<float> gradient{
      {filled<std::int64_t>(3 * slice, 0), {}}, filled_matrix<std::int64_t>(3, 2, 0), 1, slice};
  add_gradient<float>(to_device<float>(g), gradient);
  CHECK(to_host(gradient.overflow) == std::vector<std::int64_t>{2, 1, 0, 0, 1, 0});
}

TEST_CASE("rounding to fixed point goes to the nearest even number") {
  const std::vector<double> value{0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.75};
  std::vector<double> scaled;
  for (const double x : value) scaled.push_back(x * statistic_unit);
  const auto statistic = filled<std::int64_t>(7, 10);
  add_statistic(to_device<double>(scaled), statistic);
  CHECK(to_host(statistic) == std::vector<std::int64_t>{10, 12, 12, 10, 8, 8, 11});
  CHECK(to_fixed(0.5, 1) == 0);
  CHECK(to_fixed(3.5, 1) == 4);
}

TEST_CASE("a statistic of any value is an integer") {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  constexpr std::int64_t limit = std::int64_t{1} << 62;
  const std::vector<double> value{infinity, -infinity, std::numeric_limits<double>::quiet_NaN(),
                                  -1e300,   0x1p32,    0x1p31};
  const auto statistic = filled<std::int64_t>(6, 0);
  add_statistic(to_device<double>(value), statistic);
  std::vector<std::int64_t> sums = to_host(statistic);
  sums[2] = std::abs(sums[2]);  // the sign of not-a-number has no meaning
  CHECK(sums == std::vector<std::int64_t>{limit, -limit, limit, -limit, limit, limit / 2});
  add_statistic(to_device<double>(value), statistic);  // wraps around
  CHECK(to_host(statistic)[5] == limit);
}

TEST_CASE("a squared norm agrees with the reference and is the sum of its blocks'") {
  const Index blocks = GENERATE(0, 1, 2, 9);
  const double size = GENERATE(1e-9, 1e-3, 1.0, 1000.0);
  CAPTURE(blocks, size);
  std::vector<std::int64_t> g;
  for (const double x : random_values("g", blocks * block_elements, size)) {
    g.push_back(to_fixed(x, gradient_unit));
  }
  const SquaredNorm norm = squared_norm<std::int64_t>(to_device<std::int64_t>(g));
  const double expected = reference::squared_norm(g);
  // Two integers keep an absolute 2^-66 per block.
  CHECK(std::abs(norm.value() - expected) <=
        1e-13 * expected + static_cast<double>(blocks) * 0x1p-65);
  SquaredNorm sum;
  for (Index block = blocks - 1; block >= 0; --block) {
    const auto part = squared_norm<std::int64_t>(
        to_device<std::int64_t>(slice(g, block * block_elements, block_elements)));
    sum.high += part.high;
    sum.low += part.low;
  }
  CHECK(sum.high == norm.high);
  CHECK(sum.low == norm.low);
}

TEMPLATE_TEST_CASE("plain sums add, and their norm is that of fixed-point ones", "", float,
                   double) {
  using T = TestType;
  const Index elements = 3 * block_elements;
  const auto g = rounded<T>(random_values("g", elements, 1e-3));
  const GradientSum<T> plain{{{}, filled<T>(elements, 0)}, filled_matrix<std::int64_t>(1, 2, 0), 8};
  add_gradient<T>(to_device<T>(g), plain);
  add_gradient<T>(to_device<T>(g), plain);
  std::vector<T> doubled;
  for (const double x : g) doubled.push_back(static_cast<T>(2 * x));
  CHECK(same_bits(to_host(plain.sum.plain), doubled));

  std::vector<std::int64_t> fixed;
  for (const T x : doubled) fixed.push_back(to_fixed(x, gradient_unit));
  const double expected = reference::squared_norm(fixed);
  const SquaredNorm norm = squared_norm<T>(plain.sum.plain);
  CHECK(norm.value() == Approx(expected).epsilon(1e-9));
  CHECK(norm.out_of_range == 0);

  // Blocks that no norm can hold are counted.
  for (const double bad :
       {std::numeric_limits<double>::infinity(), 1e30, std::numeric_limits<double>::quiet_NaN()}) {
    Kokkos::deep_copy(Kokkos::subview(plain.sum.plain, block_elements + 5), static_cast<T>(bad));
    CHECK(squared_norm<T>(plain.sum.plain).out_of_range == 1);
  }
}
