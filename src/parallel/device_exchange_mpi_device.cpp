#include <algorithm>
#include <cstring>

#include "parallel/device_exchange.hpp"

namespace hearth {

struct DeviceExchange::Channel {};

DeviceExchange::DeviceExchange(const Communicator& communicator) : communicator_(communicator) {}
DeviceExchange::~DeviceExchange() = default;

namespace {

// transfer(begin, count) for pieces of at most `limit` bytes or elements; all sides cut alike.
template <class Transfer>
void in_messages(Index size, Index limit, Transfer transfer) {
  for (Index begin = 0; begin < size; begin += limit) {
    transfer(begin, static_cast<int>(std::min(limit, size - begin)));
  }
}

}  // namespace

template <class T>
DeviceExchange::Transfer DeviceExchange::start_all_to_all(
    const Array2<const T>& send, const std::vector<Index>& send_rows, const Array2<T>& received,
    const std::vector<Index>& received_rows) const {
  if (send.data() == received.data()) return Transfer();
  Kokkos::fence("all_to_all");  // the rows to send have been written
  const Index row_bytes = static_cast<Index>(send.extent(1)) * Index{sizeof(T)};
  const Index limit = communicator_.message_limit_bytes();
  const auto* from = reinterpret_cast<const char*>(send.data());
  auto* to = reinterpret_cast<char*>(received.data());
  constexpr int tag = 0;
  std::vector<MPI_Request> requests;
  const MPI_Comm mpi = communicator_.mpi();
  for (int rank = 0; rank < communicator_.size(); ++rank) {
    const Index bytes = received_rows[static_cast<std::size_t>(rank)] * row_bytes;
    if (rank != communicator_.rank()) {
      in_messages(bytes, limit, [&](Index begin, int count) {
        MPI_Irecv(to + begin, count, MPI_BYTE, rank, tag, mpi, &requests.emplace_back());
      });
    }
    to += bytes;
  }
  to = reinterpret_cast<char*>(received.data());
  for (int rank = 0; rank < communicator_.size(); ++rank) {
    const auto r = static_cast<std::size_t>(rank);
    const Index bytes = send_rows[r] * row_bytes;
    if (rank != communicator_.rank()) {
      in_messages(bytes, limit, [&](Index begin, int count) {
        MPI_Isend(from + begin, count, MPI_BYTE, rank, tag, mpi, &requests.emplace_back());
      });
    } else if (bytes > 0) {
      std::memcpy(to, from, static_cast<std::size_t>(bytes));
    }
    from += bytes;
    to += received_rows[r] * row_bytes;
  }
  return Transfer([requests = std::move(requests)]() mutable {
    MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
  });
}

void DeviceExchange::reduce_scatter(const Array1<std::int64_t>& values,
                                    const std::vector<Index>& counts) const {
  if (communicator_.size() == 1) return;
  Kokkos::fence("reduce_scatter");
  const Index limit =
      std::max<Index>(1, communicator_.message_limit_bytes() / Index{sizeof(std::int64_t)});
  std::int64_t* part = values.data();
  for (int rank = 0; rank < communicator_.size(); ++rank) {
    const bool mine = rank == communicator_.rank();
    const Index elements = counts[static_cast<std::size_t>(rank)];
    in_messages(elements, limit, [&](Index begin, int count) {
      std::int64_t* const values_here = part + begin;
      MPI_Reduce(mine ? MPI_IN_PLACE : values_here, mine ? values_here : nullptr, count,
                 MPI_INT64_T, MPI_SUM, rank, communicator_.mpi());
    });
    part += elements;
  }
}

template <class T>
void DeviceExchange::all_gather(const Array1<T>& values, const std::vector<Index>& counts) const {
  if (communicator_.size() == 1) return;
  Kokkos::fence("all_gather");
  auto* part = reinterpret_cast<char*>(values.data());
  for (int rank = 0; rank < communicator_.size(); ++rank) {
    const Index bytes = counts[static_cast<std::size_t>(rank)] * Index{sizeof(T)};
    in_messages(bytes, communicator_.message_limit_bytes(), [&](Index begin, int count) {
      MPI_Bcast(part + begin, count, MPI_BYTE, rank, communicator_.mpi());
    });
    part += bytes;
  }
}

#define HEARTH_INSTANTIATE(T)                                              \
  template DeviceExchange::Transfer DeviceExchange::start_all_to_all<T>(   \
      const Array2<const T>&, const std::vector<Index>&, const Array2<T>&, \
      const std::vector<Index>&) const;                                    \
  template void DeviceExchange::all_gather<T>(const Array1<T>&, const std::vector<Index>&) const
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
HEARTH_INSTANTIATE(bfloat16);
#undef HEARTH_INSTANTIATE

}  // namespace hearth
