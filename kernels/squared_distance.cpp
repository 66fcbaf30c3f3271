#include "kernels/squared_distance.hpp"

#include <cassert>

#include "kernels/team.hpp"

namespace hearth::kernels {

template <class R>
void add_squared_distance(const Array1<const R>& a, const Array1<const R>& b, Index first,
                          Index width, const Array2<std::int64_t>& sums) {
  assert(first % block_elements == 0);
  assert(b.extent(0) == 0 || b.extent(0) == a.extent(0));
  assert(sums.extent(1) == squared_distance_columns);
  constexpr double largest = 0x1p38;
  const Index elements = a.extent(0);
  const bool from_zero = b.extent(0) == 0;
  for_rows(
      "squared_distance", whole_blocks(elements),
      KOKKOS_LAMBDA(const Member& member, const Index block) {
        const Index end = Kokkos::min((block + 1) * block_elements, elements);
        for (Index begin = block * block_elements, next = 0; begin < end; begin = next) {
          const Index row = (first + begin) / width;
          next = Kokkos::min(end, (row + 1) * width - first);
          const double sum = lane_sum<double>(member, next - begin, [&](const Index i) {
            const double from = from_zero ? 0.0 : static_cast<double>(b(begin + i));
            const double difference = static_cast<double>(a(begin + i)) - from;
            return difference * difference;
          });
          Kokkos::single(Kokkos::PerThread(member), [&]() {
            if (!(sum < largest)) {
              Kokkos::atomic_add(&sums(row, 2), std::int64_t{1});
              return;
            }
            const std::int64_t high = to_fixed(sum, 0x1p-24);
            const double rest = sum - static_cast<double>(high) * 0x1p-24;
            Kokkos::atomic_add(&sums(row, 0), high);
            Kokkos::atomic_add(&sums(row, 1), to_fixed(rest, 0x1p-65));
          });
        }
      });
}

template void add_squared_distance(const Array1<const float>&, const Array1<const float>&, Index,
                                   Index, const Array2<std::int64_t>&);
template void add_squared_distance(const Array1<const double>&, const Array1<const double>&, Index,
                                   Index, const Array2<std::int64_t>&);

}  // namespace hearth::kernels
