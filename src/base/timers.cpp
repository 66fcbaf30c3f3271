#include "base/timers.hpp"

#include <Kokkos_Core.hpp>

namespace hearth {

PhaseTimers::Scope::Scope(PhaseTimers& timers, const char* name)
    : total_s_(timers.totals_s_[name]),
      pulse_(*timers.pulse_, {name}),
      start_(std::chrono::steady_clock::now()) {
  Kokkos::Profiling::pushRegion(name);
}

PhaseTimers::Scope::~Scope() {
  Kokkos::Profiling::popRegion();
  total_s_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

}  // namespace hearth
