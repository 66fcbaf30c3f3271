#include <array>
#include <cerrno>
#include <cstring>

#include "catch.hpp"
#include "faults/faults.h"
#include "io/checkpoint.hpp"
#include "mpi/io/shared_folder.hpp"
#include "unit/io/checkpoint_fixture.hpp"

using namespace hearth;
using namespace hearth::fixture;

namespace {

// A checkpoint, and a model on the ranks of a world that reads it.
struct Run {
  Communicator world;
  std::string path;
  TensorTable table = odd_table();
  RankParts<float> held;

  Run(const Communicator& ranks, const SharedFolder& shared)
      : world(ranks), path(shared / "step.h5"), held(ranks, 1, table, all_groups) {
    held.fill();
    write_checkpoint(world, path, some_header(), table, held.parts,
                     some_counters(world.is_first()));
  }
  // Reads it while calls of rank `victim` fail; the error, empty where there is none.
  std::string read(int victim, const std::string& fault, int* calls = nullptr,
                   int* status = nullptr) {
    held.spoil();
    std::vector<CounterTensor> counters = some_counters(false);
    if (world.rank() == victim) fault_arm((fault + " " + path).c_str());
    const std::string message =
        message_of([&] { read_checkpoint(world, path, table, held.parts, counters); }, status);
    if (calls != nullptr) {
      *calls = static_cast<int>(world.max(world.rank() == victim ? fault_calls() : 0));
    }
    fault_arm(nullptr);
    return message;
  }
};

}  // namespace

TEST_CASE("a call that reads a checkpoint and fails is an error of all ranks") {
  struct Disk {
    const char* effect;
    const char* plus;  // whether it stays broken
    int status;
  };
  constexpr std::array disks = {Disk{"READ_EIO", "", 1}, Disk{"READ_END", "+", 2}};
  const SharedFolder shared;
  for (const int ranks : {1, 2}) {
    on_ranks(ranks, [&](const Communicator& world) {
      Run run(world, shared);
      for (int victim = 0; victim < ranks; ++victim) {
        int calls = 0;
        REQUIRE(run.read(victim, "READ_EIO 1000000", &calls).empty());
        REQUIRE(calls > 20);
        for (int call = 1; call <= calls; ++call) {
          for (const Disk& disk : disks) {
            const std::string fault = text(disk.effect, " ", call, disk.plus);
            int status = 0;
            const std::string message = run.read(victim, fault, nullptr, &status);
            INFO("rank " << victim << " of " << ranks << ": " << fault << ": " << message);
            CHECK(message.find(run.path + ": ") == 0);
            CHECK(message.find('\n') == std::string::npos);
            if (disk.status == 1) CHECK(message.ends_with(std::strerror(EIO)));
            CHECK(status == disk.status);
            CHECK(world.broadcast(message) == message);
          }
        }
        // The library still works.
        REQUIRE(run.read(victim, "READ_EIO 1000000").empty());
        CHECK(run.held.wrong() == 0);
      }
    });
  }
}

TEST_CASE("reads that give a part only, or are interrupted, go on") {
  const SharedFolder shared;
  Run run(Communicator::world(), shared);
  for (int victim = 0; victim < run.world.size(); ++victim) {
    int calls = 0;
    REQUIRE(run.read(victim, "READ_SHORT 1+", &calls).empty());
    CHECK(run.held.wrong() == 0);
    for (int call = 1; call <= calls; call += 7) {
      REQUIRE(run.read(victim, text("READ_EINTR ", call)).empty());
      CHECK(run.held.wrong() == 0);
    }
  }
}
