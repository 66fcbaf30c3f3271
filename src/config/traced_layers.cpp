#include "config/traced_layers.hpp"

#include <charconv>
#include <numeric>
#include <sstream>

namespace hearth {

std::optional<std::vector<std::int64_t>> traced_layers(const Config& config) {
  const std::string& list = config.statistics.trace_layers;
  std::vector<std::int64_t> layers;
  if (list == "all") {
    layers.resize(static_cast<std::size_t>(config.moe_layers()));
    std::iota(layers.begin(), layers.end(), std::int64_t{0});
    return layers;
  }
  if (list.empty() || list.ends_with(',')) return std::nullopt;
  std::istringstream rest(list);
  for (std::string item; std::getline(rest, item, ',');) {
    std::int64_t block = -1;
    const auto [end, error] = std::from_chars(item.data(), item.data() + item.size(), block);
    const bool whole = error == std::errc() && end == item.data() + item.size();
    if (!whole || block >= config.model.layers || !config.is_moe_layer(block)) return std::nullopt;
    const std::int64_t layer = block - config.moe.dense_layers;
    if (!layers.empty() && layer <= layers.back()) return std::nullopt;
    layers.push_back(layer);
  }
  return layers;
}

}  // namespace hearth
