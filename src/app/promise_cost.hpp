// What bitwise equality on any layout costs a deck, predicted from rates measured on this machine.
#pragma once

#include "config/config.hpp"
#include "parallel/decomposition.hpp"

namespace hearth {

// Of one step of the first rank.
struct PromiseCost {
  double sums_s = 0;      // that gradients take longer as integers than in floating point
  double products_s = 0;  // of the matrix products and attention, at the products' rate

  // About this part of a step: one also has work that is neither, and products for sums of integers
  // come in smaller groups.
  [[nodiscard]] double share() const { return sums_s / (sums_s + products_s); }
};

// Times the kernels in question on arrays too large for a cache, and a product of the deck's sizes:
// a fraction of a second with all threads of this process. Beside it, sums over ranks move 8 bytes
// an element instead of 4.
[[nodiscard]] PromiseCost promise_cost(const Config& config, const RankGrid& grid);

}  // namespace hearth
