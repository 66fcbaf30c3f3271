#include "parallel/placement_file.hpp"

#include "base/error.hpp"
#include "catch.hpp"
#include "parallel/mesh.hpp"

using namespace hearth;

TEST_CASE("a placement is read by block, in any order of its layers") {
  const PlacementFile file = parse_placement(
      "# made for a test\r\n"
      "expert_ranks = 2\n\n"
      "layer 4 = 1 0 1 0 0\n"
      "  layer 3=1 0 \n"
      "source a #1 = 250000 750000\n",
      "file", {2, 5}, 3);
  CHECK(file.expert_ranks == 2);
  REQUIRE(file.placements.size() == 2);
  CHECK(file.placements[0].experts_of(0) == std::vector<Index>{1});
  CHECK(file.placements[1].experts_of(0) == std::vector<Index>{1, 3, 4});
  REQUIRE(file.sources.size() == 1);
  CHECK(file.sources[0].source == "a #1");
  CHECK(file.sources[0].per_million == std::vector<std::int64_t>{250000, 750000});
}

TEST_CASE("a rank that is no int is no rank") {
  CHECK_THROWS_AS(parse_placement("expert_ranks = 4294967297\n", "file", {2}, 0), Error);
  CHECK_THROWS_AS(parse_placement("expert_ranks = 2\nlayer 0 = 4294967296 1\n", "file", {2}, 0),
                  Error);
}

TEST_CASE("a run without a placement has contiguous ranges") {
  Config config;
  config.model.layers = 3;
  config.moe.experts = 5;
  config.parallel.expert_ranks = 2;
  const Decomposition found = decompose(4, config);
  CHECK(found.grid.data_ranks() == 2);
  REQUIRE(found.placements.size() == 2);
  CHECK(found.placements[1].experts_of(1) == std::vector<Index>{3, 4});
  CHECK(describe(found.grid, config) ==
        "4 ranks = 2 expert_ranks x 2 data_ranks, 2 to 3 experts a rank");
  config.parallel.placement = "p";
  config.parallel.cells = "source";
  CHECK(describe(found.grid, config) ==
        "4 ranks = 2 expert_ranks x 2 data_ranks, 2 to 3 experts a rank, placed by p, cells by "
        "source");
}
