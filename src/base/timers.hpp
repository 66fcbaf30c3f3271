// Wall time by named phase. Each phase is a Kokkos profiling region too, so that any Kokkos tool
// shows the same names.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>

#include "base/pulse.hpp"

namespace hearth {

class PhaseTimers {
 public:
  // Phases are entered in `pulse` too.
  explicit PhaseTimers(std::shared_ptr<Pulse> pulse = std::make_shared<Pulse>())
      : pulse_(std::move(pulse)) {}

  // Counts the time from its construction to its destruction. Phases may nest; an outer phase's
  // time includes its inner ones.
  class Scope {
   public:
    Scope(PhaseTimers& timers, const char* name);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    double& total_s_;
    PulsePhase pulse_;
    std::chrono::steady_clock::time_point start_;
  };

  [[nodiscard]] Scope phase(const char* name) { return {*this, name}; }

  // Seconds by phase since construction, in the names' alphabetical order.
  [[nodiscard]] const std::map<std::string, double>& totals_s() const { return totals_s_; }

 private:
  std::shared_ptr<Pulse> pulse_;
  std::map<std::string, double> totals_s_;
};

}  // namespace hearth
