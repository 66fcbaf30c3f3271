#include "train/upload.hpp"

#include <algorithm>

namespace hearth {

namespace {

Array1<const int> to_device(const std::string& label, const std::vector<int>& values) {
  const auto copy = uninitialized<Array1<int>>(label, values.size());
  Kokkos::deep_copy(copy,
                    Kokkos::View<const int*, Kokkos::HostSpace>(values.data(), values.size()));
  return copy;
}

}  // namespace

DeviceCell upload(const Cell& cell) {
  const auto tokens = static_cast<Index>(cell.token.size());
  const auto sequences = static_cast<Index>(cell.sequence_source.size());
  const Index length = sequences == 0 ? 0 : tokens / sequences;
  std::vector<int> source;
  std::vector<kernels::AttentionSegment> segments;
  for (Index s = 0; s < sequences; ++s) {
    const Index begin = s * length, end = begin + length;
    segments.push_back({begin, end, begin, end});
    source.insert(source.end(), static_cast<std::size_t>(length),
                  cell.sequence_source[static_cast<std::size_t>(s)]);
  }
  return {tokens,
          length,
          std::count_if(cell.target.begin(), cell.target.end(), [](int t) { return t >= 0; }),
          to_device("token", cell.token),
          to_device("target", cell.target),
          to_device("position", cell.position),
          to_device("source", source),
          to_device("order", cell.order),
          to_device("run begin", cell.run_begin),
          kernels::AttentionPlan(segments)};
}

}  // namespace hearth
