#include <algorithm>
#include <cmath>
#include <cstdio>

#include "app/commands.hpp"
#include "app/promise_cost.hpp"
#include "app/trace_record.hpp"
#include "base/error.hpp"
#include "config/deck.hpp"
#include "data/corpus.hpp"
#include "data/token_file.hpp"
#include "model/activation_bytes.hpp"
#include "model/arena.hpp"
#include "model/compute_type.hpp"
#include "model/counts.hpp"
#include "parallel/mesh.hpp"

namespace hearth {

namespace {

constexpr double gibibyte = 1024.0 * 1024.0 * 1024.0;

// What a rank keeps for the whole run, in bytes, of the rank with the most experts.
struct StateBytes {
  double weights = 0, gradients = 0, optimizer = 0;
  double checkpoint = 0;  // its part of one: master weights and two moments
  double row_before = 0;  // with statistics.drift, master weights of the row before
};

StateBytes state_bytes(const Config& config, const RankGrid& grid) {
  const auto [scalar, real] = with_compute_type(config.model, [](auto type) {
    return std::pair<double, double>(sizeof(type), sizeof(Real<decltype(type)>));
  });
  const double master = real > scalar ? real : 0;  // beside the weights, or the weights themselves
  const TensorTable table = make_tensor_table(config);
  const std::vector<ExpertPlacement> placements = make_placements(grid, config.experts_by_layer());
  StateBytes bytes;
  for (const Owner owner : {Owner::everyone, Owner::experts}) {
    const ArenaLayout layout(table, owner, placements, 0);
    const int holders = owner == Owner::everyone ? grid.ranks : grid.data_ranks();
    const auto all = static_cast<double>(layout.elements());
    const auto shard = static_cast<double>(layout.shard(holders, 0).size());
    bytes.weights += scalar * all;
    bytes.gradients += (config.run.reproducible ? 8 : real) * all;
    bytes.optimizer += (2 * real + master) * shard;  // two moments
    bytes.checkpoint += 3 * real * shard;
    if (config.statistics.drift && config.has_experts()) bytes.row_before += real * shard;
  }
  bytes.checkpoint += bytes.row_before;  // of a stop between two rows
  return bytes;
}

// Token statistics that the first rank holds when the last checkpoint's statistics are written, by
// (MoE layer, token id, expert), or for two halves, int64: the counts, their sum over ranks, and a
// row of the record for every checkpoint, in memory that grows by doubling.
double token_count_bytes(const Config& config) {
  if (!config.statistics.token_counts) return 0;
  const double row = 8.0 * static_cast<double>(config.moe_layers() * config.model.vocabulary) *
                     static_cast<double>(config.most_destinations()) *
                     (config.statistics.token_halves ? 2 : 1);
  const Index every = config.checkpoint.every_steps;
  const Index checkpoints = (config.run.steps + every - 1) / every;
  return row * static_cast<double>(2 + 2 * checkpoints);
}

// What is there of the deck's data. A deck may be checked where they are not: no error then.
void print_data(const Config& config) {
  std::printf("\n# data\n");
  if (config.data.sources.empty()) std::printf("warning: data.sources is empty\n");
  for (const DataSource& source : parse_sources(config.data.sources)) {
    try {
      const TokenFile file(source.prefix);
      std::printf("%-44s %lld tokens in %lld documents\n", source.name.c_str(),
                  static_cast<long long>(file.tokens()), static_cast<long long>(file.documents()));
    } catch (const Error& error) {
      std::printf("warning: %s: %s\n", source.name.c_str(), error.what());
    }
  }
}

}  // namespace

Status check_command(const Config& config, const Communicator& world, int ranks) {
  world.together([&] {
    const RankGrid grid = decompose(ranks, config).grid;
    if (!world.is_first()) return;
    const ParameterCounts paper = paper_parameters(config), truth = true_parameters(config);
    const auto line = [](const char* name, std::int64_t value) {
      std::printf("%-44s %lld\n", name, static_cast<long long>(value));
    };
    std::printf("%s\n# sizes\n", write_deck(config).c_str());
    line("active parameters, as the paper counts", paper.active);
    line("total parameters, as the paper counts", paper.total);
    line("active parameters, true", truth.active);
    line("total parameters, true", truth.total);
    const std::int64_t tokens = config.batch.global_batch * config.model.sequence_length;
    line("tokens per step", tokens);
    line("tokens of the run", tokens * config.run.steps);
    const double flops = training_flops_per_token(config);
    std::printf("%-44s %.4g\n", "training FLOPs per token", flops);
    std::printf("%-44s %.4g\n", "training FLOPs of the run",
                flops * static_cast<double>(tokens) * static_cast<double>(config.run.steps));

    std::printf("\n# decomposition\n%s\n", describe(grid, config).c_str());
    const Index cells = config.cells_per_step();
    std::printf("%lld cells a step of up to %lld tokens, %lld to %lld a rank\n",
                static_cast<long long>(cells), static_cast<long long>(config.cell_tokens()),
                static_cast<long long>(share(cells, ranks, ranks - 1).size()),
                static_cast<long long>(share(cells, ranks, 0).size()));
    const StateBytes bytes = state_bytes(config, grid);
    std::printf("memory of the first rank, GiB: weights %.3f, gradient sums %.3f, optimizer %.3f\n",
                bytes.weights / gibibyte, bytes.gradients / gibibyte, bytes.optimizer / gibibyte);
    const auto activations = [&](const std::vector<ExchangeRows>& rows) {
      return static_cast<double>(activation_bytes(config, grid, rows)) / gibibyte;
    };
    std::printf("activations of a cell there, GiB: balanced routing %.3f, worst case %.3f\n",
                activations(balanced_rows(config, grid)), activations(most_rows(config, grid)));
    std::printf("token statistics there at the last checkpoint, GiB: %.3f\n",
                token_count_bytes(config) / gibibyte);
    if (config.statistics.drift) {
      std::printf("weights of the last row of statistics there, GiB: %.3f\n",
                  bytes.row_before / gibibyte);
    }
    if (config.statistics.trace_every > 0) {
      std::printf("routing traces there at the last step, GiB: %.3f\n",
                  trace_bytes(config) / gibibyte);
    }
    if (config.checkpoint.background) {
      std::printf("copy of a checkpoint there, in host memory, GiB: %.3f\n",
                  bytes.checkpoint / gibibyte);
    }
    if (config.run.reproducible) {
      const PromiseCost cost = promise_cost(config, grid);
      std::printf(
          "equality on any layout, at rates measured here: about %.1f %% of its step, %.3g s "
          "beside %.3g s of products\n",
          100 * cost.share(), cost.sums_s, cost.products_s);
    }
    if (config.optimizer.epsilon < 1e-12) {
      std::printf(
          "warning: optimizer.epsilon below 1e-12 is finer than the unit of gradient sums\n");
    }
    print_data(config);
  });
  return Status::done;
}

}  // namespace hearth
