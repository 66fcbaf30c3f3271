#include "kernels/checksum.hpp"

#include <cassert>

namespace hearth::kernels {

Array1<const std::uint64_t> place_keys() {
  const Array1<std::uint64_t> keys("keys", checksum_tile);
  const auto host = Kokkos::create_mirror_view(keys);
  for (std::uint64_t place = 0; place < checksum_tile; ++place) host(place) = place_key(place);
  Kokkos::deep_copy(keys, host);
  return keys;
}

template <class T>
void take_checksums(const Array1<const T>& values, const ChunkChecksums& checksums,
                    const Array1<std::uint64_t>& not_finite) {
  constexpr auto exponent = BitsOf<T>(sizeof(T) == 4 ? 0x7F800000 : 0x7FF0000000000000);
  const Index elements = values.extent(0);
  assert(elements % block_elements == 0);
  assert(static_cast<Index>(checksums.first.extent(0)) == elements / block_elements);
  assert(static_cast<Index>(checksums.sum.extent(0)) == elements / chunk_elements);
  assert(not_finite.extent(0) == 0 || not_finite.extent(0) == checksums.sum.extent(0));
  for_chunks(
      "checksum", elements, KOKKOS_LAMBDA(const Member& member, const Index begin, const Index) {
        take_chunk(member, values.data(), begin, checksums);
        if (not_finite.extent(0) == 0) return;
        const T* value = values.data() + begin;
        const auto count =
            lane_sum<BitsOf<T>>(member, checksums.elements_of_chunk(begin), [&](const Index i) {
              return BitsOf<T>((Kokkos::bit_cast<BitsOf<T>>(value[i]) & exponent) == exponent);
            });
        Kokkos::single(Kokkos::PerThread(member),
                       [&]() { not_finite(begin / chunk_elements) = count; });
      });
}

void sum_chunks(const Array1<const std::uint64_t>& chunk, const Array1<const Index>& begin,
                const Array1<const Index>& end, const Array1<std::uint64_t>& sum) {
  assert(begin.extent(0) == sum.extent(0) && end.extent(0) == sum.extent(0));
  for_rows(
      "sum of chunks", static_cast<Index>(sum.extent(0)),
      KOKKOS_LAMBDA(const Member& member, const Index run) {
        const Index first = begin(run);
        const auto total = lane_sum<std::uint64_t>(member, end(run) - first,
                                                   [&](const Index i) { return chunk(first + i); });
        Kokkos::single(Kokkos::PerThread(member), [&]() { sum(run) = total; });
      });
}

template void take_checksums(const Array1<const float>&, const ChunkChecksums&,
                             const Array1<std::uint64_t>&);
template void take_checksums(const Array1<const double>&, const ChunkChecksums&,
                             const Array1<std::uint64_t>&);

}  // namespace hearth::kernels
