#include <algorithm>
#include <cstring>

#include "base/error.hpp"
#include "parallel/device_exchange.hpp"

namespace hearth {

// MPI reads and writes the host's memory: arrays elsewhere travel through copies there, for ranks
// that share a GPU, which NCCL refuses, and where there is no NCCL.
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

// The array itself where the host can read it, otherwise a copy, of what has been computed by now.
template <class View>
auto on_host(const View& array) {
  Kokkos::fence("exchange");
  return Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), array);
}
// The same for an array that is yet to be filled.
template <class View>
auto room_on_host(const View& array) {
  return Kokkos::create_mirror_view(Kokkos::WithoutInitializing, Kokkos::HostSpace(), array);
}
template <class View, class HostView>
void from_host(const View& array, const HostView& host) {
  if constexpr (!is_host_array<View>) Kokkos::deep_copy(array, host);
}

}  // namespace

template <class T>
DeviceExchange::Transfer DeviceExchange::start_all_to_all(
    const Array2<const T>& send, const std::vector<Index>& send_rows, const Array2<T>& received,
    const std::vector<Index>& received_rows) const {
  if (send.data() == received.data()) return Transfer();
  const auto sent = on_host(send);
  const auto arriving = room_on_host(received);
  const Index row_bytes = static_cast<Index>(send.extent(1)) * Index{sizeof(T)};
  const Index limit = communicator_.message_limit_bytes();
  const auto* from = reinterpret_cast<const char*>(sent.data());
  auto* to = reinterpret_cast<char*>(arriving.data());
  constexpr int tag = 0;
  std::vector<MPI_Request> requests;
  std::vector<Arriving> expected;  // of the first requests
  const MPI_Comm mpi = communicator_.mpi();
  for (int rank = 0; rank < communicator_.size(); ++rank) {
    const Index bytes = received_rows[static_cast<std::size_t>(rank)] * row_bytes;
    if (rank != communicator_.rank()) {
      in_messages(bytes, limit, [&](Index begin, int count) {
        MPI_Irecv(to + begin, count, MPI_BYTE, rank, tag, mpi, &requests.emplace_back());
        expected.push_back({rank, count});
      });
    }
    to += bytes;
  }
  to = reinterpret_cast<char*>(arriving.data());
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
                   expected = std::move(expected), sent, arriving, received]() mutable {
    std::vector<MPI_Status> statuses(requests.size());
    {
      const auto waiting = communicator.collective();
      MPI_Waitall(static_cast<int>(requests.size()), requests.data(), statuses.data());
    }
    check_arrived(expected, statuses);
    from_host(received, arriving);
  });
}

// In turns with the ranks at growing distance: every rank sends and receives each part once,
// however many ranks there are. Sums of integers may be taken in any order.
template <class T>
void DeviceExchange::reduce_scatter(const Array1<T>& values,
                                    const std::vector<Index>& counts) const {
  const auto waiting = communicator_.collective();
  const Communicator& c = communicator_;
  if (c.size() == 1) return;
  const auto host = on_host(values);
  const Parts<T> parts(host.data(), counts);
  const Index limit =
      std::clamp<Index>(c.message_limit_bytes() / Index{sizeof(T)}, 1, summed_elements);
  const Index mine = counts[static_cast<std::size_t>(c.rank())];
  const auto arrived = uninitialized<HostArray1<T>>("arrived gradients", std::min(limit, mine));
  const auto bytes = [](int elements) { return elements * static_cast<int>(sizeof(T)); };
  T* const sum = parts.begin(c.rank());
  for (int distance = 1; distance < c.size(); ++distance) {
    const int to = (c.rank() + distance) % c.size();
    const int from = (c.rank() - distance + c.size()) % c.size();
    std::vector<MPI_Request> sent;
    in_messages(parts.size(to), limit, [&](Index begin, int count) {
      MPI_Isend(parts.begin(to) + begin, bytes(count), MPI_BYTE, to, 0, c.mpi(),
                &sent.emplace_back());
    });
    in_messages(mine, limit, [&](Index begin, int count) {
      MPI_Recv(arrived.data(), bytes(count), MPI_BYTE, from, 0, c.mpi(), MPI_STATUS_IGNORE);
      T* const here = sum + begin;
      Kokkos::parallel_for("add_gradients", Kokkos::RangePolicy<HostExec>(0, count),
                           [=](const int i) { here[i] += arrived(i); });
      HostExec().fence("add_gradients");
    });
    MPI_Waitall(static_cast<int>(sent.size()), sent.data(), MPI_STATUSES_IGNORE);
  }
  from_host(values, host);
}

// Around a ring: each rank passes on what it got last.
template <class T>
void DeviceExchange::all_gather(const Array1<T>& values, const std::vector<Index>& counts) const {
  const auto waiting = communicator_.collective();
  const Communicator& c = communicator_;
  if (c.size() == 1) return;
  const auto host = on_host(values);
  const Parts<T> parts(host.data(), counts);
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
  from_host(values, host);
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

#define HEARTH_INSTANTIATE(T) \
  template void DeviceExchange::reduce_scatter<T>(const Array1<T>&, const std::vector<Index>&) const
HEARTH_INSTANTIATE(std::int64_t);
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
#undef HEARTH_INSTANTIATE

}  // namespace hearth
