#include "app/derived_run.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "base/error.hpp"
#include "config/deck.hpp"
#include "io/output_directory.hpp"
#include "io/replace_file.hpp"
#include "kernels/routing/selection.hpp"
#include "model/counts.hpp"

namespace hearth {

void check_new_folder(const Communicator& world, const std::string& output) {
  world.together([&] {
    if (!world.is_first()) return;
    std::error_code ignored;
    if (std::filesystem::exists(std::filesystem::symlink_status(output, ignored))) {
      throw input_error(output, ": is there already; give a folder that is not");
    }
    // The folder is made when all is done; that it can be made is known before.
    std::filesystem::path parent = std::filesystem::absolute(output).parent_path();
    while (!std::filesystem::exists(parent, ignored) && parent != parent.root_path()) {
      parent = parent.parent_path();
    }
    std::string probe = parent / ".hearth-XXXXXX";
    if (mkdtemp(probe.data()) == nullptr) throw cannot_be_written(output, errno);
    rmdir(probe.c_str());
  });
}

void check_fewer_experts(const char* command, const Config& config, const DerivedRequest& request) {
  const auto refuse = [&](const auto&... parts) { throw input_error(command, ": ", parts...); };
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

void print_calibration(const Communicator& world, std::int64_t batches) {
  if (!world.is_first()) return;
  std::printf("calibration: %lld global batches of the training split\n",
              static_cast<long long>(batches));
}

Config derived_config(const Config& config, const std::string& output) {
  Config derived = config;
  derived.run.output = output;
  derived.checkpoint.resume = "auto";
  // Of other experts, or of other choices of theirs.
  derived.parallel.placement.clear();
  derived.parallel.cells = "order";
  return derived;
}

namespace {

// Experts that a token of the first batch is sent to, on average, by layer.
template <class T>
std::vector<double> experts_of_token(Trainer<T>& trainer, const Config& config,
                                     const Corpus& corpus, const Communicator& world) {
  // (moe layers + 1): copies, tokens
  std::vector<std::int64_t> sums(static_cast<std::size_t>(config.moe_layers()) + 1, 0);
  for (const DeviceCell& cell : trainer.load(corpus, 0)) {
    const auto choices = trainer.route(cell);
    for (std::size_t layer = 0; layer < choices.size(); ++layer) {
      sums[layer] += kernels::count_choices(
          choices[layer], config.moe.experts.at(static_cast<std::int64_t>(layer)));
    }
    sums.back() += cell.tokens;
  }
  world.sum(sums);
  std::vector<double> experts;
  for (std::size_t layer = 0; layer + 1 < sums.size(); ++layer) {
    experts.push_back(static_cast<double>(sums[layer]) / static_cast<double>(sums.back()));
  }
  return experts;
}

}  // namespace

template <class T>
ModelMeasure measure(Trainer<T>& trainer, const Config& config, const Corpus& corpus,
                     const Communicator& world) {
  ModelMeasure found;
  found.experts = experts_of_token(trainer, config, corpus, world);
  std::optional<Corpus> validation;
  world.together([&] {
    if (SplitShares(config.data.split).has(Split::validation)) {
      validation.emplace(corpus.one_pass(Split::validation));
    }
  });
  if (!validation) return found;
  (void)trainer.evaluate(*validation, 1);  // memory, and products that are compiled
  world.barrier();
  const auto start = std::chrono::steady_clock::now();
  const SourceLoss all = all_sources(trainer.evaluate(*validation, config.evaluate.batches));
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  found.loss = all.loss;
  found.tokens = all.tokens;
  found.tokens_per_s = static_cast<double>(all.tokens) / seconds;
  return found;
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
  const auto mean = [](const ModelMeasure& measured) {
    const auto& of_layers = measured.experts;
    return of_layers.empty() ? 0.0
                             : std::accumulate(of_layers.begin(), of_layers.end(), 0.0) /
                                   static_cast<double>(of_layers.size());
  };
  numbers("experts of a token, measured", "%.4f", mean(before), mean(after));
  numbers("forward FLOPs per token", "%.6g", forward_flops_per_token(older, before.experts),
          forward_flops_per_token(newer, after.experts));
  if (before.tokens > 0) {
    numbers("tokens/s of validation, measured", "%.0f", before.tokens_per_s, after.tokens_per_s);
  }
}

}  // namespace

template <class T>
void write_derived(const Config& older, const Config& config, const Communicator& world,
                   const std::string& checkpoint, const TensorSources& sources,
                   const Corpus& corpus, const ModelMeasure& before) {
  const Mesh mesh(world, config);
  Trainer<T> trainer(config, mesh, corpus.sources());
  trainer.optimizer().initialize();
  read_derived<Real<T>>(world, checkpoint, trainer.parameters().table(), sources,
                        tensor_parts(trainer, false));
  trainer.optimizer().spread_weights();
  const ModelMeasure after = measure(trainer, config, corpus, world);

  std::unique_ptr<OutputDirectory> output;
  world.together([&] {
    if (world.is_first()) output = std::make_unique<OutputDirectory>(config.run.output);
  });
  const std::string path = CheckpointFolder(config.run.output).file(0);
  const std::string deck = config.run.output + "/run.deck";
  std::vector<std::int64_t> open_interval;
  if (world.is_first()) open_interval.resize(trainer.sums().values().extent(0) + 1, 0);
  CheckpointWriter<Real<T>> writer(world, WriteTime::at_once);
  const std::uint64_t checksum =
      begin_save(writer, path, run_header(config, mesh, corpus.identity()), trainer,
                 OpenStatistics<T>{std::move(open_interval), {}});
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
  template ModelMeasure measure<T>(Trainer<T>&, const Config&, const Corpus&,             \
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
