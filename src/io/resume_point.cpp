#include "io/resume_point.hpp"

#include "base/error.hpp"

namespace hearth {

std::optional<ResumePoint> find_resume_point(const CheckpointFolder& checkpoints,
                                             std::vector<std::string>& notes, std::int64_t before) {
  for (const CheckpointFolder::Entry& checkpoint : checkpoints.list()) {
    if (checkpoint.step >= before) continue;
    try {
      return ResumePoint{checkpoint.path, read_checkpoint_header(checkpoint.path)};
    } catch (const Error& error) {
      notes.push_back(text(error.what(), "; passed over"));
    }
  }
  return std::nullopt;
}

}  // namespace hearth
