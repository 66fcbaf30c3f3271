#include "app/derived_run.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "base/error.hpp"
#include "config/deck.hpp"
#include "io/output_directory.hpp"
#include "io/replace_file.hpp"
#include "model/counts.hpp"

namespace hearth {

void check_new_folder(const Communicator& world, const std::string& output) {
  world.together([&] {
    if (!world.is_first()) return;
    std::error_code ignored;
    if (std::filesystem::exists(std::filesystem::symlink_status(output, ignored))) {
      throw input_error(output, ": is there already; give a folder that is not");
    }
  });
}

void check_fewer_experts(const char* command, const Config& config, const DerivedRequest& request) {
  const auto refuse = [&](const auto&... parts) {
    throw input_error("hearth ", command, ": ", parts...);
  };
  if (!config.has_experts())
    refuse("moe.experts = 0: the model is dense; expected one with experts");
  const std::string& router = config.moe.router;
  if ((router != "top_k" && router != "top_p" && router != "frozen") ||
      config.top_k.group.groups > 1) {
    refuse("moe.router = ", router, config.top_k.group.groups > 1 ? " with groups" : "",
           "; expected top_k without groups, top_p or frozen, which decide token by token");
  }
  if (config.moe.light_experts() > 0) {
    refuse("the model has copy, constant, zero or null experts; expected one without");
  }
  if (request.experts > config.moe.experts.smallest()) {
    refuse("--experts=", request.experts,
           " is more than moe.experts = ", config.moe.experts.smallest(),
           "; expected at most as many");
  }
}

Corpus calibration_corpus(const Config& config, std::int64_t batches) {
  return {parse_sources(config.data.sources),
          config.data.split,
          Split::train,
          config.model.sequence_length,
          std::max(config.run.steps, batches) * config.batch.global_batch,
          config.run.seed,
          parse_order(config.data.order)};
}

Config derived_config(const Config& config, const std::string& output) {
  Config derived = config;
  derived.run.output = output;
  derived.checkpoint.resume = "auto";
  return derived;
}

std::optional<Corpus> validation_split(const Config& config, const Corpus& corpus) {
  if (!SplitShares(config.data.split).has(Split::validation)) return std::nullopt;
  return corpus.one_pass(Split::validation);
}

template <class T>
ModelMeasure measure(Trainer<T>& trainer, const Corpus* validation, const Config& config,
                     const Communicator& world) {
  if (validation == nullptr) return {};
  (void)trainer.evaluate(*validation, 1);  // memory and compiled kernels
  world.barrier();
  const auto start = std::chrono::steady_clock::now();
  const SourceLoss all = all_sources(trainer.evaluate(*validation, config.evaluate.batches));
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return {all.loss, all.tokens, static_cast<double>(all.tokens) / seconds};
}

template <class T>
std::string read_weights(const Config& config, const Communicator& world, Trainer<T>& trainer) {
  world.together([&] {
    if (config.checkpoint.resume == "none") {
      throw input_error("checkpoint.resume = none, but a checkpoint is needed; ",
                        "expected auto or a file");
    }
  });
  const auto resumed = resume(config, "", world, CheckpointFolder(config.run.output), trainer,
                              static_cast<const IntervalCounts*>(nullptr));
  world.together([&] {
    if (!resumed) {
      throw input_error(config.run.output, ": no checkpoint to start from; run hearth train first");
    }
  });
  return resumed->path;
}

namespace {

void write_text(const std::string& path, const std::string& content) {
  const std::string temporary = temporary_name(path);
  std::ofstream stream(temporary);
  stream << content << std::flush;
  if (!stream) throw failure(temporary, ": cannot be written");
  stream.close();
  sync_file(temporary);
  publish(temporary, path);
}

void print_comparison(const Config& older, const Config& newer, const ModelMeasure& before,
                      const ModelMeasure& after) {
  std::printf("%-36s %14s %14s\n", "", "before", "after");
  const auto numbers = [](const char* name, const char* format, auto a, auto b) {
    char one[32], other[32];
    std::snprintf(one, sizeof one, format, a);
    std::snprintf(other, sizeof other, format, b);
    std::printf("%-36s %14s %14s\n", name, one, other);
  };
  if (before.tokens > 0) {
    numbers("validation loss, nats per token", "%.6f", before.loss, after.loss);
  } else {
    std::printf("validation loss: the deck has no validation split of a whole sequence\n");
  }
  const ParameterCounts then = true_parameters(older), now = true_parameters(newer);
  numbers("parameters", "%lld", static_cast<long long>(then.total),
          static_cast<long long>(now.total));
  numbers("active parameters", "%lld", static_cast<long long>(then.active),
          static_cast<long long>(now.active));
  // Backward costs twice as much as forward.
  numbers("forward FLOPs per token", "%.6g", training_flops_per_token(older) / 3,
          training_flops_per_token(newer) / 3);
  if (before.tokens > 0) {
    numbers("tokens/s of validation, measured", "%.0f", before.tokens_per_s, after.tokens_per_s);
  }
}

}  // namespace

template <class T>
void write_derived(const Config& older, const Config& config, const Communicator& world,
                   const std::string& checkpoint, const TensorSources& sources,
                   const Corpus& corpus, const ModelMeasure& before) {
  const Mesh mesh(world, config.parallel.expert_ranks, config.experts_by_layer());
  Trainer<T> trainer(config, mesh, corpus.sources());
  trainer.optimizer().initialize();
  read_derived<Real<T>>(world, checkpoint, trainer.parameters().table(), sources,
                        tensor_parts(trainer, false));
  trainer.optimizer().spread_weights();
  std::optional<Corpus> validation;
  world.together([&] { validation = validation_split(config, corpus); });
  const ModelMeasure after = measure(trainer, validation ? &*validation : nullptr, config, world);

  std::unique_ptr<OutputDirectory> output;
  world.together([&] {
    if (world.is_first()) output = std::make_unique<OutputDirectory>(config.run.output);
  });
  const std::string path = CheckpointFolder(config.run.output).file(0);
  const std::string deck = config.run.output + "/run.deck";
  std::vector<std::int64_t> open_interval;
  if (world.is_first()) open_interval.resize(trainer.sums().values().extent(0) + 1, 0);
  CheckpointWriter<Real<T>> writer(world, WriteTime::at_once);
  const std::uint64_t checksum = begin_save(
      writer, path, run_header(config, mesh, corpus.identity()), trainer, open_interval, {});
  writer.finish();
  world.together([&] {
    if (world.is_first()) write_text(deck, write_deck(config));
  });
  if (!world.is_first()) return;
  print_comparison(older, config, before, after);
  std::printf("weights checksum %s\ncheckpoint %s\ndeck %s\n", checksum_text(checksum).c_str(),
              path.c_str(), deck.c_str());
}

#define HEARTH_INSTANTIATE(T)                                                             \
  template ModelMeasure measure<T>(Trainer<T>&, const Corpus*, const Config&,             \
                                   const Communicator&);                                  \
  template void write_derived<T>(const Config&, const Config&, const Communicator&,       \
                                 const std::string&, const TensorSources&, const Corpus&, \
                                 const ModelMeasure&);                                    \
  template std::string read_weights<T>(const Config&, const Communicator&, Trainer<T>&)
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
HEARTH_INSTANTIATE(bfloat16);
#undef HEARTH_INSTANTIATE

}  // namespace hearth
