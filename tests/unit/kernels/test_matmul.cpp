#include <cmath>
#include <limits>
#include <type_traits>

#include "catch.hpp"
#include "kernels/matmul/matmul.hpp"
#include "kernels/matmul/portable.hpp"
#include "kernels/reference.hpp"
#include "kernels/team.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

namespace {

struct Shape {
  Index m, n, k;
};

// Operands, outputs of nt and nn, and how bfloat16 is multiplied.
template <class T, class C, Bfloat16Products products_ = Bfloat16Products::fastest>
struct Kind {
  using Operand = T;
  using Out = C;
  static constexpr auto products = products_;
};
using Float = Kind<float, float>;
using Double = Kind<double, double>;
using Widened = Kind<bfloat16, bfloat16, Bfloat16Products::widened>;
using WidenedToFloat = Kind<bfloat16, float, Bfloat16Products::widened>;
using Native = Kind<bfloat16, bfloat16, Bfloat16Products::native>;
using NativeToFloat = Kind<bfloat16, float, Bfloat16Products::native>;
using Pairs = Kind<bfloat16, bfloat16, Bfloat16Products::pairs>;
using PairsToFloat = Kind<bfloat16, float, Bfloat16Products::pairs>;
#define HEARTH_KINDS \
  Float, Double, Widened, WidenedToFloat, Native, NativeToFloat, Pairs, PairsToFloat

// Of the largest element: what a sum may lose, and half a unit in the last place of bfloat16.
template <class C>
constexpr double allowed() {
  return std::is_same_v<C, bfloat16> ? 0x1.02p-8 : tolerance<Real<C>>();
}

// Empty, tiny, odd, and beyond one tile of every backend; several tiles of rows, which share a
// packed weight; an inner dimension that goes in several parts.
Shape generate_shape() {
  return GENERATE(Shape{0, 3, 4}, Shape{3, 0, 4}, Shape{3, 4, 0}, Shape{1, 1, 1}, Shape{5, 7, 3},
                  Shape{1, 65, 33}, Shape{97, 129, 257}, Shape{290, 530, 37}, Shape{64, 32, 600},
                  Shape{900, 20, 48}, Shape{33, 50, 2500}, Shape{790, 9, 1040});
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

// tn has outputs of Real<T> alone.
template <class T, class C>
void multiply(Matmul& matmul, Operation operation, const Array2<const T>& a,
              const Array2<const T>& b, const Array2<C>& c, Output output) {
  if (operation == Operation::nt) matmul.multiply_nt<T>(a, b, c, output);
  if (operation == Operation::nn) matmul.multiply_nn<T>(a, b, c, output);
  if constexpr (std::is_same_v<C, Real<T>>) {
    if (operation == Operation::tn) matmul.multiply_tn<T>(a, b, c, output);
  }
}
template <class T, class C>
bool exists(Operation operation) {
  return operation != Operation::tn || std::is_same_v<C, Real<T>>;
}

// Small ones, whose sums are exact in float however they are ordered.
std::vector<double> integers(const char* name, Index elements) {
  std::vector<double> values = random_values(name, elements, 4);
  for (double& x : values) x = std::round(x);
  return values;
}

struct Sizes {
  Index in, rows;
};

// Segments of uneven size with gaps between them, one of them empty, not in the matrices' order.
const std::vector<Segment> uneven{{2, 33, 3}, {36, 0, 1}, {40, 270, 0}, {311, 7, 4}};
constexpr Index uneven_rows = 320, uneven_matrices = 5;

}  // namespace

TEMPLATE_TEST_CASE("products agree with the reference", "", HEARTH_KINDS) {
  using T = typename TestType::Operand;
  using C = typename TestType::Out;
  const auto operation = GENERATE(Operation::nt, Operation::nn, Operation::tn);
  if (!exists<T, C>(operation)) return;
  const auto output = GENERATE(Output::assign, Output::add);
  const Shape s = generate_shape();
  CAPTURE(static_cast<int>(operation), static_cast<int>(output), s.m, s.n, s.k);
  const auto a = rounded<T>(random_values("a", s.m * s.k));
  const auto b = rounded<T>(random_values("b", s.n * s.k));
  const auto before = rounded<C>(random_values("c", s.m * s.n));
  auto expected = expected_product(operation, a, b, s);
  if (output == Output::add) {
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += before[i];
  }
  const Index a_rows = rows_of_a(operation, s), b_rows = rows_of_b(operation, s);
  const Array2<const T> device_a = to_device<T>(a, a_rows, s.m + s.k - a_rows);
  const Array2<const T> device_b = to_device<T>(b, b_rows, s.n + s.k - b_rows);
  // An assigned product reads nothing of what stood there, not even a NaN.
  const auto fresh = [&]() {
    return output == Output::add
               ? to_device<C>(before, s.m, s.n)
               : filled_matrix<C>(s.m, s.n, std::numeric_limits<double>::quiet_NaN());
  };

  Matmul matmul(TestType::products);
  const auto c = fresh(), again = fresh();
  multiply<T, C>(matmul, operation, device_a, device_b, c, output);
  CHECK(relative_difference_of(c, expected) < allowed<C>());
  multiply<T, C>(matmul, operation, device_a, device_b, again, output);
  CHECK(same_bits(to_host(again), to_host(c)));

  const auto portable = fresh();
  const kernels::Problem<T, C> problem{device_a.data(),
                                       device_b.data(),
                                       portable.data(),
                                       s.m,
                                       s.n,
                                       s.k,
                                       static_cast<Index>(device_a.extent(1)),
                                       static_cast<Index>(device_b.extent(1)),
                                       s.n};
  run_portable<T, C>({problem}, operation, output);
  Kokkos::fence();
  CHECK(relative_difference_of(portable, expected) < allowed<C>());
}

// The output must be the nearest bfloat16, to the bit. Rounding a second time, or between the parts
// of a long inner dimension, would show.
TEMPLATE_TEST_CASE("a product in bfloat16 is rounded once", "", Widened, Native, Pairs) {
  const auto operation = GENERATE(Operation::nt, Operation::nn);
  const Shape s = GENERATE(Shape{64, 48, 300}, Shape{40, 32, 3000}, Shape{1056, 32, 300});
  CAPTURE(static_cast<int>(operation), s.m, s.n, s.k);
  const auto a = integers("a", s.m * s.k), b = integers("b", s.n * s.k);
  const auto before = rounded<bfloat16>(integers("c", s.m * s.n));
  auto sums = expected_product(operation, a, b, s);
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += before[i];
  const Index b_rows = rows_of_b(operation, s);
  const auto c = to_device<bfloat16>(before, s.m, s.n);
  Matmul matmul(TestType::products);
  multiply<bfloat16, bfloat16>(matmul, operation, to_device<bfloat16>(a, s.m, s.k),
                               to_device<bfloat16>(b, b_rows, s.n + s.k - b_rows), c, Output::add);
  CHECK(same_bits(to_host(c), to_host(to_device<bfloat16>(sums))));
}

// Tiles of every number of rows and columns, with and without a last pair, to the bit; a long inner
// dimension in several parts, the last of them odd. Nothing but the segments' rows is written: rows
// before, between and after them keep their NaN.
TEMPLATE_TEST_CASE("products of pairs are exact for every shape", "", Pairs, PairsToFloat) {
  using C = typename TestType::Out;
  const auto operation = GENERATE(Operation::nt, Operation::nn, Operation::tn);
  if (!exists<bfloat16, C>(operation)) return;
  const auto output = GENERATE(Output::assign, Output::add);
  std::vector<Shape> shapes{{3, 5, 2051}, {17, 33, 1025}, {300, 70, 1100}, {560, 1090, 3}};
  for (Index i = 1; i <= 70; ++i) shapes.push_back({i, (i * 29) % 70 + 1, (i * 41) % 70 + 1});
  Matmul matmul(TestType::products);
  for (const Shape& s : shapes) {
    CAPTURE(static_cast<int>(operation), static_cast<int>(output), s.m, s.n, s.k);
    const auto a = integers("a", s.m * s.k), b = integers("b", s.n * s.k);
    const auto before = rounded<C>(integers("c", s.m * s.n));
    auto sums = expected_product(operation, a, b, s);
    for (std::size_t i = 0; output == Output::add && i < sums.size(); ++i) sums[i] += before[i];
    const double kept = std::numeric_limits<double>::quiet_NaN();
    const auto with_margin = [&](std::vector<double> rows) {
      rows.insert(rows.begin(), s.n, kept);
      rows.insert(rows.end(), s.n, kept);
      return rows;
    };
    const Index a_rows = rows_of_a(operation, s), b_rows = rows_of_b(operation, s);
    const Array2<const bfloat16> device_a = to_device<bfloat16>(a, a_rows, s.m + s.k - a_rows);
    const Array2<const bfloat16> device_b = to_device<bfloat16>(b, b_rows, s.n + s.k - b_rows);
    const auto c = to_device<C>(with_margin(before), s.m + 2, s.n);
    const Array2<C> inside(c.data() + s.n, s.m, s.n);
    multiply<bfloat16, C>(matmul, operation, device_a, device_b, inside, output);
    CHECK(same_bits(to_host(c), to_host(to_device<C>(with_margin(sums)))));
  }
}

// An element is the same sum in a product of one row, of one column, or of all. A GPU's products
// are its vendor's.
TEST_CASE("products of pairs: an element depends on its row and its column alone") {
  if (!on_host) return;
  const Shape s = GENERATE(Shape{61, 75, 96}, Shape{300, 140, 2100});
  CAPTURE(s.m, s.n, s.k);
  const auto a = random_values("a", s.m * s.k), b = random_values("b", s.n * s.k);
  Matmul matmul(Bfloat16Products::pairs);
  const auto product = [&](Index row, Index rows, Index column, Index columns) {
    const auto c = filled_matrix<float>(rows, columns);
    matmul.multiply_nt<bfloat16>(
        to_device<bfloat16>(slice(a, row * s.k, rows * s.k), rows, s.k),
        to_device<bfloat16>(slice(b, column * s.k, columns * s.k), columns, s.k), c);
    return to_host(c);
  };
  const auto all = product(0, s.m, 0, s.n);
  for (const Index row : {Index{0}, Index{14}, s.m - 1}) {
    CHECK(same_bits(product(row, 1, 0, s.n), slice(all, row * s.n, s.n)));
  }
  for (const Index column : {Index{0}, Index{40}, s.n - 1}) {
    auto expected = product(0, s.m, 0, 1);
    for (Index i = 0; i < s.m; ++i) {
      expected[static_cast<std::size_t>(i)] = all[static_cast<std::size_t>(i * s.n + column)];
    }
    CHECK(same_bits(product(0, s.m, column, 1), expected));
  }
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

TEMPLATE_TEST_CASE("grouped products are products of their segments", "", HEARTH_KINDS) {
  using T = typename TestType::Operand;
  using C = typename TestType::Out;
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
  Matmul matmul(TestType::products);

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
  const auto device_y = filled_matrix<C>(uneven_rows, out, before);
  matmul.grouped_nt<T>(device_x, stack, device_y, uneven, output);
  CHECK(relative_difference_of(device_y, y) < allowed<C>());
  const auto device_dx = filled_matrix<C>(uneven_rows, in, before);
  matmul.grouped_nn<T>(device_dy, stack, device_dx, uneven, output);
  CHECK(relative_difference_of(device_dx, dx) < allowed<C>());
  const auto device_dweight = filled<Real<T>>(uneven_matrices * stride, before);
  matmul.grouped_tn<T>(device_dy, device_x,
                       MatrixStack<Real<T>>{device_dweight.data(), stride, out, in}, uneven,
                       output);
  CHECK(relative_difference_of(device_dweight, dweight) < allowed<Real<T>>());

  matmul.grouped_nt<T>(device_x, stack, device_y, {}, output);  // no segments: nothing
  CHECK(relative_difference_of(device_y, y) < allowed<C>());
}

TEMPLATE_TEST_CASE("a segment's product does not depend on the others nor on its place", "",
                   HEARTH_KINDS) {
  using T = typename TestType::Operand;
  using C = typename TestType::Out;
  // An inner dimension that vendors split into several parts, one that they do not, and more tiles
  // of rows than one, which share a packed weight.
  const auto sizes = GENERATE(Sizes{48, 96}, Sizes{1408, 96}, Sizes{48, 1056});
  const Index in = sizes.in, rows = sizes.rows;
  const Index out = 112, begin = 64, total = begin + rows + 540, matrices = 3;
  CAPTURE(in, rows);
  const auto x = random_values("x", total * in), dy = random_values("dy", total * out);
  const auto weight = random_values("weight", matrices * in * out);
  Matmul matmul(TestType::products);
  const auto bits_of = [](const auto& values) { return combine_bits(0, values); };
  const auto run = [&](Index first, Index count, const std::vector<Segment>& segments,
                       Index matrix) {
    const auto xs = to_device<T>(slice(x, first * in, count * in), count, in);
    const auto dys = to_device<T>(slice(dy, first * out, count * out), count, out);
    const auto ws = to_device<T>(weight);
    const auto y = filled_matrix<C>(count, out), dx = filled_matrix<C>(count, in);
    const auto dweight = filled<Real<T>>(matrices * out * in);
    const MatrixStack<const T> stack{ws.data(), in * out, out, in};
    matmul.grouped_nt<T>(xs, stack, y, segments);
    matmul.grouped_nn<T>(dys, stack, dx, segments);
    matmul.grouped_tn<T>(dys, xs, MatrixStack<Real<T>>{dweight.data(), in * out, out, in},
                         segments);
    const Index at = begin - first;  // the rows looked at
    return std::vector{bits_of(slice(to_host(y), at * out, rows * out)),
                       bits_of(slice(to_host(dx), at * in, rows * in)),
                       bits_of(slice(to_host(dweight), matrix * in * out, in * out))};
  };
  const auto among = run(0, total, {{0, 64, 0}, {begin, rows, 1}, {begin + rows, 540, 2}}, 1);
  const auto alone = run(begin, rows, {{0, rows, 1}}, 1);
  const auto shifted = run(begin - 1, rows + 1, {{1, rows, 1}}, 1);
  for (std::size_t i = 0; i < among.size(); ++i) {
    CAPTURE(i);
    CHECK(among[i] == alone[i]);
    CHECK(among[i] == shifted[i]);
  }
}

// Prints a hash of every product's bits, for the test below.
template <class Kind>
std::uint64_t bits_of_products() {
  using T = typename Kind::Operand;
  using C = typename Kind::Out;
  std::uint64_t bits = 0;
  Matmul matmul(Kind::products);
  for (const Operation operation : {Operation::nt, Operation::nn, Operation::tn}) {
    if (!exists<T, C>(operation)) continue;
    for (const Shape s : {Shape{512, 768, 256}, Shape{64, 32, 4096}, Shape{2048, 64, 96}}) {
      const Index a_rows = rows_of_a(operation, s), b_rows = rows_of_b(operation, s);
      const auto a = to_device<T>(random_values("a", s.m * s.k), a_rows, s.m + s.k - a_rows);
      const auto b = to_device<T>(random_values("b", s.n * s.k), b_rows, s.n + s.k - b_rows);
      const auto c = filled_matrix<C>(s.m, s.n);
      multiply<T, C>(matmul, operation, a, b, c, Output::assign);
      bits = combine_bits(bits, to_host(c));
    }
  }
  return bits;
}
TEST_CASE("products: bits", "[.bits]") {
  std::uint64_t bits = 0;
  for (const std::uint64_t of_kind :
       {bits_of_products<Float>(), bits_of_products<Widened>(), bits_of_products<Native>(),
        bits_of_products<NativeToFloat>(), bits_of_products<Pairs>(),
        bits_of_products<PairsToFloat>()}) {
    bits = mix_bits(bits ^ of_kind);
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
