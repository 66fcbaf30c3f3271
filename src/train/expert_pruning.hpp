// Which experts a trained model can best do without: Lu et al., "Not all experts are equal",
// arXiv:2402.14800 (NAEE), section 3.2.
#pragma once

#include <functional>

#include "data/corpus.hpp"
#include "train/trainer.hpp"

namespace hearth {

// Sets that are all compared; above, experts are dropped one after the other.
inline constexpr std::int64_t most_drop_sets = 4096;

// All sets of `dropped` of the experts, each ascending, in lexicographic order.
[[nodiscard]] std::vector<std::vector<Index>> drop_sets(Index experts, Index dropped);

// How many there are, most_drop_sets + 1 where there are more than most_drop_sets.
[[nodiscard]] std::int64_t count_drop_sets(Index experts, Index dropped);

// The sets that make `dropped` one larger, each ascending, in the order of the expert added.
[[nodiscard]] std::vector<std::vector<Index>> grown_sets(Index experts,
                                                         const std::vector<Index>& dropped);

// What is dropped in one layer.
struct PrunedLayer {
  std::vector<Index> dropped, kept;  // ascending
  bool enumerated = true;            // all sets were compared; false: greedily, one by one
  std::int64_t sets = 0;             // that were compared
  double change = 0;  // Σ over cells of the Frobenius norm of the change of the layer's output
  double norm = 0;    // Σ over cells of the Frobenius norm of what the routed experts give
};

// Sets to compare, by layer; none where a layer is done.
using DropSets = std::vector<std::vector<std::vector<Index>>>;

// The change of the output by each set, and behind the sets the layer's norm; by layer.
using CompareSets = std::function<std::vector<std::vector<double>>(const DropSets&)>;

// For each layer of those many experts the set whose removal changes its output least, so that
// `kept` experts stay: of all sets where there are `most_sets` at most, else greedily. Of equal
// ones the first.
[[nodiscard]] std::vector<PrunedLayer> choose_drops(const std::vector<Index>& experts, Index kept,
                                                    std::int64_t most_sets,
                                                    const CompareSets& compare);

// The same for a model, whose layers' inputs stay those of the whole model, on `batches` global
// batches of the corpus; a dropped expert's logit is minus infinity. Needs a router that decides
// token by token, without a state, and no light experts. The same on any layout; collective.
template <class T>
[[nodiscard]] std::vector<PrunedLayer> choose_experts(Trainer<T>& trainer, const Config& config,
                                                      const Communicator& world,
                                                      const Corpus& corpus, std::int64_t batches,
                                                      Index kept);

// Measures the changes that choose_experts compares.
template <class R>
class DropTrial final : public ExpertObserver<R> {
 public:
  explicit DropTrial(DropSets sets);

  [[nodiscard]] bool wants_products() const override { return true; }
  void observe(const SeenTokens<R>& seen) override;
  void end_cell() override;
  // As CompareSets gives them: over all ranks, cells rounded to kernels::statistic_unit. Throws
  // CollectiveError where one is not finite. Collective.
  [[nodiscard]] std::vector<std::vector<double>> sums(const Communicator& world) const;

 private:
  DropSets sets_;
  std::vector<std::vector<double>> squared_;      // of this cell: (layers) of (sets + 1)
  std::vector<std::vector<std::int64_t>> norms_;  // the same, of the cells before
  std::int64_t unfit_ = 0;
};

}  // namespace hearth
