#include "train/ranked_choices.hpp"

#include "catch.hpp"
#include "model/routers/router_table.hpp"
#include "unit/kernels/support.hpp"
#include "unit/train/small_model.hpp"

using namespace hearth;
using namespace hearth::testing;

TEST_CASE("choices are ranked by affinity, equal ones by number, empty slots last") {
  const std::vector<double> affinity = {0.1, 0.4, 0.2, 0.3,   //
                                        0.2, 0.1, 0.2, 0.5,   //
                                        0.4, 0.3, 0.2, 0.1};  // (3 tokens, 4 experts)
  const std::vector<int> ascending = {0, 1, 3, 0, 2, -1, -1, -1, -1};
  const Config config = small_config();
  const auto router = make_router<double>(config, 0);
  RankedChoices<double> seen(2, 4, 4);
  const auto show = [&](Index layer, int first, int last) {
    const auto rows = [&](const auto& all, int width) {
      return std::vector(all.begin() + first * width, all.begin() + last * width);
    };
    const auto count = static_cast<std::size_t>(last - first);
    seen.observe({layer,
                  *router,
                  {},
                  to_device<double>(rows(affinity, 4), count, 4),
                  to_device<int>(rows(ascending, 3), count, 3),
                  {},
                  {}});
  };
  // A few tokens at a time, from the second of the set on; the other layer sees none.
  seen.begin_cell(1);
  show(1, 0, 2);
  show(1, 2, 3);
  const std::vector<std::int64_t> expected = {0, 0, 0,  0,  1,  3,  0,  -1,  //
                                              0, 2, -1, -1, -1, -1, -1, -1};
  const std::vector<std::int64_t>& values = seen.values();
  CHECK(std::vector(values.begin(), values.begin() + 16) == std::vector<std::int64_t>(16, 0));
  CHECK(std::vector(values.begin() + 16, values.end()) == expected);
}

TEST_CASE("ranked choices of a model are its choices, by its affinities") {
  struct Compare final : ExpertObserver<double> {
    RankedChoices<double> ranked{2, 80, 3};
    Index tokens = 0;
    bool any_moved = false;
    [[nodiscard]] bool wants_products() const override { return false; }
    void observe(const SeenTokens<double>& seen) override {
      ranked.observe(seen);
      const auto host = [](const auto& view) {
        return Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), view);
      };
      const auto choice = host(seen.choice);
      const auto affinity = host(seen.affinity), gate = host(seen.gate);
      for (Index t = 0; t < static_cast<Index>(choice.extent(0)); ++t) {
        const std::int64_t* const row = ranked.values().data() + (seen.layer * 80 + t) * 3;
        for (Index j = 0; j < 3; ++j) {
          // FLAME's gates are the affinities.
          CHECK(gate(t, j) == affinity(t, choice(t, j)));
          CHECK(std::count(row, row + 3, choice(t, j)) == 1);
          if (j > 0) CHECK(affinity(t, row[j - 1]) >= affinity(t, row[j]));
          any_moved = any_moved || row[j] != choice(t, j);
        }
        ++tokens;
      }
    }
  } compare;
  SmallModel<double> model(small_config());
  compare.ranked.begin_cell(0);
  model.transformer.observe(model.cell, compare);
  CHECK(compare.tokens == 2 * 80);
  CHECK(compare.any_moved);
}
