// AdamW with master weights and moments shared out over the ranks that hold a tensor.
#pragma once

#include <array>

#include "kernels/adam.hpp"
#include "model/parameters.hpp"
#include "model/shard_checksums.hpp"
#include "parallel/device_exchange.hpp"

namespace hearth {

// One rank's shard of an arena.
template <class T>
struct Shard {
  Range range;               // of the arena, in elements; whole blocks
  std::vector<Index> sizes;  // (ranks that hold the arena)
  Array1<Real<T>> weights;   // (range.size()): the master copy
  Array1<T> rounded;         // (range.size()): that part of the arena's; the same as weights
                             // where the types are
  kernels::GradientArray<Real<T>> gradient;     // (range.size()): that part of the arena's
  Array1<Real<T>> first_moment, second_moment;  // (range.size())
  Array1<std::uint8_t> decay;                   // (blocks): weight decay applies
  ShardChecksums checksums;                     // of weights
};

struct GradientReport {
  double norm = 0;      // of the whole gradient, before clipping
  bool applied = true;  // false: the loss or the gradient is not finite or too large
  // Where it was not applied, elements that could not be summed: Parameters::overflow, over all
  // ranks. They may all be 0.
  std::vector<std::int64_t> overflow;
};

// Steps without an update.
struct SkippedSteps {
  std::int64_t all = 0;       // since the first step
  std::int64_t in_a_row = 0;  // the last ones
};

template <class T>
class Optimizer {
 public:
  Optimizer(const Config& config, Parameters<T>& parameters, const Mesh& mesh,
            const DeviceExchange& everyone, const DeviceExchange& data);

  // Initial weights, a pure function of the seed, and zero moments.
  void initialize();

  // Sums the gradients over ranks, clips, and updates this rank's shards, for the step with index
  // `step` from 0. Where an element of the gradient could not be summed, or `unfit_losses`, this
  // rank's, is not 0 on every rank, weights and moments stay as they are and the step counts as
  // skipped.
  GradientReport update(std::int64_t step, std::int64_t unfit_losses);

  // Spreads the master weights, which somebody has set, to every rank that computes with them.
  void spread_weights();

  // combined_checksum of the weights, the same on any layout. Collective.
  [[nodiscard]] std::uint64_t weights_checksum() const;
  // Part of the optimizer's state: Adam's correction of its moments wants the number of updates.
  [[nodiscard]] const SkippedSteps& skipped() const { return skipped_; }
  void set_skipped(const SkippedSteps& skipped) { skipped_ = skipped; }

  [[nodiscard]] std::array<Shard<T>, 2>& shards() { return shards_; }  // by Owner
  [[nodiscard]] const std::array<Shard<T>, 2>& shards() const { return shards_; }

 private:
  [[nodiscard]] std::vector<std::int64_t> non_finite_sums() const;  // as GradientReport::overflow
  void gather_weights();
  [[nodiscard]] const DeviceExchange& exchange(Owner owner) const {
    return owner == Owner::everyone ? everyone_ : data_;
  }

  Config config_;
  Parameters<T>& parameters_;
  Communicator world_;
  const DeviceExchange& everyone_;
  const DeviceExchange& data_;
  std::array<Shard<T>, 2> shards_;
  SkippedSteps skipped_;
};

}  // namespace hearth
