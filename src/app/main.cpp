// hearth: one program for every rank. The steps below are in this order because each needs what
// the one before it set up, and because an error must find all ranks able to leave together.
#include <mpi.h>
#include <sched.h>

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <map>
#include <optional>
#include <string_view>
#include <thread>

#include "app/commands.hpp"
#include "app/signals.hpp"
#include "base/version.hpp"
#include "config/deck.hpp"
#include "config/options.hpp"

namespace {

using namespace hearth;

constexpr const char* usage =
    "usage: hearth COMMAND [DECK] [--section.key=value ...]\n"
    "\n"
    "  train DECK               train; resumes from the newest good checkpoint in run.output\n"
    "  check DECK [--ranks=R]   validate; print the resolved deck, sizes and the decomposition\n"
    "  evaluate DECK            validation loss of each data source from a checkpoint\n"
    "  prune DECK --experts=R --output=FOLDER [--batches=B]\n"
    "                           drop experts of a checkpoint, those that change layers least\n"
    "  merge DECK --experts=R --output=FOLDER [--batches=B]\n"
    "                           merge experts of a checkpoint that give similar outputs\n"
    "  calibrate-skip DECK --output=FOLDER [--batches=B]\n"
    "                           find below which gate a token's lower choices can be skipped\n"
    "  upcycle DECK --output=FOLDER --moe.experts=E [--moe.key=value ...]\n"
    "                           make a model with experts of a dense checkpoint\n"
    "  keys                     the deck manual\n"
    "\n"
    "On several ranks: mpirun -n R hearth train DECK\n"
    "Exit status: 0 done, 2 bad usage, deck or data, 75 stopped early at a good checkpoint,\n"
    "1 any other failure.\n";

// Arguments of a command beside the deck's keys, and whether it cannot do without.
struct Argument {
  const char *command, *name, *meaning;
  bool needed;
};
constexpr Argument arguments[] = {
    {"check", "ranks", "a number of ranks", false},
    {"prune", "experts", "a number of experts that stay in each layer", true},
    {"prune", "output", "a folder that is not there yet", true},
    {"prune", "batches", "a number of global batches", false},
    {"merge", "experts", "a number of experts for each layer", true},
    {"merge", "output", "a folder that is not there yet", true},
    {"merge", "batches", "a number of global batches", false},
    {"calibrate-skip", "output", "a folder that is not there yet", true},
    {"calibrate-skip", "batches", "a number of global batches", false},
    {"upcycle", "output", "a folder that is not there yet", true},
};
constexpr const char* with_deck[] = {"train", "check",          "evaluate", "prune",
                                     "merge", "calibrate-skip", "upcycle"};

struct CommandLine {
  std::string command, deck;
  std::vector<std::string> overrides;
  std::map<std::string, std::string> own;  // values of its Arguments that were given

  // Of an Argument that is a number; none: it was not given.
  [[nodiscard]] std::optional<std::int64_t> number(const Argument& argument) const {
    const auto found = own.find(argument.name);
    if (found == own.end()) return std::nullopt;
    const std::string& digits = found->second;
    std::int64_t value = 0;
    const char* const end = digits.data() + digits.size();
    const auto parsed = std::from_chars(digits.data(), end, value);
    if (value < 1 || value > std::numeric_limits<int>::max() || parsed.ec != std::errc() ||
        parsed.ptr != end) {
      throw input_error("command line: --", argument.name, "=", digits, "; expected ",
                        argument.meaning);
    }
    return value;
  }
  [[nodiscard]] std::optional<std::int64_t> number(std::string_view name) const {
    for (const Argument& argument : arguments) {
      if (command == argument.command && name == argument.name) return number(argument);
    }
    return std::nullopt;
  }
  [[nodiscard]] DerivedRequest derived_request() const {
    return {own.at("output"), number("experts").value_or(0), number("batches").value_or(1)};
  }
};

// Takes up an argument of the command; false where it is none.
bool take_own(const std::string& given, CommandLine& line) {
  for (const Argument& argument : arguments) {
    const std::string start = text("--", argument.name, "=");
    if (line.command != argument.command || !given.starts_with(start)) continue;
    line.own[argument.name] = given.substr(start.size());
    return true;
  }
  return false;
}

CommandLine parse_command_line(int argc, char** argv) {
  CommandLine line;
  line.command = argc > 1 ? argv[1] : "--help";
  for (int i = 2; i < argc; ++i) {
    const std::string argument = argv[i];
    if (take_own(argument, line)) continue;
    if (argument.starts_with("--") || !line.deck.empty()) {
      line.overrides.push_back(argument);
    } else {
      line.deck = argument;
    }
  }
  const bool needs_deck =
      std::find(std::begin(with_deck), std::end(with_deck), line.command) != std::end(with_deck);
  const bool known = needs_deck || line.command == "keys" || line.command == "--help" ||
                     line.command == "--version";
  if (!known) {
    throw input_error(
        "unknown command '", line.command,
        "'; expected train, check, evaluate, prune, merge, calibrate-skip, upcycle or "
        "keys (hearth --help)");
  }
  if (needs_deck && line.deck.empty()) {
    throw input_error("hearth ", line.command, " needs a deck, such as inputs/quickstart.deck");
  }
  for (const Argument& argument : arguments) {
    if (line.command != argument.command) continue;
    const auto found = line.own.find(argument.name);
    if (found != line.own.end() ? found->second.empty() : argument.needed) {
      throw input_error("hearth ", line.command, " needs --", argument.name, "=, ",
                        argument.meaning);
    }
    if (std::string_view(argument.name) != "output") (void)line.number(argument);
  }
  return line;
}

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

// What is said about experts on the command line of upcycle is meant for the new model.
std::vector<std::string> of_dense_model(std::vector<std::string> overrides) {
  Config any;
  std::vector<std::string> sections = {"moe"};
  for (const Option& option : option_table(any)) {
    if (option.key != "moe.router") continue;
    sections.insert(sections.end(), option.choices.begin(), option.choices.end());
  }
  std::erase_if(overrides, [&](const std::string& given) {
    return std::any_of(sections.begin(), sections.end(), [&](const std::string& section) {
      return given.starts_with("--" + section + ".");
    });
  });
  return overrides;
}

Status run_command(const CommandLine& line, const Communicator& world) {
  if (line.command == "--help" || line.command == "--version" || line.command == "keys") {
    if (!world.is_first()) return Status::done;
    if (line.command == "--help") std::fputs(usage, stdout);
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
    world.together([&] { dense = read_deck(line.deck, of_dense_model(line.overrides)); });
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
    return static_cast<int>(run_command(line, world));
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
