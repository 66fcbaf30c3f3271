#include <cstdio>

#include "app/commands.hpp"
#include "app/derived_run.hpp"
#include "config/deck.hpp"
#include "model/compute_type.hpp"
#include "train/expert_pruning.hpp"

namespace hearth {

namespace {

std::string list(const std::vector<Index>& numbers) {
  std::string all;
  for (const Index number : numbers) all += text(all.empty() ? "" : ", ", number);
  return all.empty() ? "none" : all;
}

void print_plan(const std::vector<PrunedLayer>& plan, const Config& config) {
  for (std::size_t layer = 0; layer < plan.size(); ++layer) {
    const PrunedLayer& pruned = plan[layer];
    std::printf("layer %lld: without %s (%s %lld sets); output changes by %.6g of %.6g\n",
                static_cast<long long>(config.moe.dense_layers) + static_cast<long long>(layer),
                list(pruned.dropped).c_str(),
                pruned.enumerated ? "the best of all" : "greedily, one by one, of",
                static_cast<long long>(pruned.sets), pruned.change, pruned.norm);
  }
}

template <class T>
Status prune(const Config& config, const Config& pruned, const DerivedRequest& request,
             const Communicator& world) {
  return derive<T>(config, request.batches, world, [&](Trainer<T>& trainer, const Corpus& corpus) {
    const std::vector<PrunedLayer> plan =
        choose_experts(trainer, config, world, corpus, request.batches, request.experts);
    print_calibration(world, request.batches);
    if (world.is_first()) print_plan(plan, config);
    std::vector<ExpertTerms> experts;
    for (const PrunedLayer& layer : plan) experts.push_back(unchanged_experts(layer.kept));
    return Derivation{
        pruned, combined_experts(make_tensor_table(config), make_tensor_table(pruned), experts)};
  });
}

}  // namespace

Status prune_command(const Config& config, const DerivedRequest& request,
                     const Communicator& world) {
  Config pruned = derived_config(config, request.output);
  pruned.moe.experts = request.experts;
  world.together([&] {
    check_fewer_experts("prune", config, request);
    validate(pruned, text("prune --experts=", request.experts));
  });
  check_new_folder(world, request.output);
  return with_compute_type(config.model, [&](auto type) {
    return prune<decltype(type)>(config, pruned, request, world);
  });
}

}  // namespace hearth
