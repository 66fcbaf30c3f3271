#include "train/expert_pruning.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.hpp"
#include "kernels/expert_products.hpp"
#include "kernels/fixed_point.hpp"

namespace hearth {

std::int64_t count_drop_sets(Index experts, Index dropped) {
  std::int64_t count = 1;
  // C(n, k) = C(n, n - k), the shorter product.
  const Index k = std::min(dropped, experts - dropped);
  for (Index i = 1; i <= k; ++i) {
    count = count * (experts - k + i) / i;  // exact: a binomial at each step
    if (count > most_drop_sets) return most_drop_sets + 1;
  }
  return count;
}

std::vector<std::vector<Index>> drop_sets(Index experts, Index dropped) {
  std::vector<std::vector<Index>> sets;
  std::vector<Index> set(static_cast<std::size_t>(dropped));
  std::iota(set.begin(), set.end(), Index{0});
  while (true) {
    sets.push_back(set);
    // The last number that can still grow; those behind it follow it.
    Index i = dropped - 1;
    while (i >= 0 && set[static_cast<std::size_t>(i)] == experts - dropped + i) --i;
    if (i < 0) return sets;
    ++set[static_cast<std::size_t>(i)];
    for (auto j = static_cast<std::size_t>(i) + 1; j < set.size(); ++j) set[j] = set[j - 1] + 1;
  }
}

std::vector<std::vector<Index>> grown_sets(Index experts, const std::vector<Index>& dropped) {
  std::vector<std::vector<Index>> sets;
  for (Index expert = 0; expert < experts; ++expert) {
    if (std::binary_search(dropped.begin(), dropped.end(), expert)) continue;
    std::vector<Index>& set = sets.emplace_back(dropped);
    set.insert(std::upper_bound(set.begin(), set.end(), expert), expert);
  }
  return sets;
}

namespace {

template <class R>
void mask_logits(const Array2<const R>& logits, const Array1<const int>& dropped,
                 const Array2<R>& masked) {
  Kokkos::deep_copy(Exec(), masked, logits);
  constexpr R lowest = -Kokkos::Experimental::infinity_v<R>;
  Kokkos::parallel_for(
      "mask_logits", Kokkos::RangePolicy<Exec>(0, static_cast<Index>(masked.extent(0))),
      KOKKOS_LAMBDA(const Index t) {
        for (std::size_t i = 0; i < dropped.extent(0); ++i) masked(t, dropped(i)) = lowest;
      });
}

double sum_in_order(const Array1<double>& values) {
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), values);
  return std::accumulate(host.data(), host.data() + host.size(), 0.0);
}

Array1<int> on_device(const std::vector<Index>& set) {
  HostArray1<int> host("dropped", set.size());
  std::copy(set.begin(), set.end(), host.data());
  const Array1<int> device("dropped", set.size());
  Kokkos::deep_copy(device, host);
  return device;
}

}  // namespace

template <class R>
DropTrial<R>::DropTrial(DropSets sets) : sets_(std::move(sets)) {
  for (const auto& layer : sets_) {
    squared_.emplace_back(layer.size() + 1, 0.0);
    norms_.emplace_back(layer.size() + 1, 0);
  }
}

template <class R>
void DropTrial<R>::observe(const SeenTokens<R>& seen) {
  const auto layer = static_cast<std::size_t>(seen.layer);
  const Index tokens = seen.logits.extent(0), destinations = seen.logits.extent(1);
  if (tokens == 0 || sets_[layer].empty()) return;
  const RouterTraits traits = seen.router.traits();
  const Array2<R> logits("masked logits", tokens, destinations);
  const Array2<int> choice("choice", tokens, traits.slots);
  const Array2<R> gate("gates", tokens, traits.slots);
  const Routing<R> routing{Array2<R>("affinity", tokens, destinations),
                           Array1<R>("log sum", tokens), choice, choice, gate};
  const Array2<char> scratch("router scratch", tokens, traits.scratch_bytes);
  const Array2<double> weights("weights", tokens, destinations);
  const Array1<double> squared("squared change", tokens);
  DeviceCell cell;
  cell.tokens = tokens;
  const auto add = [&](const kernels::Mixture<R>& other, double& sum) {
    kernels::squared_difference<R>({seen.choice, seen.gate}, other, seen.product, weights, squared);
    sum += sum_in_order(squared);
  };
  for (std::size_t set = 0; set < sets_[layer].size(); ++set) {
    mask_logits<R>(seen.logits, on_device(sets_[layer][set]), logits);
    seen.router.choose({cell, logits, scratch}, routing);
    add({choice, gate}, squared_[layer][set]);
  }
  add({}, squared_[layer].back());
}

