#include "kernels/matmul/matmul.hpp"

#include "base/error.hpp"
#include "kernels/matmul/backend.hpp"
#include "kernels/matmul/portable.hpp"

namespace hearth::kernels {

namespace {

// A row-major matrix with its rows end to end.
template <class T>
struct Matrix {
  T* data;
  Index rows, columns;
};

template <class T>
Matrix<T> matrix(const Array2<T>& a) {
  return {a.data(), static_cast<Index>(a.extent(0)), static_cast<Index>(a.extent(1))};
}

template <class T>
Matrix<T> matrix(const Array2<T>& a, const Segment& segment) {
  const Matrix<T> whole = matrix(a);
  if (segment.begin < 0 || segment.rows < 0 || segment.begin + segment.rows > whole.rows) {
    throw failure("matrix product: segment of rows ", segment.begin, " + ", segment.rows,
                  " of an array of ", whole.rows);
  }
  return {whole.data + segment.begin * whole.columns, segment.rows, whole.columns};
}

template <class T>
Matrix<T> matrix(const MatrixStack<T>& stack, const Segment& segment) {
  return {stack.data + segment.matrix * stack.stride, stack.rows, stack.columns};
}

template <class T, class C>
Problem<T, C> problem(Operation operation, const Matrix<const T>& a, const Matrix<const T>& b,
                      const Matrix<C>& c) {
  const bool a_transposed = operation == Operation::tn, b_transposed = operation == Operation::nt;
  const Index m = a_transposed ? a.columns : a.rows, k = a_transposed ? a.rows : a.columns;
  const Index n = b_transposed ? b.rows : b.columns, b_k = b_transposed ? b.columns : b.rows;
  if (k != b_k || c.rows != m || c.columns != n) {
    throw failure("matrix product: shapes (", a.rows, ", ", a.columns, "), (", b.rows, ", ",
                  b.columns, ") and (", c.rows, ", ", c.columns, ") do not match");
  }
  return {a.data, b.data, c.data, m, n, k, a.columns, b.columns, c.columns};
}

// The vendors need not know of empty problems: a sum over nothing is zero.
template <class T, class C, class Vendor>
void run(Vendor& vendor, Operation operation, const std::vector<Problem<T, C>>& problems,
         Output output, Grouping grouping) {
  std::vector<Problem<T, C>> full, zero;
  for (const Problem<T, C>& p : problems) {
    if (p.m == 0 || p.n == 0) continue;
    (p.k > 0 ? full : zero).push_back(p);
  }
  if (!full.empty()) vendor.run(full, operation, output, grouping);
  if (!zero.empty() && output == Output::assign) run_portable<T, C>(zero, operation, output);
}

}  // namespace

Matmul::Matmul(Bfloat16Products products) : vendor_(std::make_unique<Vendor>(products)) {}
Matmul::~Matmul() = default;

template <class T, class C>
void Matmul::multiply_nt(const Array2<const T>& a, const Array2<const T>& b, const Array2<C>& c,
                         Output output) {
  run<T, C>(*vendor_, Operation::nt, {problem(Operation::nt, matrix(a), matrix(b), matrix(c))},
            output, Grouping::alone);
}

template <class T, class C>
void Matmul::multiply_nn(const Array2<const T>& a, const Array2<const T>& b, const Array2<C>& c,
                         Output output) {
  run<T, C>(*vendor_, Operation::nn, {problem(Operation::nn, matrix(a), matrix(b), matrix(c))},
            output, Grouping::alone);
}

template <class T>
void Matmul::multiply_tn(const Array2<const T>& a, const Array2<const T>& b,
                         const Array2<Real<T>>& c, Output output) {
  run<T, Real<T>>(*vendor_, Operation::tn,
                  {problem(Operation::tn, matrix(a), matrix(b), matrix(c))}, output,
                  Grouping::alone);
}

template <class T, class C>
void Matmul::grouped_nt(const Array2<const T>& a, const MatrixStack<const T>& b, const Array2<C>& c,
                        const std::vector<Segment>& segments, Output output) {
  std::vector<Problem<T, C>> problems;
  for (const Segment& s : segments) {
    problems.push_back(problem(Operation::nt, matrix(a, s), matrix(b, s), matrix(c, s)));
  }
  run(*vendor_, Operation::nt, problems, output, Grouping::grouped);
}

template <class T, class C>
void Matmul::grouped_nn(const Array2<const T>& a, const MatrixStack<const T>& b, const Array2<C>& c,
                        const std::vector<Segment>& segments, Output output) {
  std::vector<Problem<T, C>> problems;
  for (const Segment& s : segments) {
    problems.push_back(problem(Operation::nn, matrix(a, s), matrix(b, s), matrix(c, s)));
  }
  run(*vendor_, Operation::nn, problems, output, Grouping::grouped);
}

template <class T>
void Matmul::grouped_tn(const Array2<const T>& a, const Array2<const T>& b,
                        const MatrixStack<Real<T>>& c, const std::vector<Segment>& segments,
                        Output output) {
  std::vector<Problem<T, Real<T>>> problems;
  for (const Segment& s : segments) {
    problems.push_back(problem(Operation::tn, matrix(a, s), matrix(b, s), matrix(c, s)));
  }
  run(*vendor_, Operation::tn, problems, output, Grouping::grouped);
}

#define HEARTH_INSTANTIATE(T, C)                                                                 \
  template void Matmul::multiply_nt<T, C>(const Array2<const T>&, const Array2<const T>&,        \
                                          const Array2<C>&, Output);                             \
  template void Matmul::multiply_nn<T, C>(const Array2<const T>&, const Array2<const T>&,        \
                                          const Array2<C>&, Output);                             \
  template void Matmul::grouped_nt<T, C>(const Array2<const T>&, const MatrixStack<const T>&,    \
                                         const Array2<C>&, const std::vector<Segment>&, Output); \
  template void Matmul::grouped_nn<T, C>(const Array2<const T>&, const MatrixStack<const T>&,    \
                                         const Array2<C>&, const std::vector<Segment>&, Output)
HEARTH_FOR_PRODUCT_TYPES(HEARTH_INSTANTIATE)
#undef HEARTH_INSTANTIATE

#define HEARTH_INSTANTIATE(T)                                                                   \
  template void Matmul::multiply_tn<T>(const Array2<const T>&, const Array2<const T>&,          \
                                       const Array2<Real<T>>&, Output);                         \
  template void Matmul::grouped_tn<T>(const Array2<const T>&, const Array2<const T>&,           \
                                      const MatrixStack<Real<T>>&, const std::vector<Segment>&, \
                                      Output)
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
HEARTH_INSTANTIATE(bfloat16);
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
