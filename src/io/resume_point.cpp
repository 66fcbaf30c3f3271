#include "io/resume_point.hpp"

#include "base/error.hpp"

namespace hearth {

std::optional<ResumePoint> find_resume_point(const CheckpointFolder& checkpoints,
                                             std::vector<std::string>& notes, std::int64_t before) {
  std::optional<OtherFormat> other;
  std::optional<std::string> origin;
  for (const CheckpointFolder::Entry& checkpoint : checkpoints.list()) {
    if (checkpoint.step >= before) continue;
    try {
      return ResumePoint{checkpoint.path, read_checkpoint_header(checkpoint.path)};
    } catch (const OtherFormat& error) {
      if (!other) other = error;
      notes.push_back(text(error.what(), "; passed over"));
    } catch (const Error& error) {
      notes.push_back(text(error.what(), "; passed over"));
      if (checkpoint.step == 0) origin = error.what();
    }
  }
  if (other) {
    throw input_error(other->what(), "; go on with the Hearth that wrote it, ",
                      "or give another run.output to begin anew");
  }
  if (origin) {
    throw input_error(*origin, damaged_origin);
  }
  return std::nullopt;
}

}  // namespace hearth
