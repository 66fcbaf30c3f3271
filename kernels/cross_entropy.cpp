#include "kernels/cross_entropy.hpp"

#include <cassert>

#include "kernels/team.hpp"
#include "kernels/vector_math.hpp"

namespace hearth::kernels {

namespace {

// A team for each row, with team memory for the sums of the row's chunks.
struct RowTeams {
  Team policy;
  int level;

  RowTeams(Index rows, Index vocabulary) : policy(team_policy(rows, 8)) {
    const int bytes = static_cast<int>(TeamArray<double>::shmem_size(chunks(vocabulary)));
    level = scratch_level(policy, bytes);
    policy.set_scratch_size(level, Kokkos::PerTeam(bytes));
  }
};

}  // namespace

template <class T>
void cross_entropy(const Array2<const T>& logits, const Array1<const int>& target,
                   const Array1<double>& loss) {
  const Index rows = logits.extent(0), vocabulary = logits.extent(1);
  assert(target.extent(0) == logits.extent(0) && loss.extent(0) == logits.extent(0));
  if (rows == 0) return;
  const RowTeams teams(rows, vocabulary);
  const int level = teams.level;
  Kokkos::parallel_for(
      "cross_entropy", teams.policy, KOKKOS_LAMBDA(const Member& member) {
        const Index t = member.league_rank();
        const T* z = row(logits, t);
        double value = 0;
        if (target(t) >= 0) {
          const TeamArray<double> partial(member.team_scratch(level), chunks(vocabulary));
          const T largest =
              team_max<T>(member, partial.data(), vocabulary, [&](const Index i) { return z[i]; });
          const double sum = team_sum<T>(member, partial.data(), vocabulary, [&](const Index i) {
            return exponential(z[i] - largest);
          });
          value =
              Kokkos::log(sum) + static_cast<double>(largest) - static_cast<double>(z[target(t)]);
        }
        Kokkos::single(Kokkos::PerTeam(member), [&]() { loss(t) = value; });
      });
}

template <class T>
void cross_entropy_with_gradient(const Array2<Real<T>>& logits, const Array1<const int>& target,
                                 double scale, const Array1<double>& loss,
                                 const Array2<T>& gradient) {
  using R = Real<T>;
  const Index rows = logits.extent(0), vocabulary = logits.extent(1);
  assert(target.extent(0) == logits.extent(0) && loss.extent(0) == logits.extent(0));
  assert(gradient.extent(0) == logits.extent(0) && gradient.extent(1) == logits.extent(1));
  if (rows == 0) return;
  const RowTeams teams(rows, vocabulary);
  const int level = teams.level;
  Kokkos::parallel_for(
      "cross_entropy_with_gradient", teams.policy, KOKKOS_LAMBDA(const Member& member) {
        const Index t = member.league_rank();
        R* z = row(logits, t);
        T* dz = row(gradient, t);
        const Index at = target(t);
        double value = 0;
        R factor = 0;
        if (at >= 0) {
          const TeamArray<double> partial(member.team_scratch(level), chunks(vocabulary));
          const double target_logit = z[at];
          const R largest =
              team_max<R>(member, partial.data(), vocabulary, [&](const Index i) { return z[i]; });
          // The exponentials replace the logits: they are needed again.
          const double sum = team_sum<R>(member, partial.data(), vocabulary, [&](const Index i) {
            const R e = exponential(z[i] - largest);
            z[i] = e;
            return e;
          });
          value = Kokkos::log(sum) + static_cast<double>(largest) - target_logit;
          factor = static_cast<R>(scale / sum);
        }
        const R one = static_cast<R>(scale);
        Kokkos::parallel_for(
            Kokkos::TeamThreadRange(member, chunks(vocabulary)), [&](const Index chunk) {
              const Index begin = chunk * chunk_elements;
              const Index elements = Kokkos::min(Index{chunk_elements}, vocabulary - begin);
              const R* from = z + begin;
              T* to = dz + begin;
              if (at < 0) {
                for_columns(member, elements, [&](const Index i) { to[i] = T(0); });
              } else {
                for_columns(member, elements, [&](const Index i) {
                  to[i] = static_cast<T>(from[i] * factor - (begin + i == at ? one : R(0)));
                });
              }
            });
        Kokkos::single(Kokkos::PerTeam(member), [&]() { loss(t) = value; });
      });
}

#define HEARTH_INSTANTIATE(T)                                                                    \
  template void cross_entropy_with_gradient<T>(const Array2<Real<T>>&, const Array1<const int>&, \
                                               double, const Array1<double>&, const Array2<T>&);
HEARTH_INSTANTIATE(bfloat16)
HEARTH_INSTANTIATE(float)
HEARTH_INSTANTIATE(double)
#undef HEARTH_INSTANTIATE

template void cross_entropy<float>(const Array2<const float>&, const Array1<const int>&,
                                   const Array1<double>&);
template void cross_entropy<double>(const Array2<const double>&, const Array1<const int>&,
                                    const Array1<double>&);

}  // namespace hearth::kernels
