#include "catch.hpp"
#include "io/growing_file.hpp"
#include "unit/io/checkpoint_fixture.hpp"

using namespace hearth;
using namespace hearth::fixture;

namespace {

GrowingFile empty_file(Index sources = 2) {
  GrowingFile file;
  file.declare<std::int64_t>("/step", {"step"}, {}, "steps", "steps done");
  file.declare<double>("/loss", {"step", "source"}, {sources}, "nats", "by source");
  file.declare<std::uint64_t>("/checksum", {"step"}, {}, "1", "of 64 bits");
  file.declare<std::int64_t>("/checkpoint", {"checkpoint"}, {}, "steps", "of each checkpoint");
  file.declare<std::int32_t>("/choice", {"checkpoint", "k"}, {1}, "1", "of experts", true);
  file.declare<float>("/gate", {"checkpoint", "k"}, {1}, "1", "of choices", true, -0.5);
  return file;
}

void add_rows(GrowingFile& file, std::int64_t first, std::int64_t last) {
  for (std::int64_t step = first; step <= last; ++step) {
    file.append<std::int64_t>("/step", {step});
    file.append<double>("/loss", {0.5 * static_cast<double>(step), 1.0});
    file.append<std::uint64_t>("/checksum", {~static_cast<std::uint64_t>(step)});
    if (step % 3 != 0) continue;
    file.append<std::int64_t>("/checkpoint", {step});
    file.append<std::int32_t>("/choice", {7});
    file.append<float>("/gate", {0.25F});
  }
}

}  // namespace

TEST_CASE("a file read up to a step goes on as if it had never ended") {
  const TemporaryFolder folder;
  const std::int64_t step = GENERATE(0, 1, 3, 4, 7);
  GrowingFile whole = empty_file();
  CHECK_FALSE(whole.read(folder / "none.h5", 4));
  add_rows(whole, 1, 7);
  whole.set({"/source", {2}, {"source"}, "1", "names", std::vector<std::string>{"a", "b"}});
  whole.write(folder / "whole.h5", {});

  GrowingFile again = empty_file();
  REQUIRE(again.read(folder / "whole.h5", step));
  add_rows(again, step + 1, 7);
  again.set({"/source", {1}, {"source"}, "1", "an old one", std::vector<std::string>{"c"}});
  again.set({"/source", {2}, {"source"}, "1", "names", std::vector<std::string>{"a", "b"}});
  again.write(folder / "again.h5", {});
  CHECK(read_bytes(folder / "again.h5") == read_bytes(folder / "whole.h5"));

  for (const LabelledArray& array : read_labelled_file(folder / "again.h5").arrays) {
    if (array.path == "/gate") {
      CHECK(array.fill_value == -0.5);
      CHECK(std::get<std::vector<float>>(array.values) == std::vector<float>{0.25F, 0.25F});
    } else {
      CHECK_FALSE(array.fill_value);
    }
  }
}

TEST_CASE("a file that does not fit says what to do") {
  const TemporaryFolder folder;
  const std::string path = folder / "rows.h5";
  GrowingFile file = empty_file();
  add_rows(file, 1, 3);
  const std::string advice = "; restore the file, or move it away to go on from step 2 without";
  const auto refusal = [&](GrowingFile reader) {
    int status = 0;
    const std::string message = message_of([&] { (void)reader.read(path, 2); }, &status);
    CHECK(status == 2);
    CHECK(message.find(path + ": ") == 0);
    CHECK(message.find(advice) != std::string::npos);
    return message;
  };
  SECTION("damaged") {
    write_bytes(path, "not HDF5");
    (void)refusal(empty_file());
  }
  SECTION("of another shape") {
    file.write(path, {});
    CHECK(refusal(empty_file(3)).find("/loss has another shape") != std::string::npos);
  }
  SECTION("without a dataset") {
    file.write(path, {});
    GrowingFile more = empty_file();
    more.declare<double>("/rate", {"step"}, {}, "1", "");
    CHECK(refusal(more).find("/rate is missing") != std::string::npos);
  }
}
