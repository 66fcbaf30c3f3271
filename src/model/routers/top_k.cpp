#include "model/routers/top_k.hpp"

#include "model/routers/router_table.hpp"

namespace hearth {

HEARTH_DEFINE_ROUTER(top_k, TopK)

}  // namespace hearth
