#include "catch.hpp"
#include "kernels/adam.hpp"
#include "kernels/fixed_point.hpp"
#include "kernels/reference.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

TEMPLATE_TEST_CASE("adam agrees with the reference over several steps", "", bfloat16, float,
                   double) {
  using T = TestType;
  const Index elements = GENERATE(0, 1, 4095, 10000);
  const std::vector<std::uint8_t> decay{1, 0, 1};
  using R = Real<T>;
  const auto start = rounded<R>(random_values("weight", elements));
  const auto weight = to_device<R>(start), first = filled<R>(elements, 0),
             second = filled<R>(elements, 0);
  const auto compute = filled<T>(std::is_same_v<T, R> ? 0 : elements);
  std::vector<reference::AdamElement<double>> expected;
  for (const double w : start) expected.push_back({w, 0, 0});
  for (int t = 1; t <= 4; ++t) {
    const AdamStep step{1e-2,
                        0.9,
                        0.999,
                        1e-8,
                        0.1,
                        1 - std::pow(0.9, t),
                        1 - std::pow(0.999, t),
                        t % 2 == 0 ? 0.25 : 1.0};
    std::vector<std::int64_t> g;
    for (const double x : random_values("g" + std::to_string(t), elements, 1e-3)) {
      g.push_back(to_fixed(x, gradient_unit));
    }
    adam<T, std::int64_t>(step, to_device<std::int64_t>(g), to_device<std::uint8_t>(decay), weight,
                          first, second, compute);
    for (std::size_t i = 0; i < g.size(); ++i) {
      auto& e = expected[i];
      e = reference::adam(step, static_cast<double>(g[i]) * gradient_unit,
                          decay[i / block_elements] != 0, e);
      // Between steps the arrays hold elements of R.
      e = {static_cast<R>(e.weight), static_cast<R>(e.first_moment),
           static_cast<R>(e.second_moment)};
    }
  }
  std::vector<double> w, m, v;
  for (const auto& e : expected) {
    w.push_back(e.weight);
    m.push_back(e.first_moment);
    v.push_back(e.second_moment);
  }
  constexpr double tight = 10 * static_cast<double>(std::numeric_limits<R>::epsilon());
  CHECK(relative_difference_of(weight, w) < tight);
  CHECK(relative_difference_of(first, m) < tight);
  CHECK(relative_difference_of(second, v) < tight);
  if constexpr (!std::is_same_v<T, R>) {
    std::vector<T> nearest;
    for (const R master : to_host(weight)) nearest.push_back(static_cast<T>(master));
    CHECK(same_bits(to_host(compute), nearest));
  }
}

TEST_CASE("adam: an element without a gradient only decays, and only where decay applies") {
  const AdamStep step{0.5, 0.9, 0.99, 1e-8, 0.1, 0.1, 0.01, 1.0};
  const auto weight = filled<double>(2 * block_elements, 2),
             first = filled<double>(2 * block_elements, 0),
             second = filled<double>(2 * block_elements, 0);
  adam<double, std::int64_t>(step, filled<std::int64_t>(2 * block_elements, 0),
                             to_device<std::uint8_t>(std::vector<int>{0, 1}), weight, first,
                             second);
  const auto w = to_host(weight);
  CHECK(w[block_elements - 1] == 2.0);
  CHECK(w[block_elements] == Approx(2.0 - 0.5 * 0.1 * 2.0).epsilon(1e-15));
}

TEMPLATE_TEST_CASE("adam: a gradient summed in floating point is that in fixed point", "", bfloat16,
                   float, double) {
  using T = TestType;
  using R = Real<T>;
  const AdamStep step{1e-2, 0.9, 0.99, 1e-8, 0.1, 0.1, 0.01, 0.5};
  // Powers of two, which both hold exactly.
  std::vector<double> g;
  std::vector<std::int64_t> fixed;
  for (int i = 0; i < 1000; ++i) {
    g.push_back(std::ldexp(i % 2 == 0 ? 1 : -1, -(i % 20)));
    fixed.push_back(to_fixed(g.back(), gradient_unit));
  }
  const auto updated = [&]<class G>(const Array1<G>& gradient) {
    const auto weight = filled<R>(1000, 2), first = filled<R>(1000, 0), second = filled<R>(1000, 0);
    adam<T, G>(step, gradient, filled<std::uint8_t>(1, 1), weight, first, second,
               filled<T>(std::is_same_v<T, R> ? 0 : 1000, T(0)));
    return to_host(weight);
  };
  CHECK(same_bits(updated(to_device<R>(g)), updated(to_device<std::int64_t>(fixed))));
}
