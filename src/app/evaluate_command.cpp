#include <cstdio>

#include "app/commands.hpp"
#include "app/run_state.hpp"
#include "model/compute_type.hpp"

namespace hearth {

namespace {

template <class T>
Status evaluate(const Config& config, const Communicator& world) {
  world.together([&] {
    if (config.checkpoint.resume == "none") {
      throw input_error("checkpoint.resume = none, but hearth evaluate needs a checkpoint; ",
                        "expected auto or a file");
    }
  });
  const Mesh mesh(world, config);
  std::optional<Corpus> validation;
  world.together([&] {
    validation.emplace(parse_sources(config.data.sources), config.data.split, Split::validation,
                       config.model.sequence_length, 0, config.run.seed);
  });
  Trainer<T> trainer(config, mesh, validation->sources());
  const auto resumed =
      resume(config, "", world, CheckpointFolder(config.run.output), trainer, nullptr);
  world.together([&] {
    if (!resumed) {
      throw input_error(config.run.output, ": no checkpoint to evaluate; run hearth train first");
    }
  });
  std::vector<SourceLoss> losses = trainer.evaluate(*validation, config.evaluate.batches);
  if (!world.is_first()) return Status::done;
  losses.push_back(all_sources(losses));
  std::printf("validation loss in nats per token, %s\n", resumed->path.c_str());
  for (const SourceLoss& source : losses) {
    std::printf("%-16s %8.4f  %lld tokens\n", source.name.c_str(), source.loss,
                static_cast<long long>(source.tokens));
  }
  return Status::done;
}

}  // namespace

Status evaluate_command(const Config& config, const Communicator& world) {
  return with_compute_type(config.model,
                           [&](auto type) { return evaluate<decltype(type)>(config, world); });
}

}  // namespace hearth
