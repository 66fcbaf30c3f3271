// Where in a forward pass values stop being finite: for the diagnosis of a step that cannot be
// taken, in a pass of its own.
#pragma once

#include <string>
#include <vector>

#include "config/config.hpp"
#include "kernels/statistics.hpp"

namespace hearth {

// Counts elements that are not finite by place, in the order in which a token comes by. Integers:
// sums over cells and ranks do not depend on the layout.
class ForwardCheck {
 public:
  explicit ForwardCheck(const Config& config)
      : layers_(config.model.layers),
        experts_(config.has_experts() ? config.moe.experts.largest() : 0),
        counts_(static_cast<std::size_t>(place(layers_, 0) + 1)) {}

  // The layers report in the order of the pass.
  void begin_cell() { layer_ = 0; }
  template <class T>
  void embedding(const Array2<const T>& x) {  // (tokens, hidden)
    look<T>(0, x);
  }
  template <class T>
  void attention(const Array2<const T>& x) {  // (tokens, hidden): the stream after it
    look<T>(place(layer_, 0), x);
  }
  template <class T>
  void router(const Array2<const T>& logits) {  // (tokens, destinations)
    look<T>(place(layer_, 1), logits);
  }
  template <class T>
  void expert(Index expert, const Array2<const T>& outputs) {  // (rows, hidden)
    look<T>(place(layer_, 2 + expert), outputs);
  }
  template <class T>
  void block(const Array2<const T>& x) {  // (tokens, hidden): the stream after the layer
    look<T>(place(layer_++, 2 + experts_), x);
  }
  template <class T>
  void final_norm(const Array2<const T>& x) {  // (tokens, hidden)
    look<T>(place(layers_, 0), x);
  }

  [[nodiscard]] std::vector<std::int64_t>& counts() { return counts_; }  // (places)
  [[nodiscard]] const std::vector<std::int64_t>& counts() const { return counts_; }

  // "expert 5 of layer 3".
  [[nodiscard]] std::string describe(std::size_t place) const;

 private:
  // Of a layer: attention, router, experts, the layer's end.
  [[nodiscard]] Index places_by_layer() const { return 3 + experts_; }
  [[nodiscard]] Index place(Index layer, Index within) const {
    return 1 + layer * places_by_layer() + within;
  }
  template <class T>
  void look(Index place, const Array2<const T>& values) {
    counts_[static_cast<std::size_t>(place)] +=
        kernels::count_non_finite<T>(Array1<const T>(values.data(), values.size()));
  }

  Index layers_, experts_, layer_ = 0;
  std::vector<std::int64_t> counts_;
};

}  // namespace hearth
