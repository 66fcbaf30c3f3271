#include <cstdio>

#include "catch.hpp"
#include "kernels/matmul/matmul.hpp"
#include "kernels/matmul/portable.hpp"
#include "kernels/reference.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

namespace {

struct Shape {
  Index m, n, k;
};

// Empty, tiny, odd, and beyond one tile of every backend.
Shape generate_shape() {
  return GENERATE(Shape{0, 3, 4}, Shape{3, 0, 4}, Shape{3, 4, 0}, Shape{1, 1, 1}, Shape{5, 7, 3},
                  Shape{1, 65, 33}, Shape{97, 129, 257}, Shape{290, 530, 37}, Shape{64, 32, 600});
}

Index rows_of_a(Operation operation, const Shape& s) {
  return operation == Operation::tn ? s.k : s.m;
}
Index rows_of_b(Operation operation, const Shape& s) {
  return operation == Operation::nt ? s.n : s.k;
}

std::vector<double> expected_product(Operation operation, const std::vector<double>& a,
                                     const std::vector<double>& b, const Shape& s) {
  if (operation == Operation::nt) return reference::multiply_nt(a, b, s.m, s.n, s.k);
  if (operation == Operation::nn) return reference::multiply_nn(a, b, s.m, s.n, s.k);
  return reference::multiply_tn(a, b, s.m, s.n, s.k);
}

template <class T>
void multiply(Matmul& matmul, Operation operation, const Array2<const T>& a,
              const Array2<const T>& b, const Array2<T>& c, Output output) {
  if (operation == Operation::nt) matmul.multiply_nt<T>(a, b, c, output);
  if (operation == Operation::nn) matmul.multiply_nn<T>(a, b, c, output);
  if (operation == Operation::tn) matmul.multiply_tn<T>(a, b, c, output);
}

// Segments of uneven size with gaps between them, one of them empty, not in the matrices' order.
const std::vector<Segment> uneven{{2, 33, 3}, {36, 0, 1}, {40, 270, 0}, {311, 7, 4}};
constexpr Index uneven_rows = 320, uneven_matrices = 5;

}  // namespace

TEMPLATE_TEST_CASE("products agree with the reference", "", float, double) {
  using T = TestType;
  const auto operation = GENERATE(Operation::nt, Operation::nn, Operation::tn);
  const auto output = GENERATE(Output::assign, Output::add);
  const Shape s = generate_shape();
  CAPTURE(static_cast<int>(operation), static_cast<int>(output), s.m, s.n, s.k);
  const auto a = rounded<T>(random_values("a", s.m * s.k));
  const auto b = rounded<T>(random_values("b", s.n * s.k));
  const auto before = rounded<T>(random_values("c", s.m * s.n));
  auto expected = expected_product(operation, a, b, s);
  if (output == Output::add) {
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += before[i];
  }
  const Index a_rows = rows_of_a(operation, s), b_rows = rows_of_b(operation, s);
  const auto device_a = to_device<T>(a, a_rows, s.m + s.k - a_rows);
  const auto device_b = to_device<T>(b, b_rows, s.n + s.k - b_rows);
  // An assigned product reads nothing of what stood there, not even a NaN.
  const auto fresh = [&]() {
    return output == Output::add
               ? to_device<T>(before, s.m, s.n)
               : filled_matrix<T>(s.m, s.n, std::numeric_limits<double>::quiet_NaN());
  };

  Matmul matmul;
  const auto c = fresh();
  multiply<T>(matmul, operation, device_a, device_b, c, output);
  CHECK(relative_difference_of(c, expected) < tolerance<T>());

  const auto portable = fresh();
  const kernels::Problem<T, T> problem{device_a.data(),
                                       device_b.data(),
                                       portable.data(),
                                       s.m,
                                       s.n,
                                       s.k,
                                       static_cast<Index>(device_a.extent(1)),
                                       static_cast<Index>(device_b.extent(1)),
                                       s.n};
  run_portable<T, T>({problem}, operation, output);
  Kokkos::fence();
  CHECK(relative_difference_of(portable, expected) < tolerance<T>());
}

