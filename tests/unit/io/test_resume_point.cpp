#include "catch.hpp"
#include "io/output_directory.hpp"
#include "io/resume_point.hpp"
#include "unit/io/checkpoint_fixture.hpp"

using namespace hearth;
using namespace hearth::fixture;

TEST_CASE("a run resumes from the newest checkpoint that can be read") {
  const TemporaryFolder folder;
  const OutputDirectory output(folder / "run");
  std::vector<std::string> notes;
  CHECK_FALSE(find_resume_point(output.checkpoints(), notes));
  CHECK(notes.empty());

  const Communicator world = Communicator::world();
  const TensorTable table = odd_table();
  RankParts<float> held(world, 1, table, {model_group});
  held.fill();
  CheckpointHeader header = some_header();
  for (const std::int64_t step : {10, 20}) {
    header.step = step;
    write_checkpoint(world, output.checkpoints().file(step), header, table, held.parts, {});
  }
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
