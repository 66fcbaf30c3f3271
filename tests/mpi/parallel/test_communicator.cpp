#include "catch.hpp"
#include "parallel/communicator.hpp"

using namespace hearth;

TEST_CASE("sums reach all ranks, or the first one alone, in messages of any size") {
  for (const Index limit : {1, 8, 24, 1 << 20}) {
    Communicator world = Communicator::world();
    world.set_message_limit_bytes(limit);
    const std::int64_t ranks = world.size(), me = world.rank();
    std::vector<std::int64_t> mine, all;
    for (std::int64_t i = 0; i < 7; ++i) {
      mine.push_back((std::int64_t{1} << 40) * i + me);
      all.push_back(ranks * (std::int64_t{1} << 40) * i + ranks * (ranks - 1) / 2);
    }
    std::vector<std::int64_t> values = mine;
    world.sum(values);
    CHECK(values == all);
    values = mine;
    world.sum_to_first(values);
    CHECK(values == (world.is_first() ? all : mine));
    world.sum_to_first({});
  }
}
