#include "parallel/hang.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"

namespace hearth {

namespace {

double seconds(std::int64_t milliseconds) {
  return 1e-3 * static_cast<double>(milliseconds);
}

std::string place_of(const Heartbeat& rank) {
  if (rank.process == 0) return "the start of the run";
  const std::string phase = text("phase \"", rank.phase, "\"");
  return rank.step == 0 ? phase + " before the first step" : text(phase, " of step ", rank.step);
}

std::string name_of(int rank, const Heartbeat& heartbeat) {
  if (heartbeat.process == 0) return text("rank ", rank, " (which never came so far)");
  return text("rank ", rank, " (", heartbeat.host, ", process ", heartbeat.process, ")");
}

}  // namespace

bool HangJudge::asleep(const Heartbeat& rank) const {
  return seconds(rank.asleep_ms) >= timeout_s_ / 2;
}

// The ranks that the others wait for; empty: none, all wait alike.
std::vector<int> HangJudge::behind(const std::vector<Heartbeat>& now) const {
  std::vector<int> stopped, last, computing, sleeping;
  std::int64_t fewest = now[0].collectives;
  for (const Heartbeat& rank : now) fewest = std::min(fewest, rank.collectives);
  for (int rank = 0; rank < static_cast<int>(now.size()); ++rank) {
    const auto r = static_cast<std::size_t>(rank);
    if (!ticks(r)) stopped.push_back(rank);
    // Ranks enter the same operations in the same order: who has entered fewest keeps the others
    // waiting, most of all one that is in none. Who waits for messages looks for them again and
    // again; a main thread that does not even do that stands still inside the operation.
    if (now[r].collectives > fewest) continue;
    last.push_back(rank);
    if (now[r].waiting == 0) computing.push_back(rank);
    if (asleep(now[r])) sleeping.push_back(rank);
  }
  if (!stopped.empty()) return stopped;
  const std::vector<int>& found = !computing.empty()  ? computing
                                  : !sleeping.empty() ? sleeping
                                                      : last;
  const bool alike = now.size() > 1 && found.size() == now.size();
  return alike ? std::vector<int>() : found;
}

HangVerdict HangJudge::look(const std::vector<Heartbeat>& now, double elapsed_s) {
  using Act = HangVerdict::Act;
  const bool first = last_ticks_.empty();
  last_ticks_.resize(now.size());
  still_s_.resize(now.size());
  for (std::size_t r = 0; r < now.size(); ++r) {
    const bool moved = first || now[r].ticks != last_ticks_[r];
    still_s_[r] = moved ? 0 : still_s_[r] + elapsed_s;
    last_ticks_[r] = now[r].ticks;
  }
  if (std::any_of(now.begin(), now.end(), [](const Heartbeat& h) { return h.over != 0; })) {
    return {Act::leave};
  }
  watched_s_ += first ? 0 : elapsed_s;
  if (watched_s_ < patience_s_) return {Act::wait};
  // As long as one rank moves, the others may rightly wait for it.
  for (std::size_t r = 0; r < now.size(); ++r) {
    if (ticks(r) && seconds(now[r].silent_ms) < timeout_s_) return {Act::wait};
  }

  const std::vector<int> blamed = behind(now);
  const auto is_blamed = [&](int rank) {
    return std::find(blamed.begin(), blamed.end(), rank) != blamed.end();
  };
  int speaker = -1;
  for (int rank = 0; rank < static_cast<int>(now.size()); ++rank) {
    if (!ticks(static_cast<std::size_t>(rank))) continue;
    if (speaker < 0 || (is_blamed(speaker) && !is_blamed(rank))) speaker = rank;
  }
  if (speaker != rank_) return {Act::wait};

  const double silent_s = seconds(now[static_cast<std::size_t>(rank_)].silent_ms);
  std::string why;
  if (blamed.empty()) {
    why =
        text("all ranks have waited for ", std::lround(silent_s), " s, none is behind the others; ",
             name_of(rank_, now[static_cast<std::size_t>(rank_)]), " in ",
             place_of(now[static_cast<std::size_t>(rank_)]));
  } else {
    const auto worst = static_cast<std::size_t>(blamed[0]);
    why = text(name_of(blamed[0], now[worst]),
               ticks(worst) ? " has made no progress for " : " has been silent for ",
               std::lround(silent_s), " s in ", place_of(now[worst]));
    if (ticks(worst) && asleep(now[worst])) why += ", its main thread asleep";
    if (blamed.size() > 1) why += text(", and ", blamed.size() - 1, " more ranks");
  }
  return {Act::speak, why + text("; ended by run.hang_timeout_s = ", timeout_s_)};
}

}  // namespace hearth
