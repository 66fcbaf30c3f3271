// The ranks' heartbeats, in a file that all can reach: a page for each rank, which it alone writes.
// Out of band of MPI, which a rank that hangs cannot use.
#pragma once

#include <string>
#include <vector>

#include "parallel/hang.hpp"

namespace hearth {

class HeartbeatFile {
 public:
  HeartbeatFile(std::string path, int ranks) : path_(std::move(path)), ranks_(ranks) {}

  // One rank alone, before any writes: an empty heartbeat for each. Throws failure.
  void create() const;
  void remove() const;

  // Each opens the file anew, so that a network file system passes on what others wrote. False: it
  // cannot be done now.
  [[nodiscard]] bool write(int rank, const Heartbeat& heartbeat) const;
  [[nodiscard]] bool read(std::vector<Heartbeat>& heartbeats) const;  // (ranks)

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
  int ranks_;
};

}  // namespace hearth
