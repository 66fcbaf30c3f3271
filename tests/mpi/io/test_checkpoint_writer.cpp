#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <thread>

#include "catch.hpp"
#include "faults/faults.h"
#include "io/checkpoint_writer.hpp"
#include "io/replace_file.hpp"
#include "mpi/io/shared_folder.hpp"
#include "unit/io/checkpoint_fixture.hpp"

using namespace hearth;
using namespace hearth::fixture;

namespace {

constexpr std::array both = {WriteTime::at_once, WriteTime::beside};

// A model's parts on the ranks of a world, and a folder for checkpoints of them.
struct Run {
  Communicator world;
  std::string folder;
  TensorTable table = odd_table();
  RankParts<float> held;

  Run(const Communicator& ranks, const SharedFolder& shared)
      : world(ranks), folder(shared / ""), held(ranks, 1, table, all_groups) {
    held.fill();
  }
  [[nodiscard]] std::string path(const std::string& name) const { return folder + name; }

  void begin(CheckpointWriter<float>& writer, const std::string& name) {
    writer.begin(path(name), some_header(), table, held.parts, some_counters(world.is_first()));
  }
  // Writes one; the error, empty where there is none.
  std::string write(CheckpointWriter<float>& writer, const std::string& name,
                    int* status = nullptr) {
    return message_of(
        [&] {
          begin(writer, name);
          writer.finish();
        },
        status);
  }
  // Whether all that was put into it comes back.
  bool is_good(const std::string& name) {
    RankParts<float> read(world, 1, table, all_groups);
    read.spoil();
    std::vector<CounterTensor> counters = some_counters(false);
    read_checkpoint(world, path(name), table, read.parts, counters);
    return world.sum(read.wrong()) == 0;
  }
  [[nodiscard]] bool is_there(const std::string& name) const {
    world.barrier();
    const bool there = std::filesystem::exists(path(name));
    world.barrier();
    return there;
  }
};

// Calls of the system that change the folder while rank `victim` writes a checkpoint.
int calls_of(Run& run, CheckpointWriter<float>& writer, int victim) {
  if (run.world.rank() == victim) fault_arm(("EIO 1000000 " + run.folder).c_str());
  REQUIRE(run.write(writer, "counted.h5").empty());
  const auto calls =
      static_cast<int>(run.world.max(run.world.rank() == victim ? fault_calls() : 0));
  fault_arm(nullptr);
  return calls;
}

}  // namespace

TEST_CASE("a checkpoint written beside the training is the one written at once") {
  const SharedFolder shared;
  std::string first;
  for (const int ranks : {1, 2, 3, 4}) {
    on_ranks(ranks, [&](const Communicator& world) {
      Run run(world, shared);
      CheckpointWriter<float> at_once(world, WriteTime::at_once), beside(world, WriteTime::beside);
      REQUIRE(run.write(at_once, "at_once.h5").empty());
      for (int round = 0; round < 2; ++round) {
        run.held.fill();
        run.begin(beside, "beside.h5");
        run.held.spoil();  // training goes on at once
        CHECK(beside.is_open());
        beside.finish();
        CHECK_FALSE(beside.is_open());
        world.barrier();
        CHECK(read_bytes(run.path("beside.h5")) == read_bytes(run.path("at_once.h5")));
      }
      if (first.empty()) first = read_bytes(run.path("at_once.h5"));
      CHECK(read_bytes(run.path("at_once.h5")) == first);
    });
  }
}

TEST_CASE("a writer says when it has written, and only then is the checkpoint there") {
  const SharedFolder shared;
  Run run(Communicator::world(), shared);
  CheckpointWriter<float> writer(run.world, WriteTime::beside);
  run.begin(writer, "step.h5");
  while (!writer.is_written()) std::this_thread::yield();
  CHECK_FALSE(run.is_there("step.h5"));
  writer.finish();
  CHECK(run.is_there("step.h5"));
}

