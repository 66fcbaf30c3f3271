// What the statistics files hold: kept on the first rank, written as a whole. The layout of the
// files is in docs/file_formats.md.
#pragma once

#include <string>
#include <vector>

#include "config/config.hpp"
#include "io/checkpoint.hpp"
#include "io/labelled_file.hpp"
#include "train/trainer.hpp"

namespace hearth {

// Rows of equal width that grow one by one.
template <class T>
struct Rows {
  Index width = 1;
  std::vector<T> values;
  template <class Range>
  void append(const Range& row) {
    values.insert(values.end(), std::begin(row), std::end(row));
  }
  [[nodiscard]] Index count() const { return static_cast<Index>(values.size()) / width; }
};

// training.h5: a row for every step, and for every validation.
class TrainingRecord {
 public:
  explicit TrainingRecord(std::vector<std::string> sources);

  void add(const StepReport& report, const StepSums& layout, double seconds);
  void add_validation(std::int64_t step, const std::vector<SourceLoss>& losses);
  // The file's rows up to and including `step`; later ones belong to a course not taken.
  void read(const std::string& path, std::int64_t step);
  void write(const std::string& path, const LabelledAttributes& attributes,
             const PhaseTimers& timers) const;

 private:
  std::vector<std::string> sources_;
  Rows<std::int64_t> step_, tokens_, source_tokens_;
  Rows<double> loss_, cross_entropy_, balance_loss_, z_loss_, learning_rate_, gradient_norm_;
  Rows<double> source_loss_, step_seconds_;
  Rows<std::int64_t> validation_step_, validation_tokens_;
  Rows<double> validation_loss_;
};

// routing.h5: a row for every interval of statistics.every_steps, and for every checkpoint.
class RoutingRecord {
 public:
  RoutingRecord(const Config& config, std::vector<std::string> sources);

  // Adds a step to the open interval; closes it where the step is a multiple of every_steps.
  void add(const StepReport& report, const StepSums& layout);

  // Adds a row by checkpoint: the counts since the row before, in the datasets of their names, and
  // (layers, probe tokens, k) experts chosen for the probe with the current weights.
  void add_checkpoint(std::int64_t step, const std::vector<CounterTensor>& counts,
                      const std::vector<std::int32_t>& probe);
  void set_probe_tokens(std::vector<std::int32_t> tokens) { probe_tokens_ = std::move(tokens); }

  void read(const std::string& path, std::int64_t step);
  void write(const std::string& path, const LabelledAttributes& attributes) const;

  // The open interval, for the checkpoint: sums of the steps so far, and their number.
  [[nodiscard]] const std::vector<std::int64_t>& open_interval() const { return open_; }
  void set_open_interval(std::vector<std::int64_t> sums) { open_ = std::move(sums); }

 private:
  void close_interval(std::int64_t step, const StepSums& layout);

  Config config_;
  std::vector<std::string> sources_;
  std::vector<std::int64_t> open_;  // (values of StepSums + 1): the last is the number of steps
  Rows<std::int64_t> interval_, tokens_, counts_, dropped_;
  Rows<double> mass_, entropy_, balance_loss_, z_loss_;
  Rows<std::int64_t> checkpoint_, pairs_, source_counts_, token_counts_;
  Rows<std::int32_t> probe_;
  std::vector<std::int32_t> probe_tokens_;
};

}  // namespace hearth
