#include <algorithm>
#include <cstring>
#include <numeric>

#include "parallel/device_exchange.hpp"

namespace hearth {

struct DeviceExchange::Channel {};

DeviceExchange::DeviceExchange(const Communicator& communicator) : communicator_(communicator) {}
DeviceExchange::~DeviceExchange() = default;

namespace {

// What is sent to one rank goes in messages of at most `limit` bytes each; both sides cut alike.
template <class Transfer>
void in_messages(Index bytes, Index limit, Transfer transfer) {
  for (Index begin = 0; begin < bytes; begin += limit) {
    transfer(begin, static_cast<int>(std::min(limit, bytes - begin)));
  }
}

}  // namespace

template <class T>
void DeviceExchange::all_to_all(const Array2<const T>& send, const std::vector<Index>& send_rows,
                                const Array2<T>& received,
                                const std::vector<Index>& received_rows) const {
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
  MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
}

void DeviceExchange::reduce_scatter(const Array1<std::int64_t>& values,
                                    const std::vector<Index>& counts,
                                    const Array1<std::int64_t>& share) const {
  Kokkos::fence("reduce_scatter");
  const Index total = std::accumulate(counts.begin(), counts.end(), Index{0});
  const Index window =
      std::max<Index>(1, communicator_.message_limit_bytes() / Index{sizeof(std::int64_t)});
  auto* out = share.data();
  // Window by window over the whole array; in each, every rank gets the part that is its own.
  for (Index begin = 0; begin < total; begin += window) {
    const Index end = std::min(total, begin + window);
    std::vector<int> parts;
    Index first = 0;
    for (const Index count : counts) {
      parts.push_back(static_cast<int>(
          std::max<Index>(0, std::min(end, first + count) - std::max(begin, first))));
      first += count;
    }
    MPI_Reduce_scatter(values.data() + begin, out, parts.data(), MPI_INT64_T, MPI_SUM,
                       communicator_.mpi());
    out += parts[static_cast<std::size_t>(communicator_.rank())];
  }
}

template <class T>
void DeviceExchange::all_gather(const Array1<const T>& share, const std::vector<Index>& counts,
                                const Array1<T>& values) const {
  Kokkos::fence("all_gather");
  const Index window = std::max<Index>(1, communicator_.message_limit_bytes() / Index{sizeof(T)});
  const Index rounds = (*std::max_element(counts.begin(), counts.end()) + window - 1) / window;
  // Round by round, at most a window from each rank.
  for (Index round = 0; round < rounds; ++round) {
    std::vector<int> parts;
    std::vector<Index> first;
    Index begin = 0;
    for (const Index count : counts) {
      parts.push_back(static_cast<int>(std::clamp<Index>(count - round * window, 0, window)));
      first.push_back(begin + round * window);
      begin += count;
    }
    // Displacements are int as well: each rank's part is broadcast in its turn.
    for (int rank = 0; rank < communicator_.size(); ++rank) {
      const auto r = static_cast<std::size_t>(rank);
      if (parts[r] == 0) continue;
      T* place = values.data() + first[r];
      const auto bytes = static_cast<std::size_t>(parts[r]) * sizeof(T);
      if (rank == communicator_.rank()) std::memmove(place, share.data() + round * window, bytes);
      MPI_Bcast(place, static_cast<int>(bytes), MPI_BYTE, rank, communicator_.mpi());
    }
  }
}

#define HEARTH_INSTANTIATE(T)                                                                     \
  template void DeviceExchange::all_to_all<T>(const Array2<const T>&, const std::vector<Index>&,  \
                                              const Array2<T>&, const std::vector<Index>&) const; \
  template void DeviceExchange::all_gather<T>(const Array1<const T>&, const std::vector<Index>&,  \
                                              const Array1<T>&) const
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
#undef HEARTH_INSTANTIATE

}  // namespace hearth
