// traces.h5: where training sent single tokens, at some steps. Kept on the first rank and written
// as a whole; the layout is in docs/file_formats.md.
#pragma once

#include <optional>

#include "config/config.hpp"
#include "io/growing_file.hpp"
#include "model/step_trace.hpp"

namespace hearth {

class TraceRecord {
 public:
  TraceRecord(const Config& config, const std::vector<std::string>& sources);

  // For the step that makes it `step` steps done to fill; none: it is not traced.
  [[nodiscard]] std::optional<StepTrace> begin(std::int64_t step) const;

  // Adds a row: what was collected after `step` steps.
  void add(std::int64_t step, const StepTrace& trace);

  // Whether the run has such a file: it traces, or did before it was taken up.
  [[nodiscard]] bool is_kept(const std::string& path) const;
  bool read(const std::string& path, std::int64_t step) { return file_.read(path, step); }
  // Nothing happens where the file is as it was written last.
  void write(const std::string& path, const LabelledAttributes& attributes);

 private:
  Config config_;
  std::vector<Index> layers_;  // traced, numbers among the layers with experts
  Index slots_ = 0;            // the most of them
  GrowingFile file_;
  bool is_written_ = false;
};

// What the first rank holds of traces when the last row is written: the step's own, and the rows of
// the whole run, in memory that grows by doubling.
[[nodiscard]] double trace_bytes(const Config& config);

}  // namespace hearth
