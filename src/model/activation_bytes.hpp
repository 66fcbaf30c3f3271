// How much memory the activations of a cell take, without computing it.
#pragma once

#include "model/transformer.hpp"

namespace hearth {

// Bytes of activations that training a cell of the deck's size takes on the rank with the most
// experts, given the rows that each of its layers with experts exchanges.
[[nodiscard]] Index activation_bytes(const Config& config, const RankGrid& grid,
                                     const std::vector<ExchangeRows>& rows);  // (moe layers)

// Those rows where every expert gets equally many copies, and the most that routing can bring to
// that rank.
[[nodiscard]] std::vector<ExchangeRows> balanced_rows(const Config& config, const RankGrid& grid);
[[nodiscard]] std::vector<ExchangeRows> most_rows(const Config& config, const RankGrid& grid);

}  // namespace hearth
