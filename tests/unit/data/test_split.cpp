#include "data/split.hpp"

#include "unit/data/fixture.hpp"

using namespace hearth;
using namespace hearth::fixture;

TEST_CASE("splits follow each other and cover every sequence") {
  for (const char* shares : {"90,5,5", "969,30,1", "1,1,1", "0.5, 0.3,0.2", "1"}) {
    const SplitShares split(shares);
    for (const std::int64_t sequences : {0, 1, 2, 3, 7, 57, 1000, 100000000}) {
      CHECK(split.range(Split::train, sequences).begin == 0);
      CHECK(split.range(Split::train, sequences).end ==
            split.range(Split::validation, sequences).begin);
      CHECK(split.range(Split::validation, sequences).end ==
            split.range(Split::test, sequences).begin);
      CHECK(split.range(Split::test, sequences).end == sequences);
    }
  }
}

TEST_CASE("bounds are rounded to nearest, halves to even") {
  const SplitShares split("50,25,25");
  CHECK(split.range(Split::train, 5).end == 2);
  CHECK(split.range(Split::train, 7).end == 4);
  CHECK(split.range(Split::validation, 10).end == 8);
}

TEST_CASE("a split may have no share") {
  const SplitShares split("100,0");
  CHECK(split.has(Split::train));
  CHECK_FALSE(split.has(Split::validation));
  CHECK_FALSE(split.has(Split::test));
  CHECK(split.range(Split::test, 10).size() == 0);
}

TEST_CASE("shares that are none are refused") {
  for (const char* shares : {"", ",", "90,", "90,5,5,5", "a,b,c", "90;5;5", "-1,2,3", "0,0,0",
                             "nan,1,1", "inf", "1e308,1e308,1e308", "90 5 5"}) {
    const std::string message = message_of([&] { (void)SplitShares(shares); });
    CHECK(message.find(text("data.split: '", shares, "' is not a list")) == 0);
  }
}
