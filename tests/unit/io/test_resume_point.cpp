#include "catch.hpp"
#include "io/resume_point.hpp"
#include "unit/io/checkpoint_fixture.hpp"

using namespace hearth;
using namespace hearth::fixture;

TEST_CASE("a run resumes from the newest checkpoint that can be read") {
  const TemporaryFolder folder;
  const OutputDirectory output(folder / "run");
  std::vector<std::string> notes;
  CHECK_FALSE(find_resume_point(output, notes));
  CHECK(notes.empty());

  const Communicator world = Communicator::world();
  const TensorTable table = odd_table();
  RankParts<float> held(world, 1, table, {model_group});
  held.fill();
  CheckpointHeader header = some_header();
  for (const std::int64_t step : {10, 20}) {
    header.step = step;
    write_checkpoint(world, output.checkpoint(step), header, table, held.parts, {});
  }
  write_bytes(output.checkpoint(30), "damaged");
  const auto found = find_resume_point(output, notes);
  REQUIRE(found);
  CHECK(found->path == output.checkpoint(20));
  CHECK(found->header.step == 20);
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].find(output.checkpoint(30) + ": ") == 0);

  const auto earlier = find_resume_point(output, notes, 20);
  REQUIRE(earlier);
  CHECK(earlier->header.step == 10);
  CHECK_FALSE(find_resume_point(output, notes, 10));
}
