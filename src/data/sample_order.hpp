// The order in which one token file's split is read: shuffled, which is Megatron's GPTDataset,
// index for index, or that of the file.
//
// Sequences of the split are laid end to end, epoch after epoch, each shuffled; samples of
// sequence_length + 1 tokens are cut from that line, neighbours overlapping by one token, so that
// every token but the first is once a target; and the samples are shuffled. A sample may cross
// sequences and epochs. numpy.random.RandomState(seed) draws, in this order, the shuffle of the
// sequences and that of the samples. Where the last epoch is needed for less than 0.8 of its
// samples it is kept apart in both shuffles.
#pragma once

#include <cstdint>
#include <vector>

#include "data/split.hpp"
#include "data/token_file.hpp"

namespace hearth {

// Tokens [offset, offset + length) of one sequence of a token file.
struct Piece {
  std::int64_t sequence = 0;
  std::int64_t offset = 0;
  std::int64_t length = 0;
};

struct SampleOrder {
  std::int64_t sequence_length = 0;  // of a sample's input; a sample has one token more
  std::int64_t epochs = 0;
  std::vector<std::int32_t> document_index;  // (epochs · sequences of the split): the line
  std::vector<std::int64_t> start_document;  // (samples + 1): where sample i of the line starts,
  std::vector<std::int32_t> start_offset;    // (samples + 1): in document_index and in tokens
  std::vector<std::uint32_t> shuffle_index;  // (samples), or empty: as on the line

  [[nodiscard]] std::int64_t samples() const {
    return static_cast<std::int64_t>(start_document.size()) - 1;
  }

  // Where the sequence_length + 1 tokens of a sample lie in `file`, 0 ≤ sample < samples(); no
  // piece is empty.
  [[nodiscard]] std::vector<Piece> pieces(const TokenFile& file, std::int64_t sample) const;
};

// The shuffled order of at least `samples` samples of the sequences `range`: all whole epochs are
// kept, so that there may be more. Throws input_error, naming the file and the split, where the
// range holds no token.
[[nodiscard]] SampleOrder shuffled_order(const TokenFile& file, Split split, SequenceRange range,
                                         std::int64_t sequence_length, std::int64_t samples,
                                         std::uint32_t seed);

// At least `samples` samples of the sequences `range` in the order of the file, epoch after epoch,
// without a shuffle; 0: of one epoch. A rest shorter than a sample is left out, so that one epoch
// may have no sample at all. Throws as shuffled_order does.
[[nodiscard]] SampleOrder file_order(const TokenFile& file, Split split, SequenceRange range,
                                     std::int64_t sequence_length, std::int64_t samples);

}  // namespace hearth
