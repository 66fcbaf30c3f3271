// What the main thread is at, for a thread that watches it.
#pragma once

#include <atomic>
#include <cstdint>

namespace hearth {

// Written by the main thread alone, read by any.
class Pulse {
 public:
  struct Phase {
    const char* name = "start";  // a string literal
    bool files = false;          // what it reads and writes is progress too
  };

  // Returns the phase before, to be entered again at the end.
  Phase enter(Phase phase) {
    const Phase before{name_.load(relaxed), files_.load(relaxed)};
    name_.store(phase.name, relaxed);
    files_.store(phase.files, relaxed);
    beat();
    return before;
  }
  void enter_step(std::int64_t step) {
    step_.store(step, relaxed);
    beat();
  }

  // A collective operation, in which the main thread waits for other ranks until the end of the
  // scope. Every rank enters the same ones in the same order.
  class Collective {
   public:
    explicit Collective(Pulse& pulse) : pulse_(pulse) {
      pulse_.collectives_.store(pulse_.collectives_.load(relaxed) + 1, relaxed);
      pulse_.waiting_.store(true, relaxed);
      pulse_.beat();
    }
    ~Collective() {
      pulse_.waiting_.store(false, relaxed);
      pulse_.beat();
    }
    Collective(const Collective&) = delete;
    Collective& operator=(const Collective&) = delete;

   private:
    Pulse& pulse_;
  };

  struct Reading {
    std::int64_t beats = 0;        // moves with everything above
    std::int64_t collectives = 0;  // entered since the start
    bool waiting = false;          // inside the last of them
    std::int64_t step = 0;         // from 1; 0: before the first
    Phase phase;
  };
  [[nodiscard]] Reading read() const {
    return {beats_.load(relaxed),
            collectives_.load(relaxed),
            waiting_.load(relaxed),
            step_.load(relaxed),
            {name_.load(relaxed), files_.load(relaxed)}};
  }

 private:
  static constexpr auto relaxed = std::memory_order_relaxed;
  // One thread writes: a load and a store are enough.
  void beat() { beats_.store(beats_.load(relaxed) + 1, relaxed); }

  std::atomic<std::int64_t> beats_{0}, collectives_{0}, step_{0};
  std::atomic<bool> waiting_{false}, files_{false};
  std::atomic<const char*> name_{Phase().name};
};

// A phase that is not timed.
class PulsePhase {
 public:
  PulsePhase(Pulse& pulse, Pulse::Phase phase) : pulse_(pulse), before_(pulse.enter(phase)) {}
  ~PulsePhase() { pulse_.enter(before_); }
  PulsePhase(const PulsePhase&) = delete;
  PulsePhase& operator=(const PulsePhase&) = delete;

 private:
  Pulse& pulse_;
  Pulse::Phase before_;
};

}  // namespace hearth
