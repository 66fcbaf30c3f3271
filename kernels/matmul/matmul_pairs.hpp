// Products of bfloat16 from products of pairs, for processors with instructions for those.
//
// Every element of c is one sum in the order of the inner dimension, pair after pair, whatever the
// shape, the tile that holds it, the number of threads, or where the operands lie.
#pragma once

#include <mutex>
#include <vector>

#include "kernels/matmul/backend.hpp"

namespace hearth::kernels {

class PairProducts {
 public:
  // m, n and k of every problem are at least 1. C is bfloat16 or float.
  template <class C>
  void run(const std::vector<Problem<bfloat16, C>>& problems, Operation operation, Output output);

 private:
  std::mutex one_call_;
  Kokkos::Experimental::UniqueToken<HostExec> tokens_;
  Kokkos::View<char*, Kokkos::HostSpace> memory_;  // of all tokens
};

}  // namespace hearth::kernels
