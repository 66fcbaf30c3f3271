#include <nccl.h>

#include <numeric>

#include "base/error.hpp"
#include "parallel/device_exchange.hpp"

namespace hearth {

namespace {

void check(ncclResult_t result, const char* call) {
  if (result != ncclSuccess) throw failure(call, ": ", ncclGetErrorString(result));
}
#define HEARTH_NCCL(call) check(call, #call)

cudaStream_t stream() {
  return Exec().cuda_stream();
}

void check(cudaError_t result, const char* call) {
  if (result != cudaSuccess) throw failure(call, ": ", cudaGetErrorString(result));
}
#define HEARTH_CUDA(call) check(call, #call)

// `waiting` runs nothing that comes after this before all that `stream` has been given is done.
void order(cudaStream_t stream, cudaStream_t waiting, cudaEvent_t event) {
  HEARTH_CUDA(cudaEventRecord(event, stream));
  HEARTH_CUDA(cudaStreamWaitEvent(waiting, event, 0));
}

}  // namespace

struct DeviceExchange::Channel {
  ncclComm_t nccl = nullptr;
  cudaStream_t transfers = nullptr;  // beside Kokkos' stream, so that kernels run meanwhile
  cudaEvent_t written = nullptr, arrived = nullptr;
};

DeviceExchange::DeviceExchange(const Communicator& communicator)
    : communicator_(communicator), channel_(std::make_unique<Channel>()) {
  ncclUniqueId id;
  if (communicator.is_first()) HEARTH_NCCL(ncclGetUniqueId(&id));
  MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, communicator.mpi());
  HEARTH_NCCL(ncclCommInitRank(&channel_->nccl, communicator.size(), id, communicator.rank()));
  HEARTH_CUDA(cudaStreamCreateWithFlags(&channel_->transfers, cudaStreamNonBlocking));
  for (cudaEvent_t* event : {&channel_->written, &channel_->arrived}) {
    HEARTH_CUDA(cudaEventCreateWithFlags(event, cudaEventDisableTiming));
  }
}

DeviceExchange::~DeviceExchange() {
  cudaEventDestroy(channel_->arrived);
  cudaEventDestroy(channel_->written);
  cudaStreamDestroy(channel_->transfers);
  ncclCommDestroy(channel_->nccl);
}

template <class T>
DeviceExchange::Transfer DeviceExchange::start_all_to_all(
    const Array2<const T>& send, const std::vector<Index>& send_rows, const Array2<T>& received,
    const std::vector<Index>& received_rows) const {
  if (send.data() == received.data()) return Transfer();
  const Channel& channel = *channel_;
  order(stream(), channel.transfers, channel.written);
  const auto row_bytes = send.extent(1) * sizeof(T);
  const auto* from = reinterpret_cast<const char*>(send.data());
  auto* to = reinterpret_cast<char*>(received.data());
  const auto waiting = communicator_.collective();
  HEARTH_NCCL(ncclGroupStart());
  for (int rank = 0; rank < communicator_.size(); ++rank) {
    const auto r = static_cast<std::size_t>(rank);
    const auto sent = static_cast<std::size_t>(send_rows[r]) * row_bytes;
    const auto expected = static_cast<std::size_t>(received_rows[r]) * row_bytes;
    if (sent > 0)
      HEARTH_NCCL(ncclSend(from, sent, ncclChar, rank, channel.nccl, channel.transfers));
    if (expected > 0)
      HEARTH_NCCL(ncclRecv(to, expected, ncclChar, rank, channel.nccl, channel.transfers));
    from += sent;
    to += expected;
  }
  HEARTH_NCCL(ncclGroupEnd());
  return Transfer([&channel] { order(channel.transfers, stream(), channel.arrived); });
}

namespace {

template <class T>
constexpr ncclDataType_t nccl_type = ncclInt64;
template <>
constexpr ncclDataType_t nccl_type<float> = ncclFloat;
template <>
constexpr ncclDataType_t nccl_type<double> = ncclDouble;

}  // namespace

// ncclReduceScatter wants equal parts; each rank's part is reduced to it in one group instead.
template <class T>
void DeviceExchange::reduce_scatter(const Array1<T>& values,
                                    const std::vector<Index>& counts) const {
  T* part = values.data();
  const auto waiting = communicator_.collective();
  HEARTH_NCCL(ncclGroupStart());
  for (int rank = 0; rank < communicator_.size(); ++rank) {
    const Index count = counts[static_cast<std::size_t>(rank)];
    if (count > 0) {
      HEARTH_NCCL(ncclReduce(part, part, static_cast<std::size_t>(count), nccl_type<T>, ncclSum,
                             rank, channel_->nccl, stream()));
    }
    part += count;
  }
  HEARTH_NCCL(ncclGroupEnd());
}

template <class T>
void DeviceExchange::all_gather(const Array1<T>& values, const std::vector<Index>& counts) const {
  T* part = values.data();
  const auto waiting = communicator_.collective();
  HEARTH_NCCL(ncclGroupStart());
  for (int rank = 0; rank < communicator_.size(); ++rank) {
    const Index count = counts[static_cast<std::size_t>(rank)];
    if (count > 0) {
      HEARTH_NCCL(ncclBroadcast(part, part, static_cast<std::size_t>(count) * sizeof(T), ncclChar,
                                rank, channel_->nccl, stream()));
    }
    part += count;
  }
  HEARTH_NCCL(ncclGroupEnd());
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
