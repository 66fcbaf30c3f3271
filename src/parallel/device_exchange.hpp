// The collective operations on arrays in the execution space's memory: dispatch and combine, the
// sum of gradients, the spreading of updated weights. One implementation over MPI (_mpi_device.cpp,
// for arrays that MPI can read), one over NCCL (_nccl.cpp).
#pragma once

#include <memory>
#include <vector>

#include "parallel/communicator.hpp"

namespace hearth {

class DeviceExchange {
 public:
  explicit DeviceExchange(const Communicator& communicator);
  ~DeviceExchange();
  DeviceExchange(const DeviceExchange&) = delete;
  DeviceExchange& operator=(const DeviceExchange&) = delete;

  [[nodiscard]] const Communicator& communicator() const { return communicator_; }

  // Consecutive blocks of rows, send_rows[r] of them for rank r, arrive as consecutive blocks of
  // recv_rows[r] rows from rank r.
  template <class T>
  void all_to_all(const Array2<const T>& send, const std::vector<Index>& send_rows,
                  const Array2<T>& received, const std::vector<Index>& received_rows) const;

  // Sums `values` over ranks; each rank then has the sum in its own part, counts[rank] elements,
  // and scratch in the others. Parts follow each other in the order of ranks.
  void reduce_scatter(const Array1<std::int64_t>& values, const std::vector<Index>& counts) const;

  // Every rank's part of `values`, counts[rank] elements, goes to all ranks.
  template <class T>
  void all_gather(const Array1<T>& values, const std::vector<Index>& counts) const;

 private:
  struct Channel;
  Communicator communicator_;
  std::unique_ptr<Channel> channel_;
};

}  // namespace hearth
