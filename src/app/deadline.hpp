// When the clock ends a run: the deck's limit, and the end of the Slurm job that it is part of.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "config/config.hpp"

namespace hearth {

class Deadline {
 public:
  // Time counts from here. Reads SLURM_JOB_END_TIME (seconds since 1970), which Slurm 23.11 and the
  // job scripts set; throws input_error where it says something else.
  explicit Deadline(const RunConfig& run);

  // Whether to stop now, after a step: run.walltime_s has passed, or a next step of `step_s` might
  // end less than run.walltime_margin_s before the end of the Slurm job.
  [[nodiscard]] bool reached(double step_s) const;

  // What a person should know about the Slurm job's end; none outside of a job.
  [[nodiscard]] std::optional<std::string> about_job() const;

 private:
  using Clock = std::chrono::steady_clock;

  Clock::time_point start_;
  double walltime_s_;            // of the deck; 0: no limit
  double margin_s_;              // between the last step and the end of the job
  std::optional<double> job_s_;  // from the start to the end of the job
};

}  // namespace hearth
