// What a run is told: plain structs, one per section of the deck. Defaults stand here; keys, units
// and texts in options.cpp; docs/deck.md is made of both.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace hearth {

struct RunConfig {
  std::string output = "runs/hearth";
  std::int64_t steps = 100;
  std::int64_t stop_step = 0;
  std::int64_t seed = 1234;
  bool reproducible = true;
  double walltime_s = 0;
  double walltime_margin_s = 60;
  std::int64_t log_every = 1;
  double hang_timeout_s = 600;
};

// One value for all layers with experts, or one for each: "6", or "2,2,4,4".
template <class T>
struct ByLayer {
  std::vector<T> values;

  ByLayer(T value = {}) : values{value} {}
  [[nodiscard]] T at(std::int64_t moe_layer) const {
    return values.size() == 1 ? values[0] : values.at(static_cast<std::size_t>(moe_layer));
  }
  [[nodiscard]] T largest() const { return *std::max_element(values.begin(), values.end()); }
  [[nodiscard]] T smallest() const { return *std::min_element(values.begin(), values.end()); }
};

inline constexpr std::int64_t largest_head_width = 256;  // that the attention kernels take

struct ModelConfig {
  std::int64_t layers = 9;
  std::int64_t hidden = 256;
  std::int64_t heads = 16;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t dense_ffn = 1368;
  std::int64_t vocabulary = 50304;
  std::int64_t sequence_length = 2048;
  double rotary_base = 10000;
  double norm_epsilon = 1e-6;
  double init_std = 0.02;
  bool tie_embeddings = false;
  bool qk_norm = false;
  bool document_mask = false;
  std::string compute_type = "fp32";
  std::string recompute = "none";

  // The values that "0" stands for.
  [[nodiscard]] std::int64_t key_value_heads() const { return kv_heads == 0 ? heads : kv_heads; }
  [[nodiscard]] std::int64_t head_width() const {
    return head_dim == 0 ? hidden / heads : head_dim;
  }
};

struct MoeConfig {
  ByLayer<std::int64_t> experts = 64;
  ByLayer<std::int64_t> top_k = 6;
  std::int64_t expert_ffn = 176;
  std::int64_t shared_ffn = 352;
  std::int64_t dense_layers = 1;
  std::string router = "top_k";
  double balance_loss = 0.01;
  std::string balance_scope = "cell";
  double z_loss = 0.001;
  std::int64_t copy_experts = 0;
  std::int64_t constant_experts = 0;
  std::int64_t zero_experts = 0;
  std::int64_t null_experts = 0;
  double light_balance = 1;

  // Experts that have no matrices; their numbers follow the others', in the order above.
  [[nodiscard]] std::int64_t light_experts() const {
    return copy_experts + constant_experts + zero_experts + null_experts;
  }
};

// How a router makes a token's gates of its scores.
struct GateConfig {
  std::string score = "softmax";
  bool renormalise = false;
  double scale = 1;
};

// Experts in groups, of which a token may use some.
struct GroupConfig {
  std::int64_t groups = 1;
  std::int64_t groups_chosen = 1;
};

// A section for every router that has keys of its own.
struct TopKConfig {
  GateConfig gate;
  GroupConfig group;
  ByLayer<double> skip_below = 0.0;
};

struct CapacityConfig {
  ByLayer<double> factor = 1.25;
  std::string drop = "probability";
  bool padded = false;
  GateConfig gate;
};

struct ExpertChoiceConfig {
  double factor = 0;
};

struct TopPConfig {
  double threshold = 0.4;
  std::int64_t most_experts = 0;
  double entropy_loss = 1e-4;
};

struct ReluConfig {
  double initial_lambda = 1e-8;
  double lambda_factor = 1.2;
};

struct BiasBalancedConfig {
  double update = 1e-3;
  GateConfig gate{"sigmoid", true, 2.5};
  GroupConfig group;
};

struct BatchConfig {
  std::int64_t global_batch = 1024;
  std::int64_t cell_sequences = 32;
};

struct OptimizerConfig {
  double learning_rate = 3e-4;
  double min_learning_rate = 3e-5;
  double warmup_fraction = 0.01;
  double decay_fraction = 0.1;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;
  double clip_norm = 1.0;
  std::string on_non_finite = "stop";
  std::int64_t skip_limit = 10;
};

struct DataConfig {
  std::vector<std::string> sources;
  std::string split = "90,5,5";
  std::string order = "shuffled";
};

struct ParallelConfig {
  std::int64_t expert_ranks = 0;
  std::string placement;
  std::string cells = "order";
};

struct CheckpointConfig {
  std::int64_t every_steps = 100;
  std::int64_t keep = 0;
  std::string resume = "auto";
  bool background = false;
};

struct StatisticsConfig {
  std::int64_t every_steps = 10;
  std::int64_t probe_tokens = 4096;
  bool token_counts = true;
  bool token_halves = false;
  bool drift = false;
  std::int64_t trace_every = 0;
  std::int64_t trace_tokens = 4096;
  std::string trace_layers = "all";
};

struct EvaluateConfig {
  std::int64_t every_steps = 0;
  std::int64_t batches = 0;
};

struct Config {
  RunConfig run;
  ModelConfig model;
  MoeConfig moe;
  TopKConfig top_k;
  CapacityConfig capacity;
  ExpertChoiceConfig expert_choice;
  TopPConfig top_p;
  ReluConfig relu;
  BiasBalancedConfig bias_balanced;
  BatchConfig batch;
  OptimizerConfig optimizer;
  DataConfig data;
  ParallelConfig parallel;
  CheckpointConfig checkpoint;
  StatisticsConfig statistics;
  EvaluateConfig evaluate;

  [[nodiscard]] bool has_experts() const { return moe.experts.largest() > 0; }
  [[nodiscard]] bool is_moe_layer(std::int64_t layer) const {
    return has_experts() && layer >= moe.dense_layers;
  }
  [[nodiscard]] std::int64_t moe_layers() const {
    return has_experts() ? model.layers - moe.dense_layers : 0;
  }
  // Where the router of a layer with experts can send a token: experts, then light experts.
  [[nodiscard]] std::int64_t destinations(std::int64_t moe_layer) const {
    return moe.experts.at(moe_layer) + moe.light_experts();
  }
  [[nodiscard]] std::int64_t most_destinations() const {
    return has_experts() ? moe.experts.largest() + moe.light_experts() : 0;
  }
  [[nodiscard]] std::vector<std::int64_t> experts_by_layer() const {
    std::vector<std::int64_t> experts;
    for (std::int64_t layer = 0; layer < moe_layers(); ++layer) {
      experts.push_back(moe.experts.at(layer));
    }
    return experts;
  }
  [[nodiscard]] std::int64_t cell_tokens() const {
    return batch.cell_sequences * model.sequence_length;
  }
  [[nodiscard]] std::int64_t cells_per_step() const {
    return (batch.global_batch + batch.cell_sequences - 1) / batch.cell_sequences;
  }
};

}  // namespace hearth
