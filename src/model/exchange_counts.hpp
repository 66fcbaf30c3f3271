// How far token copies travel in a step: the one thing recorded that depends on the layout.
#pragma once

#include <algorithm>
#include <vector>

#include "base/types.hpp"

namespace hearth {

// Of all layers with experts, in one array so that one reduction over ranks serves all.
struct ExchangeSums {
  std::vector<std::int64_t> values;  // (4 · moe layers)

  // (moe layers) each. Copies of tokens for experts with matrices.
  [[nodiscard]] std::vector<std::int64_t> copies() const { return section(0); }
  // Those whose expert is on their token's rank.
  [[nodiscard]] std::vector<std::int64_t> copies_kept() const { return section(1); }
  // Sum over tokens of the different ranks that their copies go to.
  [[nodiscard]] std::vector<std::int64_t> ranks_reached() const { return section(2); }
  // The same without a token's own.
  [[nodiscard]] std::vector<std::int64_t> other_ranks_reached() const { return section(3); }

 private:
  [[nodiscard]] std::vector<std::int64_t> section(std::ptrdiff_t number) const {
    const auto layers = static_cast<std::ptrdiff_t>(values.size() / 4);
    const auto begin = values.begin() + number * layers;
    return {begin, begin + layers};
  }
};

// Of this rank's tokens.
class ExchangeCounts {
 public:
  explicit ExchangeCounts(Index moe_layers)
      : copies_(static_cast<std::size_t>(moe_layers), 0),
        kept_(copies_),
        reached_("ranks reached", 2, moe_layers) {}

  void clear() {
    std::fill(copies_.begin(), copies_.end(), 0);
    std::fill(kept_.begin(), kept_.end(), 0);
    Kokkos::deep_copy(reached_, 0);
  }

  void add_copies(Index layer, std::int64_t copies, std::int64_t kept) {
    copies_[static_cast<std::size_t>(layer)] += copies;
    kept_[static_cast<std::size_t>(layer)] += kept;
  }

  // Ranks reached, and those other than the token's own, of each layer; on the device.
  [[nodiscard]] const Array2<std::int64_t>& reached() const { return reached_; }  // (2, moe layers)

  [[nodiscard]] ExchangeSums sums() const {
    ExchangeSums all{copies_};
    all.values.insert(all.values.end(), kept_.begin(), kept_.end());
    const auto reached = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), reached_);
    all.values.insert(all.values.end(), reached.data(), reached.data() + reached.size());
    return all;
  }

 private:
  std::vector<std::int64_t> copies_, kept_;  // (moe layers)
  Array2<std::int64_t> reached_;             // (2, moe layers)
};

}  // namespace hearth
