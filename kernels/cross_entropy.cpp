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
void cross_entropy_with_gradient(const Array2<T>& logits, const Array1<const int>& target,
                                 double scale, const Array1<double>& loss) {
  const Index rows = logits.extent(0), vocabulary = logits.extent(1);
  assert(target.extent(0) == logits.extent(0) && loss.extent(0) == logits.extent(0));
  if (rows == 0) return;
  const RowTeams teams(rows, vocabulary);
  const int level = teams.level;
  Kokkos::parallel_for(
      "cross_entropy_with_gradient", teams.policy, KOKKOS_LAMBDA(const Member& member) {
        const Index t = member.league_rank();
        T* z = row(logits, t);
        const Index at = target(t);
        double value = 0;
        T factor = 0;
        if (at >= 0) {
          const TeamArray<double> partial(member.team_scratch(level), chunks(vocabulary));
          const double target_logit = z[at];
          const T largest =
              team_max<T>(member, partial.data(), vocabulary, [&](const Index i) { return z[i]; });
          // The exponentials replace the logits: they are needed again.
          const double sum = team_sum<T>(member, partial.data(), vocabulary, [&](const Index i) {
            const T e = exponential(z[i] - largest);
            z[i] = e;
            return e;
          });
          value = Kokkos::log(sum) + static_cast<double>(largest) - target_logit;
          factor = static_cast<T>(scale / sum);
        }
        Kokkos::parallel_for(Kokkos::TeamThreadRange(member, chunks(vocabulary)),
                             [&](const Index chunk) {
                               const Index begin = chunk * chunk_elements;
                               const Index end = Kokkos::min(begin + chunk_elements, vocabulary);
                               if (at < 0) {
                                 Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, begin, end),
                                                      [&](const Index i) { z[i] = T(0); });
                               } else {
                                 Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, begin, end),
                                                      [&](const Index i) { z[i] *= factor; });
                               }
                               Kokkos::single(Kokkos::PerThread(member), [&]() {
                                 if (at >= begin && at < end) z[at] -= static_cast<T>(scale);
                               });
                             });
        Kokkos::single(Kokkos::PerTeam(member), [&]() { loss(t) = value; });
      });
}

#define HEARTH_INSTANTIATE(T)                                                                      \
  template void cross_entropy<T>(const Array2<const T>&, const Array1<const int>&,                 \
                                 const Array1<double>&);                                           \
  template void cross_entropy_with_gradient<T>(const Array2<T>&, const Array1<const int>&, double, \
                                               const Array1<double>&);
HEARTH_INSTANTIATE(float)
HEARTH_INSTANTIATE(double)
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
