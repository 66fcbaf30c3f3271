#include "data/numpy_random.hpp"

#include <bit>
#include <limits>
#include <utility>

#include "base/error.hpp"

namespace hearth {

std::uint32_t NumpyRandom::interval(std::uint32_t last) {
  const std::uint32_t mask = std::numeric_limits<std::uint32_t>::max() >> std::countl_zero(last);
  std::uint32_t value = 0;
  do {
    value = static_cast<std::uint32_t>(generator_()) & mask;
  } while (value > last);
  return value;
}

template <class T>
void NumpyRandom::shuffle_values(std::span<T> values) {
  if (values.size() > (std::size_t{1} << 32)) {
    throw failure("cannot shuffle ", values.size(), " values; at most 4294967296");
  }
  for (std::size_t i = values.size(); i-- > 1;) {
    std::swap(values[i], values[interval(static_cast<std::uint32_t>(i))]);
  }
}

void NumpyRandom::shuffle(std::span<std::int32_t> values) {
  shuffle_values(values);
}
void NumpyRandom::shuffle(std::span<std::uint32_t> values) {
  shuffle_values(values);
}

}  // namespace hearth
