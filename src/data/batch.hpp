// The cell, unit of decomposition: consecutive sequences of the global batch, on the host.
#pragma once

#include <cstdint>
#include <vector>

#include "config/config.hpp"
#include "data/corpus.hpp"

namespace hearth {

// Tokens of sequence s are [s · sequence_length, (s + 1) · sequence_length).
struct Cell {
  std::int64_t first_sequence = 0;   // its number in the order of the data
  std::vector<int> token;            // (tokens)
  std::vector<int> target;           // (tokens): the token after each
  std::vector<int> position;         // (tokens): within the sequence
  std::vector<int> sequence_source;  // (sequences): index of the data source
  std::vector<int> sequence_half;    // (sequences): its sample's number in the source, modulo 2
  std::vector<int> order;            // (tokens): positions by (token, position)
  std::vector<int> run_begin;        // (distinct tokens + 1): runs of equal tokens in `order`
  // With model.document_mask, the tokens at which a document begins within a sequence, ascending:
  // attention does not reach back over them, nor over the begin of a sequence. Without: empty.
  std::vector<int> document_begin;
};

// Samples [first, first + sequences) of a corpus that is not of one pass; `sequences` may be 0.
// Throws input_error where a token id is not in [0, model.vocabulary), naming the .bin file, and
// where the cell has 2³¹ tokens or more.
[[nodiscard]] Cell make_cell(const Corpus& corpus, std::int64_t first, std::int64_t sequences,
                             const ModelConfig& model);

// The same for samples of one source of a corpus of one pass.
[[nodiscard]] Cell make_epoch_cell(const Corpus& corpus, int source, std::int64_t first,
                                   std::int64_t sequences, const ModelConfig& model);

}  // namespace hearth
