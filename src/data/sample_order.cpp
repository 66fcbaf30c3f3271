#include "data/sample_order.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <span>
#include <utility>

#include "base/error.hpp"
#include "data/numpy_random.hpp"

namespace hearth {

namespace {

// Below this share of its samples a last epoch is kept apart.
constexpr double final_epoch_threshold = 0.80;

std::int64_t tokens_per_epoch(const TokenFile& file, Split split, SequenceRange range) {
  if (range.size() <= 0) {
    throw input_error(file.idx_path(), ": the ", split_name(split), " split gets none of its ",
                      file.sequences(), " documents; give more documents or another data.split");
  }
  std::int64_t tokens = 0;
  for (std::int64_t s = range.begin; s < range.end; ++s) tokens += file.length(s);
  if (tokens == 0) {
    throw input_error(file.idx_path(), ": the ", range.size(), " documents of the ",
                      split_name(split), " split hold no token; give other documents or another ",
                      "data.split");
  }
  return tokens;
}

// Samples with their extra token on a line of `tokens` tokens.
std::int64_t samples_on(std::int64_t tokens, std::int64_t sequence_length) {
  return (tokens - 1) / sequence_length;
}

// The sequences of a range, epoch after epoch, in the order of the file.
struct Line {
  SampleOrder order;  // without samples
  std::int64_t epoch_tokens = 0;
  std::int64_t samples = 0;  // that can be cut from it
};

// As many whole epochs as `samples` samples need.
Line lay_line(const TokenFile& file, Split split, SequenceRange range, std::int64_t sequence_length,
              std::int64_t samples) {
  constexpr std::int64_t largest = std::numeric_limits<std::uint32_t>::max() - 1;
  Line line;
  line.epoch_tokens = tokens_per_epoch(file, split, range);
  if (samples >= largest) {
    throw input_error(file.bin_path(), ": ", samples, " samples were asked of it; at most ",
                      largest - 1, " can be ordered: lower run.steps or batch.global_batch");
  }
  SampleOrder& order = line.order;
  order.sequence_length = sequence_length;
  const std::int64_t needed_tokens = samples * sequence_length + 1;
  order.epochs = (needed_tokens - 1) / line.epoch_tokens + 1;
  line.samples = samples_on(order.epochs * line.epoch_tokens, sequence_length);
  if (line.samples >= largest || order.epochs > largest / range.size()) {
    throw input_error(file.bin_path(), ": ", samples, " samples take ", order.epochs, " epochs of ",
                      range.size(), " documents and ", line.epoch_tokens,
                      " tokens, which is more than can be ordered; give more tokens, or lower ",
                      "run.steps or batch.global_batch");
  }
  order.document_index.resize(order.epochs * range.size());
  for (auto at = order.document_index.begin(); at != order.document_index.end();
       at += range.size()) {
    std::iota(at, at + range.size(), static_cast<std::int32_t>(range.begin));
  }
  return line;
}

// Where `samples` samples start on the line, and the next would.
void cut_line(SampleOrder& order, const TokenFile& file, std::int64_t samples) {
  order.start_document.resize(samples + 1);
  order.start_offset.resize(samples + 1);
  std::int64_t document = 0;
  std::int64_t offset = 0;
  const auto length = [&] { return file.length(order.document_index[document]); };
  for (std::int64_t sample = 1; sample <= samples; ++sample) {
    offset += order.sequence_length;
    while (offset >= length()) {
      offset -= length();
      ++document;
    }
    order.start_document[sample] = document;
    order.start_offset[sample] = static_cast<std::int32_t>(offset);
  }
}

// Shuffles the first `first` values among themselves, then the others.
template <class T>
void shuffle_in_two(NumpyRandom& random, std::vector<T>& values, std::int64_t first) {
  const std::span<T> all(values);
  random.shuffle(all.first(first));
  random.shuffle(all.subspan(first));
}

}  // namespace

std::vector<Piece> SampleOrder::pieces(const TokenFile& file, std::int64_t sample) const {
  const std::int64_t at = shuffle_index.empty() ? sample : shuffle_index[sample];
  std::int64_t document = start_document[at];
  std::int64_t offset = start_offset[at];
  std::vector<Piece> pieces;
  for (std::int64_t missing = sequence_length + 1; missing > 0; ++document, offset = 0) {
    const std::int32_t sequence = document_index[document];
    const std::int64_t length = std::min(file.length(sequence) - offset, missing);
    if (length > 0) pieces.push_back({sequence, offset, length});
    missing -= length;
  }
  return pieces;
}

SampleOrder shuffled_order(const TokenFile& file, Split split, SequenceRange range,
                           std::int64_t sequence_length, std::int64_t samples, std::uint32_t seed) {
  Line line = lay_line(file, split, range, sequence_length, samples);
  SampleOrder& order = line.order;

  std::int64_t shared_epochs = order.epochs;
  std::int64_t shared_samples = line.samples;
  if (order.epochs > 1) {
    const std::int64_t before_last =
        samples_on((order.epochs - 1) * line.epoch_tokens, sequence_length);
    const std::int64_t per_epoch = samples_on(line.epoch_tokens, sequence_length);
    const auto threshold =
        static_cast<std::int64_t>(final_epoch_threshold * static_cast<double>(per_epoch));
    if (samples - before_last < threshold) {
      shared_epochs = order.epochs - 1;
      shared_samples = before_last;
    }
  }

  NumpyRandom random(seed);
  shuffle_in_two(random, order.document_index, shared_epochs * range.size());
  cut_line(order, file, line.samples);
  order.shuffle_index.resize(line.samples);
  std::iota(order.shuffle_index.begin(), order.shuffle_index.end(), 0U);
  shuffle_in_two(random, order.shuffle_index, shared_samples);
  return std::move(order);
}

SampleOrder file_order(const TokenFile& file, Split split, SequenceRange range,
                       std::int64_t sequence_length, std::int64_t samples) {
  Line line = lay_line(file, split, range, sequence_length, samples);
  cut_line(line.order, file, line.samples);
  return std::move(line.order);
}

}  // namespace hearth
