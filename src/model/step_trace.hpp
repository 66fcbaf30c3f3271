// What one step of training decided about some of its tokens, layer by layer: rows of traces.h5.
#pragma once

#include <cstdint>
#include <vector>

#include "model/device_cell.hpp"
#include "parallel/communicator.hpp"

namespace hearth {

// A token's choice, and its gate.
struct TracedChoice {
  std::int32_t expert;  // -1: none
  float gate;           // not a number: none
};

class StepTrace {
 public:
  // `places`: the tokens, as ascending places in the global batch, whose first sequence has the
  // number `first_sequence` in the order of the data. `layers`: those traced, as numbers among the
  // layers with experts, ascending; `slots`: the most choices of a token in any of them.
  StepTrace(std::vector<std::int64_t> places, std::vector<Index> layers, Index slots,
            Index first_sequence);

  // A cell of this rank is about to pass.
  void add_cell(const DeviceCell& cell);
  // What a layer with experts has decided about the cell: copies that are sent. Layers that are not
  // traced are passed over. R is float or double.
  template <class R>
  void add_layer(Index layer, const DeviceCell& cell,
                 const Array2<const int>& choice,  // (tokens, slots of the layer)
                 const Array2<const R>& gate);     // (tokens, slots of the layer)

  // Brings what all ranks have seen to the first one; below, there alone. Collective.
  void collect(const Communicator& world);

  [[nodiscard]] Index tokens() const { return static_cast<Index>(places_.size()); }
  [[nodiscard]] Index layers() const { return static_cast<Index>(layers_.size()); }
  [[nodiscard]] Index slots() const { return slots_; }
  [[nodiscard]] const std::vector<std::int64_t>& places() const { return places_; }  // (tokens)
  [[nodiscard]] std::vector<std::int32_t> token_ids() const;                         // (tokens)
  [[nodiscard]] std::vector<std::int32_t> sources() const;                           // (tokens)
  // (layers, tokens, slots): a token's choices in the order of their gates, largest first, ties to
  // the lower number; then none.
  [[nodiscard]] std::vector<TracedChoice> choices() const;

 private:
  // The traced tokens of a cell, as [first, last) of places_.
  struct Part {
    std::size_t first, last;
    Index begin;  // place of the cell's first token
  };
  [[nodiscard]] Part part_of(const DeviceCell& cell) const;
  [[nodiscard]] std::int64_t& choice_word(std::size_t layer, std::size_t token, Index slot);

  std::vector<std::int64_t> places_;
  std::vector<Index> layers_;
  Index slots_, first_sequence_;
  // One word for each token, source and token id, then one for each of (layers, tokens, slots),
  // expert + 1 and the gate's bits; 0 where nothing is. Every word is one rank's, so that a sum
  // over ranks brings all together, whichever rank has which.
  std::vector<std::int64_t> words_;
};

}  // namespace hearth
