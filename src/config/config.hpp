// What a run is told: plain structs, one per section of the deck. Defaults stand here; keys, units
// and texts in options.cpp; docs/deck.md is made of both.
#pragma once

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
  std::int64_t experts = 64;
  std::int64_t top_k = 6;
  std::int64_t expert_ffn = 176;
  std::int64_t shared_ffn = 352;
  std::int64_t dense_layers = 1;
  std::string router = "top_k";
  double balance_loss = 0.01;
  double z_loss = 0.001;
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
};

struct EvaluateConfig {
  std::int64_t every_steps = 0;
  std::int64_t batches = 0;
};

struct Config {
  RunConfig run;
  ModelConfig model;
  MoeConfig moe;
  BatchConfig batch;
  OptimizerConfig optimizer;
  DataConfig data;
  ParallelConfig parallel;
  CheckpointConfig checkpoint;
  StatisticsConfig statistics;
  EvaluateConfig evaluate;

  [[nodiscard]] bool is_moe_layer(std::int64_t layer) const {
    return moe.experts > 0 && layer >= moe.dense_layers;
  }
  [[nodiscard]] std::int64_t moe_layers() const {
    return moe.experts > 0 ? model.layers - moe.dense_layers : 0;
  }
  [[nodiscard]] std::int64_t cell_tokens() const {
    return batch.cell_sequences * model.sequence_length;
  }
  [[nodiscard]] std::int64_t cells_per_step() const {
    return (batch.global_batch + batch.cell_sequences - 1) / batch.cell_sequences;
  }
};

}  // namespace hearth
