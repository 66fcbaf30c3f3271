#include "catch.hpp"
#include "kernels/reference.hpp"
#include "kernels/swiglu.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

TEMPLATE_TEST_CASE("swiglu and its adjoint agree with the reference", "", bfloat16, float, double) {
  using T = TestType;
  const Index rows = GENERATE(0, 1, 13), width = GENERATE(1, 31, 200);
  CAPTURE(rows, width);
  const auto gate = rounded<T>(random_values("gate", rows * width, 4));
  const auto up = rounded<T>(random_values("up", rows * width));
  const auto dout = rounded<T>(random_values("dout", rows * width));
  const auto array = [&](const std::vector<double>& values) {
    return to_device<T>(values, rows, width);
  };
  const auto expected = reference::swiglu(gate, up);
  const auto gradients = reference::swiglu_backward(dout, gate, up);

  const auto out = filled_matrix<T>(rows, width), dgate = filled_matrix<T>(rows, width),
             dup = filled_matrix<T>(rows, width);
  swiglu<T>(array(gate), array(up), out);
  swiglu_backward<T>(array(dout), array(gate), array(up), dgate, dup);
  CHECK(deviation_of(out, expected) < tolerance<T>());
  CHECK(deviation_of(dgate, gradients.dgate) < tolerance<T>());
  CHECK(deviation_of(dup, gradients.dup) < tolerance<T>());

  SECTION("in place, with the same bits") {
    const auto up_then_out = array(up);
    swiglu<T>(array(gate), up_then_out, up_then_out);
    CHECK(same_bits(to_host(up_then_out), to_host(out)));
    const auto a = array(gate), b = array(up);
    swiglu_backward<T>(array(dout), a, b, a, b);
    CHECK(same_bits(to_host(a), to_host(dgate)));
    CHECK(same_bits(to_host(b), to_host(dup)));
    const auto c = array(dout), d = array(up);
    swiglu_backward<T>(c, array(gate), d, c, d);
    CHECK(same_bits(to_host(c), to_host(dgate)));
    CHECK(same_bits(to_host(d), to_host(dup)));
  }
}

TEST_CASE("swiglu: the reference's adjoint is its derivative") {
  const auto gate = random_values("gate", 9, 3), up = random_values("up", 9),
             dout = random_values("dout", 9);
  const auto gradients = reference::swiglu_backward(dout, gate, up);
  const auto by_gate = complex_step(gate, [&](const std::vector<Complex>& z) {
    return dot(reference::swiglu(z, complex(up)), dout);
  });
  const auto by_up = complex_step(up, [&](const std::vector<Complex>& z) {
    return dot(reference::swiglu(complex(gate), z), dout);
  });
  CHECK(relative_difference(gradients.dgate, by_gate) < 1e-13);
  CHECK(relative_difference(gradients.dup, by_up) < 1e-13);
}

TEMPLATE_TEST_CASE("swiglu of large gates is finite", "", bfloat16, float, double) {
  using T = TestType;
  const auto gate = to_device<T>(std::vector<double>{-1e4, -200, 200, 1e4}, 1, 4);
  const auto one = filled_matrix<T>(1, 4, 1), out = filled_matrix<T>(1, 4);
  swiglu<T>(gate, one, out);
  CHECK(deviation_of(out, {0, 0, 200, 1e4}) < 1e-80);
  const auto dgate = filled_matrix<T>(1, 4), dup = filled_matrix<T>(1, 4);
  swiglu_backward<T>(one, gate, one, dgate, dup);
  CHECK(relative_difference_of(dgate, {0, 0, 1, 1}) < 1e-80);
}
