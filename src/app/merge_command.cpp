#include <cstdio>

#include "app/commands.hpp"
#include "app/derived_run.hpp"
#include "config/deck.hpp"
#include "model/compute_type.hpp"
#include "train/expert_merging.hpp"

namespace hearth {

namespace {

void print_groups(const ExpertTerms& merged, std::int64_t layer) {
  std::printf("layer %lld:", static_cast<long long>(layer));
  for (const auto& terms : merged) {
    std::string members;
    for (const ExpertTerm& term : terms) {
      char one[64];
      std::snprintf(one, sizeof one, "%s%.3f of %lld", members.empty() ? "" : " + ", term.weight,
                    static_cast<long long>(term.expert));
      members += terms.size() > 1 ? one : text(term.expert);
    }
    std::printf(" [%s]", members.c_str());
  }
  std::printf("\n");
}

template <class T>
Status merge(const Config& config, const Config& merged, const DerivedRequest& request,
             const Communicator& world) {
  return derive<T>(config, request.batches, world, [&](Trainer<T>& trainer, const Corpus& corpus) {
    std::vector<ExpertTerms> experts;
    for (const ExpertLikeness& likeness :
         measure_likeness(trainer, config, world, corpus, request.batches)) {
      experts.push_back(merged_terms(likeness, group_experts(likeness, request.experts)));
    }
    print_calibration(world, request.batches);
    for (std::size_t layer = 0; world.is_first() && layer < experts.size(); ++layer) {
      print_groups(experts[layer], config.moe.dense_layers + static_cast<std::int64_t>(layer));
    }
    return Derivation{
        merged, combined_experts(make_tensor_table(config), make_tensor_table(merged), experts)};
  });
}

}  // namespace

Status merge_command(const Config& config, const DerivedRequest& request,
                     const Communicator& world) {
  Config merged = derived_config(config, request.output);
  merged.moe.experts = request.experts;
  world.together([&] {
    check_fewer_experts("merge", config, request);
    validate(merged, text("merge --experts=", request.experts));
  });
  check_new_folder(world, request.output);
  return with_compute_type(config.model, [&](auto type) {
    return merge<decltype(type)>(config, merged, request, world);
  });
}

}  // namespace hearth
