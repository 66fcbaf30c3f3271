// What training records while it computes: sums that do not depend on the layout, in integers.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "config/config.hpp"
#include "kernels/fixed_point.hpp"

namespace hearth {

// The sums of one optimizer step, in one array so that one reduction over ranks serves all.
// Entries in units of kernels::statistic_unit are marked *.
class StepSums {
 public:
  StepSums(const Config& config, Index sources);

  void clear() {
    Kokkos::deep_copy(values_, 0);
    Kokkos::deep_copy(unfit_losses_, 0);
    std::fill(arrived_.begin(), arrived_.end(), 0);
  }
  [[nodiscard]] const Array1<std::int64_t>& values() const { return values_; }

  // Sequences whose loss is not finite or too large; not among the values.
  [[nodiscard]] const Array1<std::int64_t>& unfit_losses() const {  // (sources)
    return unfit_losses_;
  }

  // Token copies that arrived at this rank's experts, on the host; not among the values.
  [[nodiscard]] std::span<std::int64_t> arrived() { return arrived_; }  // (moe layers · experts)
  [[nodiscard]] std::span<std::int64_t> arrived(Index layer) {          // (experts)
    return arrived().subspan(static_cast<std::size_t>(layer * experts_),
                             static_cast<std::size_t>(experts_));
  }

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
  A router_loss(const A& a, Index layer) const {  // (2) in kernels::mean_unit
    return section(a, layer_begin(layer), 2);
  }
  template <class A>
  A entropy(const A& a, Index layer) const {
    return section(a, layer_begin(layer) + 2, 1);
  }  // *
  template <class A>
  A counts(const A& a, Index layer) const {  // (experts)
    return section(a, layer_begin(layer) + 3, experts_);
  }
  template <class A>
  A mass(const A& a, Index layer) const {  // (experts) *
    return section(a, layer_begin(layer) + 3 + experts_, experts_);
  }

  // Where the sums by layer begin; before them stand those by data source.
  [[nodiscard]] Index layers_begin() const { return layer_begin(0); }

  [[nodiscard]] Index moe_layers() const { return moe_layers_; }
  [[nodiscard]] Index experts() const { return experts_; }
  [[nodiscard]] Index sources() const { return sources_; }

 private:
  template <class A>
  static A section(const A& a, Index begin, Index size) {
    return Kokkos::subview(a, Kokkos::pair<Index, Index>(begin, begin + size));
  }
  [[nodiscard]] Index layer_begin(Index layer) const {
    return 2 * sources_ + layer * (3 + 2 * experts_);
  }

  Index sources_, moe_layers_, experts_;
  Array1<std::int64_t> values_, unfit_losses_;
  std::vector<std::int64_t> arrived_;
};

// Counts over an interval between checkpoints, of this rank's tokens.
struct IntervalCounts {
  IntervalCounts(const Config& config, Index sources);
  void clear();

  std::int64_t weight = 1;                    // of what is counted; -1 takes it back
  std::vector<Array2<std::int64_t>> pairs;    // (moe layers) of (experts, experts)
  std::vector<Array2<std::int64_t>> tokens;   // (moe layers) of (vocabulary, experts), or empty
  std::vector<Array2<std::int64_t>> sources;  // (moe layers) of (sources, experts)
};

}  // namespace hearth
