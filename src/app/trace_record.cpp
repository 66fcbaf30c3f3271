#include "app/trace_record.hpp"

#include <algorithm>
#include <filesystem>
#include <limits>

#include "config/traced_layers.hpp"
#include "data/token_sample.hpp"
#include "model/routers/router_table.hpp"

namespace hearth {

namespace {

Index most_slots_of(const Config& config, const std::vector<Index>& layers) {
  Index most = 0;
  for (const Index layer : layers) most = std::max(most, router_traits(config, layer).slots);
  return most;
}

Index step_tokens(const Config& config) {
  return config.batch.global_batch * config.model.sequence_length;
}

}  // namespace

TraceRecord::TraceRecord(const Config& config, const std::vector<std::string>& sources)
    : config_(config),
      layers_(traced_layers(config).value_or(std::vector<Index>())),
      slots_(most_slots_of(config, layers_)) {
  const auto layers = static_cast<Index>(layers_.size());
  const Index tokens = sample_size(step_tokens(config), config.statistics.trace_tokens);
  const std::vector<std::string> by_token = {"trace", "sample"},
                                 by_slot = {"trace", "layer", "sample", "k"};
  constexpr bool compress = true;
  std::vector<std::int64_t> blocks, destinations, slots;
  for (const Index layer : layers_) {
    blocks.push_back(config.moe.dense_layers + layer);
    destinations.push_back(config.destinations(layer));
    slots.push_back(router_traits(config, layer).slots);
  }
  file_.declare<std::int64_t>("/trace", {"trace"}, {}, "steps",
                              "steps done with each traced one, which chose with the weights that "
                              "it began with");
  file_.set(labelled_list("/layer", "layer", "1", "block of each traced layer, from 0", blocks));
  file_.set(labelled_list("/experts", "layer", "experts",
                          "experts of each layer, those without matrices behind the others",
                          destinations));
  file_.set(labelled_list("/slots", "layer", "experts",
                          "the most experts that a token of the layer can have", slots));
  file_.set(labelled_list("/source", "source", "1", "names of the data sources", sources));
  file_.declare<std::int32_t>("/token", by_token, {tokens}, "1", "token id", compress);
  file_.declare<std::int32_t>("/sequence", by_token, {tokens}, "sequences",
                              "the token's sequence in the step's global batch, from 0", compress);
  file_.declare<std::int32_t>("/position", by_token, {tokens}, "tokens",
                              "of the token in its sequence, from 0", compress);
  file_.declare<std::int32_t>("/token_source", by_token, {tokens}, "1",
                              "the sequence's place in source", compress);
  file_.declare<std::int32_t>(
      "/choice", by_slot, {layers, tokens, slots_}, "1",
      "experts that the token was sent to, in the order of their gates, largest first, ties to the "
      "lower number; -1 where there are fewer; what was dropped is not there",
      compress, -1.0);
  file_.declare<float>("/gate", by_slot, {layers, tokens, slots_}, "1",
                       "what the chosen expert's output was multiplied by, with router = "
                       "scaled_input its input; NaN where there is none",
                       compress, std::numeric_limits<double>::quiet_NaN());
}

std::optional<StepTrace> TraceRecord::begin(std::int64_t step) const {
  const std::int64_t every = config_.statistics.trace_every;
  if (every == 0 || step % every != 0 || layers_.empty()) return std::nullopt;
  return StepTrace(
      sample_tokens(config_.run.seed, step, step_tokens(config_), config_.statistics.trace_tokens),
      layers_, slots_, (step - 1) * config_.batch.global_batch);
}

void TraceRecord::add(std::int64_t step, const StepTrace& trace) {
  const Index length = config_.model.sequence_length;
  std::vector<std::int32_t> sequence, position, choice;
  std::vector<float> gate;
  for (const Index place : trace.places()) {
    sequence.push_back(static_cast<std::int32_t>(place / length));
    position.push_back(static_cast<std::int32_t>(place % length));
  }
  for (const TracedChoice& chosen : trace.choices()) {
    choice.push_back(chosen.expert);
    gate.push_back(chosen.gate);
  }
  file_.append<std::int64_t>("/trace", {step});
  file_.append("/token", trace.token_ids());
  file_.append("/sequence", sequence);
  file_.append("/position", position);
  file_.append("/token_source", trace.sources());
  file_.append("/choice", choice);
  file_.append("/gate", gate);
  is_written_ = false;
}

bool TraceRecord::is_kept(const std::string& path) const {
  return config_.statistics.trace_every > 0 || std::filesystem::exists(path);
}

void TraceRecord::write(const std::string& path, const LabelledAttributes& attributes) {
  if (is_written_) return;
  file_.write(path, attributes);
  is_written_ = true;
}

double trace_bytes(const Config& config) {
  const Index every = config.statistics.trace_every;
  if (every == 0 || config.moe_layers() == 0) return 0;
  const std::vector<Index> layers = traced_layers(config).value_or(std::vector<Index>());
  const auto tokens =
      static_cast<double>(sample_size(step_tokens(config), config.statistics.trace_tokens));
  const auto choices =
      static_cast<double>(layers.size()) * static_cast<double>(most_slots_of(config, layers));
  const double row =
      tokens * (4 * sizeof(std::int32_t) + choices * (sizeof(std::int32_t) + sizeof(float)));
  // Beside the rows: the step's words, and its choices taken out of them and as rows.
  return row * (3 + 2 * static_cast<double>(config.run.steps / every));
}

}  // namespace hearth
