// Timing of a piece of work, and its line of output.
#pragma once

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

namespace hearth::bench {

struct Measure {
  int warmup;        // runs before, not timed
  int repeat;        // runs that are timed
  std::string type;  // of activations, for the output

  // Prints one line of JSON: the median and the least wall time of work(), and the rate of its
  // floating-point operations (0: not of interest) by the median.
  template <class Work>
  void operator()(const char* name, double flops, const Work& work) const {
    std::vector<double> times_s;
    for (int run = -warmup; run < repeat; ++run) {
      Kokkos::fence();
      const auto start = std::chrono::steady_clock::now();
      work();
      Kokkos::fence();
      const std::chrono::duration<double> time_s = std::chrono::steady_clock::now() - start;
      if (run >= 0) times_s.push_back(time_s.count());
    }
    std::sort(times_s.begin(), times_s.end());
    const double median_s = times_s[times_s.size() / 2];
    std::printf(
        "{\"name\": \"%s\", \"type\": \"%s\", \"median_s\": %.6g, \"least_s\": %.6g, "
        "\"gflop_per_s\": %.5g}\n",
        name, type.c_str(), median_s, times_s.front(), flops / median_s * 1e-9);
    std::fflush(stdout);
  }
};

}  // namespace hearth::bench
