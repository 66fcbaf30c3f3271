#include <filesystem>
#include <map>

#include "catch.hpp"
#include "io/checkpoint.hpp"
#include "io/hdf5.hpp"
#include "io/replace_file.hpp"
#include "unit/io/checkpoint_fixture.hpp"

using namespace hearth;
using namespace hearth::fixture;

namespace {

struct Written {
  TemporaryFolder folder;
  std::string path = folder / "step_00000001.h5";
  Communicator world = Communicator::world();
  TensorTable table = odd_table();

  Written() {
    RankParts<float> held(world, 1, table, all_groups);
    held.fill();
    write_checkpoint(world, path, some_header(), table, held.parts, some_counters(true));
  }
  // Reads it with another table; the error.
  std::string refused(const TensorTable& other, int* status = nullptr) {
    RankParts<float> held(world, 1, other, all_groups);
    std::vector<CounterTensor> none;
    return message_of([&] { read_checkpoint(world, path, other, held.parts, none); }, status);
  }
  // Inverts one bit of the byte `offset` bytes after the first occurrence of `pattern`.
  void damage(const std::string& pattern, std::size_t offset = 0) {
    std::string bytes = read_bytes(path);
    const std::size_t at = bytes.find(pattern);
    REQUIRE(at != std::string::npos);
    bytes[at + offset] = static_cast<char>(bytes[at + offset] ^ 16);
    write_bytes(path, bytes);
  }
};

template <class T>
void round_trip() {
  const TemporaryFolder folder;
  const std::string path = folder / "checkpoint.h5";
  Communicator world = Communicator::world();
  const TensorTable table = odd_table();
  RankParts<T> held(world, 1, table, all_groups);
  held.fill();
  write_checkpoint(world, path, some_header(), table, held.parts, some_counters(true));
  CHECK_FALSE(std::filesystem::exists(temporary_name(path)));
  for (const Index limit : {Index{1} << 30, Index{1000}, Index{1}}) {
    world.set_message_limit_bytes(limit);
    held.spoil();
    std::vector<CounterTensor> counters = some_counters(false);
    read_checkpoint(world, path, table, held.parts, counters);
    CHECK(held.wrong() == 0);
    CHECK(counters[0].values == some_counters(true)[0].values);
    CHECK(counters[1].values.empty());
    if (sizeof(T) == 8) return;  // an element at a time is slow
  }
}

}  // namespace

TEST_CASE("a checkpoint comes back in fp32 and fp64") {
  round_trip<float>();
  round_trip<double>();
}

TEST_CASE("the header comes back") {
  Written written;
  const CheckpointHeader wanted = some_header();
  const CheckpointHeader header = read_checkpoint_header(written.path);
  CHECK(header.step == wanted.step);
  CHECK(header.deck == wanted.deck);
  CHECK(header.version == wanted.version);
  CHECK(header.revision == wanted.revision);
  CHECK(header.decomposition == wanted.decomposition);
  CHECK(header.data_identity == wanted.data_identity);
  CHECK(header.counters == std::vector<std::string>{"expert_counts", "empty"});
  RankParts<float> held(written.world, 1, written.table, {model_group});
  held.fill();
  const auto checksums = tensor_checksums(written.world, written.table, held.parts);
  CHECK(header.weights_checksum == combined_checksum(written.table, checksums));
}

TEST_CASE("weights that are not finite are not written") {
  const TemporaryFolder folder;
  const Communicator world = Communicator::world();
  const TensorTable table = odd_table();
  RankParts<float> held(world, 1, table, all_groups);
  held.fill();
  const std::string path = folder / "step.h5";
  const std::string group = GENERATE(model_group, second_moment_group);
  const auto part = std::find_if(held.parts.begin(), held.parts.end(),
                                 [&](const auto& p) { return p.group == group; });
  Kokkos::deep_copy(Kokkos::subview(part->values, 1), std::numeric_limits<float>::infinity());
  int status = 0;
  const std::string message = message_of(
      [&] { write_checkpoint(world, path, some_header(), table, held.parts, {}); }, &status);
  CHECK(status == 1);
  CHECK(message.find(text(path, ": not written, since after step ", some_header().step,
                          " 1 elements of ", group, "/embedding/weight are not finite")) == 0);
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("a group may be read alone") {
  Written written;
  RankParts<float> held(written.world, 1, written.table, {model_group});
  held.spoil();
  std::vector<CounterTensor> none;
  read_checkpoint(written.world, written.path, written.table, held.parts, none);
  CHECK(held.wrong() == 0);
}

TEST_CASE("checksums are the documented sums, and notice every exchange") {
  const Communicator world = Communicator::world();
  const TensorTable table = odd_table();
  RankParts<float> held(world, 1, table, {model_group});
  held.fill();
  const auto checksums = tensor_checksums(world, table, held.parts);
  for (std::size_t tensor = 0; tensor < table.size(); ++tensor) {
    std::uint64_t sum = 0;
    for (Index i = 0; i < table[tensor].elements() && table[tensor].alias_of.empty(); ++i) {
      const auto value = value_of<float>(model_group, table[tensor].name, i);
      std::uint32_t bits = 0;
      std::memcpy(&bits, &value, sizeof bits);
      sum += hash_element(static_cast<std::uint64_t>(i), bits);
    }
    CHECK(checksums[tensor] == sum);
  }
  const Array1<float> values = held.parts[0].values;
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), values);
  std::swap(host(0), host(1));
  Kokkos::deep_copy(values, host);
  const auto exchanged = tensor_checksums(world, table, held.parts);
  CHECK(exchanged[0] != checksums[0]);
  CHECK(std::equal(exchanged.begin() + 1, exchanged.end(), checksums.begin() + 1));
  CHECK(combined_checksum(table, exchanged) != combined_checksum(table, checksums));
}

