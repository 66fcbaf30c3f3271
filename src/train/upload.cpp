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

// A value by sequence for each of its tokens.
std::vector<int> by_token(const std::vector<int>& by_sequence, Index length) {
  std::vector<int> values;
  values.reserve(by_sequence.size() * static_cast<std::size_t>(length));
  for (const int value : by_sequence) {
    values.insert(values.end(), static_cast<std::size_t>(length), value);
  }
  return values;
}

std::vector<kernels::AttentionSegment> attention_segments(const Cell& cell, Index length) {
  std::vector<kernels::AttentionSegment> segments;
  const auto tokens = static_cast<Index>(cell.token.size());
  auto document = cell.document_begin.begin();
  for (Index begin = 0, end = 0; begin < tokens; begin = end) {
    end = (begin / length + 1) * length;  // of the sequence
    if (document != cell.document_begin.end() && *document < end) end = *document++;
    segments.push_back({begin, end, begin, end});
  }
  return segments;
}

}  // namespace

DeviceCell upload(const Cell& cell) {
  const auto tokens = static_cast<Index>(cell.token.size());
  const auto sequences = static_cast<Index>(cell.sequence_source.size());
  const Index length = sequences == 0 ? 0 : tokens / sequences;
  return {tokens,
          length,
          cell.first_sequence,
          std::count_if(cell.target.begin(), cell.target.end(), [](int t) { return t >= 0; }),
          to_device("token", cell.token),
          to_device("target", cell.target),
          to_device("position", cell.position),
          to_device("source", by_token(cell.sequence_source, length)),
          to_device("half", by_token(cell.sequence_half, length)),
          to_device("order", cell.order),
          to_device("run begin", cell.run_begin),
          kernels::AttentionPlan(attention_segments(cell, length))};
}

}  // namespace hearth
