// Which checkpoint a run resumes from.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"
#include "io/checkpoint_folder.hpp"

namespace hearth {

// What to say of a damaged checkpoint of step 0: no seed can replace the model that it held.
inline constexpr const char* damaged_origin =
    "; it is the model that this run began with, made of another: make it again, or give another "
    "run.output to begin anew";

struct ResumePoint {
  std::string path;
  CheckpointHeader header;
};

// The newest checkpoint before step `before` that opens and whose header can be read; none when
// there is none. Adds a line to `notes` for each one passed over. When the tensors of the one found
// turn out damaged, ask again with its step as `before`. Throws input_error when none can be read
// and one of them is of another format, for a run must not begin anew beside what is whole, or of
// step 0. The first rank only.
[[nodiscard]] std::optional<ResumePoint> find_resume_point(
    const CheckpointFolder& checkpoints, std::vector<std::string>& notes,
    std::int64_t before = std::numeric_limits<std::int64_t>::max());

}  // namespace hearth
