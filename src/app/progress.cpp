#include "app/progress.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "base/error.hpp"
#include "io/replace_file.hpp"
#include "model/weights_checksum.hpp"

namespace hearth {

namespace {

// A rank's standard error is no terminal under mpirun: the launcher may say that it shows one.
bool is_live() {
  const char* live = std::getenv("HEARTH_LIVE");
  return live != nullptr ? std::string(live) == "1" : isatty(STDERR_FILENO) != 0;
}

// The lines of an earlier run up to and including `step`. A line starts {"step": N,
std::string kept_lines(const std::string& file, std::int64_t step) {
  std::ifstream stream(file);
  std::string kept, line;
  while (std::getline(stream, line)) {
    const auto colon = line.find(": ");
    if (colon == std::string::npos || line.back() != '}') continue;
    if (std::atoll(line.c_str() + colon + 2) <= step) kept += line + "\n";
  }
  return kept;
}

// JSON has no word for not-a-number.
std::string json_number(double value) {
  if (!std::isfinite(value)) return "null";
  std::ostringstream stream;
  stream.precision(10);
  stream << value;
  return stream.str();
}

std::string clock_text(double seconds) {
  char text[32];
  const auto s = static_cast<long>(seconds + 0.5);
  std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
  return text;
}

}  // namespace

double busiest_over_mean(const StepReport& report, const StepSums& layout) {
  double worst = 0;
  for (Index layer = 0; layer < layout.moe_layers(); ++layer) {
    std::int64_t most = 0, all = 0;
    for (Index e = 0; e < layout.experts(layer); ++e) {
      const std::int64_t count = layout.counts(report.sums, layer)(e);
      most = std::max(most, count);
      all += count;
    }
    if (all > 0) {
      const double mean = static_cast<double>(all) / static_cast<double>(layout.experts(layer));
      worst = std::max(worst, static_cast<double>(most) / mean);
    }
  }
  return worst;
}

Progress::Progress(const Config& config, std::int64_t first_step, const std::string& file)
    : config_(config),
      first_step_(first_step),
      live_(is_live()),
      start_(std::chrono::steady_clock::now()),
      last_(start_),
      file_(file) {
  const std::string kept = kept_lines(file, first_step);
  metrics_.open(temporary_name(file), std::ios::trunc);
  log(kept);
  publish(temporary_name(file), file);
}

void Progress::log(const std::string& lines) {
  metrics_ << lines << std::flush;
  if (!metrics_) throw failure(file_, ": cannot be written: ", std::strerror(errno));
}

Progress::~Progress() {
  if (open_line_) std::fputc('\n', stderr);
}

double Progress::show(const StepReport& report, const StepSums& layout) {
  const auto now = std::chrono::steady_clock::now();
  const double step_s = std::chrono::duration<double>(now - last_).count();
  const double elapsed_s = std::chrono::duration<double>(now - start_).count();
  last_ = now;
  const std::int64_t last_step = config_.run.stop_step > 0
                                     ? std::min(config_.run.stop_step, config_.run.steps)
                                     : config_.run.steps;
  const auto done = static_cast<double>(report.step - first_step_);
  const double left_s = elapsed_s / done * static_cast<double>(last_step - report.step);
  const double tokens_per_s = static_cast<double>(report.tokens) / step_s;
  const double busiest = busiest_over_mean(report, layout);

  std::ostringstream json;
  json << "{\"step\": " << report.step;
  const std::pair<const char*, double> numbers[] = {{"loss", report.loss},
                                                    {"cross_entropy", report.cross_entropy},
                                                    {"balance_loss", report.balance_loss},
                                                    {"z_loss", report.z_loss},
                                                    {"entropy_loss", report.entropy_loss},
                                                    {"learning_rate", report.learning_rate},
                                                    {"gradient_norm", report.gradient_norm},
                                                    {"tokens", static_cast<double>(report.tokens)},
                                                    {"tokens_per_s", tokens_per_s},
                                                    {"busiest_over_mean", busiest},
                                                    {"skipped", report.fault ? 1 : 0}};
  for (const auto& [name, value] : numbers) {
    json << ", \"" << name << "\": " << json_number(value);
  }
  json << ", \"weights_checksum\": \"" << checksum_text(report.weights_checksum) << "\"}\n";
  log(json.str());

  const bool due = report.step % config_.run.log_every == 0 || report.step == last_step;
  if (!live_ && !due) return step_s;
  char line[160], load[48] = "";
  if (config_.moe_layers() > 0) {
    std::snprintf(load, sizeof load, "  busiest expert %.2f x mean", busiest);
  }
  std::snprintf(line, sizeof line, "step %lld/%lld  %s %.4f  %.0f tokens/s  %s left%s",
                static_cast<long long>(report.step), static_cast<long long>(config_.run.steps),
                report.fault ? "skipped, loss" : "loss", report.loss, tokens_per_s,
                clock_text(left_s).c_str(), load);
  std::fprintf(stderr, live_ ? "\r%-100s" : "%s\n", line);
  std::fflush(stderr);
  open_line_ = live_;
  return step_s;
}

void Progress::say(const std::string& line) {
  if (open_line_) std::fputc('\n', stderr);
  open_line_ = false;
  std::fprintf(stderr, "%s\n", line.c_str());
}

}  // namespace hearth
