// Matrix products in Kokkos alone, for every type and device.
#pragma once

#include <vector>

#include "kernels/matmul/backend.hpp"

namespace hearth::kernels {

// Each element of c is one sum in Real<T> over k in ascending order: it depends on its row of a and
// its column of b alone. A problem with k = 0 has the product zero.
template <class T, class C>
void run_portable(const std::vector<Problem<T, C>>& problems, Operation operation, Output output);

}  // namespace hearth::kernels
