// A cell as the model reads it: arrays in the execution space's memory.
#pragma once

#include "kernels/attention.hpp"

namespace hearth {

struct DeviceCell {
  Index tokens = 0;
  Index sequence_length = 0;    // tokens of each sequence
  Index first_sequence = 0;     // number of the first one in the order of the data
  Index targets = 0;            // tokens whose target is not masked
  Array1<const int> token;      // (tokens)
  Array1<const int> target;     // (tokens): below zero where masked
  Array1<const int> position;   // (tokens): within the sequence
  Array1<const int> source;     // (tokens): index of the data source
  Array1<const int> half;       // (tokens): of its source's data, 0 or 1
  Array1<const int> order;      // (tokens): positions by (token, position)
  Array1<const int> run_begin;  // (distinct tokens + 1): runs of equal tokens in `order`
  kernels::AttentionPlan attention;
};

// What a cell's losses are divided by: the tokens of the whole step. Together with plain sums over
// cells and ranks it makes every gradient that of the global mean.
struct StepTokens {
  Index tokens = 0;   // rows of all cells
  Index targets = 0;  // of which not masked
};

}  // namespace hearth
