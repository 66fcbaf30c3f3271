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
  // A terminal that is closed; nohup has it ignored, and so it stays.
  if (std::signal(SIGHUP, note_signal) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);
  // Whoever read the output is gone, but the run goes on.
  std::signal(SIGPIPE, SIG_IGN);
}

bool stop_signal_arrived() {
  return arrived != 0;
}

}  // namespace hearth
