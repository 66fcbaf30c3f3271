#include "app/expert_counts.hpp"

#include <algorithm>

namespace hearth {

namespace {

struct Group {
  const char* name;
  std::vector<std::string> axes;
  std::vector<Array2<std::int64_t>> layers;
};

// Those that are counted.
std::vector<Group> groups_of(const IntervalCounts& counts) {
  std::vector<Group> groups = {
      {"coactivation", {"layer", "expert", "expert_with"}, counts.pairs},
      {"source_expert_count", {"layer", "source", "expert"}, counts.sources},
      {"token_expert_count", {"layer", "token", "expert"}, counts.tokens}};
  std::erase_if(groups, [](const Group& group) { return group.layers.empty(); });
  return groups;
}

CounterTensor tensor_of(const Group& group) {
  const Array2<std::int64_t>& layer = group.layers.front();
  const auto layers = static_cast<Index>(group.layers.size());
  return {group.name,
          {layers, static_cast<Index>(layer.extent(0)), static_cast<Index>(layer.extent(1))},
          group.axes,
          {}};
}

HostArray2<std::int64_t> on_host(std::int64_t* values, const Array2<std::int64_t>& layer) {
  return {values, layer.extent(0), layer.extent(1)};
}

}  // namespace

std::vector<CounterTensor> expert_count_tensors(const IntervalCounts& counts) {
  std::vector<CounterTensor> tensors;
  for (const Group& group : groups_of(counts)) tensors.push_back(tensor_of(group));
  return tensors;
}

std::vector<CounterTensor> collect(const IntervalCounts& counts, const Communicator& world) {
  std::vector<CounterTensor> tensors;
  for (const Group& group : groups_of(counts)) {
    CounterTensor& tensor = tensors.emplace_back(tensor_of(group));
    const std::size_t size = group.layers.front().size();
    tensor.values.resize(group.layers.size() * size);
    std::int64_t* to = tensor.values.data();
    for (const auto& layer : group.layers) {
      Kokkos::deep_copy(on_host(to, layer), layer);
      to += size;
    }
    world.sum_to_first(tensor.values);
    if (!world.is_first()) tensor.values.clear();
  }
  return tensors;
}

void restore(const std::vector<CounterTensor>& tensors, const IntervalCounts& counts) {
  for (const Group& group : groups_of(counts)) {
    for (const CounterTensor& tensor : tensors) {
      if (tensor.name != group.name) continue;
      std::vector<std::int64_t> values = tensor.values;
      std::int64_t* from = values.data();
      for (const auto& layer : group.layers) {
        Kokkos::deep_copy(layer, on_host(from, layer));
        from += layer.size();
      }
    }
  }
}

}  // namespace hearth
