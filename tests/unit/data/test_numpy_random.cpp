#include "data/numpy_random.hpp"

#include <numeric>

#include "unit/data/fixture.hpp"

using namespace hearth;
using namespace hearth::fixture;

TEST_CASE("shuffles are those of numpy.random.RandomState") {
  for (const GoldenCase& golden : read_golden("sample_order_shuffle.txt")) {
    INFO(golden.name);
    NumpyRandom random(golden.numbers<std::uint32_t>("seed")[0]);
    NumpyRandom random_signed(golden.numbers<std::uint32_t>("seed")[0]);
    std::size_t next_values = 0;
    std::size_t next_fingerprint = 0;
    for (const std::int64_t size : golden.numbers("sizes")) {
      std::vector<std::uint32_t> values(size);
      std::iota(values.begin(), values.end(), 0U);
      std::vector<std::int32_t> signed_values(values.begin(), values.end());
      random.shuffle(values);
      random_signed.shuffle(signed_values);
      CHECK(std::vector<std::uint32_t>(signed_values.begin(), signed_values.end()) == values);
      if (size > 1000) {
        CHECK(fingerprint(values) ==
              golden.numbers<std::uint64_t>("fingerprint", next_fingerprint++)[0]);
      } else {
        CHECK(values == golden.numbers<std::uint32_t>("values", next_values++));
      }
    }
  }
}
