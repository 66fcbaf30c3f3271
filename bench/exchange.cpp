#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "bench/cases.hpp"
#include "parallel/device_exchange.hpp"

namespace hearth::bench {

namespace {

constexpr Index smallest_bytes = 512, largest_bytes = Index{256} << 20, factor = 8;

// Median wall time of the first rank from one barrier to the end of the slowest rank's work.
template <class Work>
double median_s(const Communicator& world, const Measure& measure, const Work& work) {
  std::vector<double> times_s;
  for (int run = -measure.warmup; run < measure.repeat; ++run) {
    Kokkos::fence();
    world.barrier();
    const auto start = std::chrono::steady_clock::now();
    work();
    Kokkos::fence();
    const std::chrono::duration<double, std::nano> time_ns =
        std::chrono::steady_clock::now() - start;
    const auto slowest_ns = world.max(static_cast<std::int64_t>(time_ns.count()));
    if (run >= 0) times_s.push_back(1e-9 * static_cast<double>(slowest_ns));
  }
  std::sort(times_s.begin(), times_s.end());
  return times_s[times_s.size() / 2];
}

}  // namespace

template <class T>
void exchange(const Config& config, const Communicator& world, const Measure& measure) {
  const DeviceExchange exchange(world);
  const Index hidden = config.model.hidden, ranks = world.size();
  const auto report = [&](const char* name, Index bytes, double time_s) {
    if (!world.is_first()) return;
    std::printf("{\"name\": \"%s\", \"ranks\": %lld, \"bytes\": %lld, \"median_s\": %.6g}\n", name,
                static_cast<long long>(ranks), static_cast<long long>(bytes), time_s);
    std::fflush(stdout);
  };
  // Bytes are those of the whole array that a rank holds, its own part included.
  for (Index bytes = smallest_bytes * ranks; bytes <= largest_bytes; bytes *= factor) {
    const Index row_bytes = hidden * Index{sizeof(T)};
    const Index rows_each = std::max<Index>(1, bytes / row_bytes / ranks);
    const std::vector<Index> rows(static_cast<std::size_t>(ranks), rows_each);
    const Array2<T> from("from", rows_each * ranks, hidden), to("to", rows_each * ranks, hidden);
    report("all_to_all", rows_each * ranks * row_bytes, median_s(world, measure, [&] {
             exchange.template all_to_all<T>(from, rows, to, rows);
           }));
  }
  for (Index bytes = smallest_bytes * ranks; bytes <= largest_bytes; bytes *= factor) {
    const Index sums_each = bytes / Index{sizeof(std::int64_t)} / ranks;
    const std::vector<Index> counts(static_cast<std::size_t>(ranks), sums_each);
    const Array1<std::int64_t> sums("sums", sums_each * ranks);
    report("reduce_scatter", sums_each * ranks * Index{sizeof(std::int64_t)},
           median_s(world, measure, [&] { exchange.reduce_scatter<std::int64_t>(sums, counts); }));
  }
  for (Index bytes = smallest_bytes * ranks; bytes <= largest_bytes; bytes *= factor) {
    const Index weights_each = bytes / Index{sizeof(T)} / ranks;
    const std::vector<Index> counts(static_cast<std::size_t>(ranks), weights_each);
    const Array1<T> weights("weights", weights_each * ranks);
    report("all_gather", weights_each * ranks * Index{sizeof(T)},
           median_s(world, measure, [&] { exchange.template all_gather<T>(weights, counts); }));
  }
}

template void exchange<float>(const Config&, const Communicator&, const Measure&);
template void exchange<double>(const Config&, const Communicator&, const Measure&);
template void exchange<bfloat16>(const Config&, const Communicator&, const Measure&);

}  // namespace hearth::bench
