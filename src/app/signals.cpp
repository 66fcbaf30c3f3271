#include "app/signals.hpp"

#include <csignal>
#include <initializer_list>

namespace hearth {

namespace {

// The only variable that outlives a call: a handler can reach nothing else.
volatile std::sig_atomic_t arrived = 0;

extern "C" void note_signal(int) {
  arrived = 1;
}

}  // namespace

void catch_stop_signals() {
  for (const int signal : {SIGUSR1, SIGTERM, SIGINT}) std::signal(signal, note_signal);
}

bool stop_signal_arrived() {
  return arrived != 0;
}

}  // namespace hearth
