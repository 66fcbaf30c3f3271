#include "data/batch.hpp"

#include <limits>
#include <span>

#include "base/error.hpp"

namespace hearth {

namespace {

void check_tokens(std::span<const std::int32_t> tokens, const TokenFile& file,
                  std::int64_t vocabulary) {
  for (const std::int32_t token : tokens) {
    if (token < 0) {
      throw input_error(file.bin_path(), ": holds the token id ", token,
                        "; token ids are 0 or more");
    }
    if (token >= vocabulary) {
      throw input_error(file.bin_path(), ": holds the token id ", token,
                        ", but model.vocabulary is ", vocabulary,
                        "; model.vocabulary must be larger than every token id");
    }
  }
}

// Counting sort by token id: `order` and `run_begin` of a cell with its tokens, all within the
// vocabulary.
void sort_by_token(Cell& cell, std::int64_t vocabulary) {
  std::vector<int> next(vocabulary, 0);  // counts, then where each id's next position goes
  for (const int token : cell.token) ++next[token];
  int begin = 0;
  for (int& entry : next) {
    const int count = entry;
    entry = begin;
    if (count > 0) cell.run_begin.push_back(begin);
    begin += count;
  }
  cell.run_begin.push_back(begin);
  cell.order.resize(cell.token.size());
  for (int position = 0; position < begin; ++position) {
    cell.order[next[cell.token[position]]++] = position;
  }
}

// `read(s, tokens)` fills the tokens of sequence s and returns their origin.
template <class Read>
Cell build_cell(const Corpus& corpus, std::int64_t first, std::int64_t sequences,
                const ModelConfig& model, const Read& read) {
  Cell cell;
  cell.first_sequence = first;
  if (sequences == 0) {
    cell.run_begin = {0};
    return cell;
  }
  const std::int64_t length = corpus.sequence_length();
  if (sequences > std::numeric_limits<int>::max() / length) {
    throw input_error("batch.cell_sequences: ", sequences, " sequences of ", length,
                      " tokens are more than 2147483647 tokens; make the cell smaller");
  }
  const std::int64_t tokens = sequences * length;
  cell.token.reserve(tokens);
  cell.target.reserve(tokens);
  cell.position.reserve(tokens);
  cell.sequence_source.reserve(sequences);
  cell.sequence_half.reserve(sequences);
  std::vector<std::int32_t> sample(length + 1);
  for (std::int64_t s = 0; s < sequences; ++s) {
    const SampleOrigin origin = read(s, sample);
    check_tokens(sample, corpus.file(origin.source), model.vocabulary);
    cell.sequence_source.push_back(origin.source);
    cell.sequence_half.push_back(static_cast<int>(origin.sample % 2));
    cell.token.insert(cell.token.end(), sample.begin(), sample.end() - 1);
    cell.target.insert(cell.target.end(), sample.begin() + 1, sample.end());
    for (std::int64_t t = 0; t < length; ++t) cell.position.push_back(static_cast<int>(t));
    if (!model.document_mask) continue;
    for (const std::int64_t begin : origin.document_begin) {
      // The last token of a sample is only a target.
      if (begin < length) cell.document_begin.push_back(static_cast<int>(s * length + begin));
    }
  }
  sort_by_token(cell, model.vocabulary);
  return cell;
}

}  // namespace

Cell make_cell(const Corpus& corpus, std::int64_t first, std::int64_t sequences,
               const ModelConfig& model) {
  const auto read = [&](std::int64_t s, std::span<std::int32_t> tokens) {
    return corpus.sample(first + s, tokens);
  };
  return build_cell(corpus, first, sequences, model, read);
}

Cell make_epoch_cell(const Corpus& corpus, int source, std::int64_t first, std::int64_t sequences,
                     const ModelConfig& model) {
  const auto read = [&](std::int64_t s, std::span<std::int32_t> tokens) {
    return corpus.epoch_sample(source, first + s, tokens);
  };
  return build_cell(corpus, first, sequences, model, read);
}

}  // namespace hearth
