// What each router of the table should do, as plain loops over std::vector, templated on the
// scalar: with complex numbers it gives the derivatives.
#pragma once

#include <cmath>

#include "base/hash.hpp"
#include "config/config.hpp"
#include "kernels/reference/routing.hpp"

namespace hearth::testing {

namespace reference = kernels::reference;
using Lists = std::vector<std::vector<int>>;  // (tokens) of any length, ascending

struct RoutedCell {
  Index tokens = 0, experts = 0, destinations = 0, top_k = 0;
  std::vector<int> token;           // (tokens)
  std::vector<std::int64_t> place;  // (tokens): in the data
  std::vector<std::int64_t> state;
};

template <class S>
struct Reference {
  reference::Vector<S> affinity, log_sum;  // (tokens, destinations), (tokens)
  Lists wanted, choice;
  std::vector<reference::Vector<S>> gate;  // (tokens) of the length of choice
};

namespace detail {

inline std::vector<double> row(const std::vector<double>& values, Index t, Index width) {
  return {values.begin() + t * width, values.begin() + (t + 1) * width};
}

inline Lists hashed(const Config& config, Index layer, const RoutedCell& cell) {
  const std::uint64_t seed = mix_bits(mix_bits(static_cast<std::uint64_t>(config.run.seed)) +
                                      static_cast<std::uint64_t>(layer));
  Lists chosen;
  for (Index t = 0; t < cell.tokens; ++t) {
    const std::uint64_t key =
        config.moe.router == "hash"
            ? mix_bits(seed + static_cast<std::uint64_t>(cell.token[t]))
            : mix_bits(seed + mix_bits(static_cast<std::uint64_t>(cell.place[t])));
    std::vector<int> order;
    for (int e = 0; e < cell.experts; ++e) order.push_back(e);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return mix_bits(key + static_cast<std::uint64_t>(a)) >
             mix_bits(key + static_cast<std::uint64_t>(b));
    });
    order.resize(static_cast<std::size_t>(cell.top_k));
    std::sort(order.begin(), order.end());
    chosen.push_back(order);
  }
  return chosen;
}

// The k largest of those in the `chosen` groups of the largest sums of two.
inline std::vector<int> largest_in_groups(std::vector<double> value, const GroupConfig& group,
                                          Index k) {
  const auto size = static_cast<Index>(value.size()) / group.groups;
  std::vector<double> strength;
  for (Index g = 0; g < group.groups; ++g) {
    std::vector<double> part(value.begin() + g * size, value.begin() + (g + 1) * size);
    std::sort(part.rbegin(), part.rend());
    strength.push_back(part[0] + (size > 1 ? part[1] : 0));
  }
  const std::vector<int> best = reference::largest(strength, group.groups_chosen);
  for (Index e = 0; e < static_cast<Index>(value.size()); ++e) {
    if (std::find(best.begin(), best.end(), e / size) == best.end()) value[e] = -1e300;
  }
  return reference::largest(value, k);
}

inline Lists kept_by_capacity(const Config& config, Index layer, const RoutedCell& cell,
                              const std::vector<double>& affinity, const Lists& wanted) {
  const double share =
      static_cast<double>(cell.tokens * cell.top_k) / static_cast<double>(cell.experts);
  const auto capacity =
      static_cast<std::size_t>(std::ceil(config.capacity.factor.at(layer) * share));
  const auto score = [&](Index t, int e) { return affinity[t * cell.destinations + e]; };
  const auto rank = [&](Index t, int e) {
    int before = 0;
    for (const int other : wanted[t]) {
      before += score(t, other) > score(t, e) || (score(t, other) == score(t, e) && other < e);
    }
    return before;
  };
  Lists kept(wanted.size());
  for (int e = 0; e < cell.destinations; ++e) {
    std::vector<Index> asking;
    for (Index t = 0; t < cell.tokens; ++t) {
      if (std::find(wanted[t].begin(), wanted[t].end(), e) != wanted[t].end()) asking.push_back(t);
    }
    if (config.capacity.drop == "probability") {
      std::stable_sort(asking.begin(), asking.end(),
                       [&](Index a, Index b) { return score(a, e) > score(b, e); });
    } else if (config.capacity.drop == "rank") {
      std::stable_sort(asking.begin(), asking.end(),
                       [&](Index a, Index b) { return rank(a, e) < rank(b, e); });
    }
    if (e < cell.experts && asking.size() > capacity) asking.resize(capacity);
    for (const Index t : asking) kept[t].push_back(e);
  }
  return kept;
}

