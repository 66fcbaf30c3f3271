// From which part of its largest gate on a token's lower choices are worth their cost: Lu et al.,
// arXiv:2402.14800 (NAEE), section 3.3, there for two choices.
#pragma once

#include "data/corpus.hpp"
#include "train/trainer.hpp"

namespace hearth {

// Counts of a token's lower gates over its largest, in steps of 1 / share_steps.
inline constexpr int share_steps = 1 << 16;

template <class R>
class ShareCounts final : public ExpertObserver<R> {
 public:
  explicit ShareCounts(Index moe_layers);

  [[nodiscard]] bool wants_products() const override { return false; }
  void observe(const SeenTokens<R>& seen) override;
  // Over all ranks: (layers) of (share_steps + 1), the last one for gates equal to the largest.
  // Collective.
  [[nodiscard]] std::vector<std::vector<std::int64_t>> counts(const Communicator& world) const;

 private:
  Array2<std::int64_t> counts_;  // (layers, share_steps + 1)
};

// The median of what is counted, rounded down to a step; 0 where nothing is.
[[nodiscard]] double median_share(const std::vector<std::int64_t>& counts);

// For each layer with experts the median, over tokens of `batches` global batches and over their
// lower choices, of gate / largest gate: with it half of the lower choices are skipped, as the
// paper's median does for its second ones. The same on any layout; collective.
template <class T>
[[nodiscard]] std::vector<double> calibrate_skipping(Trainer<T>& trainer, const Config& config,
                                                     const Communicator& world,
                                                     const Corpus& corpus, std::int64_t batches);

}  // namespace hearth
