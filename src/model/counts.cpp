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

namespace {

// Half the forward pass's.
template <class Active>
auto products_of_token(const Config& config, const Active& active) {
  const ModelConfig& m = config.model;
  auto products = static_cast<decltype(active(TensorInfo{}))>(m.layers * m.heads * m.head_width() *
                                                              m.sequence_length);  // of attention
  for (const TensorInfo& info : make_tensor_table(config)) {
    if (info.shape.size() >= 2 && info.name != "embedding/weight") products += active(info);
  }
  return products;
}

}  // namespace

double training_flops_per_token(const Config& config) {
  return 6.0 * static_cast<double>(products_of_token(
                   config, [&](const TensorInfo& info) { return active_elements(info, config); }));
}

double forward_flops_per_token(const Config& config, const std::vector<double>& experts) {
  return 2 * products_of_token(config, [&](const TensorInfo& info) {
           if (info.owner == Owner::everyone) return static_cast<double>(info.elements());
           return static_cast<double>(info.slice_elements()) *
                  experts.at(static_cast<std::size_t>(info.moe_layer));
         });
}

}  // namespace hearth
