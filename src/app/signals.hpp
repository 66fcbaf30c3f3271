// Requests to stop: signals that job schedulers send, and the deck's wall-clock limit.
#pragma once

namespace hearth {

// From now on SIGUSR1, SIGTERM, SIGINT and SIGHUP ask for a stop at the end of the step instead of
// killing the process; one that arrives before the first step asks for a stop after it. SIGHUP
// stays ignored where it is, and SIGPIPE is.
void catch_stop_signals();

// Whether one arrived at this rank.
[[nodiscard]] bool stop_signal_arrived();

}  // namespace hearth
