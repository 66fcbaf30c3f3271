// hearth-bench: times pieces of the program alone. For whole steps, bench/compare.py runs
// `hearth train` beside PyTorch.
#include <mpi.h>

#include <cstdlib>
#include <cstring>

#include "base/error.hpp"
#include "bench/cases.hpp"
#include "config/deck.hpp"
#include "model/compute_type.hpp"

namespace {

using namespace hearth;

constexpr const char* usage =
    "usage: hearth-bench ceiling|kernels|moe-layer|exchange DECK [--repeat=N] [--section.key=value "
    "...]\n"
    "\n"
    "Sizes and type are the deck's, tokens those of one cell. A line of JSON for each measurement\n"
    "goes to standard output: median and least wall time of N runs (7). exchange is for mpirun.\n";

int run(int argc, char** argv) {
  if (argc < 3 || std::strcmp(argv[1], "--help") == 0) {
    std::fputs(usage, argc < 3 ? stderr : stdout);
    return argc < 3 ? 2 : 0;
  }
  const Communicator world = Communicator::world();
  const std::string what = argv[1];
  int repeat = 7;
  std::vector<std::string> overrides;
  for (int i = 3; i < argc; ++i) {
    if (std::strncmp(argv[i], "--repeat=", 9) == 0) {
      repeat = std::atoi(argv[i] + 9);
    } else {
      overrides.emplace_back(argv[i]);
    }
  }
  if (repeat < 1) throw input_error("--repeat: expected a number of runs");
  const Config config = read_deck(argv[2], overrides);
  const bench::Measure measure{repeat, config.model.compute_type};
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
      bench::exchange<T>(config, world, measure.repeat);
    } else {
      throw input_error("unknown benchmark '", what,
                        "'; expected ceiling, kernels, moe-layer or exchange");
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
