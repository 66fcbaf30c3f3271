#include "kernels/squared_distance.hpp"

#include <limits>

#include "catch.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

namespace {

std::vector<double> slice(const std::vector<double>& a, Index begin, Index size) {
  return {a.begin() + begin, a.begin() + begin + size};
}

}  // namespace

TEMPLATE_TEST_CASE("distances of rows are the same however a matrix is cut", "", float, double) {
  using T = TestType;
  // Rows within a block, rows that blocks cut, and one row of many blocks, the last one shorter.
  const auto [rows, width] = GENERATE(table<Index, Index>({{700, 24}, {9, 5000}, {1, 20000}}));
  const Index elements = rows * width;
  CAPTURE(rows, width);
  const auto a = rounded<T>(random_values("a", elements, 0.02));
  auto b = rounded<T>(random_values("b", elements, 1e-4));
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = rounded<T>({a[i] + b[i]})[0];

  const Array2<std::int64_t> whole("whole", rows, squared_distance_columns);
  add_squared_distance<T>(to_device<T>(a), to_device<T>(b), 0, width, whole);
  const Array2<std::int64_t> norm("norm", rows, squared_distance_columns);
  add_squared_distance<T>(to_device<T>(a), {}, 0, width, norm);
  const auto found = to_host(whole), of_a = to_host(norm);
  for (Index row = 0; row < rows; ++row) {
    long double distance = 0, square = 0;
    for (Index i = row * width; i < (row + 1) * width; ++i) {
      const auto at = static_cast<std::size_t>(i);
      distance += static_cast<long double>(a[at] - b[at]) * (a[at] - b[at]);
      square += static_cast<long double>(a[at]) * a[at];
    }
    const auto at = static_cast<std::size_t>(row * squared_distance_columns);
    CHECK(SquaredNorm{found[at], found[at + 1]}.value() ==
          Approx(static_cast<double>(distance)).epsilon(1e-11));
    CHECK(SquaredNorm{of_a[at], of_a[at + 1]}.value() ==
          Approx(static_cast<double>(square)).epsilon(1e-13));
    CHECK(found[at + 2] == 0);
  }

  const Array2<std::int64_t> parts("parts", rows, squared_distance_columns);
  const Index part = 2 * block_elements;
  for (Index first = (elements - 1) / part * part; first >= 0; first -= part) {
    const Index size = std::min(part, elements - first);
    add_squared_distance<T>(to_device<T>(slice(a, first, size)),
                            to_device<T>(slice(b, first, size)), first, width, parts);
  }
  CHECK(to_host(parts) == found);
}

TEST_CASE("rows that cannot be summed are counted, and others are not touched") {
  for (const double bad :
       {std::numeric_limits<double>::infinity(), 1e30, std::numeric_limits<double>::quiet_NaN()}) {
    std::vector<double> a(40, 0.5);
    a[15] = bad;
    const Array2<std::int64_t> sums("sums", 4, squared_distance_columns);
    add_squared_distance<double>(to_device<double>(a), {}, 0, 10, sums);
    const std::int64_t fits = to_fixed(2.5, 0x1p-24);
    CHECK(to_host(sums) == std::vector<std::int64_t>{fits, 0, 0, 0, 0, 1, fits, 0, 0, fits, 0, 0});
  }
}
