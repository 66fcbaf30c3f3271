#include "catch.hpp"
#include "kernels/reference.hpp"
#include "kernels/rms_norm.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

namespace {
constexpr double epsilon = 1e-6;

template <class T>
struct Problem {
  Index rows, width;
  std::vector<double> x, weight, dy, dx;
  Problem(Index rows_, Index width_)
      : rows(rows_),
        width(width_),
        x(rounded<T>(random_values("x", rows * width))),
        weight(rounded<T>(random_values("weight", width))),
        dy(rounded<T>(random_values("dy", rows * width))),
        dx(rounded<T>(random_values("dx", rows * width))) {}
};
}  // namespace

TEMPLATE_TEST_CASE("rms_norm and its adjoint agree with the reference", "", bfloat16, float,
                   double) {
  using T = TestType;
  const Index rows = GENERATE(0, 1, 7, 64, 131), width = GENERATE(1, 5, 32, 97, 300);
  CAPTURE(rows, width);
  const Problem<T> p(rows, width);
  const auto x = to_device<T>(p.x, rows, width);
  const auto weight = to_device<T>(p.weight);
  const auto y = filled_matrix<T>(rows, width);
  const auto inverse_rms = filled<Real<T>>(rows);
  rms_norm<T>(x, weight, epsilon, y, inverse_rms);
  const auto expected = reference::rms_norm(p.x, p.weight, epsilon, rows);
  CHECK(deviation_of(y, expected.y) < tolerance<T>());
  CHECK(relative_difference_of(inverse_rms, expected.inverse_rms) < tolerance<T>());

  const auto dx = to_device<T>(p.dx, rows, width);
  const auto dweight = filled<Real<T>>(width);
  rms_norm_backward<T>(to_device<T>(p.dy, rows, width), x, weight, inverse_rms, dx, dweight,
                       filled_matrix<Real<T>>(row_blocks(rows), width));
  auto gradients = reference::rms_norm_backward(p.dy, p.x, p.weight, epsilon, rows);
  for (std::size_t i = 0; i < p.dx.size(); ++i) gradients.dx[i] += p.dx[i];
  CHECK(deviation_of(dx, gradients.dx) < tolerance<T>());
  CHECK(relative_difference_of(dweight, gradients.dweight) < tolerance<T>());
}

TEST_CASE("rms_norm: the reference's adjoint is its derivative") {
  const Problem<double> p(3, 5);
  const auto gradients = reference::rms_norm_backward(p.dy, p.x, p.weight, epsilon, p.rows);
  const auto by_x = complex_step(p.x, [&](const std::vector<Complex>& x) {
    return dot(reference::rms_norm(x, complex(p.weight), epsilon, p.rows).y, p.dy);
  });
  const auto by_weight = complex_step(p.weight, [&](const std::vector<Complex>& weight) {
    return dot(reference::rms_norm(complex(p.x), weight, epsilon, p.rows).y, p.dy);
  });
  CHECK(relative_difference(gradients.dx, by_x) < 1e-13);
  CHECK(relative_difference(gradients.dweight, by_weight) < 1e-13);
}

TEST_CASE("rms_norm: a row's result does not depend on the other rows") {
  const Problem<float> p(37, 200);
  const auto weight = to_device<float>(p.weight);
  const auto run = [&](Index begin, Index rows) {
    const auto x = to_device<float>(slice(p.x, begin * p.width, rows * p.width), rows, p.width);
    const auto dy = to_device<float>(slice(p.dy, begin * p.width, rows * p.width), rows, p.width);
    const auto y = filled_matrix<float>(rows, p.width), dx = filled_matrix<float>(rows, p.width, 0);
    const auto inverse_rms = filled<float>(rows);
    rms_norm<float>(x, weight, epsilon, y, inverse_rms);
    rms_norm_backward<float>(dy, x, weight, inverse_rms, dx, filled<float>(p.width),
                             filled_matrix<float>(row_blocks(rows), p.width));
    return std::pair(to_host(y), to_host(dx));
  };
  const auto all = run(0, p.rows), one = run(29, 1);
  CHECK(same_bits(one.first, slice(all.first, 29 * p.width, p.width)));
  CHECK(same_bits(one.second, slice(all.second, 29 * p.width, p.width)));
}
