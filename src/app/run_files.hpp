// The statistics files of a run, all that it writes beside its checkpoints. On the first rank.
#pragma once

#include "app/run_record.hpp"
#include "app/trace_record.hpp"
#include "io/output_directory.hpp"

namespace hearth {

struct RunFiles {
  TrainingRecord training;
  RoutingRecord routing;
  TraceRecord traces;
  LabelledAttributes attributes;
  bool experts;  // a dense model has the first file alone

  // Rows up to and including `step`. Says on standard error which file is not there; throws failure
  // where one cannot be read.
  void read(const OutputDirectory& output, std::int64_t step);

  // Throws failure where a file cannot be written.
  void write(const OutputDirectory& output, const PhaseTimers& timers);
};

}  // namespace hearth
