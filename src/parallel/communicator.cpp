#include "parallel/communicator.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace hearth {

namespace {

void release(MPI_Comm* communicator) {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized == 0 && *communicator != MPI_COMM_WORLD) MPI_Comm_free(communicator);
  delete communicator;
}

std::int64_t reduce(std::int64_t value, MPI_Op operation, MPI_Comm communicator) {
  MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, operation, communicator);
  return value;
}

// work(first value, values) for every window of `values` that one message may hold.
template <class Work>
void for_windows(std::span<std::int64_t> values, Index limit_bytes, const Work& work) {
  const Index limit = std::max<Index>(1, limit_bytes / Index{sizeof(std::int64_t)});
  const auto total = static_cast<Index>(values.size());
  for (Index begin = 0; begin < total; begin += limit) {
    work(values.data() + begin, static_cast<int>(std::min(limit, total - begin)));
  }
}

}  // namespace

Communicator::Communicator(std::shared_ptr<MPI_Comm> handle, std::shared_ptr<Pulse> pulse)
    : handle_(std::move(handle)), pulse_(std::move(pulse)) {
  MPI_Comm_rank(*handle_, &rank_);
  MPI_Comm_size(*handle_, &size_);
}

Communicator Communicator::world() {
  return {std::shared_ptr<MPI_Comm>(new MPI_Comm(MPI_COMM_WORLD), release),
          std::make_shared<Pulse>()};
}

Communicator Communicator::split(int color) const {
  const auto waiting = collective();
  MPI_Comm part = MPI_COMM_NULL;
  MPI_Comm_split(*handle_, color, rank_, &part);
  Communicator communicator(std::shared_ptr<MPI_Comm>(new MPI_Comm(part), release), pulse_);
  communicator.message_limit_bytes_ = message_limit_bytes_;
  return communicator;
}

void Communicator::barrier() const {
  const auto waiting = collective();
  MPI_Barrier(*handle_);
}

void Communicator::sum(std::span<std::int64_t> values) const {
  const auto waiting = collective();
  for_windows(values, message_limit_bytes_, [&](std::int64_t* window, int count) {
    MPI_Allreduce(MPI_IN_PLACE, window, count, MPI_INT64_T, MPI_SUM, *handle_);
  });
}

void Communicator::sum_to_first(std::span<std::int64_t> values) const {
  const auto waiting = collective();
  for_windows(values, message_limit_bytes_, [&](std::int64_t* window, int count) {
    const void* const sent = is_first() ? MPI_IN_PLACE : window;
    MPI_Reduce(sent, is_first() ? window : nullptr, count, MPI_INT64_T, MPI_SUM, 0, *handle_);
  });
}

std::int64_t Communicator::sum(std::int64_t value) const {
  const auto waiting = collective();
  return reduce(value, MPI_SUM, *handle_);
}
std::int64_t Communicator::max(std::int64_t value) const {
  const auto waiting = collective();
  return reduce(value, MPI_MAX, *handle_);
}
std::int64_t Communicator::min(std::int64_t value) const {
  const auto waiting = collective();
  return reduce(value, MPI_MIN, *handle_);
}

std::string Communicator::broadcast(const std::string& text) const {
  const auto waiting = collective();
  auto length = static_cast<std::int64_t>(text.size());
  MPI_Bcast(&length, 1, MPI_INT64_T, 0, *handle_);
  std::string result = is_first() ? text : std::string(static_cast<std::size_t>(length), '\0');
  for (std::int64_t begin = 0; begin < length; begin += message_limit_bytes_) {
    const auto count = std::min<std::int64_t>(message_limit_bytes_, length - begin);
    MPI_Bcast(result.data() + begin, static_cast<int>(count), MPI_CHAR, 0, *handle_);
  }
  return result;
}

std::vector<int> Communicator::all_to_all(std::span<const int> values, int per_rank) const {
  const auto waiting = collective();
  std::vector<int> received(values.size());
  MPI_Alltoall(values.data(), per_rank, MPI_INT, received.data(), per_rank, MPI_INT, *handle_);
  return received;
}

void Communicator::together(const std::function<void()>& work) const {
  int status = 0;
  std::string message;
  try {
    work();
  } catch (const CollectiveError&) {
    throw;  // every rank is here already
  } catch (const Error& error) {
    status = static_cast<int>(error.status());
    message = error.what();
  } catch (const std::exception& error) {
    status = static_cast<int>(Status::failure);
    message = text("rank ", rank_, ": ", error.what());
  }
  const auto waiting = collective();
  int failed = status == 0 ? size_ : rank_;
  MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MIN, *handle_);
  if (failed == size_) return;
  MPI_Bcast(&status, 1, MPI_INT, failed, *handle_);
  auto length = static_cast<int>(message.size());
  MPI_Bcast(&length, 1, MPI_INT, failed, *handle_);
  message.resize(static_cast<std::size_t>(length));
  MPI_Bcast(message.data(), length, MPI_CHAR, failed, *handle_);
  throw CollectiveError(status, message);
}

}  // namespace hearth
