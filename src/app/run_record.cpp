#include "app/run_record.hpp"

#include <sys/resource.h>

#include <limits>
#include <numeric>

#include "model/routers/router_table.hpp"

namespace hearth {

namespace {

constexpr double absent = std::numeric_limits<double>::quiet_NaN();

double in_units(std::int64_t value, double unit) {
  return static_cast<double>(value) * unit;
}

std::vector<std::int64_t> numbers_from(std::int64_t first, Index count) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(count));
  std::iota(numbers.begin(), numbers.end(), first);
  return numbers;
}

// Each data source's target tokens and mean loss, as rows.
struct SourceRows {
  std::vector<std::int64_t> tokens;
  std::vector<double> loss;
  void add(std::int64_t count, double mean) {
    tokens.push_back(count);
    loss.push_back(count == 0 ? absent : mean);
  }
};

}  // namespace

TrainingRecord::TrainingRecord(const Config& config, const RankGrid& grid,
                               const std::vector<std::string>& sources)
    : grid_(grid), has_experts_(config.moe_layers() > 0) {
  const std::vector<Index> scalar, by_source = {static_cast<Index>(sources.size())};
  const std::vector<std::string> step = {"step"}, step_source = {"step", "source"},
                                 validation = {"validation_step"},
                                 validation_source = {"validation_step", "source"};
  const std::string nats = "nats/token";
  file_.declare<std::int64_t>("/step", step, scalar, "steps", "optimizer steps done");
  file_.set(labelled_list("/source", "source", "1", "names of the data sources", sources));
  file_.declare<std::int64_t>("/tokens", step, scalar, "tokens", "target tokens of the step");
  file_.declare<double>("/loss", step, scalar, nats, "cross-entropy and the routers' losses");
  file_.declare<double>("/cross_entropy", step, scalar, nats, "mean over the step's target tokens");
  file_.declare<double>("/balance_loss", step, scalar, "1",
                        "coefficient included, summed over layers");
  file_.declare<double>("/z_loss", step, scalar, "1", "coefficient included, summed over layers");
  file_.declare<double>("/entropy_loss", step, scalar, "1",
                        "coefficient included, summed over layers; of router = top_p");
  file_.declare<double>("/learning_rate", step, scalar, "1", "of the step's update");
  file_.declare<double>("/gradient_norm", step, scalar, "1",
                        "of the whole gradient, before clipping; NaN where the step was skipped");
  file_.declare<std::int64_t>(
      "/skipped", step, scalar, "1",
      "1: loss or gradient were not finite or too large, no weight changed");
  file_.declare<std::uint64_t>("/weights_checksum", step, scalar, "1",
                               "of all weights after the step, the same on any layout");
  file_.declare<double>("/source_loss", step_source, by_source, nats,
                        "mean cross-entropy of each source's tokens; NaN where it had none, or not "
                        "finite ones");
  file_.declare<std::int64_t>("/source_tokens", step_source, by_source, "tokens",
                              "target tokens of each source");
  file_.declare<std::int64_t>("/validation_step", validation, scalar, "steps",
                              "when validation was done");
  file_.declare<double>("/validation_loss", validation_source, by_source, nats,
                        "mean cross-entropy on the validation split; NaN where it is empty");
  file_.declare<std::int64_t>("/validation_tokens", validation_source, by_source, "tokens",
                              "target tokens of the validation");
  file_.declare<double>("/timing/step_seconds", step, scalar, "s", "wall time of the step");
  if (has_experts_) declare_layout(config);
}

void TrainingRecord::declare_layout(const Config& config) {
  const Index layers = config.moe_layers();
  const std::vector<std::string> step = {"step"}, by_layer = {"step", "layer"};
  file_.set(labelled_list("/layout/layer", "layer", "1", "block of each MoE layer, from 0",
                          numbers_from(config.moe.dense_layers, layers)));
  file_.declare<std::int64_t>("/layout/expert_ranks", step, {}, "ranks",
                              "ranks that share out the experts");
  file_.declare<std::int64_t>("/layout/tokens", step, {}, "tokens", "tokens routed in each layer");
  file_.declare<std::int64_t>("/layout/copies", by_layer, {layers}, "tokens",
                              "token copies sent to experts with matrices");
  file_.declare<std::int64_t>("/layout/copies_kept", by_layer, {layers}, "tokens",
                              "of these, those whose expert is on their token's rank");
  file_.declare<std::int64_t>("/layout/ranks_reached", by_layer, {layers}, "ranks",
                              "sum over tokens of the different ranks that their copies go to");
  file_.declare<std::int64_t>("/layout/other_ranks_reached", by_layer, {layers}, "ranks",
                              "the same without the token's own rank");
}

