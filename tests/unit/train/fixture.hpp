// Cells made of given tokens.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "data/batch.hpp"

namespace hearth::fixture {

// Sequences of `length` tokens and the token after each, laid end to end: (sequences, length + 1).
inline Cell make_cell(const std::vector<int>& tokens, Index length) {
  Cell cell;
  const auto sequences = static_cast<Index>(tokens.size()) / (length + 1);
  for (Index s = 0; s < sequences; ++s) {
    for (Index i = 0; i < length; ++i) {
      const auto at = static_cast<std::size_t>(s * (length + 1) + i);
      cell.token.push_back(tokens[at]);
      cell.target.push_back(tokens[at + 1]);
      cell.position.push_back(static_cast<int>(i));
    }
    cell.sequence_source.push_back(0);
    cell.sequence_half.push_back(static_cast<int>(s % 2));
  }
  cell.order.resize(cell.token.size());
  std::iota(cell.order.begin(), cell.order.end(), 0);
  const auto token = [&](int i) { return cell.token[static_cast<std::size_t>(i)]; };
  std::stable_sort(cell.order.begin(), cell.order.end(),
                   [&](int a, int b) { return token(a) < token(b); });
  for (std::size_t i = 0; i < cell.order.size(); ++i) {
    if (i == 0 || token(cell.order[i]) != token(cell.order[i - 1])) {
      cell.run_begin.push_back(static_cast<int>(i));
    }
  }
  cell.run_begin.push_back(static_cast<int>(cell.order.size()));
  return cell;
}

}  // namespace hearth::fixture
