// The learning rate, a pure function of the step: linear warm-up, stable, exponential decay, as
// Megatron-LM's scheduler has it. Equation (15) of docs/equations.md.
#pragma once

#include "config/config.hpp"

namespace hearth {

// Of the update with index `step`, from 0. With warm-up the first update's rate is 0.
[[nodiscard]] double learning_rate(const Config& config, std::int64_t step);

}  // namespace hearth
