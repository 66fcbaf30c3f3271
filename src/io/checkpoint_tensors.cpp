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
    stretches.push_back({tensor, {first, first + run.elements}, run.begin - part.range.begin});
  }
  return stretches;
}

namespace {

// Σ mod 2⁶⁴ of hash_element over the stretch. An integer sum: the same in any order.
template <class T>
std::uint64_t stretch_checksum(const Array1<T>& values, const TensorStretch& stretch) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  const Index first = stretch.range.begin, offset = stretch.offset;
  std::uint64_t sum = 0;
  Kokkos::parallel_reduce(
      "checksum", Kokkos::RangePolicy<Exec>(0, stretch.range.size()),
      KOKKOS_LAMBDA(const Index i, std::uint64_t& partial) {
        partial += hash_element(static_cast<std::uint64_t>(first + i),
                                Kokkos::bit_cast<Bits>(values(offset + i)));
      },
      sum);
  return sum;
}

}  // namespace

template <class T>
std::vector<std::uint64_t> tensor_checksums(const Communicator& world, const TensorTable& table,
                                            const std::vector<TensorPart<T>>& parts,
                                            const std::string& group) {
  // One sum for both: checksums, then elements.
  std::vector<std::int64_t> sums(2 * table.size(), 0);
  world.together([&] {
    for (const TensorPart<T>& part : parts) {
      if (part.group != group) continue;
      if (static_cast<Index>(part.values.extent(0)) != part.range.size()) {
        throw failure("checkpoint: a part of ", group, " has ", part.values.extent(0),
                      " values for ", part.range.size(), " elements");
      }
      for (const TensorStretch& stretch : stretches_of(table, part)) {
        const auto term = stretch_checksum(part.values, stretch);
        auto& sum = sums[stretch.tensor];  // unsigned, since it wraps around
        sum = static_cast<std::int64_t>(static_cast<std::uint64_t>(sum) + term);
        sums[table.size() + stretch.tensor] += stretch.range.size();
      }
    }
  });
  world.sum(sums);
  std::vector<std::uint64_t> checksums;
  for (std::size_t tensor = 0; tensor < table.size(); ++tensor) {
    const Index covered = sums[table.size() + tensor];
    const bool alias = !table[tensor].alias_of.empty();
    checksums.push_back(alias ? 0 : static_cast<std::uint64_t>(sums[tensor]));
    if (!alias && covered != table[tensor].elements()) {
      throw CollectiveError(
          static_cast<int>(Status::failure),
          text("checkpoint: the ranks' parts hold ", covered, " of the ", table[tensor].elements(),
               " elements of ", dataset_name(group, table[tensor])));
    }
  }
  return checksums;
}

std::uint64_t combined_checksum(const TensorTable& table,
                                const std::vector<std::uint64_t>& checksums) {
  std::uint64_t combined = 0;
  for (std::size_t tensor = 0; tensor < table.size(); ++tensor) {
    if (!table[tensor].alias_of.empty()) continue;
    combined = mix_bits(combined ^ hash_text(table[tensor].name));
    combined = mix_bits(combined ^ checksums[tensor]);
  }
  return combined;
}

#define HEARTH_INSTANTIATE(T)                                                                   \
  template std::vector<std::string> groups_of(const std::vector<TensorPart<T>>&);               \
  template std::vector<TensorStretch> stretches_of(const TensorTable&, const TensorPart<T>&);   \
  template std::vector<std::uint64_t> tensor_checksums(const Communicator&, const TensorTable&, \
                                                       const std::vector<TensorPart<T>>&,       \
                                                       const std::string&)
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
#undef HEARTH_INSTANTIATE

}  // namespace hearth