void TrainingRecord::add(const StepReport& report, const StepSums& layout, double seconds) {
  SourceRows sources;
  for (Index s = 0; s < layout.sources(); ++s) {
    const std::int64_t count = layout.tokens(report.sums)(s);
    const double sum = in_units(layout.loss(report.sums)(s), kernels::statistic_unit);
    const bool unfit = report.fault && report.fault->losses[static_cast<std::size_t>(s)] > 0;
    sources.add(count, unfit ? absent : sum / static_cast<double>(count));
  }
  file_.append<std::int64_t>("/step", {report.step});
  file_.append<std::int64_t>("/tokens", {report.tokens});
  file_.append<double>("/loss", {report.loss});
  file_.append<double>("/cross_entropy", {report.cross_entropy});
  file_.append<double>("/balance_loss", {report.balance_loss});
  file_.append<double>("/z_loss", {report.z_loss});
  file_.append<double>("/entropy_loss", {report.entropy_loss});
  file_.append<double>("/learning_rate", {report.learning_rate});
  file_.append<double>("/gradient_norm", {report.gradient_norm});
  file_.append<std::uint64_t>("/weights_checksum", {report.weights_checksum});
  file_.append<std::int64_t>("/skipped", {report.fault ? 1 : 0});
  file_.append("/source_loss", sources.loss);
  file_.append("/source_tokens", sources.tokens);
  file_.append<double>("/timing/step_seconds", {seconds});
  if (!has_experts_) return;
  file_.append<std::int64_t>("/layout/expert_ranks", {grid_.expert_ranks});
  file_.append<std::int64_t>("/layout/tokens", {report.tokens_routed});
  file_.append("/layout/copies", report.exchange.copies());
  file_.append("/layout/copies_kept", report.exchange.copies_kept());
  file_.append("/layout/ranks_reached", report.exchange.ranks_reached());
  file_.append("/layout/other_ranks_reached", report.exchange.other_ranks_reached());
}

void TrainingRecord::add_validation(std::int64_t step, const std::vector<SourceLoss>& losses) {
  SourceRows sources;
  for (const SourceLoss& source : losses) sources.add(source.tokens, source.loss);
  file_.append<std::int64_t>("/validation_step", {step});
  file_.append("/validation_loss", sources.loss);
  file_.append("/validation_tokens", sources.tokens);
}

