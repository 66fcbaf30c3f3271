// hearth-bench: times pieces of the program alone; bench/run runs it beside PyTorch.
#include <mpi.h>

#include <cstdlib>
#include <cstring>
#include <optional>

#include "base/error.hpp"
#include "bench/cases.hpp"
#include "config/deck.hpp"
#include "model/compute_type.hpp"

namespace {

using namespace hearth;

constexpr const char* usage =
    "usage: hearth-bench ceiling|kernels|moe-layer|exchange|checkpoint DECK\n"
    "                    [--warmup=N] [--repeat=N] [--section.key=value ...]\n"
    "\n"
    "Sizes and type are the deck's, tokens those of one cell. A line of JSON for each measurement\n"
    "goes to standard output: median and least wall time of --repeat runs (7); --warmup runs (2)\n"
    "before them do not count. exchange and checkpoint are for mpirun too.\n";

// The number after `name` in an argument that begins with it.
std::optional<int> number(const char* argument, const std::string& name, int least) {
  if (std::strncmp(argument, name.c_str(), name.size()) != 0) return {};
  const char* const text = argument + name.size();
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  if (end == text || *end != '\0' || value < least || value > 1'000'000) {
    throw input_error(argument, ": expected a number of runs from ", least);
  }
  return static_cast<int>(value);
}

int run(int argc, char** argv) {
  if (argc < 3 || std::strcmp(argv[1], "--help") == 0) {
    std::fputs(usage, argc < 3 ? stderr : stdout);
    return argc < 3 ? 2 : 0;
  }
  const Communicator world = Communicator::world();
  const std::string what = argv[1];
  int warmup = 2, repeat = 7;
  std::vector<std::string> overrides;
  for (int i = 3; i < argc; ++i) {
    if (const auto runs = number(argv[i], "--warmup=", 0)) {
      warmup = *runs;
    } else if (const auto timed = number(argv[i], "--repeat=", 1)) {
      repeat = *timed;
    } else {
      overrides.emplace_back(argv[i]);
    }
  }
  const Config config = read_deck(argv[2], overrides);
  const bench::Measure measure{warmup, repeat, config.model.compute_type};
  const Kokkos::ScopeGuard kokkos;
  return with_compute_type(config.model, [&](auto type) {
    using T = decltype(type);
    if (what == "ceiling") {
      bench::ceiling<T>(measure);
    } else if (what == "kernels") {
      bench::kernels<T>(config, measure);
    } else if (what == "moe-layer") {
      bench::moe_layer<T>(config, world, measure);
    } else if (what == "exchange") {
      bench::exchange<T>(config, world, measure);
    } else if (what == "checkpoint") {
      bench::checkpoint<T>(config, world, measure);
    } else {
      throw input_error("unknown benchmark '", what,
                        "'; expected ceiling, kernels, moe-layer, exchange or checkpoint");
    }
    return 0;
  });
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int status = 0;
  try {
    status = run(argc, argv);
  } catch (const hearth::Error& error) {
    std::fprintf(stderr, "hearth-bench: %s\n", error.what());
    status = static_cast<int>(error.status());
  }
  MPI_Finalize();
  return status;
}
