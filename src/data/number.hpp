// Numbers in the values of data.sources and data.split.
#pragma once

#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>

namespace hearth {

// The finite number that `text` is, between blanks; nothing where it is not one.
[[nodiscard]] inline std::optional<double> read_number(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return {};
  return value;
}

}  // namespace hearth