void TrainingRecord::write(const std::string& path, const LabelledAttributes& attributes,
                           const PhaseTimers& timers) {
  std::vector<std::string> phases;
  std::vector<double> phase_s;
  for (const auto& [name, seconds] : timers.totals_s()) {
    phases.push_back(name);
    phase_s.push_back(seconds);
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const std::vector<std::int64_t> peak_bytes = {usage.ru_maxrss * 1024L};
  file_.set(labelled_list("/timing/phase", "phase", "1", "names of phases; they may nest", phases));
  file_.set(labelled_list("/timing/seconds", "phase", "s",
                          "wall time of the first rank since the program started", phase_s));
  file_.set(labelled_list("/timing/peak_memory_bytes", "process", "bytes",
                          "largest resident size of the first rank", peak_bytes));
  file_.write(path, attributes);
}

namespace {

// What each destination of each layer is; "absent" where a layer has fewer.
std::vector<std::string> expert_kinds(const Config& config) {
  const MoeConfig& moe = config.moe;
  std::vector<std::string> kinds;
  for (Index layer = 0; layer < config.moe_layers(); ++layer) {
    const std::size_t end = kinds.size() + static_cast<std::size_t>(config.most_destinations());
    const auto add = [&](Index count, const char* kind) {
      kinds.insert(kinds.end(), static_cast<std::size_t>(count), kind);
    };
    add(moe.experts.at(layer), "ffn");
    add(moe.copy_experts, "copy");
    add(moe.constant_experts, "constant");
    add(moe.zero_experts, "zero");
    add(moe.null_experts, "null");
    kinds.resize(end, "absent");
  }
  return kinds;
}

std::vector<std::int64_t> slots_by_layer(const Config& config) {
  std::vector<std::int64_t> slots;
  for (Index layer = 0; layer < config.moe_layers(); ++layer) {
    slots.push_back(router_traits(config, layer).slots);
  }
  return slots;
}

}  // namespace

RoutingRecord::RoutingRecord(const Config& config, const std::vector<std::string>& sources,
                             const std::vector<std::int32_t>& probe_tokens)
    : config_(config) {
  const Index layers = config.moe_layers(), experts = config.most_destinations();
  const Index slots = most_slots(config);
  const auto source_count = static_cast<Index>(sources.size());
  const auto probes = static_cast<Index>(probe_tokens.size());
  const std::vector<std::string> by_layer = {"interval", "layer"},
                                 by_expert = {"interval", "layer", "expert"};
  file_.declare<std::int64_t>("/interval", {"interval"}, {}, "steps",
                              "last step of each interval; rows are sums over it");
  file_.declare<std::int64_t>("/checkpoint", {"checkpoint"}, {}, "steps",
                              "step of each checkpoint; rows are sums since the one before");
  file_.set(labelled_list("/layer", "layer", "1", "block of each MoE layer, from 0",
                          numbers_from(config.moe.dense_layers, layers)));
  file_.set(labelled_list("/expert", "expert", "1",
                          "logical number of the expert, those without matrices behind the others",
                          numbers_from(0, experts)));
  file_.set({"/expert_kind",
             {layers, experts},
             {"layer", "expert"},
             "1",
             "ffn, copy, constant, zero or null; absent where a layer has fewer",
             expert_kinds(config)});
  file_.set(labelled_list("/slots", "layer", "experts", "the most experts that a token can have",
                          slots_by_layer(config)));
  file_.set(labelled_list("/source", "source", "1", "names of the data sources", sources));
  file_.declare<std::int64_t>("/tokens", {"interval"}, {}, "tokens", "tokens routed in each layer");
  file_.declare<std::int64_t>("/expert_count", by_expert, {layers, experts}, "tokens",
                              "token copies sent to each expert");
  file_.declare<std::int64_t>("/expert_dropped", by_expert, {layers, experts}, "tokens",
                              "token copies that each expert was chosen for and did not take");
  file_.declare<double>("/probability_mass", by_expert, {layers, experts}, "tokens",
                        "sum over tokens of the router's softmax; of sigmoids over their sum; of "
                        "rectified logits; of equal shares where nothing is learned");
  file_.declare<double>("/gate_mass", by_expert, {layers, experts}, "tokens",
                        "sum over tokens of the gates");
  file_.declare<std::int64_t>("/experts_per_token", {"interval", "layer", "number"},
                              {layers, slots + 1}, "tokens",
                              "tokens of which so many copies were sent");
  file_.set(labelled_list("/number", "number", "experts", "copies of a token",
                          numbers_from(0, slots + 1)));
  file_.declare<double>("/entropy", by_layer, {layers}, "nats",
                        "sum over tokens of the entropy of what probability_mass sums, over its "
                        "total");
  file_.declare<double>("/logit_norm", by_layer, {layers}, "1",
                        "sum over tokens of the Euclidean norm of the router's logits; of hash and "
                        "random, which have none, of the shares that stand for them");
  file_.declare<std::int64_t>("/dropped", by_layer, {layers}, "tokens",
                              "token copies that no expert received");
  file_.declare<double>("/balance_loss", by_layer, {layers}, "1",
                        "sum over steps, coefficient included");
  file_.declare<double>("/z_loss", by_layer, {layers}, "1", "sum over steps, coefficient included");
  file_.declare<double>("/entropy_loss", by_layer, {layers}, "1",
                        "sum over steps, coefficient included");
  constexpr bool compress = true;
  file_.declare<std::int64_t>(
      "/coactivation", {"checkpoint", "layer", "expert", "expert_with"}, {layers, experts, experts},
      "tokens", "tokens sent to both experts; the diagonal counts those sent to one", compress);
  file_.declare<std::int64_t>("/source_expert_count", {"checkpoint", "layer", "source", "expert"},
                              {layers, source_count, experts}, "tokens",
                              "token copies of each data source sent to each expert", compress);
  if (config.statistics.token_counts) {
    std::vector<std::string> axes = {"checkpoint", "layer", "token", "expert"};
    std::vector<std::string> token_axes = {"checkpoint", "token"};
    std::vector<Index> row = {layers, config.model.vocabulary, experts};
    std::vector<Index> token_row = {config.model.vocabulary};
    if (config.statistics.token_halves) {
      axes.insert(axes.begin() + 2, "half");
      row.insert(row.begin() + 1, 2);
      token_axes.insert(token_axes.begin() + 1, "half");
      token_row.insert(token_row.begin(), 2);
      file_.set(labelled_list("/half", "half", "1",
                              "samples of each data source, by their number in it",
                              std::vector<std::string>{"even", "odd"}));
    }
    file_.declare<std::int64_t>("/token_expert_count", axes, row, "tokens",
                                "copies of each token id sent to each expert", compress);
    file_.declare<std::int64_t>("/token_count", token_axes, token_row, "tokens",
                                "occurrences of each token id, whatever experts they had",
                                compress);
  }
  if (probes > 0) {
    file_.set(labelled_list("/probe_token", "probe", "1", "token ids of the fixed probe set",
                            probe_tokens));
    file_.declare<std::int32_t>(
        "/probe_choice", {"checkpoint", "layer", "probe", "k"}, {layers, probes, slots}, "1",
        "experts chosen with the checkpoint's weights, best first; -1 where there are fewer",
        compress);
  }
  if (config.statistics.drift) {
    for (const DriftMeasure& measure : drift_measures()) {
      file_.declare<double>("/" + measure.name, {"checkpoint", "layer", "expert"},
                            {layers, experts}, "1", measure.description);
    }
  }
}

void RoutingRecord::add(const StepReport& report, const StepSums& layout) {
  open_.resize(report.sums.extent(0) + 1, 0);
  // Sums by data source have their rows by step. Over an interval those of losses need not fit.
  const auto first = static_cast<std::size_t>(layout.layers_begin());
  if (!report.fault) {
    for (std::size_t i = first; i < report.sums.extent(0); ++i) open_[i] += report.sums(i);
    ++open_.back();
  }
  if (report.step % config_.statistics.every_steps == 0) close_interval(report.step, layout);
}

namespace {

// A layer's row, zeros where other layers have more: counts as they are, masses in tokens.
void add_padded(std::vector<std::int64_t>& row, const HostArray1<std::int64_t>& values,
                std::size_t width) {
  const std::size_t end = row.size() + width;
  row.insert(row.end(), values.data(), values.data() + values.size());
  row.resize(end, 0);
}
void add_padded(std::vector<double>& row, const HostArray1<std::int64_t>& values,
                std::size_t width) {
  const std::size_t end = row.size() + width;
  for (std::size_t i = 0; i < values.size(); ++i) {
    row.push_back(in_units(values(i), kernels::statistic_unit));
  }
  row.resize(end, 0);
}

}  // namespace

void RoutingRecord::close_interval(std::int64_t step, const StepSums& layout) {
  const HostArray1<std::int64_t> sums("interval sums", open_.size() - 1);
  std::copy(open_.begin(), open_.end() - 1, sums.data());
  const std::int64_t tokens =
      open_.back() * config_.batch.global_batch * config_.model.sequence_length;
  const auto experts = static_cast<std::size_t>(config_.most_destinations());
  const auto numbers = static_cast<std::size_t>(most_slots(config_)) + 1;
  std::vector<std::int64_t> counts, dropped, all_dropped, by_copies;
  std::vector<double> mass, gates, entropy, norm, balance_loss, z_loss, entropy_loss;
  for (Index layer = 0; layer < layout.moe_layers(); ++layer) {
    add_padded(counts, layout.counts(sums, layer), experts);
    add_padded(dropped, layout.dropped(sums, layer), experts);
    add_padded(mass, layout.affinity(sums, layer), experts);
    add_padded(gates, layout.gate(sums, layer), experts);
    add_padded(by_copies, layout.tokens_by_copies(sums, layer), numbers);
    all_dropped.push_back(std::accumulate(dropped.end() - static_cast<std::ptrdiff_t>(experts),
                                          dropped.end(), std::int64_t{0}));
    entropy.push_back(in_units(layout.entropy(sums, layer)(0), kernels::statistic_unit));
    norm.push_back(in_units(layout.logit_norm(sums, layer)(0), kernels::norm_unit));
    balance_loss.push_back(in_units(layout.router_loss(sums, layer)(0), kernels::mean_unit));
    z_loss.push_back(in_units(layout.router_loss(sums, layer)(1), kernels::mean_unit));
    entropy_loss.push_back(in_units(layout.router_loss(sums, layer)(2), kernels::mean_unit));
  }
  file_.append<std::int64_t>("/interval", {step});
  file_.append<std::int64_t>("/tokens", {tokens});
  file_.append("/expert_count", counts);
  file_.append("/expert_dropped", dropped);
  file_.append("/probability_mass", mass);
  file_.append("/gate_mass", gates);
  file_.append("/experts_per_token", by_copies);
  file_.append("/entropy", entropy);
  file_.append("/logit_norm", norm);
  file_.append("/dropped", all_dropped);
  file_.append("/balance_loss", balance_loss);
  file_.append("/z_loss", z_loss);
  file_.append("/entropy_loss", entropy_loss);
  std::fill(open_.begin(), open_.end(), 0);
}

void RoutingRecord::add_checkpoint(std::int64_t step, const std::vector<CounterTensor>& counts,
                                   const std::vector<std::int32_t>& probe,
                                   const std::vector<DriftMeasure>& drift) {
  file_.append<std::int64_t>("/checkpoint", {step});
  for (const CounterTensor& tensor : counts) file_.append("/" + tensor.name, tensor.values);
  if (!probe.empty()) file_.append("/probe_choice", probe);
  for (const DriftMeasure& measure : drift) file_.append("/" + measure.name, measure.values);
}

}  // namespace hearth
