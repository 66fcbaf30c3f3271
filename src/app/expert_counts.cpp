#include "app/expert_counts.hpp"

#include <algorithm>
#include <functional>
#include <numeric>

namespace hearth {

namespace {

struct Group {
  const char* name;
  std::vector<std::string> axes;
  std::vector<Array2<std::int64_t>> layers;  // of the axes after the first, or one of them all
  Index halves = 1;  // that the rows are made of, where there is such an axis
};

// Those that are counted.
std::vector<Group> groups_of(const IntervalCounts& counts) {
  std::vector<Group> groups = {
      {"coactivation", {"layer", "expert", "expert_with"}, counts.pairs},
      {"source_expert_count", {"layer", "source", "expert"}, counts.sources},
      {"token_expert_count", {"layer", "token", "expert"}, counts.tokens}};
  if (counts.by_half) {
    groups.back().axes = {"layer", "half", "token", "expert"};
    groups.back().halves = 2;
  }
  if (!counts.tokens.empty()) {
    groups.push_back({"token_count", {"token"}, {counts.occurrences}});
    if (counts.by_half) groups.back().axes = {"half", "token"};
  }
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
  if (group.axes.front() != "layer") {
    if (rows == 1) return {group.name, {columns}, group.axes, {}};
    return {group.name, {rows, columns}, group.axes, {}};
  }
  const auto layers = static_cast<Index>(group.layers.size());
  if (group.halves == 1) return {group.name, {layers, rows, columns}, group.axes, {}};
  return {group.name, {layers, group.halves, rows / group.halves, columns}, group.axes, {}};
}

using Corner = Kokkos::View<std::int64_t**, Kokkos::LayoutStride, Kokkos::HostSpace>;

// The corner of a layer's (rows, columns) of a tensor that the layer fills.
Corner corner(std::vector<std::int64_t>& values, const CounterTensor& tensor, std::size_t number,
              const Array2<std::int64_t>& layer) {
  const Index columns = tensor.dims.back();
  const Index all = tensor.axes.front() == "layer"
                        ? static_cast<Index>(values.size()) / tensor.dims[0]
                        : static_cast<Index>(values.size());
  return Corner(
      values.data() + static_cast<Index>(number) * all,
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
    const Index size =
        std::accumulate(tensor.dims.begin(), tensor.dims.end(), Index{1}, std::multiplies<Index>());
    tensor.values.assign(static_cast<std::size_t>(size), 0);
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
