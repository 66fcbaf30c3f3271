#include "kernels/fixed_point.hpp"

#include <cassert>

#include "kernels/team.hpp"

namespace hearth::kernels {

namespace {

template <class R>
void add_plain(const Array1<const R>& g, const Array1<R>& sum) {
  for_chunks(
      "add_gradient_plain", g.extent(0),
      KOKKOS_LAMBDA(const Member& member, const Index begin, const Index end) {
        const R* from = g.data();
        R* to = sum.data();
        for_columns(member, end - begin, [&](const Index i) { to[begin + i] += from[begin + i]; });
      });
}

}  // namespace

template <class R>
void add_gradient(const Array1<const R>& g, const GradientSum<R>& gradient) {
  if (gradient.is_plain()) return add_plain(g, gradient.sum.plain);
  static_assert(block_elements % chunk_elements == 0);  // a chunk lies in one slice
  assert(gradient.sum.fixed.extent(0) >= g.extent(0));
  for_chunks(
      "add_gradient", g.extent(0),
      KOKKOS_LAMBDA(const Member& member, const Index begin, const Index end) {
        const R* from = g.data();
        std::int64_t* to = gradient.sum.fixed.data();
        const double cells = gradient.cells;
        std::int64_t overflow = 0;
        Kokkos::parallel_reduce(
            Kokkos::ThreadVectorRange(member, begin, end),
            [&](const Index i, std::int64_t& count) { count += add_term(to[i], from[i], cells); },
            overflow);
        if (overflow == 0) return;
        std::int64_t infinite = 0;
        Kokkos::parallel_reduce(
            Kokkos::ThreadVectorRange(member, begin, end),
            [&](const Index i, std::int64_t& count) { count += Kokkos::isfinite(from[i]) ? 0 : 1; },
            infinite);
        Kokkos::single(Kokkos::PerThread(member), [&]() {
          note_overflow(gradient, begin / gradient.slice_elements, overflow, infinite);
        });
      });
}

void add_statistic(const Array1<const double>& value, const Array1<std::int64_t>& statistic,
                   double unit) {
  assert(statistic.extent(0) == value.extent(0));
  Kokkos::parallel_for(
      "add_statistic", Kokkos::RangePolicy<Exec>(0, static_cast<Index>(value.extent(0))),
      KOKKOS_LAMBDA(const Index i) { add_statistic_term(statistic(i), value(i), unit); });
}

template <class G>
SquaredNorm squared_norm(const Array1<const G>& gradient) {
  const Index blocks = whole_blocks(gradient.extent(0));
  assert(static_cast<Index>(gradient.extent(0)) == blocks * block_elements);
  constexpr double largest = 0x1p38;  // what a block of fixed-point sums can have at most
  SquaredNorm norm;
  if (blocks == 0) return norm;
  const Array1<std::int64_t> parts("squared_norm", 3);  // high, low, out of range
  Team policy = team_policy(blocks, 8);
  const int bytes = static_cast<int>(TeamArray<double>::shmem_size(chunks(block_elements)));
  policy.set_scratch_size(0, Kokkos::PerTeam(bytes));
  Kokkos::parallel_for(
      "squared_norm", policy, KOKKOS_LAMBDA(const Member& member) {
        const TeamArray<double> partial(member.team_scratch(0), chunks(block_elements));
        const G* block = gradient.data() + member.league_rank() * block_elements;
        const double sum =
            team_sum<double>(member, partial.data(), block_elements, [&](const Index i) {
              const double g = static_cast<double>(block[i]) * unit_of_sum<G>;
              return g * g;
            });
        Kokkos::single(Kokkos::PerTeam(member), [&]() {
          if (!(sum < largest)) {
            Kokkos::atomic_add(&parts(2), std::int64_t{1});
            return;
          }
          const std::int64_t high = to_fixed(sum, 0x1p-24);
          const double rest = sum - static_cast<double>(high) * 0x1p-24;
          Kokkos::atomic_add(&parts(0), high);
          Kokkos::atomic_add(&parts(1), to_fixed(rest, 0x1p-65));
        });
      });
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), parts);
  norm.high = host(0);
  norm.low = host(1);
  norm.out_of_range = host(2);
  return norm;
}

template void add_gradient<float>(const Array1<const float>&, const GradientSum<float>&);
template void add_gradient<double>(const Array1<const double>&, const GradientSum<double>&);
template SquaredNorm squared_norm<std::int64_t>(const Array1<const std::int64_t>&);
template SquaredNorm squared_norm<float>(const Array1<const float>&);
template SquaredNorm squared_norm<double>(const Array1<const double>&);

}  // namespace hearth::kernels
