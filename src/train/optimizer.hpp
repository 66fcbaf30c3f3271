// AdamW with master weights and moments shared out over the ranks that hold a tensor.
#pragma once

#include <array>

#include "kernels/adam.hpp"
#include "model/parameters.hpp"
#include "parallel/device_exchange.hpp"
#include "train/shard_checksums.hpp"

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
  double norm = 0;            // of the whole gradient, before clipping
  std::int64_t overflow = 0;  // elements that were not finite or too large
};

template <class T>
class Optimizer {
 public:
  Optimizer(const Config& config, Parameters<T>& parameters, const Mesh& mesh,
            const DeviceExchange& everyone, const DeviceExchange& data);

  // Initial weights, a pure function of the seed, and zero moments.
  void initialize();

  // Sums the gradients over ranks, clips, and updates this rank's shards, for the update with
  // index `step` from 0. Without effect on the weights where the gradient is not finite.
  GradientReport update(std::int64_t step);

  // Spreads the master weights, which somebody has set, to every rank that computes with them.
  void spread_weights();

  // combined_checksum of the weights, the same on any layout. Collective.
  [[nodiscard]] std::uint64_t weights_checksum() const;

  [[nodiscard]] std::array<Shard<T>, 2>& shards() { return shards_; }  // by Owner

 private:
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
};

}  // namespace hearth
