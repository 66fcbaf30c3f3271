#include <algorithm>
#include <numeric>

#include "catch.hpp"
#include "kernels/embedding.hpp"
#include "kernels/reference.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

namespace {

struct Runs {
  std::vector<int> order, begin{0};
  explicit Runs(const std::vector<int>& token) : order(token.size()) {
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return token[a] < token[b]; });
    for (std::size_t i = 1; i <= token.size(); ++i) {
      if (i == token.size() || token[order[i]] != token[order[i - 1]]) {
        begin.push_back(static_cast<int>(i));
      }
    }
  }
};

}  // namespace

TEMPLATE_TEST_CASE("embedding and its adjoint agree with the reference", "", bfloat16, float,
                   double) {
  using T = TestType;
  const Index tokens = GENERATE(0, 1, 50, 301), hidden = GENERATE(1, 33, 300);
  CAPTURE(tokens, hidden);
  const int vocabulary = 23;
  const auto weight = rounded<T>(random_values("weight", vocabulary * hidden));
  const auto token = random_integers("token", tokens, vocabulary - 2);
  const auto dx = rounded<T>(random_values("dx", tokens * hidden));
  const auto x = filled_matrix<T>(tokens, hidden);
  embed<T>(to_device<T>(weight, vocabulary, hidden), to_device<int>(token), x);
  CHECK(relative_difference_of(x, reference::embed(weight, hidden, token)) == 0);

  const Runs runs(token);
  const std::int64_t before = 1000;
  const GradientSum<Real<T>> gradient{{filled<std::int64_t>(vocabulary * hidden, before), {}},
                                      filled_matrix<std::int64_t>(1, 2, 0),
                                      4};
  embed_backward<T>(to_device<T>(dx, tokens, hidden), to_device<int>(token),
                    to_device<int>(runs.order), to_device<int>(runs.begin), gradient);
  auto sum = reference::embed_backward(dx, vocabulary, hidden, token);
  for (double& g : sum) g += before * gradient_unit;
  std::vector<double> got;
  for (const std::int64_t g : to_host(gradient.sum.fixed)) {
    got.push_back(static_cast<double>(g) * gradient_unit);
  }
  CHECK(relative_difference(got, sum) < tolerance<T>());
  CHECK(to_host(gradient.overflow) == std::vector<std::int64_t>{0, 0});
  // Tokens that do not occur.
  CHECK(to_host(gradient.sum.fixed)[(vocabulary - 1) * hidden] == before);

  const Real<T> plain_before = static_cast<Real<T>>(before * gradient_unit);
  const GradientSum<Real<T>> plain{{{}, filled<Real<T>>(vocabulary * hidden, plain_before)},
                                   filled_matrix<std::int64_t>(1, 2, 0),
                                   4};
  embed_backward<T>(to_device<T>(dx, tokens, hidden), to_device<int>(token),
                    to_device<int>(runs.order), to_device<int>(runs.begin), plain);
  CHECK(relative_difference_of(plain.sum.plain, sum) < tolerance<T>());
}

TEST_CASE("embedding: the reference's adjoint is its derivative") {
  const auto weight = random_values("weight", 5 * 3), dx = random_values("dx", 4 * 3);
  const std::vector<int> token{2, 0, 2, 4};
  const auto by_weight = complex_step(weight, [&](const std::vector<Complex>& w) {
    return dot(reference::embed(w, 3, token), dx);
  });
  CHECK(relative_difference(reference::embed_backward(dx, 5, 3, token), by_weight) < 1e-14);
}

TEST_CASE("embedding: gradients that cannot be summed are counted") {
  const std::vector<int> token{3, 3, 1};
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> dx{4000, nan, 1, 4000, 2, 1, 5, 6, 7};
  const Runs runs(token);
  const GradientSum<float> gradient{
      {filled<std::int64_t>(5 * 3, 0), {}}, filled_matrix<std::int64_t>(1, 2, 0), 2};
  embed_backward<float>(to_device<float>(dx, 3, 3), to_device<int>(token),
                        to_device<int>(runs.order), to_device<int>(runs.begin), gradient);
  CHECK(to_host(gradient.overflow) == std::vector<std::int64_t>{1, 1});  // NaN, 8000 · 2 cells
  const auto sum = to_host(gradient.sum.fixed);
  CHECK(sum[9] == 0);
  CHECK(sum[10] == 0);
  CHECK(sum[11] == std::int64_t{2} << 50);
  CHECK(sum[3] == std::int64_t{5} << 50);
}
