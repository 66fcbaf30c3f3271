#include <cstdio>

#include "app/commands.hpp"
#include "app/derived_run.hpp"
#include "config/deck.hpp"
#include "model/compute_type.hpp"
#include "train/skip_calibration.hpp"

namespace hearth {

namespace {

template <class T>
Status calibrate(const Config& config, const DerivedRequest& request, const Communicator& world) {
  std::optional<Corpus> corpus;
  world.together([&] { corpus = calibration_corpus(config, request.batches); });
  Config skipping = derived_config(config, request.output);
  std::string checkpoint;
  ModelMeasure before;
  {
    const Mesh mesh(world, config.parallel.expert_ranks, config.experts_by_layer());
    Trainer<T> trainer(config, mesh, corpus->sources());
    checkpoint = read_weights(config, world, trainer);
    skipping.top_k.skip_below.values =
        calibrate_skipping(trainer, config, world, *corpus, request.batches);
    before = measure(trainer, config, *corpus, world);
  }
  if (world.is_first()) {
    std::printf("calibration: %lld global batches of the training split\n",
                static_cast<long long>(request.batches));
    for (std::int64_t layer = 0; layer < config.moe_layers(); ++layer) {
      std::printf("layer %lld: a choice below %.6f of the largest is skipped\n",
                  static_cast<long long>(config.moe.dense_layers + layer),
                  skipping.top_k.skip_below.at(layer));
    }
  }
  std::vector<ExpertTerms> same;
  for (const std::int64_t experts : config.experts_by_layer()) {
    auto& terms = same.emplace_back();
    for (Index expert = 0; expert < experts; ++expert) terms.push_back({{expert, 1}});
  }
  const TensorTable table = make_tensor_table(config);
  write_derived<T>(config, skipping, world, checkpoint, combined_experts(table, table, same),
                   *corpus, before);
  return Status::done;
}

}  // namespace

Status calibrate_skip_command(const Config& config, const DerivedRequest& request,
                              const Communicator& world) {
  world.together([&] {
    const auto refuse = [&](const auto&... parts) {
      throw input_error("hearth calibrate-skip: ", parts...);
    };
    if (!config.has_experts()) {
      refuse("moe.experts = 0: the model is dense; expected one with experts");
    }
    if (config.moe.router != "top_k" && config.moe.router != "frozen") {
      refuse("moe.router = ", config.moe.router, "; expected top_k or frozen, which can skip");
    }
    if (config.top_k.skip_below.largest() > 0) {
      refuse("top_k.skip_below is set already; expected --top_k.skip_below=0 to find it anew");
    }
  });
  check_new_folder(world, request.output);
  return with_compute_type(
      config.model, [&](auto type) { return calibrate<decltype(type)>(config, request, world); });
}

}  // namespace hearth
