#include "data/numpy_random.hpp"

#include <algorithm>
#include <array>
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
  // Partners are drawn some steps ahead of the swaps, so that memory fetches them meanwhile.
  std::array<std::uint32_t, 64> partner{};
  for (std::size_t last = values.size(); last > 1;) {
    const std::size_t steps = std::min(partner.size(), last - 1);
    for (std::size_t step = 0; step < steps; ++step) {
      partner[step] = interval(static_cast<std::uint32_t>(last - 1 - step));
      __builtin_prefetch(&values[partner[step]], 1);
    }
    for (std::size_t step = 0; step < steps; ++step) {
      --last;
      std::swap(values[last], values[partner[step]]);
    }
  }
}

void NumpyRandom::shuffle(std::span<std::int32_t> values) {
  shuffle_values(values);
}
void NumpyRandom::shuffle(std::span<std::uint32_t> values) {
  shuffle_values(values);
}

}  // namespace hearth