TEST_CASE("products: the reference's products are each other's derivatives") {
  const Shape s{3, 4, 5};
  const auto x = random_values("x", s.m * s.k), weight = random_values("weight", s.n * s.k);
  const auto dy = random_values("dy", s.m * s.n);
  const auto by_x = complex_step(x, [&](const std::vector<Complex>& z) {
    return dot(reference::multiply_nt(z, complex(weight), s.m, s.n, s.k), dy);
  });
  const auto by_weight = complex_step(weight, [&](const std::vector<Complex>& z) {
    return dot(reference::multiply_nt(complex(x), z, s.m, s.n, s.k), dy);
  });
  CHECK(relative_difference(reference::multiply_nn(dy, weight, s.m, s.k, s.n), by_x) < 1e-13);
  CHECK(relative_difference(reference::multiply_tn(dy, x, s.n, s.k, s.m), by_weight) < 1e-13);
}

TEMPLATE_TEST_CASE("grouped products are products of their segments", "", float, double) {
  using T = TestType;
  const auto output = GENERATE(Output::assign, Output::add);
  const Index in = 37, out = 65, stride = in * out + 11;
  CAPTURE(static_cast<int>(output));
  const auto x = rounded<T>(random_values("x", uneven_rows * in));
  const auto dy = rounded<T>(random_values("dy", uneven_rows * out));
  const auto weight = rounded<T>(random_values("weight", uneven_matrices * stride));
  const auto device_x = to_device<T>(x, uneven_rows, in);
  const auto device_dy = to_device<T>(dy, uneven_rows, out);
  const auto device_weight = to_device<T>(weight);
  const MatrixStack<const T> stack{device_weight.data(), stride, out, in};
  Matmul matmul;

  // What is not in a segment keeps its value.
  constexpr double before = 3;
  std::vector<double> y(uneven_rows * out, before), dx(uneven_rows * in, before);
  std::vector<double> dweight(uneven_matrices * stride, before);
  const auto put = [&](std::vector<double>& whole, Index begin, const std::vector<double>& part) {
    for (std::size_t i = 0; i < part.size(); ++i) {
      whole[begin + i] = part[i] + (output == Output::add ? before : 0);
    }
  };
  for (const Segment& s : uneven) {
    const auto xs = slice(x, s.begin * in, s.rows * in);
    const auto dys = slice(dy, s.begin * out, s.rows * out);
    const auto ws = slice(weight, s.matrix * stride, in * out);
    put(y, s.begin * out, reference::multiply_nt(xs, ws, s.rows, out, in));
    put(dx, s.begin * in, reference::multiply_nn(dys, ws, s.rows, in, out));
    put(dweight, s.matrix * stride, reference::multiply_tn(dys, xs, out, in, s.rows));
  }
  const auto device_y = filled_matrix<T>(uneven_rows, out, before);
  matmul.grouped_nt<T>(device_x, stack, device_y, uneven, output);
  CHECK(relative_difference_of(device_y, y) < tolerance<T>());
  const auto device_dx = filled_matrix<T>(uneven_rows, in, before);
  matmul.grouped_nn<T>(device_dy, stack, device_dx, uneven, output);
  CHECK(relative_difference_of(device_dx, dx) < tolerance<T>());
  const auto device_dweight = filled<T>(uneven_matrices * stride, before);
  matmul.grouped_tn<T>(device_dy, device_x, MatrixStack<T>{device_dweight.data(), stride, out, in},
                       uneven, output);
  CHECK(relative_difference_of(device_dweight, dweight) < tolerance<T>());

  matmul.grouped_nt<T>(device_x, stack, device_y, {}, output);  // no segments: nothing
  CHECK(relative_difference_of(device_y, y) < tolerance<T>());
}

