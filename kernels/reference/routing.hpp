// Oracle of kernels/routing/: scores, the selection of the k largest, gates, and their adjoint.
#pragma once

#include <algorithm>

#include "kernels/reference/scalar.hpp"
#include "kernels/routing/gates.hpp"

namespace hearth::kernels::reference {

template <class S>
struct Scored {
  Vector<S> score;     // (tokens, destinations)
  Vector<S> affinity;  // (tokens, destinations)
  Vector<S> log_sum;   // (tokens)
};

template <class S>
Scored<S> score(Score kind, const Vector<S>& logits, Index tokens, Index destinations) {
  using std::exp, std::log;
  Scored<S> scored;
  for (Index t = 0; t < tokens; ++t) {
    const S* x = logits.data() + t * destinations;
    double largest = real_part(x[0]);
    for (Index e = 0; e < destinations; ++e) largest = std::max(largest, real_part(x[e]));
    S exponentials(0), scores(0);
    for (Index e = 0; e < destinations; ++e) exponentials += exp(x[e] - largest);
    scored.log_sum.push_back(largest + log(exponentials));
    for (Index e = 0; e < destinations; ++e) {
      S value =
          kind == Score::softmax ? exp(x[e] - largest) / exponentials : S(1) / (S(1) + exp(-x[e]));
      if (kind == Score::relu) value = real_part(x[e]) > 0 ? x[e] : S(0);
      scored.score.push_back(value);
      scores += value;
    }
    for (Index e = 0; e < destinations; ++e) {
      const S value = scored.score[t * destinations + e];
      scored.affinity.push_back(kind == Score::sigmoid ? value / scores : value);
    }
  }
  return scored;
}

// The k largest of a token's values, ascending by number; ties go to the lower one.
inline std::vector<int> largest(const std::vector<double>& value, Index k) {
  std::vector<int> chosen;
  while (static_cast<Index>(chosen.size()) < k) {
    int best = -1;
    for (int e = 0; e < static_cast<int>(value.size()); ++e) {
      if (std::find(chosen.begin(), chosen.end(), e) != chosen.end()) continue;
      if (best < 0 || value[e] > value[best]) best = e;
    }
    chosen.push_back(best);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

// Of each token's choices among what it wanted; both are lists of any length.
template <class S>
std::vector<Vector<S>> gates(const GateRule& rule, const Vector<S>& score, Index destinations,
                             const std::vector<std::vector<int>>& wanted,
                             const std::vector<std::vector<int>>& choice) {
  std::vector<Vector<S>> gates;
  for (std::size_t t = 0; t < choice.size(); ++t) {
    const S* s = score.data() + static_cast<Index>(t) * destinations;
    S sum(0);
    for (const int e : wanted[t]) sum += e < rule.computing ? s[e] : S(0);
    Vector<S> of_token;
    for (const int e : choice[t]) {
      const S share = rule.renormalise && real_part(sum) > 0 ? s[e] / sum : s[e];
      of_token.push_back(e < rule.computing ? S(rule.scale) * share : S(0));
    }
    gates.push_back(of_token);
  }
  return gates;
}

}  // namespace hearth::kernels::reference
