#include "data/split.hpp"

#include <cmath>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "data/blend.hpp"
#include "data/number.hpp"

namespace hearth {

const char* split_name(Split split) {
  switch (split) {
    case Split::train:
      return "train";
    case Split::validation:
      return "validation";
    case Split::test:
      return "test";
  }
  return "unknown";
}

SplitShares::SplitShares(const std::string& shares) {
  const auto wrong = [&] {
    return input_error("data.split: '", shares, "' is not a list of one to three shares, train, ",
                       "validation and test, each 0 or more with a positive sum, such as 90,5,5");
  };
  std::array<double, 3> share{};
  double sum = 0;
  std::string_view rest = shares;
  for (std::size_t i = 0;; ++i) {
    const std::size_t comma = rest.find(',');
    const std::optional<double> value = read_number(rest.substr(0, comma));
    if (i == share.size() || !value || *value < 0) throw wrong();
    share[i] = *value;
    sum += *value;
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  if (!(sum > 0) || !std::isfinite(sum)) throw wrong();

  const std::vector<double> part = normalized(share);
  for (std::size_t i = 0; i < part.size(); ++i) bound_[i + 1] = bound_[i] + part[i];
}

bool SplitShares::has(Split split) const {
  const auto i = static_cast<std::size_t>(split);
  return bound_[i + 1] > bound_[i];
}

SequenceRange SplitShares::range(Split split, std::int64_t sequences) const {
  const auto i = static_cast<std::size_t>(split);
  const auto bound = [&](double share) {
    return static_cast<std::int64_t>(std::nearbyint(share * static_cast<double>(sequences)));
  };
  return {bound(bound_[i]), bound(bound_[i + 1])};
}

}  // namespace hearth