template <class R>
void DropTrial<R>::end_cell() {
  for (std::size_t layer = 0; layer < squared_.size(); ++layer) {
    for (std::size_t set = 0; set < squared_[layer].size(); ++set) {
      const double norm = std::sqrt(squared_[layer][set]);
      const bool fits =
          kernels::add_statistic_term(norms_[layer][set], norm, kernels::statistic_unit);
      unfit_ += fits ? 0 : 1;
      squared_[layer][set] = 0;
    }
  }
}

template <class R>
std::vector<std::vector<double>> DropTrial<R>::sums(const Communicator& world) const {
  std::vector<std::int64_t> all = {unfit_};
  for (const auto& layer : norms_) all.insert(all.end(), layer.begin(), layer.end());
  world.sum(all);
  if (all[0] > 0) {
    throw CollectiveError(static_cast<int>(Status::failure),
                          "calibration: experts' outputs are not finite or too large; look at the "
                          "checkpoint's weights");
  }
  std::vector<std::vector<double>> result;
  std::size_t next = 1;
  for (const auto& layer : norms_) {
    auto& sums = result.emplace_back();
    for (std::size_t i = 0; i < layer.size(); ++i) {
      sums.push_back(static_cast<double>(all[next++]) * kernels::statistic_unit);
    }
  }
  return result;
}

std::vector<PrunedLayer> choose_drops(const std::vector<Index>& experts, Index kept,
                                      std::int64_t most_sets, const CompareSets& compare) {
  std::vector<PrunedLayer> plan(experts.size());
  const auto missing = [&](std::size_t layer) {
    return experts[layer] - kept - static_cast<Index>(plan[layer].dropped.size());
  };
  for (bool first = true, open = true; open; first = false) {
    // 1. The sets that each layer compares this time.
    DropSets sets(plan.size());
    for (std::size_t layer = 0; layer < plan.size(); ++layer) {
      if (first) {
        plan[layer].enumerated = count_drop_sets(experts[layer], missing(layer)) <= most_sets;
      } else if (missing(layer) == 0) {
        continue;
      }
      sets[layer] = plan[layer].enumerated ? drop_sets(experts[layer], missing(layer))
                                           : grown_sets(experts[layer], plan[layer].dropped);
    }
    // 2. All layers' at once.
    const auto changes = compare(sets);
    // 3. The best ones.
    open = false;
    for (std::size_t layer = 0; layer < plan.size(); ++layer) {
      if (sets[layer].empty()) continue;
      PrunedLayer& pruned = plan[layer];
      const auto best = std::min_element(changes[layer].begin(), changes[layer].end() - 1);
      pruned.dropped = sets[layer][static_cast<std::size_t>(best - changes[layer].begin())];
      pruned.change = *best;
      pruned.norm = changes[layer].back();
      pruned.sets += static_cast<std::int64_t>(sets[layer].size());
      open = open || missing(layer) > 0;
    }
  }
  for (std::size_t layer = 0; layer < plan.size(); ++layer) {
    const auto& dropped = plan[layer].dropped;
    for (Index expert = 0; expert < experts[layer]; ++expert) {
      if (!std::binary_search(dropped.begin(), dropped.end(), expert)) {
        plan[layer].kept.push_back(expert);
      }
    }
  }
  return plan;
}

template <class T>
std::vector<PrunedLayer> choose_experts(Trainer<T>& trainer, const Config& config,
                                        const Communicator& world, const Corpus& corpus,
                                        std::int64_t batches, Index kept) {
  return choose_drops(config.experts_by_layer(), kept, most_drop_sets, [&](const DropSets& sets) {
    DropTrial<Real<T>> trial(sets);
    trainer.observe(corpus, batches, trial);
    return trial.sums(world);
  });
}

template class DropTrial<float>;
template class DropTrial<double>;
#define HEARTH_INSTANTIATE(T)                          \
  template std::vector<PrunedLayer> choose_experts<T>( \
      Trainer<T>&, const Config&, const Communicator&, const Corpus&, std::int64_t, Index)
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
HEARTH_INSTANTIATE(bfloat16);
#undef HEARTH_INSTANTIATE

}  // namespace hearth
