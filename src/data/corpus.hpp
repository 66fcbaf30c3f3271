// All sources of one split, as numbered samples of token ids. Which sample is where is a pure
// function of the sources, the split, the sequence length, the number of samples and the seed.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/blend.hpp"
#include "data/sample_order.hpp"
#include "data/split.hpp"
#include "data/token_file.hpp"

namespace hearth {

// The values of data.order: Megatron's shuffles, or each source as its file has it.
enum class Order { shuffled, sequential };

// "shuffled" or "sequential"; throws input_error naming data.order.
[[nodiscard]] Order parse_order(const std::string& order);

// One line of data.sources.
struct DataSource {
  std::string name;
  std::string prefix;  // token files <prefix>.bin and <prefix>.idx
  double weight = 1;
  bool weighted = false;  // whether the line gives a weight
};

// Reads "name:prefix[:weight]"; throws input_error naming data.sources.
[[nodiscard]] DataSource parse_source(const std::string& line);

// Reads all lines. Either every source has a weight or none has, and names differ; otherwise
// input_error.
[[nodiscard]] std::vector<DataSource> parse_sources(const std::vector<std::string>& lines);

// Where a sample's tokens come from.
struct SampleOrigin {
  int source = 0;
  std::int64_t sample = 0;  // its number in the order of the source
  // Tokens, numbered from 0 in the sample, at which another document begins than that of the token
  // before; ascending. Tokens of one document that stand one after the other in the file, as its
  // last and its first of the next epoch do not, are a run of that document.
  std::vector<std::int64_t> document_begin;
};

class Corpus {
 public:
  // Opens every source.
  //   shares            data.split, such as "90,5,5"
  //   sequence_length   tokens of a sample's input; a sample has one more
  //   samples > 0       `order` of that many samples, the whole schedule's; where shuffled, it
  //                     depends on this number. One source without a weight: its own order. Several
  //                     without weights: blended by their tokens in the split. With weights:
  //                     blended by them, also where there is only one.
  //   samples = 0       one pass over each source in the order of its file, for evaluation
  //   seed              run.seed, the same for every source
  // Throws input_error where a file is unfit, the split has no share or a source has no document
  // in it, or the seed is not in [0, 2³²).
  Corpus(std::vector<DataSource> sources, const std::string& shares, Split split,
         std::int64_t sequence_length, std::int64_t samples, std::int64_t seed,
         Order order = Order::shuffled);

  // One pass over another split of the same sources, as samples = 0 makes it; the files are shared.
  // Throws input_error as the constructor does.
  [[nodiscard]] Corpus one_pass(Split split) const;

  [[nodiscard]] std::int64_t sequence_length() const { return sequence_length_; }
  [[nodiscard]] int sources() const { return static_cast<int>(sources_.size()); }
  [[nodiscard]] std::vector<std::string> names() const;
  [[nodiscard]] const TokenFile& file(int source) const { return *files_[source]; }

  // One line per source, "name: ..." with its files' sizes and hash, for provenance.
  [[nodiscard]] std::string identity() const;

  // Samples in the order, as asked for; 0 for a corpus of one pass.
  [[nodiscard]] std::int64_t samples() const { return samples_; }

  // Copies a sample's sequence_length + 1 tokens. Throws failure where sample or size is out of
  // range.
  SampleOrigin sample(std::int64_t sample, std::span<std::int32_t> tokens) const;

  // The source of a sample, without reading it. Throws failure where it is out of range.
  [[nodiscard]] int source(std::int64_t sample) const;

  // Samples of one source in a corpus of one pass: consecutive windows of sequence_length tokens
  // and the token after each. 0 where the split is shorter than one, or the corpus is not of one
  // pass.
  [[nodiscard]] std::int64_t epoch_samples(int source) const;

  // Copies sample `sample` of that pass, sequence_length + 1 tokens. Throws as sample() does.
  SampleOrigin epoch_sample(int source, std::int64_t sample, std::span<std::int32_t> tokens) const;

 private:
  // Without an order yet.
  Corpus(std::vector<DataSource> sources, std::vector<std::shared_ptr<const TokenFile>> files,
         const SplitShares& shares, std::int64_t sequence_length);
  [[nodiscard]] std::vector<SequenceRange> ranges(Split split) const;
  void order_one_pass(Split split);
  void order_for_training(Split split, std::int64_t samples, std::uint32_t seed, Order order);
  [[nodiscard]] SampleOrigin copy(int source, std::int64_t sample,
                                  std::span<std::int32_t> tokens) const;

  std::vector<DataSource> sources_;
  std::vector<std::shared_ptr<const TokenFile>> files_;  // by source
  SplitShares shares_;
  std::vector<SampleOrder> orders_;  // by source
  Blend blend_;                      // empty where one source is read straight
  std::int64_t sequence_length_;
  std::int64_t samples_ = 0;
};

}  // namespace hearth
