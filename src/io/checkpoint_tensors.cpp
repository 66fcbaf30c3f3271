#include "io/checkpoint_tensors.hpp"

#include <algorithm>
#include <type_traits>

#include "base/error.hpp"
#include "base/hash.hpp"

namespace hearth {

std::string dataset_name(const std::string& group, const TensorInfo& tensor) {
  return group + "/" + tensor.name;
}

std::string shape_text(const std::vector<Index>& dims) {
  std::string shape = "(";
  for (std::size_t axis = 0; axis < dims.size(); ++axis) {
    shape += text(axis == 0 ? "" : ", ", dims[axis]);
  }
  return shape + ")";
}

std::uint64_t counter_checksum(const std::vector<std::int64_t>& values) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    sum += hash_element(i, static_cast<std::uint64_t>(values[i]));
  }
  return sum;
}

template <class T>
std::vector<std::string> groups_of(const std::vector<TensorPart<T>>& parts) {
  std::vector<std::string> groups;
  for (const TensorPart<T>& part : parts) {
    if (std::find(groups.begin(), groups.end(), part.group) == groups.end()) {
      groups.push_back(part.group);
    }
  }
  return groups;
}

template <class T>
std::vector<TensorStretch> stretches_of(const TensorTable& table, const TensorPart<T>& part) {
  std::vector<TensorStretch> stretches;
  for (const ArenaLayout::Run& run : part.layout->runs(part.range)) {
    const auto tensor = static_cast<std::size_t>(run.tensor);
    const Index first = run.slice * table[tensor].slice_elements() + run.first;
    const Index offset = run.begin - part.range.begin;
    if (!stretches.empty()) {  // experts without padding between them are one stretch
      TensorStretch& last = stretches.back();
      if (last.tensor == tensor && last.range.end == first &&
          last.offset + last.range.size() == offset) {
        last.range.end += run.elements;
        continue;
      }
    }
    stretches.push_back({tensor, {first, first + run.elements}, offset});
  }
  return stretches;
}

namespace {

// Elements of a stretch whose sums one thread makes, in registers.
constexpr Index piece_elements = 1024;

struct Piece {
  Index first;   // element of the tensor
  Index offset;  // in the part's values
  Index count;
};

// One pass over the values: (pieces, 2), Σ mod 2⁶⁴ of hash_element, and elements not finite.
template <class T>
HostArray2<std::uint64_t> piece_sums(const Array1<T>& values, const std::vector<Piece>& pieces) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  constexpr Bits exponent = sizeof(T) == 4 ? Bits(0x7F800000) : Bits(0x7FF0000000000000);
  const HostArray1<Piece> host("pieces", pieces.size());
  std::copy(pieces.begin(), pieces.end(), host.data());
  const Array1<Piece> device("pieces", pieces.size());
  Kokkos::deep_copy(device, host);
  const Array2<std::uint64_t> sums("sums of pieces", pieces.size(), 2);
  Kokkos::parallel_for(
      "checksum", Kokkos::RangePolicy<Exec>(0, static_cast<Index>(pieces.size())),
      KOKKOS_LAMBDA(const Index p) {
        const Piece piece = device(p);
        std::uint64_t hashes = 0, not_finite = 0;
        for (Index i = 0; i < piece.count; ++i) {
          const auto bits = Kokkos::bit_cast<Bits>(values(piece.offset + i));
          hashes += hash_element(static_cast<std::uint64_t>(piece.first + i), bits);
          not_finite += (bits & exponent) == exponent ? 1 : 0;
        }
        sums(p, 0) = hashes;
        sums(p, 1) = not_finite;
      });
  const HostArray2<std::uint64_t> result("sums of pieces", pieces.size(), 2);
  Kokkos::deep_copy(result, sums);
  return result;
}

}  // namespace

template <class T>
TensorSums tensor_sums(const Communicator& world, const TensorTable& table,
                       const std::vector<TensorPart<T>>& parts, const std::string& group) {
  // One collective sum for all: checksums, elements, those not finite. Checksums wrap around, which
  // unsigned numbers may.
  std::vector<std::uint64_t> sums(3 * table.size(), 0);
  world.together([&] {
    for (const TensorPart<T>& part : parts) {
      if (part.group != group) continue;
      if (static_cast<Index>(part.values.extent(0)) != part.range.size()) {
        throw failure("checkpoint: a part of ", group, " has ", part.values.extent(0),
                      " values for ", part.range.size(), " elements");
      }
      std::vector<Piece> pieces;
      std::vector<std::size_t> tensors;
      for (const auto& [tensor, range, offset] : stretches_of(table, part)) {
        for (Index begin = 0; begin < range.size(); begin += piece_elements) {
          pieces.push_back({range.begin + begin, offset + begin,
                            std::min(piece_elements, range.size() - begin)});
          tensors.push_back(tensor);
        }
      }
      const HostArray2<std::uint64_t> found = piece_sums(part.values, pieces);
      for (std::size_t piece = 0; piece < pieces.size(); ++piece) {
        sums[tensors[piece]] += found(piece, 0);
        sums[table.size() + tensors[piece]] += static_cast<std::uint64_t>(pieces[piece].count);
        sums[2 * table.size() + tensors[piece]] += found(piece, 1);
      }
    }
  });
  std::vector<std::int64_t> all(sums.begin(), sums.end());
  world.sum(all);
  TensorSums result;
  for (std::size_t tensor = 0; tensor < table.size(); ++tensor) {
    const Index covered = all[table.size() + tensor];
    const bool alias = !table[tensor].alias_of.empty();
    result.checksums.push_back(alias ? 0 : static_cast<std::uint64_t>(all[tensor]));
    result.not_finite.push_back(all[2 * table.size() + tensor]);
    if (!alias && covered != table[tensor].elements()) {
      throw CollectiveError(
          static_cast<int>(Status::failure),
          text("checkpoint: the ranks' parts hold ", covered, " of the ", table[tensor].elements(),
               " elements of ", dataset_name(group, table[tensor])));
    }
  }
  return result;
}

template <class T>
std::vector<std::uint64_t> tensor_checksums(const Communicator& world, const TensorTable& table,
                                            const std::vector<TensorPart<T>>& parts,
                                            const std::string& group) {
  return tensor_sums(world, table, parts, group).checksums;
}

#define HEARTH_INSTANTIATE(T)                                                                   \
  template std::vector<std::string> groups_of(const std::vector<TensorPart<T>>&);               \
  template std::vector<TensorStretch> stretches_of(const TensorTable&, const TensorPart<T>&);   \
  template TensorSums tensor_sums(const Communicator&, const TensorTable&,                      \
                                  const std::vector<TensorPart<T>>&, const std::string&);       \
  template std::vector<std::uint64_t> tensor_checksums(const Communicator&, const TensorTable&, \
                                                       const std::vector<TensorPart<T>>&,       \
                                                       const std::string&)
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
#undef HEARTH_INSTANTIATE

}  // namespace hearth
