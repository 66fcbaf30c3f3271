#include <chrono>
#include <cstdio>
#include <optional>

#include "app/commands.hpp"
#include "app/training_run.hpp"
#include "app/watchdog.hpp"
#include "model/compute_type.hpp"

namespace hearth {

namespace {

template <class T>
Status train(const Config& config, const Communicator& world) {
  const auto start = std::chrono::steady_clock::now();
  std::optional<Deadline> deadline;
  world.together([&] { deadline.emplace(config.run); });

  // 1. Data and layout: whatever is wrong with them is said before anything is written.
  const Mesh mesh(world, config);
  std::optional<Corpus> corpus, validation;
  world.together([&] {
    corpus.emplace(parse_sources(config.data.sources), config.data.split, Split::train,
                   config.model.sequence_length, config.run.steps * config.batch.global_batch,
                   config.run.seed, parse_order(config.data.order));
    if (SplitShares(config.data.split).has(Split::validation)) {
      validation.emplace(corpus->one_pass(Split::validation));
    }
    // Whether the placement knows the sources.
    (void)copies_by_source(config, mesh.sources, corpus->names());
  });

  // 2. The output directory, locked for this run.
  std::unique_ptr<OutputDirectory> output;
  world.together([&] {
    if (world.is_first()) output = std::make_unique<OutputDirectory>(config.run.output);
  });
  const Watchdog watchdog(world, config.run.output + "/heartbeat", config.run.hang_timeout_s);

  // 3. The model, from a checkpoint or from the seed.
  TrainingRun<T> run(config, world, mesh, *corpus, validation ? &*validation : nullptr,
                     output.get());
  run.take_up();
  if (run.step() >= run.end()) {
    if (world.is_first()) {
      std::fprintf(stderr, "nothing to do: step %lld of %lld is done\n",
                   static_cast<long long>(run.step()), static_cast<long long>(run.end()));
    }
    return Status::done;
  }

  // 4. The steps.
  const std::chrono::duration<double> start_s = std::chrono::steady_clock::now() - start;
  return run.train(*deadline, start_s.count());
}

}  // namespace

Status train_command(const Config& config, const Communicator& world) {
  return with_compute_type(config.model,
                           [&](auto type) { return train<decltype(type)>(config, world); });
}

}  // namespace hearth
