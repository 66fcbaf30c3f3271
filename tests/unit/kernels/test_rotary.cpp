#include "catch.hpp"
#include "kernels/reference.hpp"
#include "kernels/rotary.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

TEMPLATE_TEST_CASE("rotary embedding and its adjoint agree with the reference", "", bfloat16, float,
                   double) {
  using T = TestType;
  const Index rows = GENERATE(0, 1, 19), heads = GENERATE(1, 3), head_dim = GENERATE(2, 6, 64, 70);
  CAPTURE(rows, heads, head_dim);
  const Index width = heads * head_dim;
  const auto values = rounded<T>(random_values("x", rows * width));
  const auto position = random_integers("position", rows, 50);
  const RotaryTable<Real<T>> table(50, head_dim, 10000);
  const auto x = to_device<T>(values, rows, width);
  const auto positions = to_device<int>(position);
  rotate<T>(x, head_dim, positions, table);
  CHECK(deviation_of(x, reference::rotate(values, width, head_dim, position, 10000.0)) <
        tolerance<T>());
  const auto rotated = to_host(x);
  const std::vector<double> back(rotated.begin(), rotated.end());
  rotate_backward<T>(x, head_dim, positions, table);
  CHECK(deviation_of(x, reference::rotate_backward(back, width, head_dim, position, 10000.0)) <
        tolerance<T>());
  if (std::is_same_v<T, Real<T>>) CHECK(relative_difference_of(x, values) < tolerance<T>());
}

TEST_CASE("rotary: the reference's adjoint is its derivative") {
  const Index width = 12, head_dim = 6;
  const std::vector<int> position{0, 3, 11};
  const auto x = random_values("x", 3 * width), dy = random_values("dy", 3 * width);
  const auto by_x = complex_step(x, [&](const std::vector<Complex>& z) {
    return dot(reference::rotate(z, width, head_dim, position, 100.0), dy);
  });
  CHECK(relative_difference(reference::rotate_backward(dy, width, head_dim, position, 100.0),
                            by_x) < 1e-14);
}

TEST_CASE("rotary: scores depend on the difference of positions alone") {
  const Index head_dim = 8;
  const auto q = random_values("q", head_dim), k = random_values("k", head_dim);
  const auto score = [&](int query, int key) {
    return dot(reference::rotate(q, head_dim, head_dim, {query}, 10000.0),
               reference::rotate(k, head_dim, head_dim, {key}, 10000.0));
  };
  CHECK(score(9, 4) == Approx(score(105, 100)).epsilon(1e-12));
}
