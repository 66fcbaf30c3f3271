#include "kernels/routing/scores.hpp"

#include <cassert>

#include "kernels/routing/score_of.hpp"
#include "kernels/team.hpp"

namespace hearth::kernels {

template <class T>
void score(Score kind, const Array2<const T>& logits, const Array2<T>& affinity,
           const Array1<T>& log_sum) {
  const Index tokens = logits.extent(0), destinations = logits.extent(1);
  assert(affinity.extent(0) == logits.extent(0) && affinity.extent(1) == logits.extent(1));
  assert(log_sum.extent(0) == logits.extent(0));
  for_rows(
      "score", tokens, KOKKOS_LAMBDA(const Member& member, const Index t) {
        const T* x = row(logits, t);
        T* a = row(affinity, t);
        const T largest = lane_max<T>(member, destinations, [&](const Index e) { return x[e]; });
        for_columns(member, destinations,
                    [&](const Index e) { a[e] = exponential(x[e] - largest); });
        const T sum = lane_sum<T>(member, destinations, [&](const Index e) { return a[e]; });
        Kokkos::single(Kokkos::PerThread(member),
                       [&]() { log_sum(t) = largest + Kokkos::log(sum); });
        if (kind == Score::softmax) {
          const T scale = T(1) / sum;
          for_columns(member, destinations, [&](const Index e) { a[e] *= scale; });
        } else if (kind == Score::sigmoid) {
          for_columns(member, destinations, [&](const Index e) { a[e] = sigmoid(x[e]); });
          const T scale =
              T(1) / lane_sum<T>(member, destinations, [&](const Index e) { return a[e]; });
          for_columns(member, destinations, [&](const Index e) { a[e] *= scale; });
        } else {
          for_columns(member, destinations, [&](const Index e) { a[e] = x[e] > 0 ? x[e] : T(0); });
        }
      });
}

namespace {

// A row at work in score_backward.
template <class T>
struct RowGradient {
  const Member& member;
  Index destinations;
  const T *x, *a;       // (destinations)
  const int* choice;    // (slots)
  const T* dscore;      // (slots)
  int chosen;           // slots in use
  const double* slope;  // (destinations)
  T z_slope, log_sum;
  T* out;  // (destinations)

  [[nodiscard]] KOKKOS_INLINE_FUNCTION T slope_of(Index e) const {
    return static_cast<T>(slope[e]);
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION T mean_slope() const {
    return lane_sum<T>(member, destinations, [&](const Index e) { return a[e] * slope_of(e); });
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION T z_term(Index e) const {
    return z_slope * exponential(x[e] - log_sum);
  }
  // out += derivative(e) · dscore in the chosen places.
  template <class Derivative>
  KOKKOS_INLINE_FUNCTION void add_chosen(const Derivative& derivative) const {
    Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, chosen),
                         [&](const int j) { out[choice[j]] += derivative(choice[j]) * dscore[j]; });
  }

  // dlogits = a (da - Σ a da + z_slope), da = slope + Σ_j dscore_j onehot(choice_j)
  KOKKOS_INLINE_FUNCTION void softmax() const {
    T mean = mean_slope();
    for (int j = 0; j < chosen; ++j) mean += a[choice[j]] * dscore[j];
    const T shift = z_slope - mean;
    for_columns(member, destinations,
                [&](const Index e) { out[e] = a[e] * (slope_of(e) + shift); });
    add_chosen([&](const Index e) { return a[e]; });
  }
  // The score s has the derivative s (1 - s); a = s / Σ s.
  KOKKOS_INLINE_FUNCTION void sigmoids() const {
    const auto derivative = [&](const Index e) { return sigmoid(x[e]) * sigmoid(-x[e]); };
    const T sum = lane_sum<T>(member, destinations, [&](const Index e) { return sigmoid(x[e]); });
    const T mean = mean_slope(), scale = T(1) / sum;
    for_columns(member, destinations, [&](const Index e) {
      out[e] = (slope_of(e) - mean) * scale * derivative(e) + z_term(e);
    });
    add_chosen(derivative);
  }
  KOKKOS_INLINE_FUNCTION void relu() const {
    const auto derivative = [&](const Index e) { return x[e] > 0 ? T(1) : T(0); };
    for_columns(member, destinations,
                [&](const Index e) { out[e] = slope_of(e) * derivative(e) + z_term(e); });
    add_chosen(derivative);
  }
};

}  // namespace

template <class T>
void score_backward(Score kind, const Array2<const T>& logits, const Array2<const T>& affinity,
                    const Array1<const T>& log_sum, const Array2<const int>& choice,
                    const Array2<const T>& dscore, const AffinitySlope& slope, double z_scale,
                    const Array2<T>& dlogits) {
  const Index tokens = logits.extent(0), destinations = logits.extent(1);
  const int slots = static_cast<int>(choice.extent(1));
  assert(affinity.extent(0) == logits.extent(0) && affinity.extent(1) == logits.extent(1));
  assert(log_sum.extent(0) == logits.extent(0));
  assert(choice.extent(0) == logits.extent(0));
  assert(dscore.extent(0) == choice.extent(0) && dscore.extent(1) == choice.extent(1));
  assert(slope.slope.extent(1) == logits.extent(1));
  assert(dlogits.extent(0) == logits.extent(0) && dlogits.extent(1) == logits.extent(1));
  for_rows(
      "score_backward", tokens, KOKKOS_LAMBDA(const Member& member, const Index t) {
        const int* chosen = row(choice, t);
        int used = 0;
        while (used < slots && chosen[used] >= 0) ++used;
        const RowGradient<T> gradient{member,
                                      destinations,
                                      row(logits, t),
                                      row(affinity, t),
                                      chosen,
                                      row(dscore, t),
                                      used,
                                      row(slope.slope, t / slope.group_tokens),
                                      static_cast<T>(z_scale) * log_sum(t),
                                      log_sum(t),
                                      row(dlogits, t)};
        if (kind == Score::softmax) {
          gradient.softmax();
        } else if (kind == Score::sigmoid) {
          gradient.sigmoids();
        } else {
          gradient.relu();
        }
      });
}

#define HEARTH_INSTANTIATE(T)                                                                \
  template void score<T>(Score, const Array2<const T>&, const Array2<T>&, const Array1<T>&); \
  template void score_backward<T>(Score, const Array2<const T>&, const Array2<const T>&,     \
                                  const Array1<const T>&, const Array2<const int>&,          \
                                  const Array2<const T>&, const AffinitySlope&, double,      \
                                  const Array2<T>&)
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
