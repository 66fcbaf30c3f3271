// The products on the CPU without a vendor's library.
#include "kernels/matmul/backend.hpp"
#include "kernels/matmul/portable.hpp"

namespace hearth::kernels {

struct Matmul::Vendor::Library {};

Matmul::Vendor::Vendor(Bfloat16Products /*products*/) {}
Matmul::Vendor::~Vendor() = default;

template <class T, class C>
void Matmul::Vendor::run(const std::vector<Problem<T, C>>& problems, Operation operation,
                         Output output, Grouping /*grouping*/) {
  run_portable<T, C>(problems, operation, output);
}

#define HEARTH_INSTANTIATE(T, C)                                                                \
  template void Matmul::Vendor::run<T, C>(const std::vector<Problem<T, C>>&, Operation, Output, \
                                          Grouping)
HEARTH_FOR_PRODUCT_TYPES(HEARTH_INSTANTIATE)
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
