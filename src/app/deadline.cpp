#include "app/deadline.hpp"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.hpp"

namespace hearth {

namespace {

// Seconds until the end of the Slurm job.
std::optional<double> seconds_of_job() {
  const char* const variable = std::getenv("SLURM_JOB_END_TIME");
  if (variable == nullptr) return std::nullopt;
  const std::string_view value(variable);
  std::int64_t end_s = 0;  // since 1970
  const auto parsed = std::from_chars(value.data(), value.data() + value.size(), end_s);
  if (parsed.ec != std::errc() || parsed.ptr != value.data() + value.size()) {
    throw input_error("environment variable SLURM_JOB_END_TIME: found '", value,
                      "'; expected the end of the job in seconds since 1970");
  }
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<double>(end_s) - now.count();
}

}  // namespace

Deadline::Deadline(const RunConfig& run)
    : start_(Clock::now()),
      walltime_s_(run.walltime_s),
      margin_s_(run.walltime_margin_s),
      job_s_(seconds_of_job()) {}

bool Deadline::reached(double step_s) const {
  const double elapsed_s = std::chrono::duration<double>(Clock::now() - start_).count();
  if (walltime_s_ > 0 && elapsed_s >= walltime_s_) return true;
  return job_s_ && elapsed_s + step_s + margin_s_ >= *job_s_;
}

std::optional<std::string> Deadline::about_job() const {
  if (!job_s_) return std::nullopt;
  return text("the Slurm job ends in ", std::llround(*job_s_), " s; the run stops ", margin_s_,
              " s and a step before that (run.walltime_margin_s)");
}

}  // namespace hearth
