#include "base/error.hpp"
#include "catch.hpp"
#include "parallel/decomposition.hpp"

using namespace hearth;

TEST_CASE("shares follow each other and differ by at most one") {
  for (const Index items : {0, 1, 5, 64, 97}) {
    for (const Index parts : {1, 2, 3, 7, 100}) {
      Index end = 0, least = items, most = 0;
      for (Index part = 0; part < parts; ++part) {
        const Range range = share(items, parts, part);
        CHECK(range.begin == end);
        end = range.end;
        least = std::min(least, range.size());
        most = std::max(most, range.size());
      }
      CHECK(end == items);
      CHECK(most - least <= 1);
      CHECK(share(items, parts, 0).size() == most);
    }
  }
}

TEST_CASE("the grid of ranks") {
  CHECK(make_rank_grid(6, 3, 64).data_ranks() == 2);
  CHECK(make_rank_grid(6, 0, 64).expert_ranks == 6);
  CHECK(make_rank_grid(32, 0, 64).expert_ranks == 8);
  CHECK(make_rank_grid(6, 0, 2).expert_ranks == 2);
  CHECK(make_rank_grid(5, 0, 0).expert_ranks == 1);
  CHECK(make_rank_grid(4, 4, 2).expert_ranks == 4);  // more ranks than experts is allowed
  const RankGrid grid = make_rank_grid(6, 3, 64);
  CHECK(grid.expert_index(4) == 1);
  CHECK(grid.data_index(4) == 1);
  try {
    (void)make_rank_grid(6, 4, 64);
    FAIL("4 does not divide 6");
  } catch (const Error& error) {
    CHECK(error.status() == Status::bad_input);
    CHECK(std::string(error.what()).find("1, 2, 3, 6") != std::string::npos);
  }
}

TEST_CASE("every expert has one owner") {
  const ExpertPlacement placement(7, 3);
  Index all = 0;
  for (int rank = 0; rank < 3; ++rank) {
    for (const Index expert : placement.experts_of(rank)) {
      CHECK(placement.owner(expert) == rank);
      ++all;
    }
  }
  CHECK(all == 7);
}

TEST_CASE("experts can have any owner, each rank its share") {
  const ExpertPlacement placement({2, 0, 1, 0, 2, 1, 0}, 3);
  CHECK(placement.experts_of(0) == std::vector<Index>{1, 3, 6});
  CHECK(placement.experts_of(1) == std::vector<Index>{2, 5});
  CHECK(placement.experts_of(2) == std::vector<Index>{0, 4});
  CHECK(placement.owner(5) == 1);
  const auto message = [](std::vector<int> owner) {
    try {
      (void)ExpertPlacement(std::move(owner), 3);
    } catch (const Error& error) {
      CHECK(error.status() == Status::bad_input);
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(message({0, 1, 2}).empty());
  CHECK(message({0, 1, 3}) == "expert 2 has the expert rank 3; expected 0 to 2");
  CHECK(message({0, 1, -1}) == "expert 2 has the expert rank -1; expected 0 to 2");
  // The larger shares come first.
  CHECK(message({1, 0, 2, 1}) == "expert rank 0 owns 1 of 4 experts; expected 2");
}
