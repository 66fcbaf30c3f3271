// A folder that all ranks know, and work on some of them.
#pragma once

#include <optional>
#include <string>

#include "parallel/communicator.hpp"
#include "unit/data/fixture.hpp"

namespace hearth::fixture {

// A temporary folder of the first rank, known to all, gone when all have left.
class SharedFolder {
 public:
  SharedFolder() {
    if (world_.is_first()) folder_.emplace();
    path_ = world_.broadcast(folder_ ? *folder_ / "" : "");
  }
  ~SharedFolder() { world_.barrier(); }
  SharedFolder(const SharedFolder&) = delete;
  SharedFolder& operator=(const SharedFolder&) = delete;
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + name; }

 private:
  Communicator world_ = Communicator::world();
  std::optional<TemporaryFolder> folder_;
  std::string path_;
};

// Runs work(world of the first `ranks` ranks) on those ranks; all wait for it.
template <class Work>
void on_ranks(int ranks, const Work& work) {
  const Communicator all = Communicator::world();
  const Communicator part = all.split(all.rank() < ranks ? 0 : 1);
  if (all.rank() < ranks) work(part);
  all.barrier();
}

}  // namespace hearth::fixture
