// Compiled to assembly by check_kernel_arguments.py, never run: the size of an argument as device
// code lays it out, which the assembly states, beside the one that host code passes.
#include "base/types.hpp"

using namespace hearth;

template <class Body>
struct Functor {
  Body body;
  Index after;
};

template <class Body>
__global__ void argument(Functor<Body> functor, Index* out) {
  out[0] = sizeof(Functor<Body>);
  out[1] = functor.after;
}

template <class Body>
void launch(const Body& body, Index* out) {
  argument<<<1, 1>>>(Functor<Body>{body, 1}, out);
}

void launch_all(const Array1<int>& vector, const Array2<const float>& matrix, Index* out) {
  launch(
      KOKKOS_LAMBDA(const Index i) { vector(i) = static_cast<int>(matrix(i, i)); }, out);
}
