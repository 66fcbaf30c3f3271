// A run from its first step to its last: steps, validation, statistics and checkpoints.
#pragma once

#include <chrono>
#include <memory>
#include <optional>

#include "app/deadline.hpp"
#include "app/probe.hpp"
#include "app/progress.hpp"
#include "app/run_files.hpp"
#include "app/run_state.hpp"
#include "base/error.hpp"

namespace hearth {

template <class T>
class TrainingRun {
 public:
  // What is given must outlive the run. `validation`: null where the data have none; `output`: null
  // except on the first rank. Collective, as is all that follows.
  TrainingRun(const Config& config, const Communicator& world, const Mesh& mesh,
              const Corpus& corpus, const Corpus* validation, const OutputDirectory* output);

  // The model and all that goes with it, from the newest good checkpoint or from the seed.
  void take_up();

  // Steps done, and the last one of this start.
  [[nodiscard]] std::int64_t step() const { return step_; }
  [[nodiscard]] std::int64_t end() const;

  // From the step taken up, which is before the end, to a checkpoint at the end or where the
  // deadline or a signal says so. `start_s`: seconds from launch, for people. Throws
  // CollectiveError with Status::failure where a step's loss or gradients are not fit and the deck
  // does not skip it; a checkpoint that was begun is finished then.
  Status train(const Deadline& deadline, double start_s);

 private:
  using Clock = std::chrono::steady_clock;

  void begin(const Deadline& deadline, double start_s);
  void train_until_stopped(const Deadline& deadline);
  void take_step();
  void validate();
  // Whether the deck wants a checkpoint after this step.
  [[nodiscard]] bool is_scheduled() const;
  void save();
  // Adds a row by checkpoint to routing.h5 where one is due; returns the counts that are open then.
  [[nodiscard]] std::vector<CounterTensor> add_row();
  void finish_checkpoint();
  void write_files();

  // What the ranks decide together after a step.
  struct Decision {
    bool stop;      // the deadline or a signal
    bool write;     // the statistics files are due
    bool finished;  // the checkpoint that was begun lies on the disk
  };
  [[nodiscard]] Decision decide(const Deadline& deadline) const;

  const Config& config_;
  const Communicator& world_;
  Pulse& pulse_;
  const Corpus& corpus_;
  const Corpus* validation_;
  const OutputDirectory* output_;
  const CheckpointFolder checkpoints_;
  CheckpointHeader header_;

  Trainer<T> trainer_;
  IntervalCounts counts_;  // since the last row by checkpoint
  const Probe probe_;
  std::optional<WeightDrift<T>> drift_;
  RunFiles files_;
  CheckpointWriter<Real<T>> writer_;
  std::optional<Progress> progress_;  // on the first rank

  std::int64_t step_ = 0;
  std::uint64_t checksum_ = 0;  // of the weights in the newest checkpoint
  Clock::time_point last_write_;
  double longest_step_s_ = 0;  // validation included
};

}  // namespace hearth
