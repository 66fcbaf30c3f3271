#include "app/watchdog.hpp"

#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <optional>

#include "base/error.hpp"

namespace hearth {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point a, Clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

// Seconds from one heartbeat to the next, and without one before a rank counts as stopped.
double period_s(double timeout_s) {
  return std::clamp(timeout_s / 20, 0.02, 10.0);
}
double patience_s(double timeout_s) {
  return 3 * period_s(timeout_s) + 0.05 * std::min(timeout_s, 20.0);
}

// Bytes that a process or thread has read and written so far; 0 where the system does not say.
std::int64_t bytes_moved(const std::string& file) {
  std::ifstream stream(file);
  std::string name;
  std::int64_t value = 0, sum = 0;
  while (stream >> name >> value) {
    if (name != "cancelled_write_bytes:") sum += value;
  }
  return sum;
}

void copy_text(const char* from, char* to, std::size_t size) {
  std::strncpy(to, from, size - 1);
}

// How long the main thread has not moved, and how long it has not used its processor. Time that
// this thread itself does not see, because the process was suspended or the machine is overloaded,
// does not count.
class Silence {
 public:
  // `main_thread_time`: a clock that runs while the main thread does.
  explicit Silence(clockid_t main_thread_time) : main_thread_time_(main_thread_time) {}

  // Returns the seconds since the last call that count.
  double update(const Pulse::Reading& now, double most_s) {
    const Clock::time_point time = Clock::now();
    const double elapsed_s = std::min(seconds_between(time_, time), most_s);
    time_ = time;
    bool moved = now.beats != beats_;
    beats_ = now.beats;
    if (now.phase.files) {
      // This thread's own reading and writing is no progress.
      const std::int64_t bytes = bytes_moved("/proc/self/io") - bytes_moved("/proc/thread-self/io");
      moved = moved || bytes != bytes_;
      bytes_ = bytes;
    }
    seconds_ = moved ? 0 : seconds_ + elapsed_s;
    timespec used{};
    clock_gettime(main_thread_time_, &used);
    const bool ran = used.tv_sec != used_.tv_sec || used.tv_nsec != used_.tv_nsec;
    used_ = used;
    asleep_s_ = ran ? 0 : asleep_s_ + elapsed_s;
    return elapsed_s;
  }
  [[nodiscard]] double seconds() const { return seconds_; }
  [[nodiscard]] double asleep_s() const { return asleep_s_; }

 private:
  clockid_t main_thread_time_;
  Clock::time_point time_ = Clock::now();
  std::int64_t beats_ = -1, bytes_ = -1;
  timespec used_{};
  double seconds_ = 0, asleep_s_ = 0;
};

// Who this process is and where its main thread is, before the first tick.
Heartbeat first_heartbeat(const Pulse::Reading& now) {
  Heartbeat heartbeat;
  heartbeat.process = getpid();
  gethostname(heartbeat.host, sizeof heartbeat.host - 1);
  heartbeat.step = now.step;
  copy_text(now.phase.name, heartbeat.phase, sizeof heartbeat.phase);
  return heartbeat;
}

// Not through stdio, whose lock the main thread holds if it stands still in the midst of a line;
// and not where that is because nobody reads.
void say(const std::string& line) {
  pollfd standard_error{STDERR_FILENO, POLLOUT, 0};
  if (poll(&standard_error, 1, 1000) != 1) return;
  const std::string all = text("hearth: ", line, "\n");
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, all.data(), all.size());
}

[[noreturn]] void end_process() {
  // Not exit(): what it would destroy is in use by the main thread.
  _exit(static_cast<int>(Status::failure));
}

}  // namespace

Watchdog::Watchdog(const Communicator& world, const std::string& file, double timeout_s)
    : rank_(world.rank()), pulse_(world.pulse()), file_(file, world.size()), timeout_s_(timeout_s) {
  if (timeout_s == 0) return;
  try {
    world.together([&] {
      if (world.is_first()) file_.create();
      start();  // before the ranks meet: one may never come
    });
  } catch (...) {
    stop();
    throw;
  }
  // A rank that is stopped from now on can be named.
  (void)file_.write(rank_, first_heartbeat(pulse_->read()));
}

Watchdog::~Watchdog() {
  if (!thread_.joinable()) return;
  stop();
  if (rank_ == 0) file_.remove();
}

void Watchdog::start() {
  // Signals stay with the main thread, whose calls they interrupt.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  clockid_t main_thread_time = CLOCK_MONOTONIC;  // where it has none, it counts as awake
  pthread_getcpuclockid(pthread_self(), &main_thread_time);
  thread_ = std::thread([this, main_thread_time] { watch(main_thread_time); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Watchdog::stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  end_.notify_all();
  thread_.join();
}

void Watchdog::watch(clockid_t main_thread_time) {
  const double period = period_s(timeout_s_), patience = patience_s(timeout_s_);
  Heartbeat mine = first_heartbeat(pulse_->read());
  Silence silence(main_thread_time);
  std::optional<HangJudge> judge;
  std::vector<Heartbeat> all;
  std::unique_lock lock(mutex_);
  while (!end_.wait_for(lock, std::chrono::duration<double>(period), [this] { return ended_; })) {
    const Pulse::Reading now = pulse_->read();
    const double elapsed_s = silence.update(now, 2 * period);
    ++mine.ticks;
    mine.silent_ms = static_cast<std::int64_t>(1e3 * silence.seconds());
    mine.asleep_ms = static_cast<std::int64_t>(1e3 * silence.asleep_s());
    mine.collectives = now.collectives;
    mine.waiting = now.waiting ? 1 : 0;
    mine.step = now.step;
    copy_text(now.phase.name, mine.phase, sizeof mine.phase);
    const bool written = file_.write(rank_, mine);

    if (silence.seconds() < std::max(timeout_s_ - patience, period)) {
      judge.reset();
      continue;
    }
    if (!judge) judge.emplace(rank_, timeout_s_, patience);
    if (!written || !file_.read(all)) {
      if (silence.seconds() < timeout_s_ + patience) continue;
      say(text("rank ", rank_, " (", mine.host, ", process ", mine.process,
               ") has made no progress for ", std::lround(silence.seconds()), " s in phase \"",
               mine.phase, "\" of step ", mine.step, ", and ", file_.path(),
               " cannot be read and written; ended by run.hang_timeout_s = ", timeout_s_));
      end_process();
    }
    const HangVerdict verdict = judge->look(all, elapsed_s);
    if (verdict.act == HangVerdict::Act::wait) continue;
    if (verdict.act == HangVerdict::Act::speak) {
      say(verdict.why);
      mine.over = 1;
      (void)file_.write(rank_, mine);
    }
    end_process();
  }
}

}  // namespace hearth
