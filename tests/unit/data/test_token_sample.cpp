#include "data/token_sample.hpp"

#include <algorithm>
#include <numeric>

#include "catch.hpp"

using namespace hearth;

namespace {

using Places = std::vector<std::int64_t>;

}  // namespace

TEST_CASE("a sample has the size that was asked for, without repetition") {
  for (const std::int64_t wanted : {1, 7, 99}) {
    const Places places = sample_tokens(1234, 3, 100, wanted);
    REQUIRE(static_cast<std::int64_t>(places.size()) == wanted);
    CHECK(std::adjacent_find(places.begin(), places.end(), std::greater_equal<>()) == places.end());
    CHECK(places.front() >= 0);
    CHECK(places.back() < 100);
  }
}

TEST_CASE("all tokens are taken where none or more than there are are asked for") {
  Places all(100);
  std::iota(all.begin(), all.end(), 0);
  for (const std::int64_t wanted : {0, 100, 4096}) {
    CHECK(sample_tokens(1234, 3, 100, wanted) == all);
    CHECK(sample_size(100, wanted) == 100);
  }
}

TEST_CASE("samples depend on seed and step, and larger ones hold smaller ones") {
  const Places sample = sample_tokens(1234, 3, 100, 40);
  CHECK(sample_tokens(1234, 3, 100, 40) == sample);
  CHECK(sample_tokens(1234, 4, 100, 40) != sample);
  CHECK(sample_tokens(1235, 3, 100, 40) != sample);
  const Places larger = sample_tokens(1234, 3, 100, 60);
  CHECK(std::includes(larger.begin(), larger.end(), sample.begin(), sample.end()));
}

TEST_CASE("every token is as likely to be taken") {
  // Of 4000 draws with probability 1/4 each: mean 1000, standard deviation 27.4.
  std::vector<int> taken(20, 0);
  for (std::int64_t step = 1; step <= 4000; ++step) {
    for (const std::int64_t place : sample_tokens(1, step, 20, 5)) ++taken[place];
  }
  for (const int times : taken) CHECK(std::abs(times - 1000) < 5 * 28);
}
