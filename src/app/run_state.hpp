// Saving a run and taking it up again.
#pragma once

#include <optional>

#include "app/expert_counts.hpp"
#include "app/run_record.hpp"
#include "io/checkpoint.hpp"
#include "io/checkpoint_folder.hpp"
#include "io/checkpoint_writer.hpp"
#include "train/trainer.hpp"
#include "train/weight_drift.hpp"

namespace hearth {

// This rank's master weights, and with `moments` Adam's moments, as the checkpoint names them.
template <class T>
[[nodiscard]] std::vector<TensorPart<Real<T>>> tensor_parts(Trainer<T>& trainer, bool moments);

// What every file of the run carries.
[[nodiscard]] CheckpointHeader run_header(const Config& config, const Mesh& mesh,
                                          const std::string& data_identity);

// Statistics that a checkpoint carries on.
template <class T>
struct OpenStatistics {
  std::vector<std::int64_t> interval;     // of the routing record, on the first rank
  std::vector<CounterTensor> counts;      // since the last row by checkpoint; none where one was
                                          // just written
  const WeightDrift<T>* drift = nullptr;  // null: not recorded
  bool row_is_open = false;               // no row by checkpoint was just written
};

// Begins to write the checkpoint of `header.step`. Returns one number for all weights, the same on
// any layout. Collective.
template <class T>
std::uint64_t begin_save(CheckpointWriter<Real<T>>& writer, const std::string& path,
                         const CheckpointHeader& header, Trainer<T>& trainer,
                         OpenStatistics<T> open);

struct Resumed {
  std::int64_t step = 0;
  std::string path;
  std::vector<std::int64_t> open_interval;  // on the first rank
};

// Takes up the checkpoint that checkpoint.resume asks for: the newest good one in the folder, or a
// file. None: no checkpoint is there. It gives the weights and, where `counts` is not null, all
// else that training goes on from: moments, the open interval, in the first rank's `counts` those
// of all ranks, and where it is not null `drift`. `data_identity` must be that of the checkpoint
// (empty: any). Says on standard error what it took and passed over. Collective; throws
// CollectiveError where the checkpoint is of another model or, with resume = none, where there is
// one.
template <class T>
[[nodiscard]] std::optional<Resumed> resume(const Config& config, const std::string& data_identity,
                                            const Communicator& world,
                                            const CheckpointFolder& checkpoints,
                                            Trainer<T>& trainer, const IntervalCounts* counts,
                                            WeightDrift<T>* drift = nullptr);

}  // namespace hearth
