// A run in which nothing moves: who is behind, and who says so. Pure logic, testable without MPI;
// docs/architecture.md, "A rank that hangs".
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hearth {

// One rank's sign of life. A thread of its own makes them, so that they go on while the rank's main
// thread waits or spins, and stop when the process is stopped, dead, or on a dead node.
struct Heartbeat {
  std::int64_t ticks = 0;        // signs so far
  std::int64_t silent_ms = 0;    // since the main thread last moved, by this rank's clock
  std::int64_t asleep_ms = 0;    // since the main thread last used its processor
  std::int64_t collectives = 0;  // collective operations entered by the main thread
  std::int64_t waiting = 0;      // 1: it is inside the last of them
  std::int64_t step = 0;         // at work on it; 0: before the first
  std::int64_t process = 0;
  std::int64_t over = 0;  // 1: this rank has ended the run
  char phase[48] = "";
  char host[80] = "";
};

// What one rank does about what it sees.
struct HangVerdict {
  enum class Act {
    wait,   // look again
    leave,  // the run is over, and another rank says why
    speak   // the run is over; this rank says why
  };
  Act act = Act::wait;
  std::string why = "";  // with `speak`
};

// Looks at all ranks' heartbeats again and again while the main thread of its own rank does not
// move. Clocks of different hosts are never compared: what counts is what is seen to change.
class HangJudge {
 public:
  // A rank whose ticks stand still for `patience_s` is stopped or dead; so long a verdict takes.
  HangJudge(int rank, double timeout_s, double patience_s)
      : rank_(rank), timeout_s_(timeout_s), patience_s_(patience_s) {}

  // `now`: by rank; `elapsed_s`: since the last look.
  HangVerdict look(const std::vector<Heartbeat>& now, double elapsed_s);

 private:
  [[nodiscard]] bool ticks(std::size_t rank) const { return still_s_[rank] < patience_s_; }
  [[nodiscard]] bool asleep(const Heartbeat& rank) const;
  [[nodiscard]] std::vector<int> behind(const std::vector<Heartbeat>& now) const;

  int rank_;
  double timeout_s_, patience_s_, watched_s_ = 0;
  std::vector<std::int64_t> last_ticks_;  // (ranks)
  std::vector<double> still_s_;           // (ranks): since ticks were seen to move
};

}  // namespace hearth
