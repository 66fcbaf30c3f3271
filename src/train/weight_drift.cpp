#include "train/weight_drift.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/squared_distance.hpp"

namespace hearth {

namespace {

constexpr std::array owners = {Owner::everyone, Owner::experts};

// What is summed; each of experts, then of routers.
enum Measure : Index { norm, drift, start_norm, start_drift, measures };

// The layer with experts whose router the tensor is; -1: none.
Index layer_of_router(const Config& config, const TensorInfo& tensor) {
  for (Index layer = 0; layer < config.moe_layers(); ++layer) {
    if (tensor.name == layer_prefix(config.moe.dense_layers + layer) + "router/weight") {
      return layer;
    }
  }
  return -1;
}

}  // namespace

std::vector<DriftMeasure> drift_measures() {
  return {{"expert_norm", "Frobenius norm of the expert's three matrices together", {}},
          {"expert_drift",
           "of their difference to those of the row before, for the first row to the first weights",
           {}},
          {"expert_start_norm", "of the first weights", {}},
          {"expert_start_drift", "of their difference to the first weights", {}},
          {"router_norm", "Euclidean norm of the expert's row of the router's weight", {}},
          {"router_drift",
           "of its difference to that of the row before, for the first row to the first weights",
           {}},
          {"router_start_norm", "of the first weights", {}},
          {"router_start_drift", "of its difference to the first weights", {}}};
}

template <class T>
WeightDrift<T>::WeightDrift(const Config& config, const Parameters<T>& parameters,
                            const Optimizer<T>& optimizer, const Communicator& world)
    : config_(config),
      parameters_(parameters),
      optimizer_(optimizer),
      world_(world),
      layers_(config.moe_layers()),
      destinations_(config.most_destinations()),
      there_(static_cast<std::size_t>(rows()), 0) {
  for (const Owner owner : owners) {
    const auto number = static_cast<std::size_t>(owner);
    before_[number] = uninitialized<Array1<Real<T>>>("weights of the row before",
                                                     optimizer.shards()[number].range.size());
  }
  find_pieces();
}

template <class T>
void WeightDrift<T>::find_pieces() {
  const TensorTable& table = parameters_.table();
  for (const TensorInfo& tensor : table) {
    const bool experts = tensor.owner == Owner::experts;
    const Index layer = experts ? tensor.moe_layer : layer_of_router(config_, tensor);
    if (layer < 0) continue;
    const auto begin = there_.begin() + row_of(experts ? 0 : 1, layer);
    std::fill(begin, begin + tensor.shape[0], char{1});
  }
  for (const Owner owner : owners) {
    const Range shard = optimizer_.shards()[static_cast<std::size_t>(owner)].range;
    for (const ArenaLayout::Run& run : parameters_.arena(owner).layout.runs(shard)) {
      const TensorInfo& tensor = table[static_cast<std::size_t>(run.tensor)];
      const bool experts = owner == Owner::experts;
      const Index layer = experts ? tensor.moe_layer : layer_of_router(config_, tensor);
      if (layer < 0) continue;
      const Range range{run.begin, run.begin + run.elements};
      pieces_.push_back({owner,
                         range,
                         {range.begin - shard.begin, range.end - shard.begin},
                         run.first,
                         experts ? tensor.slice_elements() : tensor.shape[1],
                         row_of(experts ? 0 : 1, layer) + (experts ? run.slice : 0),
                         experts ? 1 : tensor.shape[0]});
    }
  }
}

template <class T>
void WeightDrift<T>::mark() {
  for (const Owner owner : owners) {
    const auto number = static_cast<std::size_t>(owner);
    Kokkos::deep_copy(before_[number], optimizer_.shards()[number].weights);
  }
}

template <class T>
std::vector<std::int64_t> WeightDrift<T>::sums() const {
  using Values = Array1<const Real<T>>;
  const Array2<std::int64_t> sums("drift sums", measures * rows(),
                                  kernels::squared_distance_columns);
  const auto seed = static_cast<std::uint64_t>(config_.run.seed);
  for (const Piece& piece : pieces_) {
    const auto number = static_cast<std::size_t>(piece.owner);
    const auto of_piece = [&](const Array1<Real<T>>& shard) {
      return Values(run_of(shard, piece.in_shard.begin, piece.in_shard.end));
    };
    const auto add = [&](Measure measure, const Values& a, const Values& b) {
      const Index row = measure * rows() + piece.row;
      kernels::add_squared_distance<Real<T>>(a, b, piece.first, piece.width,
                                             rows_of(sums, row, row + piece.rows));
    };
    const Values now = of_piece(optimizer_.shards()[number].weights);
    add(norm, now, {});
    add(drift, now, of_piece(before_[number]));
    if (!from_seed_) continue;
    // As `now`, in memory of this piece alone.
    const HostArray1<Real<T>> first("first weights", piece.range.size());
    initialize<Real<T>>(parameters_.table(), parameters_.arena(piece.owner).layout, seed,
                        piece.range, first);
    const Values start = Kokkos::create_mirror_view_and_copy(Memory(), first);
    add(start_norm, start, {});
    add(start_drift, now, start);
  }
  std::vector<std::int64_t> all(sums.size());
  Kokkos::deep_copy(Kokkos::View<std::int64_t**, Kokkos::LayoutRight, Kokkos::HostSpace>(
                        all.data(), sums.extent(0), sums.extent(1)),
                    sums);
  return all;
}

template <class T>
std::vector<DriftMeasure> WeightDrift<T>::measure() const {
  std::vector<std::int64_t> all = sums();
  world_.sum_to_first(all);  // every element is one rank's
  if (!world_.is_first()) return {};
  std::vector<DriftMeasure> found = drift_measures();
  constexpr double absent = std::numeric_limits<double>::quiet_NaN();
  const Index by_kind = layers_ * destinations_;
  for (Index kind = 0; kind < 2; ++kind) {
    for (Index measure = 0; measure < measures; ++measure) {
      std::vector<double>& values =
          found[static_cast<std::size_t>(kind * measures + measure)].values;
      const bool known = from_seed_ || measure == norm || measure == drift;
      for (Index i = kind * by_kind; i < (kind + 1) * by_kind; ++i) {
        const auto at =
            static_cast<std::size_t>((measure * rows() + i) * kernels::squared_distance_columns);
        const double square = kernels::SquaredNorm{all[at], all[at + 1]}.value();
        const bool fits = known && there_[static_cast<std::size_t>(i)] != 0 && all[at + 2] == 0;
        values.push_back(fits ? std::sqrt(std::max(0.0, square)) : absent);
      }
    }
  }
  return found;
}

template class WeightDrift<float>;
template class WeightDrift<double>;
template class WeightDrift<bfloat16>;

}  // namespace hearth
