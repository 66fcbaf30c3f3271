// Checkpoints: one HDF5 file that any number of ranks writes and any other number reads
// (docs/file_formats.md). Tensors are global, by the table's names.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/types.hpp"
#include "model/arena.hpp"
#include "model/tensor_table.hpp"
#include "model/weights_checksum.hpp"
#include "parallel/communicator.hpp"

namespace hearth {

// Groups of a checkpoint; each holds one value for every element of the model.
inline constexpr const char* model_group = "/model";
inline constexpr const char* first_moment_group = "/optimizer/first_moment";
inline constexpr const char* second_moment_group = "/optimizer/second_moment";
inline constexpr const char* row_before_group = "/row_before";

// What one rank holds of one quantity in one arena. The ranks' parts of a group are disjoint and
// cover every tensor once: the arena of Owner::everyone is cut over all ranks, that of
// Owner::experts over the data axis. A rank may hold an empty range, but names every group.
template <class T>
struct TensorPart {
  std::string group;  // model_group, ...
  const ArenaLayout* layout;
  Range range;       // elements of the arena, whole blocks
  Array1<T> values;  // (range.size())
};

struct CheckpointHeader {
  std::int64_t step = 0;
  std::string deck;           // the resolved deck
  std::string version;        // of Hearth
  std::string revision;       // of its source
  std::string decomposition;  // for people: how the writer's ranks were laid out
  std::string data_identity;  // of the token files

  // Filled in by reading; ignored by writing.
  std::uint64_t weights_checksum = 0;  // combined_checksum of the weights
  std::vector<std::string> counters;   // names of the counter tensors in the file
};

// Counters of an unfinished interval of statistics, whole on the first rank.
struct CounterTensor {
  std::string name;  // "expert_counts"; the dataset is /statistics/<name>
  std::vector<Index> dims;
  std::vector<std::string> axes;     // (dims.size())
  std::vector<std::int64_t> values;  // (product of dims) on the first rank, elsewhere empty
};

// Writes the checkpoint under a temporary name and renames it when it is on the disk. Returns
// combined_checksum of the weights. Collective; T is float or double. On an error (a full disk, a
// folder that cannot be written, parts that do not cover the tensors, an element that is not
// finite) every rank throws the same CollectiveError and the temporary file is gone.
template <class T>
std::uint64_t write_checkpoint(const Communicator& world, const std::string& path,
                               const CheckpointHeader& header, const TensorTable& table,
                               const std::vector<TensorPart<T>>& parts,
                               const std::vector<CounterTensor>& counters);

// A checkpoint of an older or newer Hearth: nothing is wrong with it, but this one cannot read it.
class OtherFormat : public Error {
 public:
  explicit OtherFormat(const std::string& message) : Error(Status::bad_input, message) {}
};

// Any rank alone. Throws input_error when the file is missing, damaged, or not a checkpoint,
// OtherFormat, and failure when the disk is broken.
[[nodiscard]] CheckpointHeader read_checkpoint_header(const std::string& path);

// Fills the parts' values, padding with zeros, and on the first rank the values of the counters,
// which are looked up by name and must have the dims given. Only the groups and counters that are
// asked for are read. Collective; the number of ranks and their parts may differ from the
// writer's. Every rank throws the same CollectiveError: status bad_input when a tensor is missing,
// has another shape or element type, is not in the table, or when its checksum is wrong; failure
// when the disk is broken on any rank.
template <class T>
void read_checkpoint(const Communicator& world, const std::string& path, const TensorTable& table,
                     std::vector<TensorPart<T>>& parts, std::vector<CounterTensor>& counters);

// The checksum of each tensor of one group, Σ mod 2⁶⁴ of hash_element(global element index, bits)
// over all ranks' parts: (tensors of the table), zero for an alias. Collective.
template <class T>
[[nodiscard]] std::vector<std::uint64_t> tensor_checksums(const Communicator& world,
                                                          const TensorTable& table,
                                                          const std::vector<TensorPart<T>>& parts,
                                                          const std::string& group = model_group);

}  // namespace hearth
