#include "train/optimizer.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>

#include "kernels/convert.hpp"
#include "kernels/statistics.hpp"
#include "model/weights_checksum.hpp"
#include "train/schedule.hpp"

namespace hearth {

namespace {

constexpr std::array owners = {Owner::everyone, Owner::experts};

Array1<std::uint8_t> decay_by_block(const TensorTable& table, const ArenaLayout& layout,
                                    Range range) {
  const Index blocks = range.size() / kernels::block_elements;
  HostArray1<std::uint8_t> decay("decay", blocks);
  for (const ArenaLayout::Run& run : layout.runs(range)) {
    const bool applies = table[static_cast<std::size_t>(run.tensor)].decay;
    const Index first = (run.begin - range.begin) / kernels::block_elements;
    for (Index b = 0; b < kernels::whole_blocks(run.elements); ++b) decay(first + b) = applies;
  }
  return Kokkos::create_mirror_view_and_copy(Memory(), decay);
}

// The part of the arena itself, or memory beside it where the model computes in a shorter type.
template <class T>
Array1<Real<T>> master_weights(const Array1<T>& arena, Range range) {
  if constexpr (std::is_same_v<T, Real<T>>) {
    return run_of(arena, range.begin, range.end);
  } else {
    return zeroed<Array1<Real<T>>>("master weights", range.size());
  }
}

}  // namespace

template <class T>
Optimizer<T>::Optimizer(const Config& config, Parameters<T>& parameters, const Mesh& mesh,
                        const DeviceExchange& everyone, const DeviceExchange& data)
    : config_(config),
      parameters_(parameters),
      world_(mesh.world),
      everyone_(everyone),
      data_(data) {
  for (const Owner owner : owners) {
    const ArenaLayout& layout = parameters.arena(owner).layout;
    const Communicator& ranks = exchange(owner).communicator();
    const Range range = layout.shard(ranks.size(), ranks.rank());
    shards_[static_cast<std::size_t>(owner)] = {
        range,
        layout.shard_sizes(ranks.size()),
        master_weights<T>(parameters.arena(owner).weights, range),
        run_of(parameters.arena(owner).weights, range.begin, range.end),
        parameters.arena(owner).gradients.part(range.begin, range.end),
        zeroed<Array1<Real<T>>>("first moment", range.size()),
        zeroed<Array1<Real<T>>>("second moment", range.size()),
        decay_by_block(parameters.table(), layout, range),
        ShardChecksums(parameters.table(), layout, range)};
  }
}

template <class T>
void Optimizer<T>::initialize() {
  for (const Owner owner : owners) {
    const Shard<T>& shard = shards_[static_cast<std::size_t>(owner)];
    const auto host = Kokkos::create_mirror_view(shard.weights);
    hearth::initialize<Real<T>>(parameters_.table(), parameters_.arena(owner).layout,
                                static_cast<std::uint64_t>(config_.run.seed), shard.range, host);
    Kokkos::deep_copy(shard.weights, host);
  }
  spread_weights();
}

template <class T>
GradientReport Optimizer<T>::update(std::int64_t step, std::int64_t unfit_losses) {
  // The squared norm's two parts and the count of what could not be summed.
  std::array<std::int64_t, 3> sums = {0, 0, 0};
  for (const Owner owner : owners) {
    const Shard<T>& shard = shards_[static_cast<std::size_t>(owner)];
    parameters_.arena(owner).gradients.visit(
        [&]<class G>(const Array1<G>& all) { exchange(owner).reduce_scatter(all, shard.sizes); });
    const kernels::SquaredNorm norm = shard.gradient.visit(
        []<class G>(const Array1<G>& part) { return kernels::squared_norm<G>(part); });
    sums[0] += norm.high;
    sums[1] += norm.low;
    sums[2] += norm.out_of_range;
  }
  std::vector<std::int64_t> overflow = parameters_.overflow();
  sums[2] += std::accumulate(overflow.begin(), overflow.end(), unfit_losses);
  world_.sum(sums);
  GradientReport report{std::sqrt(kernels::SquaredNorm{sums[0], sums[1]}.value())};
  report.applied = sums[2] == 0 && std::isfinite(report.norm);
  if (!report.applied) {
    if (!config_.run.reproducible) overflow = non_finite_sums();
    world_.sum(overflow);
    report.overflow = std::move(overflow);
    ++skipped_.all;
    ++skipped_.in_a_row;
    return report;
  }
  skipped_.in_a_row = 0;

  const OptimizerConfig& o = config_.optimizer;
  const auto t = static_cast<double>(step + 1 - skipped_.all);
  const double scale = o.clip_norm > 0 ? std::min(1.0, o.clip_norm / (report.norm + 1e-6)) : 1.0;
  const kernels::AdamStep adam{learning_rate(config_, step),
                               o.beta1,
                               o.beta2,
                               o.epsilon,
                               o.weight_decay,
                               1.0 - std::pow(o.beta1, t),
                               1.0 - std::pow(o.beta2, t),
                               scale};
  for (const Shard<T>& shard : shards_) {
    shard.gradient.visit([&]<class G>(const Array1<G>& gradient) {
      kernels::adam<T, G>(adam, gradient, shard.decay, shard.weights, shard.first_moment,
                          shard.second_moment, shard.rounded, shard.checksums.chunks());
    });
  }
  gather_weights();
  return report;
}

// Plain sums are looked through once something is wrong with them.
template <class T>
std::vector<std::int64_t> Optimizer<T>::non_finite_sums() const {
  const std::vector<Index> first = first_slices(parameters_.table());
  std::vector<std::int64_t> all(static_cast<std::size_t>(2 * first.back()));
  for (const Owner owner : owners) {
    const Shard<T>& shard = shards_[static_cast<std::size_t>(owner)];
    for (const ArenaLayout::Run& run : parameters_.arena(owner).layout.runs(shard.range)) {
      const Index slice = first[static_cast<std::size_t>(run.tensor)] + run.slice;
      const Index begin = run.begin - shard.range.begin;
      all[static_cast<std::size_t>(2 * slice)] += kernels::count_non_finite<Real<T>>(
          run_of(shard.gradient.plain, begin, begin + run.elements));
    }
  }
  return all;
}

template <class T>
void Optimizer<T>::spread_weights() {
  if constexpr (!std::is_same_v<T, Real<T>>) {
    for (const Shard<T>& shard : shards_) {
      kernels::convert<Real<T>, T>(Array1<const Real<T>>(shard.weights), shard.rounded);
    }
  }
  for (const Shard<T>& shard : shards_) {
    kernels::take_checksums<Real<T>>(shard.weights, shard.checksums.chunks());
  }
  gather_weights();
}

template <class T>
std::uint64_t Optimizer<T>::weights_checksum() const {
  std::vector<std::int64_t> sums(parameters_.table().size(), 0);
  for (const Shard<T>& shard : shards_) shard.checksums.add_to(sums);
  world_.sum(sums);
  return combined_checksum(parameters_.table(), {sums.begin(), sums.end()});
}

template <class T>
void Optimizer<T>::gather_weights() {
  for (const Owner owner : owners) {
    const Shard<T>& shard = shards_[static_cast<std::size_t>(owner)];
    exchange(owner).template all_gather<T>(parameters_.arena(owner).weights, shard.sizes);
  }
}

template class Optimizer<float>;
template class Optimizer<double>;
template class Optimizer<bfloat16>;

}  // namespace hearth
