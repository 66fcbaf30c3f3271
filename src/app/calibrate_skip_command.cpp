#include <cstdio>
#include <numeric>

#include "app/commands.hpp"
#include "app/derived_run.hpp"
#include "config/deck.hpp"
#include "model/compute_type.hpp"
#include "train/skip_calibration.hpp"

namespace hearth {

namespace {

template <class T>
Status calibrate(const Config& config, const DerivedRequest& request, const Communicator& world) {
  return derive<T>(config, request.batches, world, [&](Trainer<T>& trainer, const Corpus& corpus) {
    Config skipping = derived_config(config, request.output);
    skipping.top_k.skip_below.values =
        calibrate_skipping(trainer, config, world, corpus, request.batches);
    print_calibration(world, request.batches);
    std::vector<ExpertTerms> same;
    for (std::int64_t layer = 0; layer < config.moe_layers(); ++layer) {
      if (world.is_first()) {
        std::printf("layer %lld: a choice below %.6f of the largest is skipped\n",
                    static_cast<long long>(config.moe.dense_layers + layer),
                    skipping.top_k.skip_below.at(layer));
      }
      std::vector<Index> all(static_cast<std::size_t>(config.moe.experts.at(layer)));
      std::iota(all.begin(), all.end(), Index{0});
      same.push_back(unchanged_experts(all));
    }
    const TensorTable table = make_tensor_table(config);
    return Derivation{skipping, combined_experts(table, table, same)};
  });
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
