#include "catch.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/reference.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

namespace {

template <class T>
struct Outcome {
  Array1<double> loss;                // (rows)
  std::vector<double> gradient = {};  // (rows · vocabulary)
};

// Cross-entropy by blocks of `most` tokens of the vocabulary; with the gradient for scale > 0.
template <class T>
Outcome<T> run(const std::vector<double>& logits, const std::vector<int>& target, Index most,
               double scale) {
  const Index rows = static_cast<Index>(target.size());
  const Index vocabulary = rows == 0 ? 1 : static_cast<Index>(logits.size()) / rows;
  const Index blocks = (vocabulary + most - 1) / most;
  const SoftmaxSums<Real<T>> sums{filled_matrix<Real<T>>(rows, blocks),
                                  filled_matrix<double>(rows, blocks), filled<double>(rows),
                                  filled<double>(rows)};
  const auto targets = to_device<int>(target);
  std::vector<Array2<T>> exponentials;
  for (Index block = 0; block < blocks; ++block) {
    const Index first = block * most, columns = std::min(most, vocabulary - first);
    std::vector<double> part;
    for (Index t = 0; t < rows; ++t) {
      const auto row = slice(logits, t * vocabulary + first, columns);
      part.insert(part.end(), row.begin(), row.end());
    }
    exponentials.push_back(scale > 0 ? filled_matrix<T>(rows, columns) : Array2<T>());
    softmax_block<T>(to_device<Real<T>>(part, rows, columns), targets, first, block, sums,
                     exponentials.back());
  }
  Outcome<T> outcome{filled<double>(rows)};
  cross_entropy<Real<T>>(sums, targets, outcome.loss);
  if (scale <= 0) return outcome;
  outcome.gradient.resize(static_cast<std::size_t>(rows * vocabulary));
  for (Index block = 0; block < blocks; ++block) {
    const auto& e = exponentials[static_cast<std::size_t>(block)];
    cross_entropy_gradient<T>(sums, targets, block * most, block, scale, e);
    const auto values = to_host(e);
    const Index columns = e.extent(1);
    for (Index i = 0; i < rows * columns; ++i) {
      outcome.gradient[static_cast<std::size_t>(i / columns * vocabulary + block * most +
                                                i % columns)] =
          static_cast<double>(values[static_cast<std::size_t>(i)]);
    }
  }
  return outcome;
}

}  // namespace

TEMPLATE_TEST_CASE("cross-entropy and its gradient agree with the reference", "", bfloat16, float,
                   double) {
  using T = TestType;
  const Index rows = GENERATE(0, 1, 9), vocabulary = GENERATE(1, 31, 512, 1000, 4099);
  const Index most = GENERATE(700, 5000);
  CAPTURE(rows, vocabulary, most);
  const double scale = 1.0 / 7;
  const auto logits = rounded<Real<T>>(random_values("logits", rows * vocabulary, 3));
  auto target = random_integers("target", rows, static_cast<int>(vocabulary));
  if (rows > 3) target[3] = -1;
  const auto expected = reference::cross_entropy(logits, vocabulary, target);
  const auto gradient = reference::cross_entropy_gradient(logits, vocabulary, target, scale);

  const auto outcome = run<T>(logits, target, most, scale);
  CHECK(relative_difference_of(outcome.loss, expected) < tolerance<T>());
  // The exponentials that it is made of have been rounded to T before.
  const double earlier_rounding = std::is_same_v<T, Real<T>> ? 0 : 0x1p-8;
  CHECK(deviation(outcome.gradient, gradient) < tolerance<T>() + earlier_rounding);
  CHECK(same_bits(to_host(run<T>(logits, target, most, 0).loss), to_host(outcome.loss)));
  if (rows > 3) CHECK(to_host(outcome.loss)[3] == 0);
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
  const auto all = run<float>(logits, target, 768, 0.1);
  const auto one =
      run<float>(slice(logits, row * vocabulary, vocabulary), slice(target, row, 1), 768, 0.1);
  CHECK(same_bits(to_host(one.loss), slice(to_host(all.loss), row, 1)));
  CHECK(same_bits(one.gradient, slice(all.gradient, row * vocabulary, vocabulary)));
}

TEST_CASE("cross-entropy of large logits is exact and of a NaN is NaN") {
  const Index most = GENERATE(256, 600);
  std::vector<double> logits(600, -1e5);
  logits[555] = 1e5;
  logits[3] = -std::numeric_limits<double>::infinity();
  const auto loss = [&](int target) {
    return to_host(run<float>(logits, {target}, most, 0).loss)[0];
  };
  CHECK(loss(555) == 0);
  CHECK(loss(7) == 2e5);
  std::fill(logits.begin(), logits.begin() + 256, -std::numeric_limits<double>::infinity());
  CHECK(loss(300) == 2e5);
  logits[300] = std::numeric_limits<double>::quiet_NaN();
  CHECK(std::isnan(loss(7)));
}
