// Checksums of weights (base/hash.hpp), chunk by chunk, so that the pass that updates the weights
// can take them while a chunk is still in a cache.
#pragma once

#include <type_traits>

#include "base/hash.hpp"
#include "kernels/fixed_point.hpp"
#include "kernels/team.hpp"

namespace hearth::kernels {

// Of a run of whole blocks of block_elements, each within one tensor: sum[c] = Σ mod 2⁶⁴ of
// hash_element(index in the whole tensor, bits) over the elements of chunk c (chunk_elements of
// them), padding left out.
struct ChunkChecksums {
  Array1<const std::uint64_t> first;  // (blocks): index of the block's first element in its tensor
  Array1<const int> elements;         // (blocks): without the padding
  Array1<const std::uint64_t> key;    // (checksum_tile): place_keys()
  Array1<std::uint64_t> sum;          // (blocks · block_elements / chunk_elements)

  [[nodiscard]] bool wanted() const { return sum.extent(0) > 0; }
  // Of the chunk that begins at element `begin`, without the padding.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION Index elements_of_chunk(Index begin) const {
    const Index left = elements(begin / block_elements) - begin % block_elements;
    return Kokkos::min(Kokkos::max(left, Index{0}), Index{chunk_elements});
  }
};

// place_key of every place in a tile.
[[nodiscard]] Array1<const std::uint64_t> place_keys();  // (checksum_tile)

// A value's bit pattern. T is float or double.
template <class T>
using BitsOf = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

// The checksum of the chunk of `values` that begins at element `begin`.
template <class T>
KOKKOS_INLINE_FUNCTION void take_chunk(const Member& member, const T* values, Index begin,
                                       const ChunkChecksums& checksums) {
  constexpr auto tile = static_cast<Index>(checksum_tile);
  static_assert(chunk_elements <= tile);  // a chunk lies in two tiles at most
  const Index block = begin / block_elements, within = begin % block_elements;
  const Index elements = checksums.elements_of_chunk(begin);
  const std::uint64_t first = checksums.first(block) + static_cast<std::uint64_t>(within);
  // Elements [from, to) of the chunk, the first of which stands at `place` of its tile.
  const auto part = [&](Index from, Index to, Index place) {
    const T* value = values + begin + from;
    const std::uint64_t* key = checksums.key.data() + place;
    const auto sum = lane_sum<std::uint64_t>(member, to - from, [&](const Index i) {
      return key[i] * Kokkos::bit_cast<BitsOf<T>>(value[i]);
    });
    return sum * tile_key(first + static_cast<std::uint64_t>(from));
  };
  const auto place = static_cast<Index>(first % checksum_tile);
  const Index cut = Kokkos::min(elements, tile - place);
  std::uint64_t sum = part(0, cut, place);
  if (cut < elements) sum += part(cut, elements, 0);
  Kokkos::single(Kokkos::PerThread(member), [&]() { checksums.sum(begin / chunk_elements) = sum; });
}

// All chunks of `values` (blocks · block_elements). Where it has elements, `not_finite` (as many as
// chunks) receives how many of each chunk are infinite or no numbers, padding left out.
template <class T>
void take_checksums(const Array1<const T>& values, const ChunkChecksums& checksums,
                    const Array1<std::uint64_t>& not_finite = {});

// sum[r] = Σ mod 2⁶⁴ of chunk[c] over begin[r] <= c < end[r].
void sum_chunks(const Array1<const std::uint64_t>& chunk,  // (chunks)
                const Array1<const Index>& begin,          // (runs)
                const Array1<const Index>& end,            // (runs)
                const Array1<std::uint64_t>& sum);         // (runs)

}  // namespace hearth::kernels
