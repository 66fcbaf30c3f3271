#include "data/blend.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"

namespace hearth {

namespace {

// numpy's pairwise sum: eight running sums over blocks of up to 128, halves of longer arrays.
double numpy_sum(std::span<const double> a) {
  const std::size_t n = a.size();
  if (n > 128) {
    const std::size_t half = n / 2 - (n / 2) % 8;
    return numpy_sum(a.first(half)) + numpy_sum(a.subspan(half));
  }
  double sum = 0;
  std::size_t i = 0;
  if (n >= 8) {
    double r[8];
    std::copy_n(a.begin(), 8, r);
    for (i = 8; i < n - n % 8; i += 8) {
      for (std::size_t j = 0; j < 8; ++j) r[j] += a[i + j];
    }
    sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
  }
  for (; i < n; ++i) sum += a[i];
  return sum;
}

}  // namespace

std::vector<double> normalized(std::span<const double> weights) {
  const double sum = numpy_sum(weights);
  std::vector<double> shares(weights.begin(), weights.end());
  for (double& share : shares) share /= sum;
  return shares;
}

std::int64_t samples_to_prepare(std::int64_t samples, double weight) {
  const double needed = std::ceil(static_cast<double>(samples) * weight);
  return static_cast<std::int64_t>(std::ceil(needed * 1.005));
}

Blend build_blend(std::span<const double> weights, std::int64_t samples) {
  constexpr std::size_t most = 32766;
  if (weights.empty() || weights.size() > most) {
    throw input_error("data.sources: ", weights.size(),
                      " sources cannot be blended; right are 1 to ", most);
  }
  const std::vector<double> share = normalized(weights);
  std::vector<std::int64_t> taken(share.size(), 0);
  Blend blend;
  blend.source.resize(samples);
  blend.source_sample.resize(samples);
  for (std::int64_t i = 0; i < samples; ++i) {
    const double at = std::max(static_cast<double>(i), 1.0);
    // Stored before the subtraction, lest a fused multiply-add round differently on some machines.
    const auto behind = [&](std::size_t d) {
      const volatile double due = share[d] * at;
      return due - static_cast<double>(taken[d]);
    };
    std::size_t next = 0;
    double furthest = behind(0);
    for (std::size_t d = 1; d < share.size(); ++d) {
      const double candidate = behind(d);
      if (candidate > furthest) {
        furthest = candidate;
        next = d;
      }
    }
    blend.source[i] = static_cast<std::int16_t>(next);
    blend.source_sample[i] = taken[next]++;
  }
  return blend;
}

}  // namespace hearth
