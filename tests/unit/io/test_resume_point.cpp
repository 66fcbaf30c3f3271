#include <hdf5.h>

#include "catch.hpp"
#include "io/output_directory.hpp"
#include "io/resume_point.hpp"
#include "unit/io/checkpoint_fixture.hpp"

using namespace hearth;
using namespace hearth::fixture;

namespace {

void write_checkpoints(const OutputDirectory& output, std::initializer_list<std::int64_t> steps) {
  const Communicator world = Communicator::world();
  const TensorTable table = odd_table();
  RankParts<float> held(world, 1, table, {model_group});
  held.fill();
  CheckpointHeader header = some_header();
  for (const std::int64_t step : steps) {
    header.step = step;
    write_checkpoint(world, output.checkpoints().file(step), header, table, held.parts, {});
  }
}

void set_format(const std::string& path, std::int64_t version) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  const hid_t attribute = H5Aopen(file, "format_version", H5P_DEFAULT);
  REQUIRE(H5Awrite(attribute, H5T_NATIVE_INT64, &version) >= 0);
  H5Aclose(attribute);
  H5Fclose(file);
}

}  // namespace

TEST_CASE("a run resumes from the newest checkpoint that can be read") {
  const TemporaryFolder folder;
  const OutputDirectory output(folder / "run");
  std::vector<std::string> notes;
  CHECK_FALSE(find_resume_point(output.checkpoints(), notes));
  CHECK(notes.empty());

  write_checkpoints(output, {10, 20});
  write_bytes(output.checkpoints().file(30), "damaged");
  const auto found = find_resume_point(output.checkpoints(), notes);
  REQUIRE(found);
  CHECK(found->path == output.checkpoints().file(20));
  CHECK(found->header.step == 20);
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].find(output.checkpoints().file(30) + ": ") == 0);

  const auto earlier = find_resume_point(output.checkpoints(), notes, 20);
  REQUIRE(earlier);
  CHECK(earlier->header.step == 10);
  CHECK_FALSE(find_resume_point(output.checkpoints(), notes, 10));
}

TEST_CASE("the model that a run began with, once damaged, is not replaced by the seed's") {
  const TemporaryFolder folder;
  const OutputDirectory output(folder / "run");
  write_bytes(output.checkpoints().file(0), "damaged");
  write_bytes(output.checkpoints().file(10), "damaged");
  std::vector<std::string> notes;
  CHECK_THROWS_AS(find_resume_point(output.checkpoints(), notes), Error);
  write_checkpoints(output, {5});
  const auto found = find_resume_point(output.checkpoints(), notes);
  REQUIRE(found);
  CHECK(found->header.step == 5);
}

TEST_CASE("a run does not begin anew beside checkpoints of another format") {
  const TemporaryFolder folder;
  const OutputDirectory output(folder / "run");
  write_checkpoints(output, {10, 20});
  std::vector<std::string> notes;

  set_format(output.checkpoints().file(20), 3);
  const auto found = find_resume_point(output.checkpoints(), notes);
  REQUIRE(found);
  CHECK(found->header.step == 10);
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].find("format 3") != std::string::npos);

  set_format(output.checkpoints().file(10), 1);
  try {
    static_cast<void>(find_resume_point(output.checkpoints(), notes));
    FAIL("another format was taken");
  } catch (const Error& error) {
    CHECK(error.status() == Status::bad_input);
    const std::string message = error.what();
    CHECK(message.find(output.checkpoints().file(20) + ": is a checkpoint of format 3") == 0);
    CHECK(message.find("run.output") != std::string::npos);
  }
}
