#include "catch.hpp"
#include "kernels/statistics.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

TEST_CASE("losses are summed by source, sequence by sequence, in the unit asked for") {
  // Three sequences of two tokens; the last token has no target.
  const auto label = to_device<int>(std::vector<int>{1, 1, 0, 0, 1, 1});
  const auto target = to_device<int>(std::vector<int>{5, 5, 5, 5, 5, -1});
  const double unit = GENERATE(statistic_unit, validation_unit);
  const auto value = to_device<double>(std::vector<double>{0.75 * unit, 0.75 * unit, 3, 4, 1e9, 7});
  const auto sum = filled<std::int64_t>(2, 0), tokens = filled<std::int64_t>(2, 0);
  const auto unfit = filled<std::int64_t>(2, 0);
  sum_labelled(2, label, target, value, sum, tokens, unfit, unit);
  CHECK(to_host(unfit) == std::vector<std::int64_t>{0, 0});
  CHECK(to_host(tokens) == std::vector<std::int64_t>{2, 3});
  const auto units = [&](double x) { return static_cast<std::int64_t>(x / unit); };
  CHECK(to_host(sum) == std::vector<std::int64_t>{units(7), 2 + units(1e9)});
}

TEST_CASE("sequences whose loss cannot be summed are counted by source") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto label = to_device<int>(std::vector<int>{1, 1, 0, 0, 1, 1, 2, 2});
  const auto target = to_device<int>(std::vector<int>{5, 5, 5, 5, 5, -1, 5, -1});
  const auto value = to_device<double>(std::vector<double>{nan, nan, 1, 2, 0x1p33, 7, 3, nan});
  const auto sum = filled<std::int64_t>(3, 0), tokens = filled<std::int64_t>(3, 0),
             unfit = filled<std::int64_t>(3, 0);
  sum_labelled(2, label, target, value, sum, tokens, unfit);
  CHECK(to_host(unfit) == std::vector<std::int64_t>{0, 2, 0});
}

TEST_CASE("choices that were counted can be taken back") {
  const auto choice = to_device<int>(std::vector<int>{0, 2, 1, 2}, 2, 2);
  const auto label = to_device<int>(std::vector<int>{1, 0});
  const Array2<std::int64_t> together("together", 3, 3), count("count", 2, 3);
  count_pairs(choice, together);
  count_labelled(label, choice, count);
  CHECK(to_host(together) == std::vector<std::int64_t>{1, 0, 1, 0, 1, 1, 1, 1, 2});
  CHECK(to_host(count) == std::vector<std::int64_t>{0, 1, 1, 1, 0, 1});
  count_pairs(choice, together, -1);
  count_labelled(label, choice, count, -1);
  CHECK(to_host(together) == std::vector<std::int64_t>(9, 0));
  CHECK(to_host(count) == std::vector<std::int64_t>(6, 0));
}

TEST_CASE("halves of the data are counted apart") {
  const auto choice = to_device<int>(std::vector<int>{0, 2, 1, 2, 1, -1}, 3, 2);
  const auto half = to_device<int>(std::vector<int>{1, 0, 1});
  const auto label = to_device<int>(std::vector<int>{1, 0, 1});
  const Array2<std::int64_t> count("count", 4, 3);
  count_labelled(half, label, choice, count);
  // Rows: (even, 0), (even, 1), (odd, 0), (odd, 1).
  CHECK(to_host(count) == std::vector<std::int64_t>{0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1});
  count_labelled(half, label, choice, count, -1);
  CHECK(to_host(count) == std::vector<std::int64_t>(12, 0));
}

TEST_CASE("occurrences are counted in all or by half, and can be taken back") {
  const auto half = to_device<int>(std::vector<int>{1, 0, 1, 1});
  const auto label = to_device<int>(std::vector<int>{2, 0, 2, 1});
  const Array2<std::int64_t> all("all", 1, 3), by_half("by half", 2, 3);
  count_occurrences({}, label, all);
  count_occurrences(half, label, by_half);
  CHECK(to_host(all) == std::vector<std::int64_t>{1, 1, 2});
  CHECK(to_host(by_half) == std::vector<std::int64_t>{1, 0, 0, 0, 1, 2});
  count_occurrences({}, label, all, -1);
  CHECK(to_host(all) == std::vector<std::int64_t>(3, 0));
}

TEST_CASE("few counts and many, by many threads, are those of a plain loop") {
  const Index tokens = 3000, experts = GENERATE(5, 150);  // counts of pairs: few, many
  const Index labels = GENERATE(3, 20000);
  std::vector<int> choices, of_token;
  std::vector<std::int64_t> pairs(static_cast<std::size_t>(experts * experts), 1),
      labelled(static_cast<std::size_t>(labels * experts), 1);
  for (Index t = 0; t < tokens; ++t) {
    const Index label = t * t % labels, first = t * 7 % (experts - 2), last = experts - 1;
    const std::vector<Index> chosen =
        t % 3 == 0 ? std::vector<Index>{first} : std::vector<Index>{first, last};
    of_token.push_back(static_cast<int>(label));
    for (std::size_t slot = 0; slot < 2; ++slot) {
      choices.push_back(slot < chosen.size() ? static_cast<int>(chosen[slot]) : -1);
    }
    for (const Index i : chosen) {
      ++labelled[static_cast<std::size_t>(label * experts + i)];
      for (const Index j : chosen) ++pairs[static_cast<std::size_t>(i * experts + j)];
    }
  }
  const auto choice = to_device<int>(choices, tokens, 2);
  const Array2<std::int64_t> together("together", experts, experts),
      count("count", labels, experts);
  Kokkos::deep_copy(together, 1);
  Kokkos::deep_copy(count, 1);
  count_pairs(choice, together);
  count_labelled(to_device<int>(of_token), choice, count);
  CHECK(to_host(together) == pairs);
  CHECK(to_host(count) == labelled);
}

TEST_CASE("the owners of a token's choices are counted once each") {
  // Experts 5 and above have no owner.
  const std::vector<int> owners = {0, 1, 1, 2, 0};
  std::vector<int> choices = {0, 1, 2,    // 0, 1
                              0, 4, -1,   // 0
                              2, 3, 6,    // 1, 2
                              5, 6, -1};  // none
  const Index times = 50;                 // over several blocks
  for (Index i = 1; i < times; ++i)
    choices.insert(choices.end(), {0, 1, 2, 0, 4, -1, 2, 3, 6, 5, 6, -1});
  const auto choice = to_device<int>(choices, 4 * times, 3);
  const auto owner = to_device<int>(owners);
  const Array2<std::int64_t> total("total", 2, 3);
  count_owners(choice, owner, 1, 2, total);
  CHECK(to_host(total) == std::vector<std::int64_t>{0, 0, 5 * times, 0, 0, 3 * times});
  count_owners(choice, owner, 7, 0, total);
  count_owners(Array2<const int>(), owner, 0, 1, total);
  CHECK(to_host(total) ==
        std::vector<std::int64_t>{5 * times, 0, 5 * times, 5 * times, 0, 3 * times});
}

TEMPLATE_TEST_CASE("elements that are not finite are counted", "", float, double) {
  using T = TestType;
  auto values = random_values("values", 1000, 1e30);
  CHECK(count_non_finite<T>(to_device<T>(rounded<T>(values))) == 0);
  values[0] = values[999] = std::numeric_limits<double>::quiet_NaN();
  values[500] = -std::numeric_limits<double>::infinity();
  CHECK(count_non_finite<T>(to_device<T>(rounded<T>(values))) == 3);
  CHECK(count_non_finite<T>(Array1<T>()) == 0);
}
