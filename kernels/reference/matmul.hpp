// Oracle of kernels/matmul/matmul.hpp.
#pragma once

#include "kernels/reference/scalar.hpp"

namespace hearth::kernels::reference {

// c (m, n) = a (m, k) · b (n, k)ᵀ
template <class S>
Vector<S> multiply_nt(const Vector<S>& a, const Vector<S>& b, Index m, Index n, Index k) {
  Vector<S> c = zeros<S>(m * n);
  for (Index i = 0; i < m; ++i) {
    for (Index j = 0; j < n; ++j) {
      for (Index p = 0; p < k; ++p) c[i * n + j] += a[i * k + p] * b[j * k + p];
    }
  }
  return c;
}

// c (m, n) = a (m, k) · b (k, n)
template <class S>
Vector<S> multiply_nn(const Vector<S>& a, const Vector<S>& b, Index m, Index n, Index k) {
  Vector<S> c = zeros<S>(m * n);
  for (Index i = 0; i < m; ++i) {
    for (Index j = 0; j < n; ++j) {
      for (Index p = 0; p < k; ++p) c[i * n + j] += a[i * k + p] * b[p * n + j];
    }
  }
  return c;
}

// c (m, n) = a (k, m)ᵀ · b (k, n)
template <class S>
Vector<S> multiply_tn(const Vector<S>& a, const Vector<S>& b, Index m, Index n, Index k) {
  Vector<S> c = zeros<S>(m * n);
  for (Index i = 0; i < m; ++i) {
    for (Index j = 0; j < n; ++j) {
      for (Index p = 0; p < k; ++p) c[i * n + j] += a[p * m + i] * b[p * n + j];
    }
  }
  return c;
}

}  // namespace hearth::kernels::reference
