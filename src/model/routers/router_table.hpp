// From the deck's name of a router to the router.
#pragma once

#include "model/routers/router.hpp"

namespace hearth {

// The router of a layer with experts (numbered among them). R is float or double.
template <class R>
[[nodiscard]] std::unique_ptr<Router<R>> make_router(const Config& config, Index moe_layer);

[[nodiscard]] RouterTraits router_traits(const Config& config, Index moe_layer);

// The largest number of slots of any layer; 0 without experts.
[[nodiscard]] Index most_slots(const Config& config);

#define HEARTH_ROUTER(name, text) \
  template <class R>              \
  std::unique_ptr<Router<R>> make_##name##_router(const RouterPlace& place);
#include "config/routers.def"
#undef HEARTH_ROUTER

// In a router's file: defines what the table calls.
#define HEARTH_DEFINE_ROUTER(name, Class)                                                  \
  template <class R>                                                                       \
  std::unique_ptr<Router<R>> make_##name##_router(const RouterPlace& place) {              \
    return std::make_unique<Class<R>>(place);                                              \
  }                                                                                        \
  template std::unique_ptr<Router<float>> make_##name##_router<float>(const RouterPlace&); \
  template std::unique_ptr<Router<double>> make_##name##_router<double>(const RouterPlace&);

}  // namespace hearth