TEMPLATE_TEST_CASE("a segment's product does not depend on the others nor on its place", "", float,
                   double) {
  using T = TestType;
  // An inner dimension that vendors split into several parts, and one that they do not.
  const Index in = GENERATE(48, 1408), out = 112;
  const Index rows = 96, begin = 64, total = 700, matrices = 3;
  CAPTURE(in);
  const auto x = random_values("x", total * in), dy = random_values("dy", total * out);
  const auto weight = random_values("weight", matrices * in * out);
  Matmul matmul;
  const auto run = [&](Index first, Index count, const std::vector<Segment>& segments,
                       Index matrix) {
    const auto xs = to_device<T>(slice(x, first * in, count * in), count, in);
    const auto dys = to_device<T>(slice(dy, first * out, count * out), count, out);
    const auto ws = to_device<T>(weight);
    const auto y = filled_matrix<T>(count, out), dx = filled_matrix<T>(count, in);
    const auto dweight = filled<T>(matrices * out * in);
    const MatrixStack<const T> stack{ws.data(), in * out, out, in};
    matmul.grouped_nt<T>(xs, stack, y, segments);
    matmul.grouped_nn<T>(dys, stack, dx, segments);
    matmul.grouped_tn<T>(dys, xs, MatrixStack<T>{dweight.data(), in * out, out, in}, segments);
    const Index at = begin - first;  // the rows looked at
    return std::vector{slice(to_host(y), at * out, rows * out),
                       slice(to_host(dx), at * in, rows * in),
                       slice(to_host(dweight), matrix * in * out, in * out)};
  };
  const auto among = run(0, total, {{0, 64, 0}, {begin, rows, 1}, {160, 540, 2}}, 1);
  const auto alone = run(begin, rows, {{0, rows, 1}}, 1);
  const auto shifted = run(begin - 1, rows + 1, {{1, rows, 1}}, 1);
  for (std::size_t i = 0; i < among.size(); ++i) {
    CAPTURE(i);
    CHECK(same_bits(among[i], alone[i]));
    CHECK(same_bits(among[i], shifted[i]));
  }
}

// Prints a hash of every product's bits, for the test below.
TEST_CASE("products: bits", "[.bits]") {
  std::uint64_t bits = 0;
  Matmul matmul;
  for (const Operation operation : {Operation::nt, Operation::nn, Operation::tn}) {
    for (const Shape s : {Shape{512, 768, 256}, Shape{64, 32, 4096}, Shape{2048, 64, 96}}) {
      const Index a_rows = rows_of_a(operation, s), b_rows = rows_of_b(operation, s);
      const auto a = to_device<float>(random_values("a", s.m * s.k), a_rows, s.m + s.k - a_rows);
      const auto b = to_device<float>(random_values("b", s.n * s.k), b_rows, s.n + s.k - b_rows);
      const auto c = filled_matrix<float>(s.m, s.n);
      multiply<float>(matmul, operation, a, b, c, Output::assign);
      bits = combine_bits(bits, to_host(c));
    }
  }
  print_bits(bits);
}

// oneDNN called on eight threads gives other bits than on one, on two or four it does not.
TEST_CASE("products: the bits do not depend on the number of threads") {
  const std::string one = bits_with_threads("products: bits", 1);
  CHECK(one != "");
  CHECK(one == bits_with_threads("products: bits", 2));
  CHECK(one == bits_with_threads("products: bits", 8));
}

TEST_CASE("products of shapes that do not match are refused") {
  Matmul matmul;
  const auto a = filled_matrix<float>(4, 3), b = filled_matrix<float>(5, 2),
             c = filled_matrix<float>(4, 5);
  CHECK_THROWS(matmul.multiply_nt<float>(a, b, c));
  const MatrixStack<const float> stack{b.data(), 10, 5, 2};
  CHECK_THROWS(matmul.grouped_nt<float>(filled_matrix<float>(4, 2), stack, c, {{2, 3, 0}}));
}
