#include "train/skip_calibration.hpp"

#include <numeric>

namespace hearth {

template <class R>
ShareCounts<R>::ShareCounts(Index moe_layers)
    : counts_("counts of shares", moe_layers, share_steps + 1) {}

namespace {

template <class R>
void count_shares(const SeenTokens<R>& seen, const Array2<std::int64_t>& counts) {
  const Array2<const int> choice = seen.choice;
  const Array2<const R> gate = seen.gate;
  const Index layer = seen.layer;
  const int slots = static_cast<int>(choice.extent(1));
  Kokkos::parallel_for(
      "count_shares", Kokkos::RangePolicy<Exec>(0, static_cast<Index>(choice.extent(0))),
      KOKKOS_LAMBDA(const Index t) {
        int best = 0;
        for (int j = 1; j < slots && choice(t, j) >= 0; ++j) {
          if (gate(t, j) > gate(t, best)) best = j;
        }
        const auto largest = static_cast<double>(gate(t, best));
        for (int j = 0; j < slots && choice(t, j) >= 0; ++j) {
          if (j == best || !(largest > 0)) continue;
          const double share = static_cast<double>(gate(t, j)) / largest;
          if (!(share >= 0)) continue;  // a not-a-number
          Kokkos::atomic_inc(&counts(layer, static_cast<Index>(share * share_steps)));
        }
      });
}

}  // namespace

template <class R>
void ShareCounts<R>::observe(const SeenTokens<R>& seen) {
  count_shares(seen, counts_);
}

template <class R>
std::vector<std::vector<std::int64_t>> ShareCounts<R>::counts(const Communicator& world) const {
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), counts_);
  std::vector<std::int64_t> all(host.data(), host.data() + host.size());
  world.sum(all);
  std::vector<std::vector<std::int64_t>> by_layer;
  for (auto begin = all.begin(); begin != all.end(); begin += share_steps + 1) {
    by_layer.emplace_back(begin, begin + share_steps + 1);
  }
  return by_layer;
}

double median_share(const std::vector<std::int64_t>& counts) {
  const std::int64_t all = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  if (all == 0) return 0;
  std::int64_t below = 0;
  int step = 0;
  // The lower one of two in the middle.
  for (; below + counts[static_cast<std::size_t>(step)] < (all + 1) / 2; ++step) {
    below += counts[static_cast<std::size_t>(step)];
  }
  return static_cast<double>(step) / share_steps;
}

template <class T>
std::vector<double> calibrate_skipping(Trainer<T>& trainer, const Config& config,
                                       const Communicator& world, const Corpus& corpus,
                                       std::int64_t batches) {
  ShareCounts<Real<T>> shares(config.moe_layers());
  trainer.observe(corpus, batches, shares);
  std::vector<double> medians;
  for (const auto& counts : shares.counts(world)) medians.push_back(median_share(counts));
  return medians;
}

template class ShareCounts<float>;
template class ShareCounts<double>;
#define HEARTH_INSTANTIATE(T)                         \
  template std::vector<double> calibrate_skipping<T>( \
      Trainer<T>&, const Config&, const Communicator&, const Corpus&, std::int64_t)
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
HEARTH_INSTANTIATE(bfloat16);
#undef HEARTH_INSTANTIATE

}  // namespace hearth
