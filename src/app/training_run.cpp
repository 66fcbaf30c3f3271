#include "app/training_run.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <iomanip>
#include <sstream>

#include "app/signals.hpp"

namespace hearth {

namespace {

// Seconds between two versions of the statistics files while no checkpoint is due.
constexpr double statistics_period_s = 60;

std::string validation_line(std::int64_t step, const std::vector<SourceLoss>& losses) {
  const SourceLoss all = all_sources(losses);
  if (all.tokens == 0) return "validation: the split has no whole sequence";
  std::ostringstream line;
  line << std::fixed << std::setprecision(4) << "validation after step " << step << ": loss "
       << all.loss;
  for (const SourceLoss& source : losses) line << ", " << source.name << " " << source.loss;
  return line.str();
}

// Whether a run goes on after `skipped` steps.
bool may_skip(const OptimizerConfig& optimizer, const SkippedSteps& skipped) {
  return optimizer.on_non_finite == "skip" && skipped.in_a_row < optimizer.skip_limit;
}

std::string stop_line(const OptimizerConfig& optimizer, std::int64_t step, const std::string& why) {
  const bool skips = optimizer.on_non_finite == "skip";
  return text("step ", step, ": ", why,
              skips ? text("; step ", optimizer.skip_limit, " in a row, as many as ",
                           "optimizer.skip_limit allows")
                    : text(""),
              "; lower optimizer.learning_rate, look at the data",
              skips ? "" : ", or set optimizer.on_non_finite = skip");
}

}  // namespace

template <class T>
TrainingRun<T>::TrainingRun(const Config& config, const Communicator& world, const Mesh& mesh,
                            const Corpus& corpus, const Corpus* validation,
                            const OutputDirectory* output)
    : config_(config),
      world_(world),
      pulse_(*world.pulse()),
      corpus_(corpus),
      validation_(validation),
      output_(output),
      checkpoints_(config.run.output),
      header_(run_header(config, mesh, corpus.identity())),
      trainer_(config, mesh, corpus.sources()),
      counts_(config, corpus.sources()),
      probe_(config, validation, world),
      files_{TrainingRecord(config, mesh.grid, corpus.names()),
             RoutingRecord(config, corpus.names(), probe_.tokens()),
             TraceRecord(config, corpus.names()),
             {{"deck", header_.deck},
              {"version", header_.version},
              {"revision", header_.revision},
              {"data_identity", header_.data_identity}},
             config.moe_layers() > 0},
      writer_(world, config.checkpoint.background ? WriteTime::beside : WriteTime::at_once) {
  if (config.statistics.drift && files_.experts) {
    drift_.emplace(config, trainer_.parameters(), trainer_.optimizer(), world);
  }
}

template <class T>
std::int64_t TrainingRun<T>::end() const {
  const RunConfig& run = config_.run;
  return run.stop_step > 0 ? std::min(run.stop_step, run.steps) : run.steps;
}

template <class T>
void TrainingRun<T>::take_up() {
  pulse_.enter({"resume", true});
  const auto resumed = resume(config_, header_.data_identity, world_, checkpoints_, trainer_,
                              &counts_, drift_ ? &*drift_ : nullptr);
  if (resumed) {
    step_ = resumed->step;
    world_.together([&] {
      if (!world_.is_first()) return;
      std::fprintf(stderr, "resumed from %s at step %lld\n", resumed->path.c_str(),
                   static_cast<long long>(step_));
      // A model that was made of another begins at step 0, without rows.
      if (step_ > 0) files_.read(*output_, step_);
      files_.routing.set_open_interval(resumed->open_interval);
    });
  } else {
    world_.together([&] {
      if (!world_.is_first() || checkpoints_.list().empty()) return;
      std::fprintf(stderr, "no checkpoint in %s is good: the run starts from its seed\n",
                   checkpoints_.path().c_str());
    });
    pulse_.enter({"initial weights"});
    trainer_.optimizer().initialize();
    if (drift_) drift_->mark();
  }
  pulse_.enter({"training"});
}

template <class T>
Status TrainingRun<T>::train(const Deadline& deadline, double start_s) {
  begin(deadline, start_s);
  try {
    train_until_stopped(deadline);
  } catch (const CollectiveError&) {
    // All ranks are here: a checkpoint that was begun is worth finishing. Should that fail too, the
    // first error is the one to report.
    try {
      finish_checkpoint();
    } catch (const CollectiveError&) {
    }
    throw;
  }
  if (world_.is_first()) {
    progress_->say(text("step ", step_, ", weights checksum ", checksum_text(checksum_)));
    progress_->say("checkpoint " + checkpoints_.file(step_));
  }
  return step_ == config_.run.steps ? Status::done : Status::requeue;
}

template <class T>
void TrainingRun<T>::begin(const Deadline& deadline, double start_s) {
  world_.together([&] {
    if (!world_.is_first()) return;
    for (const std::string& aside : output_->set_aside_beyond(step_)) {
      std::fprintf(stderr, "set aside, since the run goes on from step %lld: %s\n",
                   static_cast<long long>(step_), aside.c_str());
    }
    progress_.emplace(config_, step_, output_->file("metrics.jsonl"));
    progress_->say(text(header_.decomposition, "; first step after ",
                        static_cast<long>(1000 * start_s), " ms"));
    if (const auto about = deadline.about_job()) progress_->say(*about);
  });
  last_write_ = Clock::now();
}

template <class T>
void TrainingRun<T>::train_until_stopped(const Deadline& deadline) {
  while (true) {
    const Clock::time_point start = Clock::now();
    take_step();
    validate();
    const std::chrono::duration<double> step_s = Clock::now() - start;
    longest_step_s_ = std::max(longest_step_s_, step_s.count());

    const Decision decision = decide(deadline);
    if (decision.finished) finish_checkpoint();
    const bool last = decision.stop || step_ == end();
    if (last || is_scheduled()) {
      save();
    } else if (decision.write) {
      write_files();
    }
    if (!last) continue;
    finish_checkpoint();
    return;
  }
}

template <class T>
void TrainingRun<T>::take_step() {
  std::optional<StepTrace> trace = files_.traces.begin(step_ + 1);
  const StepReport report =
      trainer_.step(trainer_.load(corpus_, step_), step_, &counts_, trace ? &*trace : nullptr);
  if (report.fault) {
    const std::string why = describe(*report.fault, trainer_.parameters().table(), corpus_.names());
    if (!may_skip(config_.optimizer, trainer_.optimizer().skipped())) {
      throw CollectiveError(static_cast<int>(Status::failure),
                            stop_line(config_.optimizer, report.step, why));
    }
    if (world_.is_first()) progress_->say(text("step ", report.step, " skipped: ", why));
  }
  ++step_;
  const auto phase = trainer_.timers().phase("statistics");
  // Like other statistics: of a step that changed no weight nothing is kept.
  const bool traced = trace && !report.fault;
  if (traced) trace->collect(world_);
  world_.together([&] {
    if (!world_.is_first()) return;
    files_.training.add(report, trainer_.sums(), progress_->show(report, trainer_.sums()));
    files_.routing.add(report, trainer_.sums());
    if (traced) files_.traces.add(step_, *trace);
  });
}

template <class T>
void TrainingRun<T>::validate() {
  const std::int64_t every = config_.evaluate.every_steps;
  const bool due = step_ == config_.run.steps || (every > 0 && step_ % every == 0);
  if (validation_ == nullptr || !due) return;
  const auto losses = trainer_.evaluate(*validation_, config_.evaluate.batches);
  files_.training.add_validation(step_, losses);
  if (world_.is_first()) progress_->say(validation_line(step_, losses));
}

// Every rank must come to the same decision: the clocks, signals and writers are any rank's.
template <class T>
typename TrainingRun<T>::Decision TrainingRun<T>::decide(const Deadline& deadline) const {
  const std::chrono::duration<double> since_write = Clock::now() - last_write_;
  const bool stop = deadline.reached(longest_step_s_) || stop_signal_arrived();
  std::array<std::int64_t, 3> ranks_that = {stop ? 1 : 0,
                                            since_write.count() > statistics_period_s ? 1 : 0,
                                            writer_.is_written() ? 0 : 1};
  world_.sum(ranks_that);
  const auto [stopping, writing, unfinished] = ranks_that;
  return {stopping > 0, writing > 0, unfinished == 0};
}

template <class T>
bool TrainingRun<T>::is_scheduled() const {
  return step_ % config_.checkpoint.every_steps == 0 || step_ == config_.run.steps;
}

template <class T>
void TrainingRun<T>::save() {
  const PulsePhase phase(pulse_, {"checkpoint", true});
  finish_checkpoint();  // the one before
  std::vector<CounterTensor> open_counts = add_row();
  write_files();  // first: a checkpoint never stands without its rows
  header_.step = step_;
  checksum_ = begin_save(writer_, checkpoints_.file(step_), header_, trainer_,
                         OpenStatistics<T>{files_.routing.open_interval(), std::move(open_counts),
                                           drift_ ? &*drift_ : nullptr, !is_scheduled()});
  if (!config_.checkpoint.background) finish_checkpoint();
}

// The deck's checkpoints have a row of statistics each. A stop between two of them leaves its
// counts in its checkpoint, so that no row depends on where a run was stopped.
template <class T>
std::vector<CounterTensor> TrainingRun<T>::add_row() {
  const auto phase = trainer_.timers().phase("row of statistics");
  std::vector<CounterTensor> open_counts = collect(counts_, world_);
  if (!is_scheduled()) return open_counts;
  const std::vector<std::int32_t> choices = probe_.choices(trainer_);
  std::vector<DriftMeasure> moved;
  if (drift_) {
    moved = drift_->measure();
    drift_->mark();
  }
  world_.together([&] {
    if (world_.is_first()) files_.routing.add_checkpoint(step_, open_counts, choices, moved);
  });
  counts_.clear();
  return {};
}

template <class T>
void TrainingRun<T>::finish_checkpoint() {
  if (!writer_.is_open()) return;
  const PulsePhase phase(pulse_, {"checkpoint", true});
  writer_.finish();
  world_.together([&] {
    if (world_.is_first()) output_->prune(config_.checkpoint.keep);
  });
}

template <class T>
void TrainingRun<T>::write_files() {
  const auto timed = trainer_.timers().phase("statistics files");
  const PulsePhase phase(pulse_, {"statistics files", true});
  world_.together([&] {
    if (world_.is_first()) files_.write(*output_, trainer_.timers());
  });
  last_write_ = Clock::now();
}

template class TrainingRun<float>;
template class TrainingRun<double>;
template class TrainingRun<bfloat16>;

}  // namespace hearth
