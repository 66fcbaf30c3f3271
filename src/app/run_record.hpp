// What the statistics files hold: kept on the first rank, written as a whole. The layout of the
// files is in docs/file_formats.md.
#pragma once

#include <string>
#include <vector>

#include "config/config.hpp"
#include "io/checkpoint.hpp"
#include "io/growing_file.hpp"
#include "train/trainer.hpp"
#include "train/weight_drift.hpp"

namespace hearth {

// training.h5: a row for every step, and for every validation.
class TrainingRecord {
 public:
  TrainingRecord(const Config& config, const RankGrid& grid,
                 const std::vector<std::string>& sources);

  void add(const StepReport& report, const StepSums& layout, double seconds);
  void add_validation(std::int64_t step, const std::vector<SourceLoss>& losses);
  // The file's rows up to and including `step`; false where there is no file.
  bool read(const std::string& path, std::int64_t step) { return file_.read(path, step); }
  void write(const std::string& path, const LabelledAttributes& attributes,
             const PhaseTimers& timers);

 private:
  void declare_layout(const Config& config);

  GrowingFile file_;
  RankGrid grid_;
  bool has_experts_;
};

// routing.h5: a row for every interval of statistics.every_steps, and for every checkpoint.
class RoutingRecord {
 public:
  // `probe_tokens`: token ids of the fixed probe set.
  RoutingRecord(const Config& config, const std::vector<std::string>& sources,
                const std::vector<std::int32_t>& probe_tokens);

  // Adds a step to the open interval, unless it was skipped; closes it where the step is a multiple
  // of every_steps.
  void add(const StepReport& report, const StepSums& layout);

  // Adds a row by checkpoint: the counts since the row before, in the datasets of their names;
  // (layers, probe tokens, k) experts chosen for the probe with the current weights; and, with
  // statistics.drift, how far the weights moved.
  void add_checkpoint(std::int64_t step, const std::vector<CounterTensor>& counts,
                      const std::vector<std::int32_t>& probe,
                      const std::vector<DriftMeasure>& drift);

  bool read(const std::string& path, std::int64_t step) { return file_.read(path, step); }
  void write(const std::string& path, const LabelledAttributes& attributes) const {
    file_.write(path, attributes);
  }

  // The open interval, for the checkpoint: sums of the steps so far, and their number.
  [[nodiscard]] const std::vector<std::int64_t>& open_interval() const { return open_; }
  void set_open_interval(std::vector<std::int64_t> sums) { open_ = std::move(sums); }

 private:
  void close_interval(std::int64_t step, const StepSums& layout);

  Config config_;
  GrowingFile file_;
  std::vector<std::int64_t> open_;  // (values of StepSums + 1): the last is the number of steps
};

}  // namespace hearth
