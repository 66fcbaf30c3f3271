#include "model/counts.hpp"

#include <algorithm>
#include <cmath>

#include "model/tensor_table.hpp"

namespace hearth {

namespace {

// As the deck intends: what routers with a variable number, with a capacity or with light experts
// really send is in routing.h5.
Index experts_of_token(const Config& config, Index moe_layer) {
  Index wanted = config.moe.top_k.at(moe_layer);
  if (config.moe.router == "expert_choice" && config.expert_choice.factor > 0) {
    wanted = std::llround(config.expert_choice.factor);
  }
  return std::min(wanted, config.moe.experts.at(moe_layer));
}

// Elements that one token meets.
Index active_elements(const TensorInfo& info, const Config& config) {
  if (info.owner == Owner::everyone) return info.elements();
  return info.slice_elements() * experts_of_token(config, info.moe_layer);
}

}  // namespace

ParameterCounts true_parameters(const Config& config) {
  ParameterCounts counts;
  for (const TensorInfo& info : make_tensor_table(config)) {
    if (!info.alias_of.empty()) continue;
    counts.active += active_elements(info, config);
    counts.total += info.elements();
  }
  return counts;
}

ParameterCounts paper_parameters(const Config& config) {
  const ModelConfig& m = config.model;
  const Index h = m.hidden, layers = m.layers;
  const Index fixed = 4 * layers * h * h + 2 * m.vocabulary * h;
  if (!config.has_experts()) {
    const Index all = fixed + 3 * layers * h * m.dense_ffn;
    return {all, all};
  }
  const Index dense = fixed + 2 * config.moe.dense_layers * h * m.dense_ffn;
  const Index shared = config.moe_layers() * 3 * h * config.moe.shared_ffn;
  const Index expert = 3 * h * config.moe.expert_ffn;
  ParameterCounts counts{dense + shared, dense + shared};
  for (Index layer = 0; layer < config.moe_layers(); ++layer) {
    counts.active += expert * experts_of_token(config, layer);
    counts.total += expert * config.moe.experts.at(layer);
  }
  return counts;
}

double training_flops_per_token(const Config& config) {
  Index weights = 0;
  for (const TensorInfo& info : make_tensor_table(config)) {
    const bool product = info.shape.size() >= 2 && info.name != "embedding/weight";
    if (product) weights += active_elements(info, config);
  }
  const ModelConfig& m = config.model;
  const Index attention = m.layers * m.heads * m.head_width() * m.sequence_length;
  return 6.0 * static_cast<double>(weights + attention);
}

}  // namespace hearth
