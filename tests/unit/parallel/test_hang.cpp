#include "catch.hpp"
#include "parallel/hang.hpp"

using namespace hearth;

namespace {

using Act = HangVerdict::Act;

// Ranks of a program that a test stops, stalls or lets go on; a look is a second.
class Ranks {
 public:
  explicit Ranks(int size) : heartbeats_(static_cast<std::size_t>(size)) {
    for (int rank = 0; rank < size; ++rank) {
      Heartbeat& h = at(rank);
      h.process = 100 + rank;
      h.step = 7;
      h.silent_ms = 60'000;
      h.collectives = 50;
      h.waiting = 1;
      std::snprintf(h.phase, sizeof h.phase, "exchange");
      std::snprintf(h.host, sizeof h.host, "node%d", rank);
      judges_.emplace_back(rank, 60.0, 3.0);
    }
  }
  Heartbeat& at(int rank) { return heartbeats_.at(static_cast<std::size_t>(rank)); }
  void stop(int rank) { stopped_.push_back(rank); }

  // One look of every rank that is not stopped: by rank, `wait` for those that are.
  std::vector<HangVerdict> look() {
    for (int rank = 0; rank < size(); ++rank) {
      if (!is_stopped(rank)) ++at(rank).ticks;
    }
    std::vector<HangVerdict> verdicts(heartbeats_.size());
    for (int rank = 0; rank < size(); ++rank) {
      const auto r = static_cast<std::size_t>(rank);
      if (!is_stopped(rank)) verdicts[r] = judges_[r].look(heartbeats_, 1.0);
    }
    return verdicts;
  }

  // Looks until a rank speaks, at most ten times; then (rank, what it says), or (-1, "").
  std::pair<int, std::string> outcome() {
    for (int i = 0; i < 10; ++i) {
      const std::vector<HangVerdict> verdicts = look();
      int speaker = -1;
      for (int rank = 0; rank < size(); ++rank) {
        if (verdicts[static_cast<std::size_t>(rank)].act != Act::speak) continue;
        CHECK(speaker == -1);  // one line
        speaker = rank;
      }
      if (speaker >= 0) return {speaker, verdicts[static_cast<std::size_t>(speaker)].why};
    }
    return {-1, ""};
  }

 private:
  [[nodiscard]] int size() const { return static_cast<int>(heartbeats_.size()); }
  [[nodiscard]] bool is_stopped(int rank) const {
    return std::find(stopped_.begin(), stopped_.end(), rank) != stopped_.end();
  }
  std::vector<Heartbeat> heartbeats_;
  std::vector<HangJudge> judges_;
  std::vector<int> stopped_;
};

}  // namespace

TEST_CASE("a stopped rank is named by the lowest other one") {
  for (int stopped = 0; stopped < 3; ++stopped) {
    Ranks ranks(3);
    ranks.stop(stopped);
    ranks.at(stopped).silent_ms = 12;  // when it was last heard of
    const auto [speaker, why] = ranks.outcome();
    CHECK(speaker == (stopped == 0 ? 1 : 0));
    const std::string rank = std::to_string(stopped);
    CHECK(why == "rank " + rank + " (node" + rank + ", process 10" + rank +
                     ") has been silent for 60 s in phase \"exchange\" of step 7; "
                     "ended by run.hang_timeout_s = 60");
  }
}

TEST_CASE("a rank that never came is named without a process") {
  Ranks ranks(2);
  ranks.stop(1);
  ranks.at(1) = Heartbeat();
  const auto [speaker, why] = ranks.outcome();
  CHECK(speaker == 0);
  CHECK(why ==
        "rank 1 (which never came so far) has been silent for 60 s in the start of the run; "
        "ended by run.hang_timeout_s = 60");
}

TEST_CASE("several stopped ranks are counted, and the one left speaks") {
  Ranks ranks(4);
  for (const int rank : {0, 1, 3}) ranks.stop(rank);
  const auto [speaker, why] = ranks.outcome();
  CHECK(speaker == 2);
  CHECK(why.starts_with("rank 0 "));
  CHECK(why.find("and 2 more ranks") != std::string::npos);
}

TEST_CASE("a rank that spins is the one that has not come to the others' collective operation") {
  Ranks ranks(3);
  ranks.at(0).collectives = 51;
  ranks.at(1).collectives = 50;  // between the 50th and the 51st
  ranks.at(1).waiting = 0;
  ranks.at(2).collectives = 50;  // in the 50th still
  std::snprintf(ranks.at(1).phase, sizeof(Heartbeat::phase), "experts");
  const auto [speaker, why] = ranks.outcome();
  CHECK(speaker == 0);
  CHECK(
      why.starts_with("rank 1 (node1, process 101) has made no progress for 60 s in phase "
                      "\"experts\" of step 7"));
}

TEST_CASE("among ranks inside one operation it is the one whose main thread does nothing") {
  Ranks ranks(3);
  ranks.at(1).asleep_ms = 58'000;
  ranks.at(2).collectives = 51;  // had all that it needed from the others
  const auto [speaker, why] = ranks.outcome();
  CHECK(speaker == 0);
  CHECK(
      why ==
      "rank 1 (node1, process 101) has made no progress for 60 s in phase \"exchange\" of step 7, "
      "its main thread asleep; ended by run.hang_timeout_s = 60");

  // One that waits without looking for its messages all the time is not told from that, but a rank
  // that computes is.
  Ranks others(3);
  for (const int rank : {0, 1, 2}) others.at(rank).asleep_ms = 58'000;
  CHECK(others.outcome().second.starts_with("all ranks have waited for 60 s"));
  others.at(2).waiting = 0;
  others.at(2).asleep_ms = 0;
  CHECK(others.outcome().second.starts_with("rank 2 "));
}

TEST_CASE("a rank alone speaks of itself") {
  Ranks ranks(1);
  ranks.at(0).waiting = 0;
  ranks.at(0).step = 0;
  const auto [speaker, why] = ranks.outcome();
  CHECK(speaker == 0);
  CHECK(why.find("before the first step") != std::string::npos);
}

TEST_CASE("ranks that all wait blame none") {
  Ranks ranks(2);
  const auto [speaker, why] = ranks.outcome();
  CHECK(speaker == 0);
  CHECK(why.starts_with("all ranks have waited for 60 s"));
}

TEST_CASE("no verdict while a rank moves, and none without patience") {
  Ranks ranks(3);
  ranks.at(2).silent_ms = 59'000;  // at work on what the others wait for
  CHECK(ranks.outcome().first == -1);
  ranks.at(2).silent_ms = 60'000;
  CHECK(ranks.outcome().first == 0);

  Ranks others(2);
  for (int i = 0; i < 3; ++i) {
    for (const HangVerdict& verdict : others.look()) CHECK(verdict.act == Act::wait);
  }
}

TEST_CASE("the others leave without a word once a rank has spoken") {
  Ranks ranks(3);
  ranks.at(0).over = 1;
  ranks.stop(0);
  const auto verdicts = ranks.look();
  CHECK(verdicts[1].act == Act::leave);
  CHECK(verdicts[2].act == Act::leave);
}

TEST_CASE("where the speaker is stopped too, the next one speaks") {
  Ranks ranks(3);
  ranks.stop(1);
  ranks.look();
  ranks.stop(0);
  const auto [speaker, why] = ranks.outcome();
  CHECK(speaker == 2);
}
