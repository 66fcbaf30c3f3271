// Saving a run and taking it up again.
#pragma once

#include <optional>

#include "app/run_record.hpp"
#include "io/checkpoint.hpp"
#include "io/output_directory.hpp"
#include "train/trainer.hpp"

namespace hearth {

// This rank's master weights, and with `moments` Adam's moments, as the checkpoint names them.
template <class T>
[[nodiscard]] std::vector<TensorPart<T>> tensor_parts(Trainer<T>& trainer, bool moments);

// One number for all weights, the same on any layout. Collective.
template <class T>
[[nodiscard]] std::uint64_t weights_checksum(Trainer<T>& trainer, const Communicator& world);

// What every file of the run carries.
[[nodiscard]] CheckpointHeader run_header(const Config& config, const Mesh& mesh,
                                          const std::string& data_identity);

// Writes the checkpoint of `header.step` with the open interval of statistics. Collective.
template <class T>
void save(const std::string& path, const CheckpointHeader& header, const Communicator& world,
          Trainer<T>& trainer, const std::vector<std::int64_t>& open_interval);

struct Resumed {
  std::int64_t step = 0;
  std::string path;
  std::vector<std::int64_t> open_interval;  // on the first rank
};

// Weights and, with `moments`, moments of the checkpoint that checkpoint.resume asks for: the
// newest good one of `output` (first rank's; null elsewhere), or a file. None: no checkpoint is
// there. `data_identity` must be that of the checkpoint (empty: any). Says on standard error what
// it took and passed over. Collective; throws CollectiveError where the checkpoint is of another
// model or, with resume = none, where there is one.
template <class T>
[[nodiscard]] std::optional<Resumed> resume(const Config& config, const std::string& data_identity,
                                            const Communicator& world,
                                            const OutputDirectory* output, Trainer<T>& trainer,
                                            bool moments);

// Renames the checkpoints beyond `step`: damaged ones, or those of a course not taken. Neither the
// next start nor pruning then takes them for the newest. Says so on standard error.
void set_aside_beyond(const OutputDirectory& output, std::int64_t step);

}  // namespace hearth
