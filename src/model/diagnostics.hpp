// What training records while it computes: sums that do not depend on the layout, in integers.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "config/config.hpp"
#include "kernels/fixed_point.hpp"
#include "model/exchange_counts.hpp"

namespace hearth {

// The sums of one optimizer step, in one array so that one reduction over ranks serves all.
// Entries in units of kernels::statistic_unit are marked *. Destinations are experts, then light
// experts; their number differs from layer to layer.
class StepSums {
 public:
  StepSums(const Config& config, Index sources);

  void clear() {
    Kokkos::deep_copy(values_, 0);
    Kokkos::deep_copy(unfit_losses_, 0);
    std::fill(arrived_.begin(), arrived_.end(), 0);
    exchange_.clear();
  }
  [[nodiscard]] const Array1<std::int64_t>& values() const { return values_; }

  // Sequences whose loss is not finite or too large; not among the values.
  [[nodiscard]] const Array1<std::int64_t>& unfit_losses() const {  // (sources)
    return unfit_losses_;
  }

  // Token copies that arrived at this rank's experts, on the host; not among the values.
  [[nodiscard]] std::span<std::int64_t> arrived() { return arrived_; }  // (moe layers · experts)
  [[nodiscard]] std::span<std::int64_t> arrived(Index layer) {          // (experts)
    return arrived().subspan(static_cast<std::size_t>(shape(layer).first_expert),
                             static_cast<std::size_t>(shape(layer).experts));
  }

  // Not among the values either, which are the same on any layout.
  [[nodiscard]] ExchangeCounts& exchange() { return exchange_; }

  // Sections, of the values or of a copy of them on the host.
  template <class A>
  A loss(const A& a) const {
    return section(a, 0, sources_);
  }  // (sources) *
  template <class A>
  A tokens(const A& a) const {
    return section(a, sources_, sources_);
  }  // (sources)
  template <class A>
  A router_loss(const A& a, Index layer) const {  // (3) in kernels::mean_unit: balance, z, entropy
    return section(a, shape(layer).begin, 3);
  }
  template <class A>
  A entropy(const A& a, Index layer) const {
    return section(a, shape(layer).begin + 3, 1);
  }  // *
  template <class A>
  A logit_norm(const A& a, Index layer) const {
    return section(a, shape(layer).begin + 4, 1);
  }  // in kernels::norm_unit
  template <class A>
  A counts(const A& a, Index layer) const {  // (destinations): copies that were sent
    return by_destination(a, layer, 0);
  }
  template <class A>
  A dropped(const A& a, Index layer) const {  // (destinations): chosen, but not sent
    return by_destination(a, layer, 1);
  }
  template <class A>
  A affinity(const A& a, Index layer) const {  // (destinations) *
    return by_destination(a, layer, 2);
  }
  template <class A>
  A gate(const A& a, Index layer) const {  // (destinations) *
    return by_destination(a, layer, 3);
  }
  template <class A>
  A tokens_by_copies(const A& a, Index layer) const {  // (slots + 1): tokens with n copies sent
    const Shape& s = shape(layer);
    return section(a, s.begin + scalars + 4 * s.destinations, s.slots + 1);
  }

  // Where the sums by layer begin; before them stand those by data source.
  [[nodiscard]] Index layers_begin() const { return 2 * sources_; }

  [[nodiscard]] Index sources() const { return sources_; }
  [[nodiscard]] Index moe_layers() const { return static_cast<Index>(shapes_.size()); }
  [[nodiscard]] Index experts(Index layer) const { return shape(layer).experts; }
  [[nodiscard]] Index destinations(Index layer) const { return shape(layer).destinations; }
  [[nodiscard]] Index slots(Index layer) const { return shape(layer).slots; }
  // What each token of the layer chooses; 0: as many as its router decides.
  [[nodiscard]] Index chosen(Index layer) const { return shape(layer).chosen; }

 private:
  static constexpr Index scalars = 5;  // losses, entropy, norm
  struct Shape {
    Index experts, destinations, slots, chosen;
    Index begin;         // in the values
    Index first_expert;  // in arrived_
  };
  [[nodiscard]] const Shape& shape(Index layer) const {
    return shapes_[static_cast<std::size_t>(layer)];
  }
  template <class A>
  static A section(const A& a, Index begin, Index size) {
    return Kokkos::subview(a, Kokkos::pair<Index, Index>(begin, begin + size));
  }
  template <class A>
  A by_destination(const A& a, Index layer, Index kind) const {
    const Shape& s = shape(layer);
    return section(a, s.begin + scalars + kind * s.destinations, s.destinations);
  }

  Index sources_;
  std::vector<Shape> shapes_;  // (moe layers)
  Array1<std::int64_t> values_, unfit_losses_;
  std::vector<std::int64_t> arrived_;
  ExchangeCounts exchange_;
};

// Counts over an interval between checkpoints, of this rank's tokens.
struct IntervalCounts {
  IntervalCounts(const Config& config, Index sources);
  void clear();

  std::int64_t weight = 1;                  // of what is counted; -1 takes it back
  std::vector<Array2<std::int64_t>> pairs;  // (moe layers) of (destinations, destinations)
  // (moe layers) of (vocabulary, destinations), or with `by_half` of (2 · vocabulary,
  // destinations); or empty
  std::vector<Array2<std::int64_t>> tokens;
  Array2<std::int64_t> occurrences;  // (1, or 2 with `by_half`; vocabulary), or empty
  bool by_half = false;
  std::vector<Array2<std::int64_t>> sources;  // (moe layers) of (sources, destinations)
};

}  // namespace hearth
