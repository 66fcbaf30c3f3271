#include <array>
#include <chrono>
#include <cstdio>
#include <iomanip>
#include <sstream>

#include "app/commands.hpp"
#include "app/deadline.hpp"
#include "app/probe.hpp"
#include "app/progress.hpp"
#include "app/run_state.hpp"
#include "app/signals.hpp"
#include "app/trace_record.hpp"
#include "app/watchdog.hpp"
#include "io/output_directory.hpp"
#include "model/compute_type.hpp"

namespace hearth {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Seconds between two versions of the statistics files while no checkpoint is due.
constexpr double statistics_period_s = 60;

// Everything that a run writes beside its checkpoints; on the first rank.
struct Records {
  TrainingRecord training;
  RoutingRecord routing;
  TraceRecord traces;
  LabelledAttributes attributes;

  // Rows up to and including `step`.
  void read(const OutputDirectory& output, std::int64_t step, bool experts) {
    const auto take = [&](auto& record, const std::string& file) {
      if (record.read(file, step)) return;
      std::fprintf(stderr, "%s is not there: its rows up to step %lld are lost\n", file.c_str(),
                   static_cast<long long>(step));
    };
    take(training, output.file("training.h5"));
    if (!experts) return;
    take(routing, output.file("routing.h5"));
    const std::string file = output.file("traces.h5");
    if (traces.is_kept(file) && !traces.read(file, step)) {
      std::fprintf(stderr, "%s is not there: it begins after step %lld\n", file.c_str(),
                   static_cast<long long>(step));
    }
  }

