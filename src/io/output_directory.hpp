// The folder that one run writes, and the lock that keeps a second run out. The first rank only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/checkpoint_folder.hpp"

namespace hearth {

class OutputDirectory {
 public:
  // Makes the folder and its checkpoints/, takes the lock and removes what an earlier run left
  // half written. Throws input_error where the folder cannot be written, or where another run
  // that may be alive holds the lock. A lock of this host whose process is gone is taken over, and
  // that of an earlier start of the same Slurm job, on whatever host: it may have died with its
  // node.
  explicit OutputDirectory(const std::string& path);
  // Releases the lock.
  ~OutputDirectory();
  OutputDirectory(const OutputDirectory&) = delete;
  OutputDirectory& operator=(const OutputDirectory&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  // "<path>/<name>".
  [[nodiscard]] std::string file(const std::string& name) const;
  [[nodiscard]] const CheckpointFolder& checkpoints() const { return checkpoints_; }

  // Removes all but the `keep` newest checkpoints; 0 keeps all.
  void prune(std::int64_t keep) const;

  // Renames the checkpoints beyond `step` to <name>.aside, for good: damaged ones, or those of a
  // course not taken. Neither the next start nor pruning then takes them for the newest. Returns
  // the new paths, newest first.
  std::vector<std::string> set_aside_beyond(std::int64_t step) const;

 private:
  void take_lock();
  void remove_temporary_files() const;

  std::string path_;
  std::string lock_;     // the lock file
  std::string content_;  // what it says while this run holds it
  CheckpointFolder checkpoints_;
};

}  // namespace hearth