inline Lists experts_choices(const Config& config, const RoutedCell& cell,
                             const std::vector<double>& affinity) {
  const double factor = config.expert_choice.factor == 0 ? static_cast<double>(cell.top_k)
                                                         : config.expert_choice.factor;
  const double share =
      static_cast<double>(cell.tokens) * factor / static_cast<double>(cell.experts);
  const auto taken = std::min(cell.tokens, static_cast<Index>(std::ceil(share)));
  Lists chosen(static_cast<std::size_t>(cell.tokens));
  for (int e = 0; e < cell.experts; ++e) {
    std::vector<double> column;
    for (Index t = 0; t < cell.tokens; ++t) column.push_back(affinity[t * cell.destinations + e]);
    for (const int t : reference::largest(column, taken)) chosen[t].push_back(e);
  }
  return chosen;
}

inline std::vector<int> reaching(const std::vector<double>& probability, double threshold,
                                 Index most) {
  std::vector<int> chosen;
  double sum = 0;
  while (static_cast<Index>(chosen.size()) < most && (chosen.empty() || sum < threshold)) {
    chosen = reference::largest(probability, static_cast<Index>(chosen.size()) + 1);
    sum = 0;
    for (const int e : chosen) sum += probability[e];
  }
  return chosen;
}

}  // namespace detail

template <class S>
Reference<S> reference_route(const Config& config, Index layer, const RoutedCell& cell,
                             const reference::Vector<S>& logits) {
  const std::string& router = config.moe.router;
  Reference<S> routed;
  if (router == "hash" || router == "random") {
    routed.wanted = routed.choice = detail::hashed(config, layer, cell);
    routed.affinity = reference::zeros<S>(cell.tokens * cell.destinations);
    routed.log_sum = reference::zeros<S>(cell.tokens);
    const S share(1 / static_cast<double>(cell.top_k));
    for (Index t = 0; t < cell.tokens; ++t) {
      routed.gate.emplace_back(routed.choice[t].size(), share);
      for (const int e : routed.choice[t]) routed.affinity[t * cell.destinations + e] = share;
    }
    return routed;
  }

  const GateConfig plain;
  const GateConfig sigmoid{"sigmoid"};
  const GateConfig& gate = router == "capacity"                      ? config.capacity.gate
                           : router == "bias_balanced"               ? config.bias_balanced.gate
                           : router == "scaled_input"                ? sigmoid
                           : router == "top_k" || router == "frozen" ? config.top_k.gate
                                                                     : plain;
  kernels::GateRule rule{
      gate.score == "sigmoid" ? kernels::Score::sigmoid : kernels::Score::softmax,
      gate.renormalise || gate.score == "softmax_chosen", gate.scale,
      static_cast<int>(cell.destinations - config.moe.zero_experts - config.moe.null_experts)};
  if (router == "relu") rule.score = kernels::Score::relu;
  const auto scored = reference::score(rule.score, logits, cell.tokens, cell.destinations);
  routed.affinity = scored.affinity;
  routed.log_sum = scored.log_sum;
  std::vector<double> affinity, score;
  for (const S& a : scored.affinity) affinity.push_back(reference::real_part(a));
  for (const S& s : scored.score) score.push_back(reference::real_part(s));

  for (Index t = 0; t < cell.tokens; ++t) {
    const auto of_token = detail::row(affinity, t, cell.destinations);
    std::vector<int> chosen;
    if (router == "relu") {
      for (int e = 0; e < cell.destinations; ++e) {
        if (of_token[e] > 0) chosen.push_back(e);
      }
    } else if (router == "top_p") {
      const Index most =
          config.top_p.most_experts == 0 ? cell.destinations : config.top_p.most_experts;
      chosen = detail::reaching(of_token, config.top_p.threshold, most);
    } else if (router == "bias_balanced") {
      auto value = detail::row(score, t, cell.destinations);
      for (Index e = 0; e < cell.destinations; ++e) {
        value[e] += config.bias_balanced.update * static_cast<double>(cell.state[e]);
      }
      chosen = detail::largest_in_groups(value, config.bias_balanced.group, cell.top_k);
    } else if (router == "top_k" || router == "frozen") {
      chosen = detail::largest_in_groups(of_token, config.top_k.group, cell.top_k);
      double largest = 0;
      for (const int e : chosen) largest = std::max(largest, of_token[e]);
      std::erase_if(chosen, [&](const int e) {
        return of_token[e] < config.top_k.skip_below.at(layer) * largest;
      });
    } else {
      chosen = reference::largest(of_token, cell.top_k);
    }
    routed.wanted.push_back(chosen);
  }
  routed.choice = routed.wanted;
  if (router == "capacity") {
    routed.choice = detail::kept_by_capacity(config, layer, cell, affinity, routed.wanted);
  } else if (router == "expert_choice") {
    routed.wanted = routed.choice = detail::experts_choices(config, cell, affinity);
  }
  routed.gate =
      reference::gates(rule, scored.score, cell.destinations, routed.wanted, routed.choice);
  return routed;
}

}  // namespace hearth::testing
