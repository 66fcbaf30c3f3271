#include "catch.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/reference.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

TEMPLATE_TEST_CASE("cross-entropy and its gradient agree with the reference", "", bfloat16, float,
                   double) {
  using T = TestType;
  const Index rows = GENERATE(0, 1, 9), vocabulary = GENERATE(1, 31, 512, 1000, 4099);
  CAPTURE(rows, vocabulary);
  const double scale = 1.0 / 7;
  const auto logits = rounded<Real<T>>(random_values("logits", rows * vocabulary, 3));
  auto target = random_integers("target", rows, static_cast<int>(vocabulary));
  if (rows > 3) target[3] = -1;
  const auto expected = reference::cross_entropy(logits, vocabulary, target);
  const auto gradient = reference::cross_entropy_gradient(logits, vocabulary, target, scale);

  const auto z = to_device<Real<T>>(logits, rows, vocabulary);
  const auto targets = to_device<int>(target);
  const auto loss = filled<double>(rows), again = filled<double>(rows);
  cross_entropy<Real<T>>(z, targets, loss);
  CHECK(relative_difference_of(loss, expected) < tolerance<T>());
  CHECK(relative_difference_of(z, logits) == 0);
  const auto dz = filled_matrix<T>(rows, vocabulary);
  cross_entropy_with_gradient<T>(z, targets, scale, again, dz);
  CHECK(same_bits(to_host(loss), to_host(again)));
  CHECK(deviation_of(dz, gradient) < tolerance<T>());
  if constexpr (std::is_same_v<T, Real<T>>) {  // in place
    const auto both = to_device<T>(logits, rows, vocabulary);
    cross_entropy_with_gradient<T>(both, targets, scale, again, both);
    CHECK(same_bits(to_host(both), to_host(dz)));
  }
  if (rows > 3) CHECK(to_host(loss)[3] == 0);
}

TEST_CASE("cross-entropy: the reference's gradient is its derivative") {
  const Index vocabulary = 7;
  const auto logits = random_values("logits", 3 * vocabulary);
  const std::vector<int> target{4, -1, 0};
  const auto by_logits = complex_step(logits, [&](const std::vector<Complex>& z) {
    return dot(reference::cross_entropy(z, vocabulary, target), {0.3, 0.3, 0.3});
  });
  CHECK(relative_difference(reference::cross_entropy_gradient(logits, vocabulary, target, 0.3),
                            by_logits) < 1e-13);
}

TEST_CASE("cross-entropy: a row's result does not depend on the other rows") {
  const Index rows = 21, vocabulary = 2000, row = 17;
  const auto logits = random_values("logits", rows * vocabulary);
  const auto target = random_integers("target", rows, 2000);
  const auto run = [&](Index begin, Index count) {
    const auto z =
        to_device<float>(slice(logits, begin * vocabulary, count * vocabulary), count, vocabulary);
    const auto loss = filled<double>(count);
    cross_entropy_with_gradient<float>(z, to_device<int>(slice(target, begin, count)), 0.1, loss,
                                       z);
    return std::pair(to_host(loss), to_host(z));
  };
  const auto all = run(0, rows), one = run(row, 1);
  CHECK(same_bits(one.first, slice(all.first, row, 1)));
  CHECK(same_bits(one.second, slice(all.second, row * vocabulary, vocabulary)));
}

TEST_CASE("cross-entropy of large logits is exact and of a NaN is NaN") {
  std::vector<double> logits(600, -1e5);
  logits[555] = 1e5;
  logits[3] = -std::numeric_limits<double>::infinity();
  const auto loss = filled<double>(1);
  cross_entropy<float>(to_device<float>(logits, 1, 600), to_device<int>(std::vector<int>{555}),
                       loss);
  CHECK(to_host(loss)[0] == 0);
  cross_entropy<float>(to_device<float>(logits, 1, 600), to_device<int>(std::vector<int>{7}), loss);
  CHECK(to_host(loss)[0] == 2e5);
  logits[300] = std::numeric_limits<double>::quiet_NaN();
  cross_entropy<float>(to_device<float>(logits, 1, 600), to_device<int>(std::vector<int>{7}), loss);
  CHECK(std::isnan(to_host(loss)[0]));
}
