// Conservation of token copies, in integers that are exact: what a step moved must be there.
#pragma once

#include <cstdint>
#include <span>

#include "model/diagnostics.hpp"

namespace hearth {

// One rank's copies of one cell by expert, as they leave or arrive: throws failure, naming the
// layer with experts and the expert, where a count is negative.
void check_not_negative(Index layer, std::span<const int> counts);

// One rank's copies of a cell of `tokens` tokens, before they are sent: to no destination more than
// chose it, and together `chosen` choices of each token (0: as many as its router decides). Throws
// failure.
void check_copies(Index layer, std::span<const int> wanted, std::span<const int> sent, Index tokens,
                  Index chosen);

// A step over all ranks: in each layer every token has its choices, the copies sent are those that
// were chosen and not dropped and those that tokens have, every expert got as many as were sent to
// it, and every target token has a loss. Throws CollectiveError, alike on every rank.
void check_step(const StepSums& layout, const HostArray1<std::int64_t>& sums,
                std::span<const std::int64_t> arrived,  // (moe layers · experts)
                std::int64_t tokens, std::int64_t targets);

}  // namespace hearth
