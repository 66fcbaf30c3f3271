#include <bit>
#include <limits>
#include <numeric>

#include "catch.hpp"
#include "kernels/adam.hpp"
#include "kernels/checksum.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

namespace {

// Blocks that are whole, that end early, that are padding alone, and one of a tensor whose index
// needs more than 32 bits.
const std::vector<std::uint64_t> first = {1000, 5096, 0, (std::uint64_t{1} << 33) - 2};
const std::vector<int> elements = {4096, 100, 0, 513};
constexpr Index all_elements = 4 * block_elements;

ChunkChecksums places() {
  return {to_device<std::uint64_t>(first), to_device<int>(elements), place_keys(),
          Array1<std::uint64_t>("sum", all_elements / chunk_elements)};
}

template <class T>
std::vector<std::uint64_t> expected_chunks(const std::vector<T>& values) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  std::vector<std::uint64_t> sums(all_elements / chunk_elements, 0);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t block = i / block_elements, within = i % block_elements;
    if (within >= static_cast<std::size_t>(elements[block])) continue;
    sums[i / chunk_elements] += hash_element(first[block] + within, std::bit_cast<Bits>(values[i]));
  }
  return sums;
}

}  // namespace

TEMPLATE_TEST_CASE("checksums of chunks are the documented sums, without padding", "", float,
                   double) {
  using T = TestType;
  const auto values = to_device<T>(random_values("values", all_elements));
  const ChunkChecksums checksums = places();
  take_checksums<T>(values, checksums);
  const auto found = to_host(checksums.sum);
  CHECK(found == expected_chunks(to_host(values)));
  CHECK(found[0] != 0);
  CHECK(found[2 * block_elements / chunk_elements] == 0);

  const std::vector<Index> begin = {0, 7, 9}, end = {7, 9, 32};
  const Array1<std::uint64_t> sum("sum", 3);
  sum_chunks(checksums.sum, to_device<Index>(begin), to_device<Index>(end), sum);
  for (std::size_t run = 0; run < 3; ++run) {
    CHECK(to_host(sum)[run] ==
          std::accumulate(found.begin() + begin[run], found.begin() + end[run], std::uint64_t{0}));
  }
}

TEMPLATE_TEST_CASE("values that are not finite are counted by chunk, without padding", "", float,
                   double) {
  using T = TestType;
  std::vector<double> values = random_values("values", all_elements);
  constexpr double infinity = std::numeric_limits<double>::infinity();
  constexpr double largest = std::numeric_limits<T>::max();
  constexpr std::size_t block = block_elements, chunk = chunk_elements;
  values[3] = values[500] = infinity;
  values[4] = -infinity;
  values[5] = largest;
  values[chunk] = std::numeric_limits<double>::quiet_NaN();
  values[block + 99] = infinity;                       // the second block has 100 elements
  values[block + 100] = values[2 * block] = infinity;  // padding
  const ChunkChecksums checksums = places();
  const Array1<std::uint64_t> counts("counts", all_elements / chunk_elements);
  take_checksums<T>(to_device<T>(values), checksums, counts);
  std::vector<std::uint64_t> expected(all_elements / chunk_elements, 0);
  expected[0] = 3;
  expected[1] = expected[block / chunk] = 1;
  CHECK(to_host(counts) == expected);
  CHECK(to_host(checksums.sum) == expected_chunks(to_host(to_device<T>(values))));
}

TEMPLATE_TEST_CASE("adam takes the checksums of what it has written", "", bfloat16, float, double) {
  using T = TestType;
  using R = Real<T>;
  const auto weight = to_device<R>(random_values("weight", all_elements));
  const auto moments = filled<R>(all_elements, 0), squares = filled<R>(all_elements, 0);
  const auto compute = filled<T>(std::is_same_v<T, R> ? 0 : all_elements);
  std::vector<std::int64_t> gradient;
  for (const double g : random_values("g", all_elements)) {
    gradient.push_back(to_fixed(g, gradient_unit));
  }
  const auto before = to_host(weight);
  const ChunkChecksums checksums = places();
  adam<T, std::int64_t>({1e-2, 0.9, 0.99, 1e-8, 0.1, 0.1, 0.01, 1},
                        to_device<std::int64_t>(gradient), filled<std::uint8_t>(4, 1), weight,
                        moments, squares, compute, checksums);
  CHECK(to_host(weight) != before);
  CHECK(to_host(checksums.sum) == expected_chunks(to_host(weight)));
}
