// Matrix products. Vendor libraries appear in this folder alone: oneDNN on the CPU, cuBLAS on
// NVIDIA GPUs, and a portable Kokkos version for every type and device.
//
// The three products of a linear layer y = x Wᵀ, W (out, in):
//   forward          multiply_nt(x, W, y)      y  = x Wᵀ
//   input gradient   multiply_nn(dy, W, dx)    dx = dy W
//   weight gradient  multiply_tn(dy, x, dW)    dW = dyᵀ x
//
// Types: T is float, double or bfloat16; sums are taken in Real<T>. The output C of nt and nn is T,
// or float where T is bfloat16; a weight gradient is always Real<T>. A bfloat16 output is rounded
// once: c = bf16(product) or bf16(c + product).
//
// What is promised: the inner dimension is never split between threads, and a result depends on
// neither the number of threads nor on other segments: tiles are cut by shape alone, or, in
// products of pairs, each element is one sum in the order of the inner dimension however they are.
#pragma once

#include <memory>
#include <vector>

#include "base/types.hpp"

namespace hearth::kernels {

enum class Output { assign, add };

// (rows of a stack of equally shaped matrices): matrix e starts at data + e · stride.
template <class T>
struct MatrixStack {
  T* data = nullptr;
  Index stride = 0;  // elements from one matrix to the next; at least rows · columns
  Index rows = 0, columns = 0;
};

// Rows [begin, begin + rows) belong to matrix `matrix` of a stack.
struct Segment {
  Index begin, rows;
  Index matrix;
};

// How a CPU multiplies numbers of bfloat16: in pairs with kernels of our own, through the vendor's
// library with its instructions for them, where it has any, or with those for float. The difference
// is one of speed and of a sum's last bits; GPUs and the portable version have one way only.
enum class Bfloat16Products { fastest, pairs, native, widened };

// Holds the vendor library's handles; one per process, made by the caller, passed down.
class Matmul {
 public:
  explicit Matmul(Bfloat16Products products = Bfloat16Products::fastest);
  ~Matmul();
  Matmul(const Matmul&) = delete;
  Matmul& operator=(const Matmul&) = delete;

  // c (m, n) = or += a (m, k) · b (n, k)ᵀ
  template <class T, class C>
  void multiply_nt(const Array2<const T>& a, const Array2<const T>& b, const Array2<C>& c,
                   Output output = Output::assign);
  // c (m, n) = or += a (m, k) · b (k, n)
  template <class T, class C>
  void multiply_nn(const Array2<const T>& a, const Array2<const T>& b, const Array2<C>& c,
                   Output output = Output::assign);
  // c (m, n) = or += a (k, m)ᵀ · b (k, n)
  template <class T>
  void multiply_tn(const Array2<const T>& a, const Array2<const T>& b, const Array2<Real<T>>& c,
                   Output output = Output::assign);

  // The same for segments of rows, each with its own matrix of the stack:
  // c[segment] = a[segment] · b[matrix]ᵀ, and so on. Rows outside all segments are left alone.
  template <class T, class C>
  void grouped_nt(const Array2<const T>& a, const MatrixStack<const T>& b, const Array2<C>& c,
                  const std::vector<Segment>& segments, Output output = Output::assign);
  template <class T, class C>
  void grouped_nn(const Array2<const T>& a, const MatrixStack<const T>& b, const Array2<C>& c,
                  const std::vector<Segment>& segments, Output output = Output::assign);
  // c[matrix] = a[segment]ᵀ · b[segment]; no two segments of one call share a matrix.
  template <class T>
  void grouped_tn(const Array2<const T>& a, const Array2<const T>& b, const MatrixStack<Real<T>>& c,
                  const std::vector<Segment>& segments, Output output = Output::assign);

 private:
  struct Vendor;
  std::unique_ptr<Vendor> vendor_;
};

}  // namespace hearth::kernels