TEST_CASE("damage is noticed and named") {
  Written written;
  int status = 0;
  SECTION("a bit of a value") {
    const std::string tensor = "layers/00/experts/gate";
    std::string pattern;
    for (Index i = 9000; i < 9004; ++i) append(pattern, value_of<float>(model_group, tensor, i));
    written.damage(pattern, 5);
    const std::string message = written.refused(written.table, &status);
    INFO(message);
    CHECK(message.find(written.path + ": tensor /model/" + tensor + " is damaged: ") == 0);
    CHECK(read_checkpoint_header(written.path).step == some_header().step);
  }
  SECTION("a bit of a counter") {
    std::string pattern;
    for (const std::int64_t count : {7, 8, 9}) append(pattern, count);
    written.damage(pattern);
    RankParts<float> held(written.world, 1, written.table, {model_group});
    std::vector<CounterTensor> counters = some_counters(false);
    const std::string message = message_of(
        [&] { read_checkpoint(written.world, written.path, written.table, held.parts, counters); },
        &status);
    CHECK(message.find(written.path + ": tensor /statistics/expert_counts is damaged") == 0);
  }
  SECTION("a bit of the deck") {
    written.damage("seed = 7");
    const std::string message =
        message_of([&] { (void)read_checkpoint_header(written.path); }, &status);
    INFO(message);
    CHECK(message.find(written.path + ": ") == 0);
  }
  SECTION("a bit of a tensor's name") {
    written.damage("cube");
    CHECK(written.refused(written.table, &status).find(written.path + ": ") == 0);
  }
  SECTION("the end is missing") {
    std::filesystem::resize_file(written.path, std::filesystem::file_size(written.path) / 2);
    CHECK(message_of([&] { (void)read_checkpoint_header(written.path); }, &status)
              .find(written.path + ": unable to open file: truncated file") == 0);
    CHECK(written.refused(written.table) != "");
  }
  SECTION("an empty file") {
    write_bytes(written.path, "");
    CHECK(message_of([&] { (void)read_checkpoint_header(written.path); }, &status) != "");
  }
  SECTION("another kind of file") {
    hdf5::File::create(written.path).close();
    CHECK(message_of([&] { (void)read_checkpoint_header(written.path); }, &status) ==
          written.path + ": is not a checkpoint of Hearth");
  }
  CHECK(status == 2);
}

TEST_CASE("a bit of any tensor that flips is noticed, wherever it lies") {
  Written written;
  const std::string whole = read_bytes(written.path);
  // Where each dataset lies: first byte and bytes.
  std::map<std::string, std::pair<std::size_t, std::size_t>> places;
  {
    const hdf5::File file = hdf5::File::open(written.path);
    for (const std::string& name : file.datasets("/")) {
      const hdf5::Dataset dataset = file.dataset(name);
      const std::size_t element_bytes = dataset.holds<float>() ? 4 : 8;
      if (dataset.elements() == 0) continue;
      places[name] = {static_cast<std::size_t>(dataset.file_offset()),
                      element_bytes * static_cast<std::size_t>(dataset.elements())};
    }
  }
  REQUIRE(places.size() == 3 * (written.table.size() - 1) + 1);  // an alias, one set of counters
  for (const auto& [name, place] : places) {
    const auto [first, bytes] = place;
    for (const std::size_t within : {std::size_t{0}, bytes / 2, bytes - 1}) {
      for (const int bit : {0, 7}) {
        std::string damaged = whole;
        damaged[first + within] = static_cast<char>(damaged[first + within] ^ (1 << bit));
        write_bytes(written.path, damaged);
        RankParts<float> held(written.world, 1, written.table, all_groups);
        std::vector<CounterTensor> counters = some_counters(false);
        int status = 0;
        const std::string message = message_of(
            [&] {
              read_checkpoint(written.world, written.path, written.table, held.parts, counters);
            },
            &status);
        INFO(name << " byte " << within << " of " << bytes << ": " << message);
        CHECK(status == 2);
        CHECK(message.find(written.path + ": tensor " + name + " is damaged") == 0);
      }
    }
  }
}

