#include "model/tensor_table.hpp"

#include <cmath>
#include <functional>
#include <numeric>

#include "base/error.hpp"
#include "model/routers/router_table.hpp"

namespace hearth {

Index TensorInfo::elements() const {
  return std::accumulate(shape.begin(), shape.end(), Index{1}, std::multiplies<>());
}

std::vector<Index> first_slices(const TensorTable& table) {
  std::vector<Index> first = {0};
  for (const TensorInfo& info : table) {
    first.push_back(first.back() + (info.alias_of.empty() ? info.slices() : 0));
  }
  return first;
}

std::string layer_prefix(Index layer) {
  return text("layers/", layer < 10 ? "0" : "", layer, "/");
}

namespace {

class TableBuilder {
 public:
  explicit TableBuilder(const ModelConfig& model)
      : std_(model.init_std),
        // Projections onto the residual stream start smaller the deeper the model is, so that the
        // stream's variance does not grow with depth (GPT-2).
        output_std_(model.init_std / std::sqrt(2.0 * static_cast<double>(model.layers))) {}

  void norm(const std::string& name, Index width, const std::string& axis, const std::string& hf) {
    table_.push_back({name, {width}, {axis}, Owner::everyone, Initial::ones, 0, false, hf});
  }
  void weight(const std::string& name, Index out, Index in, const std::string& out_axis,
              const std::string& in_axis, const std::string& hf) {
    table_.push_back(
        {name, {out, in}, {out_axis, in_axis}, Owner::everyone, Initial::normal, std_, true, hf});
  }
  void output(const std::string& name, Index out, Index in, const std::string& out_axis,
              const std::string& in_axis, const std::string& hf) {
    weight(name, out, in, out_axis, in_axis, hf);
    table_.back().init_std = output_std_;
  }
  // Of the last entry.
  void set_decay(bool decay) { table_.back().decay = decay; }
  // The three matrices of a SwiGLU.
  void swiglu(const std::string& name, Index hidden, Index ffn, const std::string& axis,
              const std::string& hf) {
    weight(name + "gate", ffn, hidden, axis, "hidden", hf + "gate_proj.weight");
    weight(name + "up", ffn, hidden, axis, "hidden", hf + "up_proj.weight");
    output(name + "down", hidden, ffn, "hidden", axis, hf + "down_proj.weight");
  }
  // The last three entries, stacked over experts.
  void stack_over_experts(Index experts, Index moe_layer) {
    for (auto entry = table_.end() - 3; entry != table_.end(); ++entry) {
      entry->shape.insert(entry->shape.begin(), experts);
      entry->axes.insert(entry->axes.begin(), "expert");
      entry->owner = Owner::experts;
      entry->moe_layer = moe_layer;
    }
  }
  void alias(const std::string& name, const std::string& of, const std::string& hf) {
    for (const TensorInfo& entry : table_) {
      if (entry.name == of) {
        TensorInfo copy = entry;
        copy.name = name;
        copy.hugging_face = hf;
        copy.alias_of = of;
        table_.push_back(copy);
        return;
      }
    }
  }
  [[nodiscard]] TensorTable finish() { return std::move(table_); }

 private:
  TensorTable table_;
  double std_, output_std_;
};

}  // namespace

TensorTable make_tensor_table(const Config& config) {
  const ModelConfig& m = config.model;
  const Index hidden = m.hidden, head_dim = m.head_width();
  const Index q_width = m.heads * head_dim, kv_width = m.key_value_heads() * head_dim;
  TableBuilder table(m);
  table.weight("embedding/weight", m.vocabulary, hidden, "vocabulary", "hidden",
               "model.embed_tokens.weight");
  for (Index layer = 0; layer < m.layers; ++layer) {
    const std::string name = layer_prefix(layer), hf = text("model.layers.", layer, ".");
    table.norm(name + "attention_norm/weight", hidden, "hidden", hf + "input_layernorm.weight");
    const std::string attention = name + "attention/", hf_attention = hf + "self_attn.";
    table.weight(attention + "query", q_width, hidden, "heads*head_dim", "hidden",
                 hf_attention + "q_proj.weight");
    table.weight(attention + "key", kv_width, hidden, "kv_heads*head_dim", "hidden",
                 hf_attention + "k_proj.weight");
    table.weight(attention + "value", kv_width, hidden, "kv_heads*head_dim", "hidden",
                 hf_attention + "v_proj.weight");
    if (m.qk_norm) {
      table.norm(attention + "query_norm", head_dim, "head_dim", hf_attention + "q_norm.weight");
      table.norm(attention + "key_norm", head_dim, "head_dim", hf_attention + "k_norm.weight");
    }
    table.output(attention + "output", hidden, q_width, "hidden", "heads*head_dim",
                 hf_attention + "o_proj.weight");
    table.norm(name + "feed_forward_norm/weight", hidden, "hidden",
               hf + "post_attention_layernorm.weight");
    if (!config.is_moe_layer(layer)) {
      table.swiglu(name + "dense/", hidden, m.dense_ffn, "dense_ffn", hf + "mlp.");
      continue;
    }
    const MoeConfig& moe = config.moe;
    const Index moe_layer = layer - moe.dense_layers;
    const RouterTraits router = router_traits(config, moe_layer);
    if (router.has_logits) {
      table.weight(name + "router/weight", config.destinations(moe_layer), hidden, "expert",
                   "hidden", hf + "mlp.gate.weight");
      table.set_decay(router.trains_weight);
    }
    table.swiglu(name + "experts/", hidden, moe.expert_ffn, "expert_ffn", hf + "mlp.experts.{}.");
    table.stack_over_experts(moe.experts.at(moe_layer), moe_layer);
    if (moe.constant_experts > 0) {
      table.weight(name + "constant/value", moe.constant_experts, hidden, "constant", "hidden",
                   hf + "mlp.constant_experts.value");
      table.weight(name + "constant/mix", 2 * moe.constant_experts, hidden, "constant*2", "hidden",
                   hf + "mlp.constant_experts.mix");
    }
    if (moe.shared_ffn > 0) {
      table.swiglu(name + "shared/", hidden, moe.shared_ffn, "shared_ffn",
                   hf + "mlp.shared_expert.");
    }
  }
  table.norm("final_norm/weight", hidden, "hidden", "model.norm.weight");
  if (m.tie_embeddings) {
    table.alias("head/weight", "embedding/weight", "lm_head.weight");
  } else {
    table.weight("head/weight", m.vocabulary, hidden, "vocabulary", "hidden", "lm_head.weight");
  }
  return table.finish();
}

}  // namespace hearth
