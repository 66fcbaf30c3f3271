#include "model/routers/router_table.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace hearth {

template <class R>
std::unique_ptr<Router<R>> make_router(const Config& config, Index moe_layer) {
  const RouterPlace place(config, moe_layer);
  const std::string& asked = config.moe.router;
#define HEARTH_ROUTER(name, text) \
  if (asked == #name) return make_##name##_router<R>(place);
#include "config/routers.def"
#undef HEARTH_ROUTER
  throw failure("moe.router = ", asked, " is not in the table of routers");
}

RouterTraits router_traits(const Config& config, Index moe_layer) {
  return make_router<float>(config, moe_layer)->traits();
}

Index most_slots(const Config& config) {
  Index most = 0;
  for (Index layer = 0; layer < config.moe_layers(); ++layer) {
    most = std::max(most, router_traits(config, layer).slots);
  }
  return most;
}

template std::unique_ptr<Router<float>> make_router<float>(const Config&, Index);
template std::unique_ptr<Router<double>> make_router<double>(const Config&, Index);

}  // namespace hearth
