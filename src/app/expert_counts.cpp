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

// Layers may have different numbers of destinations: the largest one makes the tensor's axes.
CounterTensor tensor_of(const Group& group) {
  Index rows = 0, columns = 0;
  for (const auto& layer : group.layers) {
    rows = std::max<Index>(rows, layer.extent(0));
    columns = std::max<Index>(columns, layer.extent(1));
  }
  return {group.name, {static_cast<Index>(group.layers.size()), rows, columns}, group.axes, {}};
}

using Corner = Kokkos::View<std::int64_t**, Kokkos::LayoutStride, Kokkos::HostSpace>;

// The corner of a layer's (rows, columns) of a tensor that the layer fills.
Corner corner(std::vector<std::int64_t>& values, const CounterTensor& tensor, std::size_t number,
              const Array2<std::int64_t>& layer) {
  const Index rows = tensor.dims[1], columns = tensor.dims[2];
  return Corner(
      values.data() + static_cast<Index>(number) * rows * columns,
      Kokkos::LayoutStride(layer.extent(0), static_cast<std::size_t>(columns), layer.extent(1), 1));
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
    tensor.values.assign(static_cast<std::size_t>(tensor.dims[0] * tensor.dims[1] * tensor.dims[2]),
                         0);
    for (std::size_t number = 0; number < group.layers.size(); ++number) {
      const auto& layer = group.layers[number];
      const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), layer);
      Kokkos::deep_copy(corner(tensor.values, tensor, number, layer), host);
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
      for (std::size_t number = 0; number < group.layers.size(); ++number) {
        const auto& layer = group.layers[number];
        const auto host = Kokkos::create_mirror_view(layer);
        Kokkos::deep_copy(host, corner(values, tensor, number, layer));
        Kokkos::deep_copy(layer, host);
      }
    }
  }
}

}  // namespace hearth
