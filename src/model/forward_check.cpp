#include "model/forward_check.hpp"

#include "base/error.hpp"

namespace hearth {

std::string ForwardCheck::describe(std::size_t place) const {
  if (place == 0) return "the embedding";
  const Index layer = (static_cast<Index>(place) - 1) / places_by_layer();
  const Index within = (static_cast<Index>(place) - 1) % places_by_layer();
  if (layer == layers_) return "the final norm";
  if (within == 0) return text("attention of layer ", layer);
  if (within == 1) return text("the router of layer ", layer);
  if (within == 2 + experts_) return text("the feed-forward part of layer ", layer);
  return text("expert ", within - 2, " of layer ", layer);
}

}  // namespace hearth
