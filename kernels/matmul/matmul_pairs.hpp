// Products of bfloat16 from products of pairs: the way for processors with `pairs_are_fast`
// (kernels/processor.hpp), correct on every one.
//
// An element of c is one sum in the order of the inner dimension, pair after pair. It does not
// depend on the shape, on the tile that holds it, on the number of threads, nor on where operands
// lie: only on its row of a and its column of b.
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
