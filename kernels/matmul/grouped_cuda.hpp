// Products of many small segments on NVIDIA's tensor cores, in one launch.
#pragma once

#include <vector>

#include "kernels/matmul/backend.hpp"

namespace hearth::kernels {

// Every output tile is one thread block's, which goes through the whole inner dimension in steps
// of fixed size: an element depends on its row of a and its column of b alone, not on what else is
// in the list. C is bfloat16 or float.
template <class C>
void run_grouped_cuda(const std::vector<Problem<bfloat16, C>>& problems, Operation operation,
                      Output output);

}  // namespace hearth::kernels
