#include "io/checkpoint_tensors.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "model/shard_checksums.hpp"

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

template <class T>
TensorSums tensor_sums(const Communicator& world, const TensorTable& table,
                       const std::vector<TensorPart<T>>& parts, const std::string& group) {
  using kernels::block_elements;
  // (tensors) each. Checksums wrap around, which unsigned numbers may.
  std::vector<std::int64_t> checksums(table.size(), 0), covered(checksums), not_finite(checksums);
  world.together([&] {
    for (const TensorPart<T>& part : parts) {
      if (part.group != group) continue;
      const auto values = static_cast<Index>(part.values.extent(0));
      if (values != part.range.size() || values % block_elements != 0) {
        throw failure("checkpoint: a part of ", group, " has ", values, " values for ",
                      part.range.size(), " elements, which are to be whole blocks of ",
                      block_elements);
      }
      const ShardChecksums shard(table, *part.layout, part.range);
      const Array1<std::uint64_t> infinite("not finite", values / kernels::chunk_elements);
      kernels::take_checksums<T>(part.values, shard.chunks(), infinite);
      shard.add_to(checksums);
      shard.add_to(not_finite, infinite);
      for (const ArenaLayout::Run& run : part.layout->runs(part.range)) {
        covered[static_cast<std::size_t>(run.tensor)] += run.elements;
      }
    }
  });
  std::vector<std::int64_t> all(checksums);  // for one collective sum
  all.insert(all.end(), covered.begin(), covered.end());
  all.insert(all.end(), not_finite.begin(), not_finite.end());
  world.sum(all);
  TensorSums result;
  for (std::size_t tensor = 0; tensor < table.size(); ++tensor) {
    const Index elements = all[table.size() + tensor];
    const bool alias = !table[tensor].alias_of.empty();
    result.checksums.push_back(alias ? 0 : static_cast<std::uint64_t>(all[tensor]));
    result.not_finite.push_back(all[2 * table.size() + tensor]);
    if (!alias && elements != table[tensor].elements()) {
      throw CollectiveError(
          static_cast<int>(Status::failure),
          text("checkpoint: the ranks' parts hold ", elements, " of the ", table[tensor].elements(),
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
