// One training step, and validation.
#pragma once

#include "data/corpus.hpp"
#include "model/transformer.hpp"
#include "train/optimizer.hpp"
#include "train/step_cells.hpp"
#include "train/step_fault.hpp"

namespace hearth {

// What one step says about itself; the same on every rank and, but for the exchange, any layout.
struct StepReport {
  std::int64_t step = 0;  // steps done, this one included
  double loss = 0;        // cross-entropy and the routers' losses, means over the step
  double cross_entropy = 0;
  double balance_loss = 0, z_loss = 0, entropy_loss = 0;  // with coefficients
  double learning_rate = 0;
  double gradient_norm = 0;
  std::int64_t tokens = 0;             // target tokens of the step
  std::uint64_t weights_checksum = 0;  // combined_checksum of the weights after the step
  HostArray1<std::int64_t> sums;       // StepSums over all ranks
  std::int64_t tokens_routed = 0;      // in each layer with experts
  ExchangeSums exchange;               // over all ranks; alone depends on the layout
  // Where the step changed no weight, why: the loss or the gradient is not finite or too large.
  // Losses are then not-a-number where the forward pass is not finite, and the gradient's norm is.
  std::optional<StepFault> fault;
};

// Cross-entropy of one data source.
struct SourceLoss {
  std::string name;
  double loss = 0;          // mean in nats per token; NaN: some token's is not finite
  std::int64_t tokens = 0;  // 0: the split has no whole sequence of this source
};

// All sources as one, named "all": the mean over all their tokens; 0 where there is none.
[[nodiscard]] SourceLoss all_sources(const std::vector<SourceLoss>& losses);

// Of each data source's copies in a million, those to experts of each rank, in the order of
// `names`: what parallel.cells = source goes by; nothing with another value or in a dense model.
// Throws input_error where the placement has no line for a source.
[[nodiscard]] std::vector<std::vector<std::int64_t>> copies_by_source(
    const Config& config, const std::vector<SourceCopies>& sources,
    const std::vector<std::string>& names);  // (sources) of (expert_ranks)

template <class T>
class Trainer {
 public:
  // Allocates the model on this rank; weights are those of initialize() or of a checkpoint.
  Trainer(const Config& config, const Mesh& mesh, Index sources);

  // This rank's cells of step `step`, from 0: what is in a cell is a pure function of seed, step
  // and slot in the global batch; as many on every rank, the last ones perhaps empty. Throws
  // CollectiveError where the data are unfit.
  std::vector<DeviceCell> load(const Corpus& corpus, std::int64_t step);

  // Forward and backward of the cells, sum, update. `counts` may be null; a step with a fault is
  // not counted there. `trace`, which may be null too, gets what this rank's cells did.
  StepReport step(const std::vector<DeviceCell>& cells, std::int64_t step, IntervalCounts* counts,
                  StepTrace* trace = nullptr);

  // Mean loss of each source over `batches` global batches of it (0: all there are) of a corpus of
  // one pass.
  std::vector<SourceLoss> evaluate(const Corpus& corpus, std::int64_t batches);

  // The experts that a cell's tokens are sent to, by MoE layer. Every rank of the exchange calls
  // it.
  std::vector<Array2<const int>> route(const DeviceCell& cell);  // (moe layers) of (tokens, slots)

  // Forward passes of the first `batches` global batches, of which `observer` sees the layers with
  // experts. Collective.
  void observe(const Corpus& corpus, std::int64_t batches, ExpertObserver<Real<T>>& observer);
  // The same of one cell, perhaps of no tokens. Every rank of the exchange calls it.
  void observe(const DeviceCell& cell, ExpertObserver<Real<T>>& observer) {
    transformer_.observe(cell, observer);
  }

  // Integers that the routers hand on from step to step (Transformer::router_states), for the
  // checkpoint.
  [[nodiscard]] const std::vector<std::int64_t>& router_states() const { return router_states_; }
  void set_router_states(std::vector<std::int64_t> states);

  [[nodiscard]] Parameters<T>& parameters() { return parameters_; }
  [[nodiscard]] Optimizer<T>& optimizer() { return optimizer_; }
  [[nodiscard]] const StepSums& sums() const { return sums_; }
  [[nodiscard]] PhaseTimers& timers() { return timers_; }

 private:
  [[nodiscard]] StepCells cells_of(const Corpus& corpus, std::int64_t step) const;
  StepFault diagnose(const std::vector<DeviceCell>& cells, std::vector<std::int64_t> overflow,
                     IntervalCounts* counts);

  Config config_;
  const Mesh& mesh_;
  PhaseTimers timers_;
  kernels::Matmul matmul_;
  DeviceExchange everyone_, experts_, data_;
  Parameters<T> parameters_;
  Transformer<T> transformer_;
  Optimizer<T> optimizer_;
  StepSums sums_;
  std::vector<std::int64_t> router_states_;
};

}  // namespace hearth
