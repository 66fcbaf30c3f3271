// The subcommands. Each is called by every rank, returns the exit status and throws CollectiveError
// where all ranks fail alike.
#pragma once

#include <string>
#include <vector>

#include "base/error.hpp"
#include "config/config.hpp"
#include "parallel/communicator.hpp"

namespace hearth {

// Trains; resumes by itself. Writes run.output.
Status train_command(const Config& config, const Communicator& world);

// Prints the resolved deck, sizes and decomposition for `ranks` ranks; touches no data.
Status check_command(const Config& config, const Communicator& world, int ranks);

// Prints the validation loss of each data source from the newest checkpoint of run.output.
Status evaluate_command(const Config& config, const Communicator& world);

}  // namespace hearth
