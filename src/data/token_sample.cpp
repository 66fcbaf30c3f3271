#include "data/token_sample.hpp"

#include <algorithm>
#include <numeric>

#include "base/hash.hpp"

namespace hearth {

std::int64_t sample_size(std::int64_t tokens, std::int64_t wanted) {
  return wanted == 0 ? tokens : std::min(tokens, wanted);
}

std::vector<std::int64_t> sample_tokens(std::int64_t seed, std::int64_t step, std::int64_t tokens,
                                        std::int64_t wanted) {
  const auto size = static_cast<std::size_t>(sample_size(tokens, wanted));
  std::vector<std::int64_t> places(size);
  if (static_cast<std::int64_t>(size) == tokens) {
    std::iota(places.begin(), places.end(), std::int64_t{0});
    return places;
  }
  const std::uint64_t stream =
      mix_bits(mix_bits(static_cast<std::uint64_t>(seed) ^ hash_text("trace")) +
               static_cast<std::uint64_t>(step));
  const auto key = [&](std::int64_t place) {
    return mix_bits(stream + static_cast<std::uint64_t>(place));
  };
  // mix_bits maps different numbers to different ones: there are no ties.
  std::vector<std::uint64_t> keys(static_cast<std::size_t>(tokens));
  for (std::int64_t place = 0; place < tokens; ++place) {
    keys[static_cast<std::size_t>(place)] = key(place);
  }
  const auto first_left_out = keys.begin() + static_cast<std::ptrdiff_t>(size);
  std::nth_element(keys.begin(), first_left_out, keys.end());
  places.clear();
  for (std::int64_t place = 0; place < tokens; ++place) {
    if (key(place) < *first_left_out) places.push_back(place);
  }
  return places;
}

}  // namespace hearth
