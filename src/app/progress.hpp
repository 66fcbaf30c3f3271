// The progress of a run: a live line for people, metrics.jsonl for their dashboards.
#pragma once

#include <chrono>
#include <fstream>
#include <string>

#include "config/config.hpp"
#include "train/trainer.hpp"

namespace hearth {

// On the first rank only.
class Progress {
 public:
  // `file`: metrics.jsonl; lines of steps beyond `first_step` are dropped. Throws failure where it
  // cannot be written, and so does show().
  Progress(const Config& config, std::int64_t first_step, const std::string& file);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Shows a finished step; returns the seconds it took.
  double show(const StepReport& report, const StepSums& layout);

  // A line of its own.
  void say(const std::string& line);

 private:
  void log(const std::string& lines);

  Config config_;
  std::int64_t first_step_;
  bool live_;  // one line rewritten in place
  bool open_line_ = false;
  std::chrono::steady_clock::time_point start_, last_;
  std::string file_;
  std::ofstream metrics_;
};

// Largest load of an expert over the mean load, of the worst layer; 0 without experts.
[[nodiscard]] double busiest_over_mean(const StepReport& report, const StepSums& layout);

}  // namespace hearth
