// Oracle of kernels/cross_entropy.hpp.
#pragma once

#include "kernels/reference/scalar.hpp"

namespace hearth::kernels::reference {

template <class S>
Vector<S> cross_entropy(const Vector<S>& logits, Index vocabulary, const std::vector<int>& target) {
  using std::exp, std::log;
  Vector<S> loss = zeros<S>(static_cast<Index>(target.size()));
  for (std::size_t t = 0; t < target.size(); ++t) {
    if (target[t] < 0) continue;
    const S* z = &logits[t * vocabulary];
    double largest = real_part(z[0]);
    for (Index i = 0; i < vocabulary; ++i) largest = std::max(largest, real_part(z[i]));
    S sum(0);
    for (Index i = 0; i < vocabulary; ++i) sum += exp(z[i] - largest);
    loss[t] = log(sum) + largest - z[target[t]];
  }
  return loss;
}

// The gradient of scale · Σ loss.
template <class S>
Vector<S> cross_entropy_gradient(const Vector<S>& logits, Index vocabulary,
                                 const std::vector<int>& target, double scale) {
  using std::exp;
  const Vector<S> loss = cross_entropy(logits, vocabulary, target);
  Vector<S> gradient = zeros<S>(static_cast<Index>(logits.size()));
  for (std::size_t t = 0; t < target.size(); ++t) {
    if (target[t] < 0) continue;
    const S* z = &logits[t * vocabulary];
    const S log_sum = loss[t] + z[target[t]];
    for (Index i = 0; i < vocabulary; ++i) {
      gradient[t * vocabulary + i] = scale * (exp(z[i] - log_sum) - (i == target[t] ? 1.0 : 0.0));
    }
  }
  return gradient;
}

}  // namespace hearth::kernels::reference