TEST_CASE("a byte of the metadata that changes is noticed, or changes nothing that is read") {
  const TemporaryFolder folder;
  const Communicator world = Communicator::world();
  const TensorTable table = odd_table();
  const std::string path = folder / "step.h5";
  CheckpointHeader wanted = some_header();
  wanted.data_identity = "x";
  RankParts<float> held(world, 1, table, {model_group});
  held.fill();
  write_checkpoint(world, path, wanted, table, held.parts, some_counters(true));
  const std::string whole = read_bytes(path);
  // All bytes that are no tensor's: nothing else in this file is neither zero nor a value.
  std::vector<char> is_value(whole.size(), 0);
  {
    const hdf5::File file = hdf5::File::open(path);
    for (const std::string& name : file.datasets(model_group)) {
      const hdf5::Dataset dataset = file.dataset(name);
      std::fill_n(is_value.begin() + dataset.file_offset(), 4 * dataset.elements(), 1);
    }
  }
  std::size_t seen = 0, noticed = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    if (is_value[at] != 0 || (whole[at] == 0 && at % 64 != 0) || (at >= 64 && at % 5 != 0))
      continue;
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    write_bytes(path, damaged);
    ++seen;
    held.spoil();
    std::vector<CounterTensor> counters = some_counters(false);
    CheckpointHeader header;
    const std::string message = message_of([&] {
      header = read_checkpoint_header(path);
      read_checkpoint(world, path, table, held.parts, counters);
    });
    if (!message.empty()) {
      ++noticed;
      continue;
    }
    INFO("byte " << at);
    CHECK(header.step == wanted.step);
    CHECK(header.deck == wanted.deck);
    CHECK(header.data_identity == wanted.data_identity);
    CHECK(held.wrong() == 0);
    CHECK(counters[0].values == some_counters(true)[0].values);
  }
  INFO(noticed << " of " << seen);
  CHECK(seen > 500);
  CHECK(2 * noticed > seen);
}

TEST_CASE("a checkpoint of another model is refused") {
  Written written;
  TensorTable other = written.table;
  int status = 0;
  SECTION("shape") {
    other[2].shape = {5000, 3};
    CHECK(written.refused(other, &status) ==
          written.path +
              ": tensor /model/layers/00/wide has shape (3, 5000), the deck's model needs "
              "(5000, 3)");
  }
  SECTION("a tensor more") {
    other[1].name = "layers/00/extra";
    CHECK(written.refused(other, &status) ==
          written.path + ": has no tensor /model/layers/00/extra, which the deck's model needs");
  }
  SECTION("a tensor less") {
    other.erase(other.begin() + 2);
    CHECK(written.refused(other, &status) ==
          written.path + ": has a tensor /model/layers/00/wide, which the deck's model has not");
  }
  SECTION("element type") {
    RankParts<double> held(written.world, 1, other, {model_group});
    std::vector<CounterTensor> none;
    CHECK(message_of([&] { read_checkpoint(written.world, written.path, other, held.parts, none); },
                     &status) ==
          written.path + ": tensor /model/embedding/weight is not stored in fp64");
  }
  SECTION("counters") {
    RankParts<float> held(written.world, 1, other, {model_group});
    std::vector<CounterTensor> counters = {{"expert_counts", {3, experts}, {"layer", "expert"}}};
    CHECK(message_of(
              [&] { read_checkpoint(written.world, written.path, other, held.parts, counters); },
              &status) ==
          written.path +
              ": counters /statistics/expert_counts have shape (2, 5), the deck's run needs "
              "(3, 5)");
  }
  CHECK(status == 2);
}

TEST_CASE("what cannot be written is said, and leaves nothing behind") {
  const TemporaryFolder folder;
  const Communicator world = Communicator::world();
  const TensorTable table = odd_table();
  RankParts<float> held(world, 1, table, {model_group});
  held.fill();
  int status = 0;
  const auto refused = [&](const std::string& path) {
    return message_of([&] { write_checkpoint(world, path, some_header(), table, held.parts, {}); },
                      &status);
  };
  SECTION("a folder that is a file") {
    write_bytes(folder / "file", "");
    const std::string message = refused((folder / "file") + "/step.h5");
    INFO(message);
    CHECK(message.find("Not a directory") != std::string::npos);
  }
  SECTION("parts that leave a gap") {
    held.parts.pop_back();
    CHECK(refused(folder / "step.h5").find("elements of /model/layers/00/experts/gate") !=
          std::string::npos);
  }
  SECTION("a part that cuts a block") {
    held.parts[0].range.end -= 1;
    held.parts[0].values = Array1<float>("values", held.parts[0].range.size());
    CHECK(refused(folder / "step.h5").find("whole blocks of 4096") != std::string::npos);
  }
  SECTION("parts that overlap") {
    held.parts.push_back(held.parts.back());
    CHECK(refused(folder / "step.h5") != "");
  }
  CHECK(status == 1);
  CHECK_FALSE(std::filesystem::exists(folder / "step.h5"));
  CHECK_FALSE(std::filesystem::exists(temporary_name(folder / "step.h5")));
}
