#include "app/run_files.hpp"

#include <cstdio>

#include "base/error.hpp"

namespace hearth {

void RunFiles::read(const OutputDirectory& output, std::int64_t step) {
  const auto take = [&](auto& record, const std::string& file, const std::string& otherwise) {
    if (record.read(file, step)) return;
    std::fprintf(stderr, "%s is not there: %s\n", file.c_str(), otherwise.c_str());
  };
  const std::string lost = text("its rows up to step ", step, " are lost");
  take(training, output.file("training.h5"), lost);
  if (!experts) return;
  take(routing, output.file("routing.h5"), lost);
  const std::string file = output.file("traces.h5");
  if (traces.is_kept(file)) take(traces, file, text("it begins after step ", step));
}

void RunFiles::write(const OutputDirectory& output, const PhaseTimers& timers) {
  training.write(output.file("training.h5"), attributes, timers);
  if (!experts) return;
  routing.write(output.file("routing.h5"), attributes);
  const std::string file = output.file("traces.h5");
  if (traces.is_kept(file)) traces.write(file, attributes);
}

}  // namespace hearth
