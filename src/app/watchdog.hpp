// Ends a run that hangs: docs/architecture.md, "A rank that hangs".
#pragma once

#include <condition_variable>
#include <ctime>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "io/heartbeat_file.hpp"
#include "parallel/communicator.hpp"

namespace hearth {

// From construction to destruction a thread of each rank writes the rank's heartbeat, and where its
// main thread has not moved for `timeout_s` looks at those of the others. Where nothing moves
// anywhere, one rank says on standard error who is behind, and all processes end with status 1.
class Watchdog {
 public:
  // `file`: where all ranks can write; made here, removed at the end. 0 s: nothing is watched.
  // Collective.
  Watchdog(const Communicator& world, const std::string& file, double timeout_s);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  void start();
  void stop();
  void watch(clockid_t main_thread_time);

  int rank_;
  std::shared_ptr<Pulse> pulse_;
  HeartbeatFile file_;
  double timeout_s_;
  std::mutex mutex_;
  std::condition_variable end_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace hearth
