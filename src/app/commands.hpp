// The subcommands. Each is called by every rank, returns the exit status and throws CollectiveError
// where all ranks fail alike.
#pragma once

#include <string>
#include <vector>

#include "base/error.hpp"
#include "config/config.hpp"
#include "parallel/communicator.hpp"

namespace hearth {

// What the command line wants beside a deck.
struct DerivedRequest {
  std::string output;        // a folder that is not there yet
  std::int64_t experts = 0;  // of each layer
  std::int64_t batches = 1;  // global batches of the training split to calibrate on
};

// Trains; resumes by itself. Writes run.output.
Status train_command(const Config& config, const Communicator& world);

// Prints the resolved deck, sizes and decomposition for `ranks` ranks; touches no data.
Status check_command(const Config& config, const Communicator& world, int ranks);

// Prints the validation loss of each data source from the newest checkpoint of run.output. The
// sources need not be those of the training.
Status evaluate_command(const Config& config, const Communicator& world);

// Drops the experts that the model can best do without; docs/after_training.md. Writes
// request.output.
Status prune_command(const Config& config, const DerivedRequest& request,
                     const Communicator& world);

// Makes fewer experts of similar ones; docs/after_training.md. Writes request.output.
Status merge_command(const Config& config, const DerivedRequest& request,
                     const Communicator& world);

// Finds top_k.skip_below; docs/after_training.md. Writes request.output.
Status calibrate_skip_command(const Config& config, const DerivedRequest& request,
                              const Communicator& world);

// Makes a model with experts, `config`, of the dense one; docs/after_training.md. Writes
// request.output.
Status upcycle_command(const Config& dense, const Config& config, const DerivedRequest& request,
                       const Communicator& world);

}  // namespace hearth
