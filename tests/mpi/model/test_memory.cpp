// The memory of a cell on several ranks is the one that was predicted.
#include "catch.hpp"
#include "unit/train/small_model.hpp"

using namespace hearth;

TEST_CASE("with experts shared out, a cell takes the memory that was predicted") {
  for (const char* recompute : {"none", "block"}) {
    for (const Index expert_ranks : {2, 4}) {
      if (Communicator::world().size() % expert_ranks != 0) continue;
      Config config = small_config();
      config.model.recompute = recompute;
      SmallModel<float> model(config, expert_ranks);
      model.train();
      const std::vector<ExchangeRows> rows = model.transformer.exchange_rows();
      const std::vector<ExchangeRows> most = most_rows(config, model.mesh.grid);
      REQUIRE(rows.size() == most.size());
      for (std::size_t layer = 0; layer < rows.size(); ++layer) {
        CHECK(rows[layer].sent <= most[layer].sent);
        CHECK(rows[layer].received <= most[layer].received);
      }
      const Index measured = model.transformer.activations().high_water_bytes();
      const Index predicted = activation_bytes(config, model.mesh.grid, rows);
      // Ranks with fewer experts have less scratch for an expert's gradient.
      const ExpertPlacement& placement = model.mesh.placements.front();
      const bool has_most =
          placement.experts_of(model.mesh.experts.rank()).size() == placement.experts_of(0).size();
      CHECK((has_most ? measured == predicted : measured <= predicted));
    }
  }
}
