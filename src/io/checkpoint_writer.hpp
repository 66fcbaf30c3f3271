// Writing a checkpoint, all at once or beside the training.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include "io/checkpoint.hpp"

namespace hearth {

// When the ranks write their tensors.
enum class WriteTime {
  at_once,  // in begin(), from where they are
  beside    // in a thread of each rank, from a copy on the host that begin() makes
};

// Writes one checkpoint after the other. A rank's copy on the host, as large as all its parts,
// stays for the next one.
template <class T>
class CheckpointWriter {
 public:
  CheckpointWriter(const Communicator& world, WriteTime time);
  // Gives up what was not finished. A thread at work ends after its next piece.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Makes the file under a temporary name, with all but the tensors' values, and has each rank
  // write those of its parts there. The parts may change as soon as this returns. Returns
  // combined_checksum of the weights. Collective, after finish() of the one before. Errors as
  // those of write_checkpoint().
  std::uint64_t begin(const std::string& path, const CheckpointHeader& header,
                      const TensorTable& table, const std::vector<TensorPart<T>>& parts,
                      const std::vector<CounterTensor>& counters);

  // Between begin() and finish(), on all ranks alike.
  [[nodiscard]] bool is_open() const { return !path_.empty(); }
  // Whether finish() need not wait for this rank.
  [[nodiscard]] bool is_written() const { return written_; }

  // Waits until every rank has written and gives the file its name. Collective. On an error of any
  // rank all throw the same CollectiveError and the temporary file is gone.
  void finish();

 private:
  void write_at_once(const TensorTable& table, const std::vector<TensorPart<T>>& parts,
                     const std::vector<std::uint64_t>& offsets);
  void write_beside(const TensorTable& table, const std::vector<TensorPart<T>>& parts,
                    const std::vector<std::uint64_t>& offsets);
  void forget();

  Communicator world_;
  WriteTime time_;
  std::string path_;
  std::vector<HostArray1<T>> copies_;  // of the parts, as large as each
  std::thread thread_;
  std::atomic<bool> written_ = false, given_up_ = false;
  std::exception_ptr error_;  // of the thread
};

}  // namespace hearth
