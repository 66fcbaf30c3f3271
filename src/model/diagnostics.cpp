#include "model/diagnostics.hpp"

namespace hearth {

StepSums::StepSums(const Config& config, Index sources)
    : sources_(sources),
      moe_layers_(config.moe_layers()),
      experts_(config.moe.experts),
      values_("step sums", layer_begin(config.moe_layers())),
      unfit_losses_("unfit losses", sources),
      arrived_(static_cast<std::size_t>(moe_layers_ * experts_)) {}

IntervalCounts::IntervalCounts(const Config& config, Index data_sources) {
  const Index experts = config.moe.experts;
  for (Index layer = 0; layer < config.moe_layers(); ++layer) {
    pairs.emplace_back("pair counts", experts, experts);
    sources.emplace_back("source counts", data_sources, experts);
    if (config.statistics.token_counts) {
      tokens.push_back(
          zeroed<Array2<std::int64_t>>("token counts", config.model.vocabulary, experts));
    }
  }
}

void IntervalCounts::clear() {
  for (auto* group : {&pairs, &tokens, &sources}) {
    for (const auto& counts : *group) Kokkos::deep_copy(counts, 0);
  }
}

}  // namespace hearth
