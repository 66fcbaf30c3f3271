#include "model/diagnostics.hpp"

#include "model/routers/router_table.hpp"

namespace hearth {

StepSums::StepSums(const Config& config, Index sources)
    : sources_(sources), unfit_losses_("unfit losses", sources), exchange_(config.moe_layers()) {
  Index end = layers_begin(), experts = 0;
  for (Index layer = 0; layer < config.moe_layers(); ++layer) {
    const RouterTraits router = router_traits(config, layer);
    const Shape next{config.moe.experts.at(layer),
                     config.destinations(layer),
                     router.slots,
                     router.fills_slots ? router.slots : 0,
                     end,
                     experts};
    shapes_.push_back(next);
    end += scalars + 4 * next.destinations + next.slots + 1;
    experts += next.experts;
  }
  values_ = Array1<std::int64_t>("step sums", end);
  arrived_.resize(static_cast<std::size_t>(experts));
}

IntervalCounts::IntervalCounts(const Config& config, Index data_sources)
    : by_half(config.statistics.token_halves) {
  if (config.statistics.token_counts && config.moe_layers() > 0) {
    occurrences =
        Array2<std::int64_t>("token occurrences", by_half ? 2 : 1, config.model.vocabulary);
  }
  for (Index layer = 0; layer < config.moe_layers(); ++layer) {
    const Index destinations = config.destinations(layer);
    pairs.emplace_back("pair counts", destinations, destinations);
    sources.emplace_back("source counts", data_sources, destinations);
    if (config.statistics.token_counts) {
      tokens.push_back(zeroed<Array2<std::int64_t>>(
          "token counts", (by_half ? 2 : 1) * config.model.vocabulary, destinations));
    }
  }
}

void IntervalCounts::clear() {
  for (auto* group : {&pairs, &tokens, &sources}) {
    for (const auto& counts : *group) Kokkos::deep_copy(counts, 0);
  }
  Kokkos::deep_copy(occurrences, 0);
}

}  // namespace hearth
