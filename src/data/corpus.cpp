#include "data/corpus.hpp"

#include <algorithm>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "base/error.hpp"
#include "data/number.hpp"

namespace hearth {

namespace {

double tokens_in(const TokenFile& file, SequenceRange range) {
  std::int64_t tokens = 0;
  for (std::int64_t s = range.begin; s < range.end; ++s) tokens += file.length(s);
  return static_cast<double>(tokens);
}

}  // namespace

Order parse_order(const std::string& order) {
  if (order == "shuffled") return Order::shuffled;
  if (order == "sequential") return Order::sequential;
  throw input_error("data.order: '", order, "' is neither shuffled nor sequential");
}

DataSource parse_source(const std::string& line) {
  const auto wrong = [&](const auto&... why) {
    return input_error("data.sources: '", line, "' ", why..., "; right is name:prefix or ",
                       "name:prefix:weight");
  };
  const std::size_t colon = line.find(':');
  if (colon == std::string::npos) throw wrong("has no ':'");
  DataSource source;
  source.name = line.substr(0, colon);
  source.prefix = line.substr(colon + 1);
  if (const std::size_t second = source.prefix.find(':'); second != std::string::npos) {
    const std::string weight = source.prefix.substr(second + 1);
    const std::optional<double> value = read_number(weight);
    if (!value || *value <= 0) throw wrong("has the weight '", weight, "', not a number above 0");
    source.weight = *value;
    source.weighted = true;
    source.prefix.resize(second);
  }
  if (source.name.empty()) throw wrong("has an empty name");
  if (source.prefix.empty()) throw wrong("has an empty prefix");
  return source;
}

std::vector<DataSource> parse_sources(const std::vector<std::string>& lines) {
  std::vector<DataSource> sources;
  std::set<std::string> names;
  for (const std::string& line : lines) {
    sources.push_back(parse_source(line));
    if (!names.insert(sources.back().name).second) {
      throw input_error("data.sources: two sources are named '", sources.back().name,
                        "'; names must differ");
    }
    if (sources.back().weighted != sources.front().weighted) {
      throw input_error("data.sources: '", line, "' has ",
                        sources.back().weighted ? "a weight" : "no weight", ", but '",
                        lines.front(), "' has ", sources.front().weighted ? "one" : "none",
                        "; give every source a weight or none");
    }
  }
  return sources;
}

Corpus::Corpus(std::vector<DataSource> sources, const std::string& shares, Split split,
               std::int64_t sequence_length, std::int64_t samples, std::int64_t seed, Order order)
    : sources_(std::move(sources)), shares_(shares), sequence_length_(sequence_length) {
  if (sources_.empty()) {
    throw input_error("data.sources: no source is given; right is at least one name:prefix");
  }
  if (sequence_length < 1 || sequence_length >= std::numeric_limits<std::int32_t>::max()) {
    throw input_error("model.sequence_length: ", sequence_length, " is not from 1 to 2147483646");
  }
  if (samples < 0) throw failure("a corpus of ", samples, " samples was asked for");
  if (seed < 0 || seed > std::numeric_limits<std::uint32_t>::max()) {
    throw input_error("run.seed: ", seed, " is not from 0 to 4294967295, as the order of the data ",
                      "needs");
  }
  if (!shares_.has(split)) {
    throw input_error("data.split: '", shares, "' gives the ", split_name(split),
                      " split no share; give it one");
  }
  for (const DataSource& source : sources_) {
    files_.push_back(std::make_shared<const TokenFile>(source.prefix));
  }
  if (samples == 0) {
    order_one_pass(split);
  } else {
    order_for_training(split, samples, static_cast<std::uint32_t>(seed), order);
  }
}

Corpus::Corpus(std::vector<DataSource> sources, std::vector<std::shared_ptr<const TokenFile>> files,
               const SplitShares& shares, std::int64_t sequence_length)
    : sources_(std::move(sources)),
      files_(std::move(files)),
      shares_(shares),
      sequence_length_(sequence_length) {}

Corpus Corpus::one_pass(Split split) const {
  Corpus pass(sources_, files_, shares_, sequence_length_);
  pass.order_one_pass(split);
  return pass;
}

std::vector<SequenceRange> Corpus::ranges(Split split) const {
  std::vector<SequenceRange> ranges;
  for (const auto& file : files_) ranges.push_back(shares_.range(split, file->sequences()));
  return ranges;
}

void Corpus::order_one_pass(Split split) {
  const std::vector<SequenceRange> range = ranges(split);
  for (std::size_t d = 0; d < files_.size(); ++d) {
    orders_.push_back(file_order(*files_[d], split, range[d], sequence_length_, 0));
  }
}

void Corpus::order_for_training(Split split, std::int64_t samples, std::uint32_t seed,
                                Order order) {
  samples_ = samples;
  const std::vector<SequenceRange> range = ranges(split);
  const auto order_of = [&](std::size_t d, std::int64_t prepared) {
    if (order == Order::sequential) {
      return file_order(*files_[d], split, range[d], sequence_length_, prepared);
    }
    return shuffled_order(*files_[d], split, range[d], sequence_length_, prepared, seed);
  };
  if (files_.size() == 1 && !sources_.front().weighted) {
    orders_.push_back(order_of(0, samples));
    return;
  }
  std::vector<double> weights;
  for (std::size_t d = 0; d < files_.size(); ++d) {
    weights.push_back(sources_[d].weighted ? sources_[d].weight : tokens_in(*files_[d], range[d]));
  }
  weights = normalized(weights);
  for (std::size_t d = 0; d < files_.size(); ++d) {
    orders_.push_back(order_of(d, samples_to_prepare(samples, weights[d])));
  }
  blend_ = build_blend(weights, samples);
}

std::vector<std::string> Corpus::names() const {
  std::vector<std::string> names;
  for (const DataSource& source : sources_) names.push_back(source.name);
  return names;
}

std::string Corpus::identity() const {
  std::string identity;
  for (std::size_t d = 0; d < files_.size(); ++d) {
    identity += text(sources_[d].name, ": ", files_[d]->identity(), "\n");
  }
  return identity;
}

int Corpus::source(std::int64_t sample) const {
  if (sample < 0 || sample >= samples_) {
    throw failure("sample ", sample, " was asked of a corpus of ", samples_, " samples");
  }
  return blend_.source.empty() ? 0 : blend_.source[sample];
}

SampleOrigin Corpus::sample(std::int64_t sample, std::span<std::int32_t> tokens) const {
  const int from = source(sample);
  return copy(from, blend_.source.empty() ? sample : blend_.source_sample[sample], tokens);
}

std::int64_t Corpus::epoch_samples(int source) const {
  return samples_ > 0 ? 0 : orders_.at(source).samples();
}

SampleOrigin Corpus::epoch_sample(int source, std::int64_t sample,
                                  std::span<std::int32_t> tokens) const {
  if (sample < 0 || sample >= epoch_samples(source)) {
    throw failure("sample ", sample, " was asked of one pass over source '", sources_[source].name,
                  "' of ", epoch_samples(source), " samples");
  }
  return copy(source, sample, tokens);
}

SampleOrigin Corpus::copy(int source, std::int64_t sample, std::span<std::int32_t> tokens) const {
  if (static_cast<std::int64_t>(tokens.size()) != sequence_length_ + 1) {
    throw failure("room for ", tokens.size(), " tokens was given to a sample of ",
                  sequence_length_ + 1);
  }
  const TokenFile& file = *files_[source];
  SampleOrigin origin{source, sample, {}};
  std::int64_t at = 0;
  std::int64_t before = 0;  // the sequence of the piece before
  for (const Piece& piece : orders_[source].pieces(file, sample)) {
    file.copy(piece.sequence, piece.offset, tokens.subspan(at, piece.length));
    // A sequence that does not come later in the file is another reading of the document.
    if (at > 0 &&
        (piece.sequence <= before || file.document(piece.sequence) != file.document(before))) {
      origin.document_begin.push_back(at);
    }
    before = piece.sequence;
    at += piece.length;
  }
  return origin;
}

}  // namespace hearth
