#include "train/expert_merging.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "kernels/fixed_point.hpp"

namespace hearth {

template <class R>
LikenessSums<R>::LikenessSums(const std::vector<Index>& experts) {
  for (const Index e : experts) {
    const auto n = static_cast<std::size_t>(e);
    layers_.push_back({std::vector<std::int64_t>(n, 0), std::vector<double>(n * n, 0.0),
                       std::vector<std::int64_t>(n * n, 0)});
  }
}

namespace {

// Σ over tokens, in their order.
Array1<double> sum_tokens(const Array2<const double>& product) {
  const Array1<double> sums("sums of products", product.extent(1));
  const auto tokens = static_cast<Index>(product.extent(0));
  Kokkos::parallel_for(
      "sum_tokens", Kokkos::RangePolicy<Exec>(0, static_cast<Index>(product.extent(1))),
      KOKKOS_LAMBDA(const Index i) {
        double sum = 0;
        for (Index t = 0; t < tokens; ++t) sum += product(t, i);
        sums(i) = sum;
      });
  return sums;
}

Array1<std::int64_t> count_chosen(const Array2<const int>& choice, Index experts) {
  const Array1<std::int64_t> counts("chosen", experts);
  Kokkos::parallel_for(
      "count_chosen", Kokkos::RangePolicy<Exec>(0, static_cast<Index>(choice.size())),
      KOKKOS_LAMBDA(const Index i) {
        const int e = choice.data()[i];
        if (e >= 0) Kokkos::atomic_inc(&counts(e));
      });
  return counts;
}

template <class A, class V>
void add_to(const A& device, V& sums) {
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), device);
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += host(i);
}

}  // namespace

template <class R>
void LikenessSums<R>::observe(const SeenTokens<R>& seen) {
  if (seen.choice.extent(0) == 0) return;
  Layer& layer = layers_.at(static_cast<std::size_t>(seen.layer));
  add_to(count_chosen(seen.choice, static_cast<Index>(layer.chosen.size())), layer.chosen);
  add_to(sum_tokens(seen.product), layer.of_cell);
}

template <class R>
void LikenessSums<R>::end_cell() {
  for (Layer& layer : layers_) {
    for (std::size_t i = 0; i < layer.products.size(); ++i) {
      const bool fits =
          kernels::add_statistic_term(layer.products[i], layer.of_cell[i], kernels::statistic_unit);
      unfit_ += fits ? 0 : 1;
      layer.of_cell[i] = 0;
    }
  }
}

template <class R>
std::vector<ExpertLikeness> LikenessSums<R>::sums(const Communicator& world) const {
  std::vector<std::int64_t> all = {unfit_};
  for (const Layer& layer : layers_) {
    all.insert(all.end(), layer.chosen.begin(), layer.chosen.end());
    all.insert(all.end(), layer.products.begin(), layer.products.end());
  }
  world.sum(all);
  if (all[0] > 0) {
    throw CollectiveError(static_cast<int>(Status::failure),
                          "calibration: experts' outputs are not finite or too large; look at the "
                          "checkpoint's weights");
  }
  std::vector<ExpertLikeness> result;
  auto next = all.begin() + 1;
  for (const Layer& layer : layers_) {
    ExpertLikeness& likeness = result.emplace_back();
    const auto experts = static_cast<std::ptrdiff_t>(layer.chosen.size());
    likeness.chosen.assign(next, next + experts);
    next += experts;
    for (std::ptrdiff_t i = 0; i < experts * experts; ++i) {
      likeness.products.push_back(static_cast<double>(*next++) * kernels::statistic_unit);
    }
  }
  return result;
}

ExpertGroups group_experts(const ExpertLikeness& likeness, Index groups) {
  const std::size_t experts = likeness.chosen.size();
  const auto product = [&](std::size_t i, std::size_t j) {
    return likeness.products[i * experts + j];
  };
  // Between groups, by their first members.
  std::vector<std::vector<double>> cosine(experts, std::vector<double>(experts, 0.0));
  for (std::size_t i = 0; i < experts; ++i) {
    for (std::size_t j = 0; j < experts; ++j) {
      const double norms = std::sqrt(product(i, i) * product(j, j));
      cosine[i][j] = norms > 0 ? product(i, j) / norms : 0.0;
    }
  }
  std::vector<std::vector<Index>> members(experts);
  for (std::size_t e = 0; e < experts; ++e) members[e] = {static_cast<Index>(e)};
  for (auto left = static_cast<Index>(experts); left > groups; --left) {
    std::size_t one = experts, other = experts;
    for (std::size_t i = 0; i < experts; ++i) {
      for (std::size_t j = i + 1; j < experts; ++j) {
        if (members[i].empty() || members[j].empty()) continue;
        if (one < experts && cosine[i][j] <= cosine[one][other]) continue;
        one = i;
        other = j;
      }
    }
    const auto a = static_cast<double>(members[one].size());
    const auto b = static_cast<double>(members[other].size());
    for (std::size_t i = 0; i < experts; ++i) {
      cosine[one][i] = cosine[i][one] = (a * cosine[one][i] + b * cosine[other][i]) / (a + b);
    }
    members[one].insert(members[one].end(), members[other].begin(), members[other].end());
    std::sort(members[one].begin(), members[one].end());
    members[other].clear();
  }
  std::erase_if(members, [](const auto& group) { return group.empty(); });
  return members;
}

ExpertTerms merged_terms(const ExpertLikeness& likeness, const ExpertGroups& groups) {
  const auto chosen = [&](Index expert) {
    return static_cast<double>(likeness.chosen[static_cast<std::size_t>(expert)]);
  };
  ExpertTerms merged;
  for (const auto& group : groups) {
    double all = 0;
    for (const Index expert : group) all += chosen(expert);
    auto& terms = merged.emplace_back();
    for (const Index expert : group) {
      terms.push_back(
          {expert, all > 0 ? chosen(expert) / all : 1 / static_cast<double>(group.size())});
    }
    if (group.size() == 1) terms = {{group[0], 1}};
  }
  return merged;
}

template <class T>
std::vector<ExpertLikeness> measure_likeness(Trainer<T>& trainer, const Config& config,
                                             const Communicator& world, const Corpus& corpus,
                                             std::int64_t batches) {
  LikenessSums<Real<T>> sums(config.experts_by_layer());
  trainer.observe(corpus, batches, sums);
  return sums.sums(world);
}

template class LikenessSums<float>;
template class LikenessSums<double>;
#define HEARTH_INSTANTIATE(T)                               \
  template std::vector<ExpertLikeness> measure_likeness<T>( \
      Trainer<T>&, const Config&, const Communicator&, const Corpus&, std::int64_t)
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
HEARTH_INSTANTIATE(bfloat16);
#undef HEARTH_INSTANTIATE

}  // namespace hearth
