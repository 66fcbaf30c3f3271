// The products on the CPU without a vendor's library.
#include <type_traits>

#include "kernels/matmul/backend.hpp"
#include "kernels/matmul/matmul_pairs.hpp"
#include "kernels/matmul/portable.hpp"
#include "kernels/processor.hpp"

namespace hearth::kernels {

struct Matmul::Vendor::Library {
  bool in_pairs;  // products of bfloat16
  PairProducts pairs;
};

Matmul::Vendor::Vendor(Bfloat16Products products) : library(std::make_unique<Library>()) {
  library->in_pairs = products == Bfloat16Products::pairs ||
                      (products == Bfloat16Products::fastest && pairs_are_fast);
}
Matmul::Vendor::~Vendor() = default;

template <class T, class C>
void Matmul::Vendor::run(const std::vector<Problem<T, C>>& problems, Operation operation,
                         Output output, Grouping /*grouping*/) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    if (library->in_pairs) return library->pairs.run(problems, operation, output);
  }
  run_portable<T, C>(problems, operation, output);
}

#define HEARTH_INSTANTIATE(T, C)                                                                \
  template void Matmul::Vendor::run<T, C>(const std::vector<Problem<T, C>>&, Operation, Output, \
                                          Grouping)
HEARTH_FOR_PRODUCT_TYPES(HEARTH_INSTANTIATE)
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
