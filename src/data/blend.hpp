// How samples of several sources alternate: Megatron's BlendedDataset, index for index.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace hearth {

// weights / Σ weights, with the sum in the order in which numpy.sum adds.
[[nodiscard]] std::vector<double> normalized(std::span<const double> weights);

// How many samples a source of normalised weight w gets ready for `samples` samples of a blend:
// ceil(ceil(samples · w) · 1.005).
[[nodiscard]] std::int64_t samples_to_prepare(std::int64_t samples, double weight);

// For each sample of a blend, its source and which of that source's samples it is.
struct Blend {
  std::vector<std::int16_t> source;         // (samples)
  std::vector<std::int64_t> source_sample;  // (samples)
};

// Sample i comes from the source that is furthest behind its share: the largest
// w · max(i, 1) − (samples taken so far), the lowest source on ties. Weights are normalised; at
// most 32766 of them, otherwise input_error. A longer blend starts with every shorter one.
[[nodiscard]] Blend build_blend(std::span<const double> weights, std::int64_t samples);

}  // namespace hearth
