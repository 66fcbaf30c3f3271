// Oracle of kernels/embedding.hpp.
#pragma once

#include "kernels/reference/scalar.hpp"

namespace hearth::kernels::reference {

template <class S>
Vector<S> embed(const Vector<S>& weight, Index hidden, const std::vector<int>& token) {
  Vector<S> x;
  for (const int id : token) {
    for (Index c = 0; c < hidden; ++c) x.push_back(weight[id * hidden + c]);
  }
  return x;
}

template <class S>
Vector<S> embed_backward(const Vector<S>& dx, Index vocabulary, Index hidden,
                         const std::vector<int>& token) {
  Vector<S> dweight = zeros<S>(vocabulary * hidden);
  for (std::size_t t = 0; t < token.size(); ++t) {
    for (Index c = 0; c < hidden; ++c) {
      dweight[token[t] * hidden + c] += dx[static_cast<Index>(t) * hidden + c];
    }
  }
  return dweight;
}

}  // namespace hearth::kernels::reference