  void write(const OutputDirectory& output, const PhaseTimers& timers, bool experts) {
    training.write(output.file("training.h5"), attributes, timers);
    if (!experts) return;
    routing.write(output.file("routing.h5"), attributes);
    const std::string file = output.file("traces.h5");
    if (traces.is_kept(file)) traces.write(file, attributes);
  }
};

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

template <class T>
Status train(const Config& config, const Communicator& world) {
  const Clock::time_point start = Clock::now();
  std::optional<Deadline> deadline;
  world.together([&] { deadline.emplace(config.run); });

  // 1. Data and layout: whatever is wrong with them is said before anything is written.
  const Mesh mesh(world, config);
  std::optional<Corpus> corpus, validation;
  world.together([&] {
    corpus.emplace(parse_sources(config.data.sources), config.data.split, Split::train,
                   config.model.sequence_length, config.run.steps * config.batch.global_batch,
                   config.run.seed, parse_order(config.data.order));
    if (SplitShares(config.data.split).has(Split::validation)) {
      validation.emplace(corpus->one_pass(Split::validation));
    }
    (void)copies_by_source(config, mesh.sources, corpus->names());
  });

  // 2. The output directory, locked for this run.
  const CheckpointFolder checkpoints(config.run.output);
  std::unique_ptr<OutputDirectory> output;
  world.together([&] {
    if (world.is_first()) output = std::make_unique<OutputDirectory>(config.run.output);
  });
  Pulse& pulse = *world.pulse();
  const Watchdog watchdog(world, config.run.output + "/heartbeat", config.run.hang_timeout_s);

  // 3. The model, from a checkpoint or from the seed.
  Trainer<T> trainer(config, mesh, corpus->sources());
  IntervalCounts counts(config, corpus->sources());
  const Probe probe(config, validation ? &*validation : nullptr, world);
  CheckpointHeader header = run_header(config, mesh, corpus->identity());
  Records records{TrainingRecord(config, mesh.grid, corpus->names()),
                  RoutingRecord(config, corpus->names(), probe.tokens()),
                  TraceRecord(config, corpus->names()),
                  {{"deck", header.deck},
                   {"version", header.version},
                   {"revision", header.revision},
                   {"data_identity", header.data_identity}}};
  std::optional<WeightDrift<T>> drift;
  if (config.statistics.drift && config.moe_layers() > 0) {
    drift.emplace(config, trainer.parameters(), trainer.optimizer(), world);
  }
  std::int64_t step = 0;
  pulse.enter({"resume", true});
  if (const auto resumed = resume(config, header.data_identity, world, checkpoints, trainer,
                                  &counts, drift ? &*drift : nullptr)) {
    step = resumed->step;
    world.together([&] {
      if (!world.is_first()) return;
      std::fprintf(stderr, "resumed from %s at step %lld\n", resumed->path.c_str(),
                   static_cast<long long>(step));
      // A model that was made of another begins at step 0, without rows.
      if (step > 0) records.read(*output, step, config.moe_layers() > 0);
      records.routing.set_open_interval(resumed->open_interval);
    });
  } else {
    world.together([&] {
      if (!world.is_first() || checkpoints.list().empty()) return;
      std::fprintf(stderr, "no checkpoint in %s is good: the run starts from its seed\n",
                   checkpoints.path().c_str());
    });
    pulse.enter({"initial weights"});
    trainer.optimizer().initialize();
    if (drift) drift->mark();
  }
  pulse.enter({"training"});
  const std::int64_t end = config.run.stop_step > 0
                               ? std::min(config.run.stop_step, config.run.steps)
                               : config.run.steps;
  if (step >= end) {
    if (world.is_first()) {
      std::fprintf(stderr, "nothing to do: step %lld of %lld is done\n",
                   static_cast<long long>(step), static_cast<long long>(end));
    }
    return Status::done;
  }
  std::optional<Progress> progress;
  world.together([&] {
    if (!world.is_first()) return;
    for (const std::string& aside : output->set_aside_beyond(step)) {
      std::fprintf(stderr, "set aside, since the run goes on from step %lld: %s\n",
                   static_cast<long long>(step), aside.c_str());
    }
    progress.emplace(config, step, output->file("metrics.jsonl"));
    progress->say(text(header.decomposition, "; first step after ",
                       static_cast<long>(1000 * seconds_since(start)), " ms"));
    if (const auto about = deadline->about_job()) progress->say(*about);
  });

  // The deck's checkpoints have a row of statistics each. A stop between two of them leaves its
  // counts in its checkpoint, so that no row depends on where a run was stopped.
  const auto scheduled = [&] {
    return step % config.checkpoint.every_steps == 0 || step == config.run.steps;
  };
  CheckpointWriter<Real<T>> writer(
      world, config.checkpoint.background ? WriteTime::beside : WriteTime::at_once);
  std::uint64_t checksum = 0;  // of the weights in the newest checkpoint
  const auto finish_checkpoint = [&] {
    if (!writer.is_open()) return;
    const PulsePhase phase(pulse, {"checkpoint", true});
    writer.finish();
    world.together([&] {
      if (world.is_first()) output->prune(config.checkpoint.keep);
    });
  };
  // Returns the counts that are open then.
  const auto add_row = [&]() -> std::vector<CounterTensor> {
    const auto phase = trainer.timers().phase("row of statistics");
    std::vector<CounterTensor> open_counts = collect(counts, world);
    if (!scheduled()) return open_counts;
    const std::vector<std::int32_t> choices = probe.choices(trainer);
    std::vector<DriftMeasure> moved;
    if (drift) {
      moved = drift->measure();
      drift->mark();
    }
    world.together([&] {
      if (world.is_first()) records.routing.add_checkpoint(step, open_counts, choices, moved);
    });
    counts.clear();
    return {};
  };
  const auto checkpoint = [&] {
    const PulsePhase phase(pulse, {"checkpoint", true});
    finish_checkpoint();  // the one before
    std::vector<CounterTensor> open_counts = add_row();
    // Statistics before the checkpoint: a checkpoint never stands without its rows.
    world.together([&] {
      if (world.is_first()) records.write(*output, trainer.timers(), config.moe_layers() > 0);
    });
    header.step = step;
    checksum = begin_save(writer, checkpoints.file(step), header, trainer,
                          OpenStatistics<T>{records.routing.open_interval(), std::move(open_counts),
                                            drift ? &*drift : nullptr, !scheduled()});
    if (!config.checkpoint.background) finish_checkpoint();
  };

  // 4. The steps.
  Clock::time_point last_write = Clock::now();
  double longest_step_s = 0;  // validation included
  try {
    while (true) {
      const Clock::time_point step_start = Clock::now();
      std::optional<StepTrace> trace = records.traces.begin(step + 1);
      const StepReport report =
          trainer.step(trainer.load(*corpus, step), step, &counts, trace ? &*trace : nullptr);
      if (report.fault) {
        const std::string why =
            describe(*report.fault, trainer.parameters().table(), corpus->names());
        if (!may_skip(config.optimizer, trainer.optimizer().skipped())) {
          throw CollectiveError(static_cast<int>(Status::failure),
                                stop_line(config.optimizer, report.step, why));
        }
        if (world.is_first()) progress->say(text("step ", report.step, " skipped: ", why));
      }
      ++step;
      // Like other statistics: of a step that changed no weight nothing is kept.
      const bool traced = trace && !report.fault;
      if (traced) trace->collect(world);

      world.together([&] {
        if (!world.is_first()) return;
        records.training.add(report, trainer.sums(), progress->show(report, trainer.sums()));
        records.routing.add(report, trainer.sums());
        if (traced) records.traces.add(step, *trace);
      });
      if (validation && (step == config.run.steps || (config.evaluate.every_steps > 0 &&
                                                      step % config.evaluate.every_steps == 0))) {
        const auto losses = trainer.evaluate(*validation, config.evaluate.batches);
        records.training.add_validation(step, losses);
        if (world.is_first()) progress->say(validation_line(step, losses));
      }

      // Every rank must come to the same decision: the clocks, signals and writers are any rank's.
      longest_step_s = std::max(longest_step_s, seconds_since(step_start));
      const bool late = deadline->reached(longest_step_s);
      const bool write_due = seconds_since(last_write) > statistics_period_s;
      std::array<std::int64_t, 3> ranks_that = {late || stop_signal_arrived() ? 1 : 0,
                                                write_due ? 1 : 0, writer.is_written() ? 0 : 1};
      world.sum(ranks_that);
      const auto [stop, wish, writing] = ranks_that;
      if (writing == 0) finish_checkpoint();
      if (step == end || stop > 0 || scheduled()) {
        checkpoint();
        last_write = Clock::now();
        if (step == end || stop > 0) {
          finish_checkpoint();
          break;
        }
      } else if (wish > 0) {
        const PulsePhase phase(pulse, {"statistics files", true});
        world.together([&] {
          if (world.is_first()) records.write(*output, trainer.timers(), config.moe_layers() > 0);
        });
        last_write = Clock::now();
      }
    }
  } catch (const CollectiveError&) {
    // All ranks are here: a checkpoint that was begun is worth finishing. Should that fail too, the
    // first error is the one to report.
    try {
      finish_checkpoint();
    } catch (const CollectiveError&) {
    }
    throw;
  }

  // 5. What a person wants to know at the end.
  if (world.is_first()) {
    progress->say(text("step ", step, ", weights checksum ", checksum_text(checksum)));
    progress->say("checkpoint " + checkpoints.file(step));
  }
  return step == config.run.steps ? Status::done : Status::requeue;
}

}  // namespace

Status train_command(const Config& config, const Communicator& world) {
  return with_compute_type(config.model,
                           [&](auto type) { return train<decltype(type)>(config, world); });
}

}  // namespace hearth
