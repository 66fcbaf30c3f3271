#include <algorithm>
#include <cstring>

#include "base/error.hpp"
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

// An array's parts, one for each rank, in their order.
template <class T>
class Parts {
 public:
  Parts(T* data, const std::vector<Index>& counts) : counts_(counts) {
    for (const Index count : counts) {
      begin_.push_back(data);
      data += count;
    }
  }
  [[nodiscard]] T* begin(int rank) const { return begin_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] Index size(int rank) const { return counts_[static_cast<std::size_t>(rank)]; }

 private:
  const std::vector<Index>& counts_;
  std::vector<T*> begin_;
};

// A message of rows: MPI itself objects to one that is longer than announced, not to a shorter one.
struct Arriving {
  int rank, bytes;
};

void check_arrived(const std::vector<Arriving>& messages, const std::vector<MPI_Status>& statuses) {
  for (std::size_t i = 0; i < messages.size(); ++i) {
    int bytes = 0;
    MPI_Get_count(&statuses[i], MPI_BYTE, &bytes);
    if (bytes != messages[i].bytes) {
      throw failure("rows from rank ", messages[i].rank, " of the exchange: ", bytes,
                    " bytes came, ", messages[i].bytes, " were announced");
    }
  }
}

// Elements that arrive before they are added: few enough for a cache.
constexpr Index summed_elements = Index{1} << 17;

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
  std::vector<Arriving> arriving;  // of the first requests
  const MPI_Comm mpi = communicator_.mpi();
  for (int rank = 0; rank < communicator_.size(); ++rank) {
    const Index bytes = received_rows[static_cast<std::size_t>(rank)] * row_bytes;
    if (rank != communicator_.rank()) {
      in_messages(bytes, limit, [&](Index begin, int count) {
        MPI_Irecv(to + begin, count, MPI_BYTE, rank, tag, mpi, &requests.emplace_back());
        arriving.push_back({rank, count});
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
  return Transfer([&communicator = communicator_, requests = std::move(requests),
                   arriving = std::move(arriving)]() mutable {
    std::vector<MPI_Status> statuses(requests.size());
    {
      const auto waiting = communicator.collective();
      MPI_Waitall(static_cast<int>(requests.size()), requests.data(), statuses.data());
    }
    check_arrived(arriving, statuses);
  });
}

// In turns with the ranks at growing distance: every rank sends and receives each part once,
// however many ranks there are. Sums of integers may be taken in any order.
void DeviceExchange::reduce_scatter(const Array1<std::int64_t>& values,
                                    const std::vector<Index>& counts) const {
  Kokkos::fence("reduce_scatter");
  const auto waiting = communicator_.collective();
  const Communicator& c = communicator_;
  const Parts<std::int64_t> parts(values.data(), counts);
  const Index limit =
      std::clamp<Index>(c.message_limit_bytes() / Index{sizeof(std::int64_t)}, 1, summed_elements);
  const Index mine = counts[static_cast<std::size_t>(c.rank())];
  const auto arrived = uninitialized<Array1<std::int64_t>>(
      "arrived gradients", c.size() > 1 ? std::min(limit, mine) : 0);
  std::int64_t* const sum = parts.begin(c.rank());
  for (int distance = 1; distance < c.size(); ++distance) {
    const int to = (c.rank() + distance) % c.size();
    const int from = (c.rank() - distance + c.size()) % c.size();
    std::vector<MPI_Request> sent;
    in_messages(parts.size(to), limit, [&](Index begin, int count) {
      MPI_Isend(parts.begin(to) + begin, count, MPI_INT64_T, to, 0, c.mpi(), &sent.emplace_back());
    });
    in_messages(mine, limit, [&](Index begin, int count) {
      MPI_Recv(arrived.data(), count, MPI_INT64_T, from, 0, c.mpi(), MPI_STATUS_IGNORE);
      std::int64_t* const here = sum + begin;
      Kokkos::parallel_for(
          "add_gradients", Kokkos::RangePolicy<Exec>(0, count),
          KOKKOS_LAMBDA(const int i) { here[i] += arrived(i); });
      Kokkos::fence("add_gradients");
    });
    MPI_Waitall(static_cast<int>(sent.size()), sent.data(), MPI_STATUSES_IGNORE);
  }
}

// Around a ring: each rank passes on what it got last.
template <class T>
void DeviceExchange::all_gather(const Array1<T>& values, const std::vector<Index>& counts) const {
  Kokkos::fence("all_gather");
  const auto waiting = communicator_.collective();
  const Communicator& c = communicator_;
  const Parts<T> parts(values.data(), counts);
  const Index limit = std::max<Index>(1, c.message_limit_bytes() / static_cast<Index>(sizeof(T)));
  const auto bytes = [](int elements) { return elements * static_cast<int>(sizeof(T)); };
  const int next = (c.rank() + 1) % c.size(), previous = (c.rank() - 1 + c.size()) % c.size();
  for (int round = 0; round + 1 < c.size(); ++round) {
    const int out = (c.rank() - round + c.size()) % c.size();
    const int in = (out - 1 + c.size()) % c.size();
    std::vector<MPI_Request> requests;
    in_messages(parts.size(in), limit, [&](Index begin, int count) {
      MPI_Irecv(parts.begin(in) + begin, bytes(count), MPI_BYTE, previous, 0, c.mpi(),
                &requests.emplace_back());
    });
    in_messages(parts.size(out), limit, [&](Index begin, int count) {
      MPI_Isend(parts.begin(out) + begin, bytes(count), MPI_BYTE, next, 0, c.mpi(),
                &requests.emplace_back());
    });
    MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
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
