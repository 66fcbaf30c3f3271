// The checkpoints of a run's output folder, by name. Looks, and changes nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hearth {

class CheckpointFolder {
 public:
  // "<output>/checkpoints", which need not be there.
  explicit CheckpointFolder(const std::string& output);

  [[nodiscard]] const std::string& path() const { return path_; }
  // "<output>/checkpoints/step_<8 digits>.h5".
  [[nodiscard]] std::string file(std::int64_t step) const;

  struct Entry {
    std::int64_t step;
    std::string path;
  };
  // Newest first; none where there is no folder. Throws input_error where it cannot be read.
  [[nodiscard]] std::vector<Entry> list() const;

 private:
  std::string path_;
};

}  // namespace hearth
