#include "catch.hpp"
#include "kernels/vector_math.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;

TEST_CASE("the exponential is good to two units in the last place") {
  double worst = 0;
  for (double x = -87; x < 88.7; x += 0.000713) {
    const float argument = static_cast<float>(x);
    const double exact = std::exp(static_cast<double>(argument));
    const float nearest = static_cast<float>(exact);
    const double unit = std::nextafter(nearest, std::numeric_limits<float>::infinity()) - nearest;
    worst = std::max(worst, std::abs(static_cast<double>(exponential(argument)) - exact) / unit);
  }
  CAPTURE(worst);
  CHECK(worst < 1.5);
}

TEST_CASE("a power of two is good to two units in the last place") {
  double worst = 0;
  for (double x = -125.9; x < 127.9; x += 0.000713) {
    const float argument = static_cast<float>(x);
    const double exact = std::exp2(static_cast<double>(argument));
    const float nearest = static_cast<float>(exact);
    const double unit = std::nextafter(nearest, std::numeric_limits<float>::infinity()) - nearest;
    worst = std::max(worst, std::abs(static_cast<double>(power_of_two(argument)) - exact) / unit);
  }
  CAPTURE(worst);
  CHECK(worst < 1.5);
  CHECK(power_of_two(0.0f) == 1.0f);
  CHECK(power_of_two(-3.0f) == 0.125f);
  CHECK(power_of_two(-127.0f) == 0.0f);
  CHECK(power_of_two(-1e30f) == 0.0f);
  CHECK(power_of_two(-std::numeric_limits<float>::infinity()) == 0.0f);
  CHECK(std::isnan(power_of_two(std::numeric_limits<float>::quiet_NaN())));
}

TEST_CASE("the exponential at its ends") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  CHECK(exponential(0.0f) == 1.0f);
  CHECK(exponential(-0.0f) == 1.0f);
  CHECK(exponential(-infinity) == 0.0f);
  CHECK(exponential(-1e30f) == 0.0f);
  CHECK(exponential(-104.5f) == 0.0f);
  CHECK(exponential(infinity) == infinity);
  CHECK(exponential(88.8f) == infinity);
  CHECK(std::isfinite(exponential(88.72f)));
  CHECK(std::isnan(exponential(std::numeric_limits<float>::quiet_NaN())));
  CHECK(std::isnan(exponential(-std::numeric_limits<float>::quiet_NaN())));
  // Subnormal results lose digits, not their size.
  constexpr double unit = 0x1p-149;
  for (float x = -103.5f; x < -87; x += 0.37f) {
    const double exact = std::exp(static_cast<double>(x));
    CHECK(std::abs(static_cast<double>(exponential(x)) - exact) <= 1.5 * unit + 2e-7 * exact);
  }
}

TEST_CASE("the logarithm is good to two units in the last place") {
  double worst = 0;
  for (double x = -104; x < 88.7; x += 0.000713) {
    const float argument = static_cast<float>(std::exp(x));
    if (argument == 0.0f || argument == 1.0f) continue;
    const double exact = std::log(static_cast<double>(argument));
    const float size = std::abs(static_cast<float>(exact));
    const double unit = std::nextafter(size, std::numeric_limits<float>::infinity()) - size;
    worst = std::max(worst, std::abs(static_cast<double>(logarithm(argument)) - exact) / unit);
  }
  CAPTURE(worst);
  CHECK(worst < 1.5);
  CHECK(logarithm(1.0f) == 0.0f);
  CHECK(logarithm(std::numeric_limits<float>::max()) == Approx(88.722839f));
  CHECK(0.0f * logarithm(0.0f) == 0.0f);
  CHECK(0.0 * logarithm(0.0) == 0.0);
}
