#include "app/promise_cost.hpp"

#include <algorithm>
#include <chrono>
#include <limits>

#include "kernels/adam.hpp"
#include "kernels/fixed_point.hpp"
#include "kernels/matmul/matmul.hpp"
#include "model/arena.hpp"
#include "model/compute_type.hpp"
#include "model/counts.hpp"
#include "parallel/mesh.hpp"

namespace hearth {

namespace {

// The least time of a few runs, in seconds: whatever else the machine does makes them longer only.
template <class Work>
double least_s(const Work& work) {
  using Clock = std::chrono::steady_clock;
  constexpr int fewest_runs = 5;
  constexpr double enough_s = 0.03;
  work();  // touches memory
  double least = std::numeric_limits<double>::max(), all = 0;
  for (int run = 0; run < fewest_runs || all < enough_s; ++run) {
    Kokkos::fence();
    const auto start = Clock::now();
    work();
    Kokkos::fence();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    least = std::min(least, seconds);
    all += seconds;
  }
  return least;
}

constexpr Index summed = Index{1} << 24;   // elements of a sum: no cache holds them
constexpr Index scratch = Index{1} << 20;  // of a term, about what a layer adds at a time

// Seconds an element: of a term that is added, of clearing, of the norm and the update.
struct SumTimes {
  double term_s, clear_s, update_s;
};

template <class T, class G>
SumTimes sum_times() {
  using R = Real<T>;
  const auto all = zeroed<Array1<G>>("sums", summed);
  const auto term = zeroed<Array1<R>>("term", scratch);
  const Array2<std::int64_t> overflow("overflow", 1, 2);
  kernels::GradientSum<R> sum{{}, overflow, 1};
  if constexpr (std::is_same_v<G, std::int64_t>) {
    sum.sum.fixed = all;
  } else {
    sum.sum.plain = all;
  }
  const auto weight = zeroed<Array1<R>>("weight", summed), first = zeroed<Array1<R>>("m", summed),
             second = zeroed<Array1<R>>("v", summed);
  const auto rounded = zeroed<Array1<T>>("rounded", std::is_same_v<T, R> ? 0 : summed);
  const auto decay = zeroed<Array1<std::uint8_t>>("decay", summed / kernels::block_elements);
  const kernels::AdamStep step{1e-3, 0.9, 0.999, 1e-8, 0.01, 0.1, 0.001, 1};
  constexpr auto elements = static_cast<double>(summed);
  return {least_s([&] {
            for (Index begin = 0; begin < summed; begin += scratch) {
              kernels::add_gradient<R>(term, sum.part(begin, begin + scratch));
            }
          }) / elements,
          least_s([&] { Kokkos::deep_copy(all, 0); }) / elements,
          least_s([&] {
            (void)kernels::squared_norm<G>(all);
            kernels::adam<T, G>(step, all, decay, weight, first, second, rounded);
          }) / elements};
}

// Products of a layer's width and a chunk of tokens.
template <class T>
double flops_per_s(const ModelConfig& model) {
  constexpr Index tokens = 2048;
  const Index width = model.hidden;
  const auto x = zeroed<Array2<T>>("x", tokens, width), y = zeroed<Array2<T>>("y", tokens, width);
  const auto weight = zeroed<Array2<T>>("weight", width, width);
  kernels::Matmul matmul;
  const double seconds = least_s([&] { matmul.multiply_nt<T>(x, weight, y); });
  return 2.0 * static_cast<double>(tokens * width * width) / seconds;
}

struct Elements {
  double terms = 0;  // added in a step
  double held = 0;   // cleared
  double owned = 0;  // updated
};

Elements elements_of(const Config& config, const RankGrid& grid) {
  const TensorTable table = make_tensor_table(config);
  const std::vector<ExpertPlacement> placements = make_placements(grid, config.experts_by_layer());
  const auto cells = static_cast<double>(share(config.cells_per_step(), grid.ranks, 0).size());
  Elements elements;
  for (const Owner owner : {Owner::everyone, Owner::experts}) {
    const ArenaLayout layout(table, owner, placements, 0);
    // An expert sees the cells of all ranks that it exchanges with.
    const int cells_at_once = owner == Owner::everyone ? 1 : grid.expert_ranks;
    const int holders = owner == Owner::everyone ? grid.ranks : grid.data_ranks();
    const auto held = static_cast<double>(layout.elements());
    elements.terms += held * cells * cells_at_once;
    elements.held += held;
    elements.owned += static_cast<double>(layout.shard(holders, 0).size());
  }
  return elements;
}

}  // namespace

PromiseCost promise_cost(const Config& config, const RankGrid& grid) {
  const Elements elements = elements_of(config, grid);
  const auto sequences =
      std::min(share(config.cells_per_step(), grid.ranks, 0).size() * config.batch.cell_sequences,
               config.batch.global_batch);
  const double flops = training_flops_per_token(config) *
                       static_cast<double>(sequences * config.model.sequence_length);
  return with_compute_type(config.model, [&](auto type) {
    using T = decltype(type);
    const SumTimes fixed = sum_times<T, std::int64_t>(), plain = sum_times<T, Real<T>>();
    const double sums_s = elements.terms * (fixed.term_s - plain.term_s) +
                          elements.held * (fixed.clear_s - plain.clear_s) +
                          elements.owned * (fixed.update_s - plain.update_s);
    return PromiseCost{std::max(0.0, sums_s), flops / flops_per_s<T>(config.model)};
  });
}

}  // namespace hearth
