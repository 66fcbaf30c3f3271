// What lies between the products' interface and the library that computes them: every product is
// a list of independent problems.
#pragma once

#include <memory>
#include <vector>

#include "kernels/matmul/matmul.hpp"

namespace hearth::kernels {

// Which operand is transposed, as in multiply_nt, multiply_nn and multiply_tn.
enum class Operation { nt, nn, tn };

// Products of segments belong together: there are many and each is small.
enum class Grouping { alone, grouped };

// c (m, n) = or += op(a) (m, k) · op(b) (k, n), row-major; ld: elements from one row to the next.
template <class T, class C>
struct Problem {
  const T* a;
  const T* b;
  C* c;
  Index m, n, k;
  Index lda, ldb, ldc;
};

// WORK(T, C); for the types of operands and results that there are products for.
#define HEARTH_FOR_PRODUCT_TYPES(WORK) \
  WORK(float, float);                  \
  WORK(double, double);                \
  WORK(bfloat16, bfloat16);            \
  WORK(bfloat16, float);

// Defined once for each vendor; the build compiles one of the files matmul_<vendor>.cpp.
struct Matmul::Vendor {
  explicit Vendor(Bfloat16Products products);
  ~Vendor();
  Vendor(const Vendor&) = delete;
  Vendor& operator=(const Vendor&) = delete;

  // m, n and k of every problem are at least 1.
  template <class T, class C>
  void run(const std::vector<Problem<T, C>>& problems, Operation operation, Output output,
           Grouping grouping);

  struct Library;
  std::unique_ptr<Library> library;
};

}  // namespace hearth::kernels
