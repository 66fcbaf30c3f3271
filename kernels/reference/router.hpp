// Oracle of kernels/router.hpp.
#pragma once

#include <algorithm>

#include "kernels/reference/scalar.hpp"

namespace hearth::kernels::reference {

template <class S>
struct Routed {
  Vector<S> probability;    // (tokens, experts)
  std::vector<int> choice;  // (tokens, k)
  Vector<S> gate;           // (tokens, k)
  Vector<S> log_sum;        // (tokens)
};

template <class S>
Routed<S> route_top_k(const Vector<S>& logits, Index tokens, Index experts, Index k) {
  using std::exp, std::log;
  Routed<S> routed{zeros<S>(tokens * experts), {}, {}, {}};
  for (Index t = 0; t < tokens; ++t) {
    const S* x = logits.data() + t * experts;
    S* p = routed.probability.data() + t * experts;
    double largest = real_part(x[0]);
    for (Index e = 0; e < experts; ++e) largest = std::max(largest, real_part(x[e]));
    S sum(0);
    for (Index e = 0; e < experts; ++e) sum += exp(x[e] - largest);
    for (Index e = 0; e < experts; ++e) p[e] = exp(x[e] - largest) / sum;
    routed.log_sum.push_back(largest + log(sum));

    std::vector<int> chosen;
    while (static_cast<Index>(chosen.size()) < k) {
      int best = -1;
      for (int e = 0; e < experts; ++e) {
        if (std::find(chosen.begin(), chosen.end(), e) != chosen.end()) continue;
        if (best < 0 || real_part(p[e]) > real_part(p[best])) best = e;
      }
      chosen.push_back(best);
    }
    std::sort(chosen.begin(), chosen.end());
    for (const int e : chosen) {
      routed.choice.push_back(e);
      routed.gate.push_back(p[e]);
    }
  }
  return routed;
}

// The gradient of Σ dgate gate + Σ_t Σ_e balance_slope[e] probability[t][e]
// + Σ_t z_scale/2 log_sum[t]².
template <class S>
Vector<S> route_top_k_backward(const Vector<S>& dgate, const Routed<S>& routed,
                               const std::vector<double>& balance_slope, double z_scale,
                               Index tokens, Index k) {
  const Index experts = static_cast<Index>(balance_slope.size());
  Vector<S> dlogits = zeros<S>(tokens * experts);
  for (Index t = 0; t < tokens; ++t) {
    Vector<S> dp(balance_slope.begin(), balance_slope.end());
    for (Index j = 0; j < k; ++j) dp[routed.choice[t * k + j]] += dgate[t * k + j];
    // p_e = exp(logits_e - log_sum), and ∂log_sum/∂logits_e = p_e.
    S dlog_sum = z_scale * routed.log_sum[t];
    for (Index e = 0; e < experts; ++e) {
      const S dexponent = dp[e] * routed.probability[t * experts + e];
      dlogits[t * experts + e] += dexponent;
      dlog_sum -= dexponent;
    }
    for (Index e = 0; e < experts; ++e) {
      dlogits[t * experts + e] += dlog_sum * routed.probability[t * experts + e];
    }
  }
  return dlogits;
}

template <class S>
struct RouterSums {
  Vector<S> probability_mass;  // (experts)
  S entropy, z_squared;
};

template <class S>
RouterSums<S> sum_router(const Routed<S>& routed, Index tokens, Index experts) {
  using std::log;
  RouterSums<S> sums{zeros<S>(experts), S(0), S(0)};
  for (Index t = 0; t < tokens; ++t) {
    for (Index e = 0; e < experts; ++e) {
      const S p = routed.probability[t * experts + e];
      sums.probability_mass[e] += p;
      if (real_part(p) > 0) sums.entropy -= p * log(p);
    }
    sums.z_squared += routed.log_sum[t] * routed.log_sum[t];
  }
  return sums;
}

}  // namespace hearth::kernels::reference
