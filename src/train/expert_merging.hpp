// Which experts of a trained model say much the same, and what one expert for several of them is:
// grouped by their outputs, as Chen et al. do (HC-SMoE, arXiv:2410.08589), and weighted by how
// often they are chosen, as Li et al. do (M-SMoE, arXiv:2310.01334). Neurons are not permuted
// first.
#pragma once

#include "data/corpus.hpp"
#include "model/derived_tensors.hpp"
#include "train/trainer.hpp"

namespace hearth {

// What is measured of a layer's experts on calibration tokens.
struct ExpertLikeness {
  std::vector<std::int64_t> chosen;  // (experts): tokens that were sent there
  std::vector<double> products;  // (experts · experts): Σ over all tokens, whether or not they
                                 // were sent there, ⟨output of one, output of the other⟩
};

template <class R>
class LikenessSums final : public ExpertObserver<R> {
 public:
  explicit LikenessSums(const std::vector<Index>& experts);  // (moe layers)

  [[nodiscard]] bool wants_products() const override { return true; }
  void observe(const SeenTokens<R>& seen) override;
  void end_cell() override;
  // Over all ranks, by layer. Throws CollectiveError where products are not finite. Collective.
  [[nodiscard]] std::vector<ExpertLikeness> sums(const Communicator& world) const;

 private:
  struct Layer {
    std::vector<std::int64_t> chosen;
    std::vector<double> of_cell;
    std::vector<std::int64_t> products;  // of the cells before, in kernels::statistic_unit
  };
  std::vector<Layer> layers_;
  std::int64_t unfit_ = 0;
};

// Experts that become one: groups in the order of their first members, which ascend.
using ExpertGroups = std::vector<std::vector<Index>>;

// The two most alike groups become one until there are `groups`: likeness is the mean cosine of
// their members' outputs (average linkage). Of equal pairs the first.
[[nodiscard]] ExpertGroups group_experts(const ExpertLikeness& likeness, Index groups);

// A group's expert is its members' mean, weighted by how often each was chosen; equally where none
// was.
[[nodiscard]] ExpertTerms merged_terms(const ExpertLikeness& likeness, const ExpertGroups& groups);

// The likeness of each layer's experts on `batches` global batches of the corpus. The same on any
// layout; collective.
template <class T>
[[nodiscard]] std::vector<ExpertLikeness> measure_likeness(Trainer<T>& trainer,
                                                           const Config& config,
                                                           const Communicator& world,
                                                           const Corpus& corpus,
                                                           std::int64_t batches);

}  // namespace hearth
