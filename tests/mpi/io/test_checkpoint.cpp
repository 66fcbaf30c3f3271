#include <sys/resource.h>

#include <csignal>
#include <filesystem>

#include "catch.hpp"
#include "io/checkpoint.hpp"
#include "io/replace_file.hpp"
#include "mpi/io/shared_folder.hpp"
#include "unit/io/checkpoint_fixture.hpp"

using namespace hearth;
using namespace hearth::fixture;

namespace {

struct Layout {
  int ranks;
  Index expert_ranks;
};

// Every layout of as many ranks as there are.
std::vector<Layout> layouts() {
  std::vector<Layout> all;
  for (int ranks = 1; ranks <= Communicator::world().size(); ++ranks) {
    for (int expert_ranks = 1; expert_ranks <= ranks; ++expert_ranks) {
      if (ranks % expert_ranks == 0) all.push_back({ranks, expert_ranks});
    }
  }
  return all;
}

}  // namespace

TEST_CASE("a checkpoint of any layout is read on any other") {
  const SharedFolder folder;
  const TensorTable table = odd_table();
  std::uint64_t first_checksum = 0;
  std::string first_bytes;
  for (const Layout& writer : layouts()) {
    const std::string path = folder / text("from_", writer.ranks, "_", writer.expert_ranks, ".h5");
    on_ranks(writer.ranks, [&](Communicator world) {
      RankParts<float> held(world, writer.expert_ranks, table, all_groups);
      held.fill();
      if (writer.ranks == 3) world.set_message_limit_bytes(1000);
      write_checkpoint(world, path, some_header(), table, held.parts,
                       some_counters(world.is_first()));
      const auto checksum =
          combined_checksum(table, tensor_checksums(world, table, held.parts, model_group));
      if (first_checksum == 0) first_checksum = checksum;
      CHECK(checksum == first_checksum);
    });
    CHECK(read_checkpoint_header(path).step == some_header().step);
    if (first_bytes.empty()) first_bytes = read_bytes(path);
    CHECK(read_bytes(path) == first_bytes);  // not one bit depends on the layout

    for (const Layout& reader : layouts()) {
      on_ranks(reader.ranks, [&](Communicator world) {
        RankParts<float> held(world, reader.expert_ranks, table, all_groups);
        held.spoil();
        if (reader.ranks == 2) world.set_message_limit_bytes(1000);
        std::vector<CounterTensor> counters = some_counters(false);
        read_checkpoint(world, path, table, held.parts, counters);
        CHECK(held.wrong() == 0);
        CHECK(counters[0].values == some_counters(world.is_first())[0].values);
      });
    }
  }
}

TEST_CASE("ranks without a share write and read") {
  const SharedFolder folder;
  const Communicator world = Communicator::world();
  const TensorTable table = {{"small", {3, 4}, {"x", "y"}}};
  RankParts<double> held(world, 1, table, {model_group});
  held.fill();
  write_checkpoint(world, folder / "small.h5", some_header(), table, held.parts, {});
  held.spoil();
  std::vector<CounterTensor> none;
  read_checkpoint(world, folder / "small.h5", table, held.parts, none);
  CHECK(held.wrong() == 0);
}

TEST_CASE("what fails on one rank fails on all, in order") {
  const SharedFolder folder;
  const Communicator world = Communicator::world();
  const TensorTable table = odd_table();
  RankParts<float> held(world, 1, table, all_groups);
  held.fill();
  const std::string path = folder / "step.h5";
  int status = 0;
  const auto refused = [&] {
    return message_of(
        [&] {
          write_checkpoint(world, path, some_header(), table, held.parts,
                           some_counters(world.is_first()));
        },
        &status);
  };
  SECTION("the folder is gone") {
    if (world.is_first()) std::filesystem::remove(folder / "");
    world.barrier();
    CHECK(refused().find("No such file or directory") != std::string::npos);
    if (world.is_first()) std::filesystem::create_directory(folder / "");
  }
  SECTION("one rank may write no large file") {
    for (int rank = 0; rank < world.size(); ++rank) {
      rlimit limit{};
      ::getrlimit(RLIMIT_FSIZE, &limit);
      const auto handler = std::signal(SIGXFSZ, SIG_IGN);
      const rlimit low{100 << 10, limit.rlim_max};
      if (world.rank() == rank) ::setrlimit(RLIMIT_FSIZE, &low);
      const std::string message = refused();
      ::setrlimit(RLIMIT_FSIZE, &limit);
      std::signal(SIGXFSZ, handler);
      INFO(message);
      CHECK(message.find(path) == 0);
      CHECK(message.find('\n') == std::string::npos);
      CHECK(world.broadcast(message) == message);
      CHECK_FALSE(std::filesystem::exists(temporary_name(path)));
      world.barrier();
    }
  }
  SECTION("the ranks' parts overlap") {
    held.parts[0].range = {0, 4096};
    held.parts[0].values = Array1<float>("values", 4096);
    CHECK(refused().find("checkpoint: the ranks' parts hold ") == 0);
  }
  CHECK(status == 1);
  CHECK_FALSE(std::filesystem::exists(path));
  // The library still works.
  CHECK(message_of([&] {
          RankParts<float> again(world, 1, table, {model_group});
          write_checkpoint(world, path, some_header(), table, again.parts, {});
        }).empty());
}
