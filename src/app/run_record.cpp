#include "app/run_record.hpp"

#include <sys/resource.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <numeric>

#include "base/error.hpp"

namespace hearth {

namespace {

constexpr double absent = std::numeric_limits<double>::quiet_NaN();

double in_units(std::int64_t value, double unit) {
  return static_cast<double>(value) * unit;
}

template <class T>
LabelledArray array(const std::string& path, std::vector<Index> dims, std::vector<std::string> axes,
                    const std::string& units, const std::string& description,
                    const std::vector<T>& values, bool compress = false) {
  return {path, std::move(dims), std::move(axes), units, description, values, compress};
}

template <class T>
LabelledArray column(const std::string& path, const std::string& axis, const std::string& units,
                     const std::string& description, const Rows<T>& rows) {
  return array(path, {rows.count()}, {axis}, units, description, rows.values);
}

const LabelledArray* find(const LabelledFile& file, const std::string& path) {
  for (const LabelledArray& candidate : file.arrays) {
    if (candidate.path == path || candidate.path == "/" + path) return &candidate;
  }
  return nullptr;
}

// Puts the first `count` rows of a dataset, if the file has it, into `rows`.
template <class T>
void restore(const LabelledFile& file, const std::string& path, Index count, Rows<T>& rows) {
  const LabelledArray* found = find(file, path);
  if (found == nullptr) return;
  const auto* values = std::get_if<std::vector<T>>(&found->values);
  const auto wanted = static_cast<std::size_t>(count * rows.width);
  if (values == nullptr || values->size() < wanted) {
    throw input_error(path, " of the statistics file has another type or fewer rows than expected");
  }
  rows.values.assign(values->begin(), values->begin() + static_cast<std::ptrdiff_t>(wanted));
}

// Rows of a time axis up to and including `step`.
Index rows_until(const LabelledFile& file, const std::string& axis, std::int64_t step) {
  const LabelledArray* found = find(file, axis);
  if (found == nullptr) return 0;
  Index count = 0;
  for (const std::int64_t at : std::get<std::vector<std::int64_t>>(found->values)) {
    count += at <= step ? 1 : 0;
  }
  return count;
}

}  // namespace

TrainingRecord::TrainingRecord(std::vector<std::string> sources) : sources_(std::move(sources)) {
  const auto width = static_cast<Index>(sources_.size());
  source_tokens_.width = source_loss_.width = width;
  validation_tokens_.width = validation_loss_.width = width;
}

void TrainingRecord::add(const StepReport& report, const StepSums& layout, double seconds) {
  step_.values.push_back(report.step);
  tokens_.values.push_back(report.tokens);
  loss_.values.push_back(report.loss);
  cross_entropy_.values.push_back(report.cross_entropy);
  balance_loss_.values.push_back(report.balance_loss);
  z_loss_.values.push_back(report.z_loss);
  learning_rate_.values.push_back(report.learning_rate);
  gradient_norm_.values.push_back(report.gradient_norm);
  step_seconds_.values.push_back(seconds);
  for (Index s = 0; s < layout.sources(); ++s) {
    const std::int64_t count = layout.tokens(report.sums)(s);
    const double sum = in_units(layout.loss(report.sums)(s), kernels::statistic_unit);
    source_tokens_.values.push_back(count);
    source_loss_.values.push_back(count == 0 ? absent : sum / static_cast<double>(count));
  }
}

void TrainingRecord::add_validation(std::int64_t step, const std::vector<SourceLoss>& losses) {
  validation_step_.values.push_back(step);
  for (const SourceLoss& source : losses) {
    validation_tokens_.values.push_back(source.tokens);
    validation_loss_.values.push_back(source.tokens == 0 ? absent : source.loss);
  }
}

void TrainingRecord::read(const std::string& path, std::int64_t step) {
  if (!std::filesystem::exists(path)) return;
  const LabelledFile file = read_labelled_file(path);
  const Index rows = rows_until(file, "step", step);
  restore(file, "step", rows, step_);
  restore(file, "tokens", rows, tokens_);
  restore(file, "loss", rows, loss_);
  restore(file, "cross_entropy", rows, cross_entropy_);
  restore(file, "balance_loss", rows, balance_loss_);
  restore(file, "z_loss", rows, z_loss_);
  restore(file, "learning_rate", rows, learning_rate_);
  restore(file, "gradient_norm", rows, gradient_norm_);
  restore(file, "source_loss", rows, source_loss_);
  restore(file, "source_tokens", rows, source_tokens_);
  restore(file, "timing/step_seconds", rows, step_seconds_);
  const Index validations = rows_until(file, "validation_step", step);
  restore(file, "validation_step", validations, validation_step_);
  restore(file, "validation_loss", validations, validation_loss_);
  restore(file, "validation_tokens", validations, validation_tokens_);
}

void TrainingRecord::write(const std::string& path, const LabelledAttributes& attributes,
                           const PhaseTimers& timers) const {
  const Index rows = step_.count(), validations = validation_step_.count();
  const auto sources = static_cast<Index>(sources_.size());
  const std::string nats = "nats/token";
  std::vector<std::string> phases;
  std::vector<double> phase_s;
  for (const auto& [name, seconds] : timers.totals_s()) {
    phases.push_back(name);
    phase_s.push_back(seconds);
  }
  const auto phase_count = static_cast<Index>(phases.size());
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const std::vector<std::int64_t> peak_bytes = {usage.ru_maxrss * 1024L};
  write_labelled_file(
      path, attributes,
      {column("/step", "step", "steps", "optimizer steps done", step_),
       array("/source", {sources}, {"source"}, "1", "names of the data sources", sources_),
       column("/tokens", "step", "tokens", "target tokens of the step", tokens_),
       column("/loss", "step", nats, "cross-entropy + balance loss + z loss", loss_),
       column("/cross_entropy", "step", nats, "mean over the step's target tokens", cross_entropy_),
       column("/balance_loss", "step", "1", "coefficient included, summed over layers",
              balance_loss_),
       column("/z_loss", "step", "1", "coefficient included, summed over layers", z_loss_),
       column("/learning_rate", "step", "1", "of the step's update", learning_rate_),
       column("/gradient_norm", "step", "1", "of the whole gradient, before clipping",
              gradient_norm_),
       array("/source_loss", {rows, sources}, {"step", "source"}, nats,
             "mean cross-entropy of each source's tokens; NaN where it had none",
             source_loss_.values),
       array("/source_tokens", {rows, sources}, {"step", "source"}, "tokens",
             "target tokens of each source", source_tokens_.values),
       column("/validation_step", "validation_step", "steps", "when validation was done",
              validation_step_),
       array("/validation_loss", {validations, sources}, {"validation_step", "source"}, nats,
             "mean cross-entropy on the validation split; NaN where it is empty",
             validation_loss_.values),
       array("/validation_tokens", {validations, sources}, {"validation_step", "source"}, "tokens",
             "target tokens of the validation", validation_tokens_.values),
       column("/timing/step_seconds", "step", "s", "wall time of the step", step_seconds_),
       array("/timing/phase", {phase_count}, {"phase"}, "1", "names of phases; they may nest",
             phases),
       array("/timing/seconds", {phase_count}, {"phase"}, "s",
             "wall time of the first rank since the program started", phase_s),
       array("/timing/peak_memory_bytes", {1}, {"process"}, "bytes",
             "largest resident size of the first rank", peak_bytes)});
}

RoutingRecord::RoutingRecord(const Config& config, std::vector<std::string> sources)
    : config_(config), sources_(std::move(sources)) {
  const Index layers = config.moe_layers(), experts = config.moe.experts;
  counts_.width = mass_.width = layers * experts;
  entropy_.width = dropped_.width = balance_loss_.width = z_loss_.width = layers;
  pairs_.width = layers * experts * experts;
  source_counts_.width = layers * static_cast<Index>(sources_.size()) * experts;
  token_counts_.width = layers * config.model.vocabulary * experts;
}

void RoutingRecord::add(const StepReport& report, const StepSums& layout) {
  open_.resize(report.sums.extent(0) + 1, 0);
  for (std::size_t i = 0; i < report.sums.extent(0); ++i) open_[i] += report.sums(i);
  ++open_.back();
  if (report.step % config_.statistics.every_steps == 0) close_interval(report.step, layout);
}

void RoutingRecord::close_interval(std::int64_t step, const StepSums& layout) {
  const HostArray1<std::int64_t> sums("interval sums", open_.size() - 1);
  std::copy(open_.begin(), open_.end() - 1, sums.data());
  const std::int64_t tokens =
      open_.back() * config_.batch.global_batch * config_.model.sequence_length;
  interval_.values.push_back(step);
  tokens_.values.push_back(tokens);
  for (Index layer = 0; layer < layout.moe_layers(); ++layer) {
    std::int64_t copies = 0;
    for (Index e = 0; e < layout.experts(); ++e) {
      copies += layout.counts(sums, layer)(e);
      counts_.values.push_back(layout.counts(sums, layer)(e));
      mass_.values.push_back(in_units(layout.mass(sums, layer)(e), kernels::statistic_unit));
    }
    dropped_.values.push_back(tokens * config_.moe.top_k - copies);
    entropy_.values.push_back(in_units(layout.entropy(sums, layer)(0), kernels::statistic_unit));
    balance_loss_.values.push_back(
        in_units(layout.router_loss(sums, layer)(0), kernels::mean_unit));
    z_loss_.values.push_back(in_units(layout.router_loss(sums, layer)(1), kernels::mean_unit));
  }
  std::fill(open_.begin(), open_.end(), 0);
}

void RoutingRecord::add_checkpoint(std::int64_t step, const std::vector<CounterTensor>& counts,
                                   const std::vector<std::int32_t>& probe) {
  checkpoint_.values.push_back(step);
  for (const CounterTensor& tensor : counts) {
    if (tensor.name == "coactivation") pairs_.append(tensor.values);
    if (tensor.name == "source_expert_count") source_counts_.append(tensor.values);
    if (tensor.name == "token_expert_count") token_counts_.append(tensor.values);
  }
  probe_.append(probe);
}

void RoutingRecord::read(const std::string& path, std::int64_t step) {
  if (!std::filesystem::exists(path)) return;
  const LabelledFile file = read_labelled_file(path);
  const Index rows = rows_until(file, "interval", step);
  restore(file, "interval", rows, interval_);
  restore(file, "tokens", rows, tokens_);
  restore(file, "expert_count", rows, counts_);
  restore(file, "dropped", rows, dropped_);
  restore(file, "probability_mass", rows, mass_);
  restore(file, "entropy", rows, entropy_);
  restore(file, "balance_loss", rows, balance_loss_);
  restore(file, "z_loss", rows, z_loss_);
  const Index checkpoints = rows_until(file, "checkpoint", step);
  restore(file, "checkpoint", checkpoints, checkpoint_);
  restore(file, "coactivation", checkpoints, pairs_);
  restore(file, "source_expert_count", checkpoints, source_counts_);
  restore(file, "token_expert_count", checkpoints, token_counts_);
  probe_.width =
      config_.moe_layers() * static_cast<Index>(probe_tokens_.size()) * config_.moe.top_k;
  restore(file, "probe_choice", checkpoints, probe_);
}

void RoutingRecord::write(const std::string& path, const LabelledAttributes& attributes) const {
  const Index layers = config_.moe_layers(), experts = config_.moe.experts;
  const auto sources = static_cast<Index>(sources_.size());
  const auto probes = static_cast<Index>(probe_tokens_.size());
  const Index rows = interval_.count(), checkpoints = checkpoint_.count();
  std::vector<std::int64_t> layer_numbers(static_cast<std::size_t>(layers)),
      expert_numbers(static_cast<std::size_t>(experts));
  std::iota(layer_numbers.begin(), layer_numbers.end(), config_.moe.dense_layers);
  std::iota(expert_numbers.begin(), expert_numbers.end(), 0);
  std::vector<LabelledArray> arrays = {
      column("/interval", "interval", "steps", "last step of each interval; rows are sums over it",
             interval_),
      column("/checkpoint", "checkpoint", "steps",
             "step of each checkpoint; rows are sums since the one before", checkpoint_),
      array("/layer", {layers}, {"layer"}, "1", "block of each MoE layer, from 0", layer_numbers),
      array("/expert", {experts}, {"expert"}, "1", "logical number of the expert", expert_numbers),
      array("/source", {sources}, {"source"}, "1", "names of the data sources", sources_),
      column("/tokens", "interval", "tokens", "tokens routed in each layer", tokens_),
      array("/expert_count", {rows, layers, experts}, {"interval", "layer", "expert"}, "tokens",
            "token copies sent to each expert", counts_.values),
      array("/probability_mass", {rows, layers, experts}, {"interval", "layer", "expert"}, "tokens",
            "sum over tokens of the router's softmax", mass_.values),
      array("/entropy", {rows, layers}, {"interval", "layer"}, "nats",
            "sum over tokens of the softmax's entropy", entropy_.values),
      array("/dropped", {rows, layers}, {"interval", "layer"}, "tokens",
            "token copies that no expert received", dropped_.values),
      array("/balance_loss", {rows, layers}, {"interval", "layer"}, "1",
            "sum over steps, coefficient included", balance_loss_.values),
      array("/z_loss", {rows, layers}, {"interval", "layer"}, "1",
            "sum over steps, coefficient included", z_loss_.values),
      array("/coactivation", {checkpoints, layers, experts, experts},
            {"checkpoint", "layer", "expert", "expert_with"}, "tokens",
            "tokens sent to both experts; the diagonal counts those sent to one", pairs_.values,
            true),
      array("/source_expert_count", {checkpoints, layers, sources, experts},
            {"checkpoint", "layer", "source", "expert"}, "tokens",
            "token copies of each data source sent to each expert", source_counts_.values, true)};
  if (config_.statistics.token_counts) {
    arrays.push_back(
        array("/token_expert_count", {checkpoints, layers, config_.model.vocabulary, experts},
              {"checkpoint", "layer", "token", "expert"}, "tokens",
              "copies of each token id sent to each expert", token_counts_.values, true));
  }
  if (probes > 0) {
    arrays.push_back(array("/probe_token", {probes}, {"probe"}, "1",
                           "token ids of the fixed probe set", probe_tokens_));
    arrays.push_back(array("/probe_choice", {checkpoints, layers, probes, config_.moe.top_k},
                           {"checkpoint", "layer", "probe", "k"}, "1",
                           "experts chosen with the checkpoint's weights, ascending", probe_.values,
                           true));
  }
  write_labelled_file(path, attributes, arrays);
}

}  // namespace hearth
