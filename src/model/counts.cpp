#include "model/counts.hpp"

#include "model/tensor_table.hpp"

namespace hearth {

namespace {

// Elements that one token meets.
Index active_elements(const TensorInfo& info, const Config& config) {
  return info.owner == Owner::experts ? info.slice_elements() * config.moe.top_k : info.elements();
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
  if (config.moe.experts == 0) {
    const Index all = fixed + 3 * layers * h * m.dense_ffn;
    return {all, all};
  }
  const Index dense = fixed + 2 * config.moe.dense_layers * h * m.dense_ffn;
  const Index shared = config.moe_layers() * 3 * h * config.moe.shared_ffn;
  const Index expert = config.moe_layers() * 3 * h * config.moe.expert_ffn;
  return {dense + shared + expert * config.moe.top_k, dense + shared + expert * config.moe.experts};
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
