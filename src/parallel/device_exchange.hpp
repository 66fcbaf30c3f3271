// The collective operations on arrays in the execution space's memory: dispatch and combine, the
// sum of gradients, the spreading of updated weights. One implementation over MPI (_mpi_device.cpp,
// for arrays that MPI can read), one over NCCL (_nccl.cpp).
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "parallel/communicator.hpp"

namespace hearth {

class DeviceExchange {
 public:
  // Rows on their way. Until finish() the array that they come from may be read, that in which they
  // arrive not be touched.
  class Transfer {
   public:
    explicit Transfer(std::function<void()> wait = nullptr) : wait_(std::move(wait)) {}
    ~Transfer() {
      try {
        finish();
      } catch (...) {  // one error is on its way already
      }
    }
    Transfer(const Transfer&) = delete;
    Transfer& operator=(const Transfer&) = delete;

    void finish() {
      if (wait_) std::exchange(wait_, nullptr)();
    }

   private:
    std::function<void()> wait_;
  };

  explicit DeviceExchange(const Communicator& communicator);
  ~DeviceExchange();
  DeviceExchange(const DeviceExchange&) = delete;
  DeviceExchange& operator=(const DeviceExchange&) = delete;

  [[nodiscard]] const Communicator& communicator() const { return communicator_; }

  // Consecutive blocks of rows, send_rows[r] of them for rank r, arrive as consecutive blocks of
  // received_rows[r] rows from rank r. What is computed between start and finish goes on meanwhile.
  // A rank alone may give one array for both: its rows stand where they are wanted.
  template <class T>
  [[nodiscard]] Transfer start_all_to_all(const Array2<const T>& send,
                                          const std::vector<Index>& send_rows,
                                          const Array2<T>& received,
                                          const std::vector<Index>& received_rows) const;
  template <class T>
  void all_to_all(const Array2<const T>& send, const std::vector<Index>& send_rows,
                  const Array2<T>& received, const std::vector<Index>& received_rows) const {
    start_all_to_all<T>(send, send_rows, received, received_rows).finish();
  }

  // Sums `values` over ranks; each rank then has the sum in its own part, counts[rank] elements,
  // and scratch in the others. Parts follow each other in the order of ranks. T is std::int64_t,
  // whose sums are the same however many ranks there are, float or double.
  template <class T>
  void reduce_scatter(const Array1<T>& values, const std::vector<Index>& counts) const;

  // Every rank's part of `values`, counts[rank] elements, goes to all ranks.
  template <class T>
  void all_gather(const Array1<T>& values, const std::vector<Index>& counts) const;

 private:
  struct Channel;
  Communicator communicator_;
  std::unique_ptr<Channel> channel_;
};

}  // namespace hearth
