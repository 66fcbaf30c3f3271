// hearth: one program for every rank. The steps below are in this order because each needs what
// the one before it set up, and because an error must find all ranks able to leave together.
#include <mpi.h>
#include <sched.h>

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>

#include "app/command_line.hpp"
#include "app/commands.hpp"
#include "app/signals.hpp"
#include "base/error.hpp"
#include "base/version.hpp"
#include "config/deck.hpp"
#include "config/options.hpp"

namespace {

using namespace hearth;

// Threads of this rank: the node's cores shared out among its ranks, unless the user said so.
int threads_per_rank(const Communicator& world) {
  MPI_Comm node = MPI_COMM_NULL;
  int ranks = 1;
  MPI_Comm_split_type(world.mpi(), MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_size(node, &ranks);
  MPI_Comm_free(&node);
  cpu_set_t bound;
  CPU_ZERO(&bound);
  const int allowed = sched_getaffinity(0, sizeof bound, &bound) == 0 ? CPU_COUNT(&bound) : 1;
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, std::min(allowed, cores / ranks));
}

Status run_command(const CommandLine& line, const Communicator& world) {
  if (line.command == "--help" || line.command == "--version" || line.command == "keys") {
    if (!world.is_first()) return Status::done;
    if (line.command == "--help") std::fputs(usage(), stdout);
    if (line.command == "--version")
      std::printf("hearth %s (%s)\n%s\n", version, revision, build_description);
    if (line.command == "keys") std::fputs(deck_manual().c_str(), stdout);
    return Status::done;
  }
  Config config;
  world.together([&] { config = read_deck(line.deck, line.overrides); });
  if (line.command == "train") return train_command(config, world);
  if (line.command == "check") {
    const auto ranks = static_cast<int>(line.number("ranks").value_or(world.size()));
    return check_command(config, world, ranks);
  }
  if (line.command == "prune") return prune_command(config, line.derived_request(), world);
  if (line.command == "merge") return merge_command(config, line.derived_request(), world);
  if (line.command == "calibrate-skip") {
    return calibrate_skip_command(config, line.derived_request(), world);
  }
  if (line.command == "upcycle") {
    Config dense;
    world.together([&] { dense = read_deck(line.deck, overrides_of_dense_model(line)); });
    return upcycle_command(dense, config, line.derived_request(), world);
  }
  return evaluate_command(config, world);
}

int run(int argc, char** argv) {
  const Communicator world = Communicator::world();
  try {
    // Step 2. The command line, alike on every rank.
    CommandLine line;
    world.together([&] { line = parse_command_line(argc, argv); });

    // Step 3. Kokkos, before the first array and destroyed after the last.
    Kokkos::InitializationSettings settings;
    settings.set_disable_warnings(true);
    if (std::getenv("OMP_NUM_THREADS") == nullptr)
      settings.set_num_threads(threads_per_rank(world));
    const Kokkos::ScopeGuard kokkos(settings);

    // Step 4. The command itself: it reads the deck and does the rest.
    const Status status = run_command(line, world);
    // What a script reads must not be cut off without a word: a disk may be full.
    world.together([&] {
      if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
        throw failure("standard output cannot be written: ", std::strerror(errno));
      }
    });
    return static_cast<int>(status);
  } catch (const CollectiveError& error) {
    // Every rank is here: one speaks, all leave with the same status.
    if (world.is_first()) std::fprintf(stderr, "hearth: %s\n", error.what());
    return error.status();
  } catch (const std::exception& error) {
    // The other ranks may be waiting for this one in an exchange: they cannot be reached.
    std::fprintf(stderr, "hearth: rank %d: %s\n", world.rank(), error.what());
    if (world.size() > 1) MPI_Abort(world.mpi(), static_cast<int>(Status::failure));
    return static_cast<int>(Status::failure);
  }
}

}  // namespace

int main(int argc, char** argv) {
  // Before anything else: a scheduler's signal during a long start must not kill a run that may
  // stop in order. Other commands have nothing to save.
  if (argc > 1 && std::string_view(argv[1]) == "train") catch_stop_signals();
  // Step 1. MPI, before anything that may fail: only then can all ranks fail together.
  // Threads beside the main one (a watchdog, a writer of checkpoints) make no calls of MPI.
  int provided = MPI_THREAD_SINGLE;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  const int status = run(argc, argv);
  // Step 5. Leave together.
  MPI_Finalize();
  return status;
}