TEST_CASE("a checkpoint that is given up leaves nothing") {
  const SharedFolder shared;
  Run run(Communicator::world(), shared);
  for (const WriteTime time : both) {
    {
      CheckpointWriter<float> writer(run.world, time);
      run.begin(writer, "step.h5");
    }
    CHECK_FALSE(run.is_there("step.h5"));
    CHECK_FALSE(run.is_there("step.h5.tmp"));
  }
}

TEST_CASE("a disk that fails at any call costs no checkpoint but the one being written") {
  struct Disk {
    const char* effect;
    const char* plus;  // whether it stays broken
    int error;
  };
  constexpr std::array disks = {Disk{"EIO", "", EIO}, Disk{"ENOSPC", "+", ENOSPC},
                                Disk{"EDQUOT", "", EDQUOT}, Disk{"EROFS", "+", EROFS}};
  const SharedFolder shared;
  for (const int ranks : {1, 2}) {
    on_ranks(ranks, [&](const Communicator& world) {
      Run run(world, shared);
      for (const WriteTime time : both) {
        CheckpointWriter<float> writer(world, time);
        REQUIRE(run.write(writer, "older.h5").empty());
        const std::string older = read_bytes(run.path("older.h5"));
        for (int victim = 0; victim < ranks; ++victim) {
          const int calls = calls_of(run, writer, victim);
          REQUIRE(calls > 20);
          for (int call = 1; call <= calls; ++call) {
            const Disk& disk = disks[static_cast<std::size_t>(call) % disks.size()];
            const std::string fault = text(disk.effect, " ", call, disk.plus, " ", run.folder);
            INFO("rank " << victim << " of " << ranks << ": " << fault);
            if (world.rank() == victim) fault_arm(fault.c_str());
            int status = 0;
            const std::string message = run.write(writer, "newer.h5", &status);
            fault_arm(nullptr);
            INFO(message);
            CHECK(status == 1);
            CHECK(message.find(run.folder) == 0);
            CHECK(message.find(std::strerror(disk.error)) != std::string::npos);
            CHECK(message.find('\n') == std::string::npos);
            CHECK(world.broadcast(message) == message);
            CHECK_FALSE(run.is_there("newer.h5.tmp"));
            CHECK(read_bytes(run.path("older.h5")) == older);
            // Renamed already when its name could not be made permanent: then it is whole.
            if (run.is_there("newer.h5")) {
              CHECK(call >= calls);
              CHECK(run.is_good("newer.h5"));
              world.barrier();
              if (world.is_first()) discard(run.path("newer.h5"));
            }
          }
          // The library still works.
          REQUIRE(run.write(writer, "newer.h5").empty());
          CHECK(read_bytes(run.path("newer.h5")) == older);
          world.barrier();
          if (world.is_first()) discard(run.path("newer.h5"));
          world.barrier();
        }
      }
    });
  }
}

TEST_CASE("writes that take a part only, or are interrupted, go on") {
  const SharedFolder shared;
  Run run(Communicator::world(), shared);
  for (const WriteTime time : both) {
    CheckpointWriter<float> writer(run.world, time);
    REQUIRE(run.write(writer, "whole.h5").empty());
    const int calls = calls_of(run, writer, 0);
    fault_arm(("SHORT 1+ " + run.folder).c_str());
    REQUIRE(run.write(writer, "short.h5").empty());
    for (int call = 1; call < calls; call += 7) {
      fault_arm(text("EINTR ", call, " ", run.folder).c_str());
      REQUIRE(run.write(writer, "interrupted.h5").empty());
      fault_arm(nullptr);
      run.world.barrier();
      CHECK(read_bytes(run.path("interrupted.h5")) == read_bytes(run.path("whole.h5")));
      run.world.barrier();
    }
    CHECK(read_bytes(run.path("short.h5")) == read_bytes(run.path("whole.h5")));
    run.world.barrier();
  }
}
