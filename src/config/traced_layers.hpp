// Which layers' routing statistics.trace_layers asks for.
#pragma once

#include <optional>

#include "config/config.hpp"

namespace hearth {

// Their numbers among the layers with experts, ascending. None: the text is neither "all" nor a
// list of blocks with experts in ascending order.
[[nodiscard]] std::optional<std::vector<std::int64_t>> traced_layers(const Config& config);

}  // namespace hearth
