// Collective operations on a group of ranks: with device_exchange.hpp the only place that talks
// to other ranks. Small things on the host go through here, arrays on the device through there.
#pragma once

#include <mpi.h>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/pulse.hpp"
#include "base/types.hpp"

namespace hearth {

class Communicator {
 public:
  // Larger messages are cut: MPI counts are int, and networks dislike single huge messages.
  static constexpr Index default_message_limit_bytes = Index{1} << 30;

  // All ranks of the program; MPI is initialised and outlives every Communicator.
  [[nodiscard]] static Communicator world();

  // The ranks that give the same colour, in this communicator's order.
  [[nodiscard]] Communicator split(int color) const;

  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int size() const { return size_; }
  [[nodiscard]] bool is_first() const { return rank_ == 0; }
  [[nodiscard]] MPI_Comm mpi() const { return *handle_; }
  [[nodiscard]] Index message_limit_bytes() const { return message_limit_bytes_; }
  void set_message_limit_bytes(Index bytes) { message_limit_bytes_ = bytes; }

  // Of this process: one for the world and everything split from it.
  [[nodiscard]] const std::shared_ptr<Pulse>& pulse() const { return pulse_; }
  // To be held where this rank waits for others.
  [[nodiscard]] Pulse::Collective collective() const { return Pulse::Collective(*pulse_); }

  void barrier() const;

  // In place, over all ranks. Integers only: their sums do not depend on order.
  void sum(std::span<std::int64_t> values) const;
  [[nodiscard]] std::int64_t sum(std::int64_t value) const;
  // The same for large arrays that only the first rank needs; elsewhere `values` stay as they are.
  void sum_to_first(std::span<std::int64_t> values) const;
  [[nodiscard]] std::int64_t max(std::int64_t value) const;
  [[nodiscard]] std::int64_t min(std::int64_t value) const;

  // The first rank's text, on every rank.
  [[nodiscard]] std::string broadcast(const std::string& text) const;

  // values[r] goes to rank r; returns what each rank sent here. All blocks have one size.
  [[nodiscard]] std::vector<int> all_to_all(std::span<const int> values, int per_rank) const;

  // Runs `work` on every rank and waits for all. If it threw on any rank, every rank throws the
  // Error of the lowest such rank. Whatever can fail on one rank alone runs inside this.
  void together(const std::function<void()>& work) const;

 private:
  Communicator(std::shared_ptr<MPI_Comm> handle, std::shared_ptr<Pulse> pulse);

  std::shared_ptr<MPI_Comm> handle_;  // freed with the last copy
  std::shared_ptr<Pulse> pulse_;
  int rank_ = 0, size_ = 1;
  Index message_limit_bytes_ = default_message_limit_bytes;
};

// An Error that every rank threw: one of them may report it and all may leave in order.
class CollectiveError : public std::exception {
 public:
  CollectiveError(int status, std::string message)
      : status_(status), message_(std::move(message)) {}
  [[nodiscard]] const char* what() const noexcept override { return message_.c_str(); }
  [[nodiscard]] int status() const { return status_; }

 private:
  int status_;
  std::string message_;
};

}  // namespace hearth
