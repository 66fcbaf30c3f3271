// Whoever wants to see, beside a forward pass, what all experts would make of a layer's tokens.
#pragma once

#include "model/routers/router.hpp"

namespace hearth {

// Some tokens of a cell in one layer with experts.
template <class R>
struct SeenTokens {
  Index layer;  // among the layers with experts
  const Router<R>& router;
  Array2<const R> logits;        // (tokens, destinations)
  Array2<const R> affinity;      // (tokens, destinations): as Routing::affinity
  Array2<const int> choice;      // (tokens, slots)
  Array2<const R> gate;          // (tokens, slots)
  Array2<const double> product;  // (tokens, experts · experts): kernels::expert_products; empty
                                 // where they are not wanted
};

template <class R>
class ExpertObserver {
 public:
  ExpertObserver() = default;
  ExpertObserver(const ExpertObserver&) = delete;
  ExpertObserver& operator=(const ExpertObserver&) = delete;
  virtual ~ExpertObserver() = default;

  // Whether it wants the products, for which every expert works on every token.
  [[nodiscard]] virtual bool wants_products() const = 0;
  // The tokens of a cell come by in order, a few at a time, for each layer.
  virtual void observe(const SeenTokens<R>& seen) = 0;
  // All layers have seen a cell of this rank.
  virtual void end_cell() {}
};

}  // namespace hearth
