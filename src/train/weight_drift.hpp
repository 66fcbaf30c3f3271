// How far experts and their routers' rows have moved, from one row of statistics to the next and
// since the start. A rank keeps its shard of the weights of the row before; the first weights are
// made anew from the seed.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "train/optimizer.hpp"

namespace hearth {

// One measure, (layers with experts, most destinations): NaN where there is no such expert, where
// it has no such weights, or where they are not known.
struct DriftMeasure {
  std::string name, description;
  std::vector<double> values;
};

// The measures without values, in the order of WeightDrift::measure.
[[nodiscard]] std::vector<DriftMeasure> drift_measures();

template <class T>
class WeightDrift {
 public:
  WeightDrift(const Config& config, const Parameters<T>& parameters, const Optimizer<T>& optimizer,
              const Communicator& world);

  // Takes the present weights for those of the row before.
  void mark();

  // Whether training began with the seed's weights: those of a model that was made of another
  // cannot be made anew.
  void set_from_seed(bool from_seed) { from_seed_ = from_seed; }
  [[nodiscard]] bool from_seed() const { return from_seed_; }

  // This rank's shards of the weights of the row before, for the checkpoint.
  [[nodiscard]] const std::array<Array1<Real<T>>, 2>& before() const {
    return before_;
  }  // by Owner

  // On the first rank, bit for bit the same on any layout; empty elsewhere. Collective.
  [[nodiscard]] std::vector<DriftMeasure> measure() const;

 private:
  // A run of a shard's elements that belongs to one expert, or to rows of a router.
  struct Piece {
    Owner owner;
    Range range;         // elements of the arena, without padding
    Range in_shard;      // of the shard's arrays
    Index first, width;  // as of kernels::add_squared_distance
    Index row, rows;     // of the sums
  };
  // Sums by kind (experts, routers), layer and destination.
  [[nodiscard]] Index row_of(Index kind, Index layer) const {
    return (kind * layers_ + layer) * destinations_;
  }
  [[nodiscard]] Index rows() const { return row_of(2, 0); }
  void find_pieces();
  // Σ (now − then)² and Σ now² … of this rank's shards: (measures, rows, 3).
  [[nodiscard]] std::vector<std::int64_t> sums() const;

  Config config_;
  const Parameters<T>& parameters_;
  const Optimizer<T>& optimizer_;
  Communicator world_;
  Index layers_, destinations_;
  std::vector<Piece> pieces_;
  std::vector<char> there_;  // (rows): whether there are such weights
  std::array<Array1<Real<T>>, 2> before_;
  bool from_seed_ = true;
};

}  // namespace hearth
