// The products on the CPU without a vendor's library.
#include "kernels/matmul/backend.hpp"
#include "kernels/matmul/portable.hpp"

namespace hearth::kernels {

struct Matmul::Vendor::Library {};

Matmul::Vendor::Vendor() = default;
Matmul::Vendor::~Vendor() = default;

template <class T>
void Matmul::Vendor::run(const std::vector<Problem<T>>& problems, Operation operation,
                         Output output) {
  run_portable(problems, operation, output);
}

template void Matmul::Vendor::run<float>(const std::vector<Problem<float>>&, Operation, Output);
template void Matmul::Vendor::run<double>(const std::vector<Problem<double>>&, Operation, Output);

}  // namespace hearth::kernels
