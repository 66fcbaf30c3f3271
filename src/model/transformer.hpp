// The model: embedding, blocks, head. Forward from top to bottom, backward from bottom to top.
#pragma once

#include <memory>
#include <variant>

#include "model/attention_layer.hpp"
#include "model/moe_layer.hpp"

namespace hearth {

template <class T>
class Transformer {
 public:
  // `exchange` joins the ranks that hold one copy of the experts between them.
  Transformer(const Config& config, const Parameters<T>& parameters, const Mesh& mesh,
              const DeviceExchange& exchange, kernels::Matmul& matmul, PhaseTimers& timers);

  // Forward and backward of one cell: adds the gradients of the step's mean loss to the parameters'
  // sums, and losses and statistics to `sums` and `counts` (which may be null). All ranks of the
  // exchange call it together; a rank without a cell passes one with no tokens.
  void train(const DeviceCell& cell, const StepTokens& step, StepSums& sums,
             IntervalCounts* counts);

  // Cross-entropy of every token of a cell, without gradients.
  Array1<const double> evaluate(const DeviceCell& cell);  // (tokens)

  // The experts chosen in the last pass by the layers that have some, ascending.
  [[nodiscard]] std::vector<Array2<const int>> choices() const;  // (moe layers) of (tokens, k)

 private:
  struct Block {
    Norm<T> attention_norm;
    AttentionLayer<T> attention;
    Norm<T> feed_forward_norm;
    std::variant<std::unique_ptr<FeedForward<T>>, std::unique_ptr<MoeLayer<T>>> feed_forward;
    GrowingArray<T> attention_input{"attention input"};        // (tokens, hidden): normed
    GrowingArray<T> feed_forward_input{"feed-forward input"};  // (tokens, hidden): normed
    GrowingArray<T> middle{"middle"};                          // (tokens, hidden): stream between
    GrowingArray<T> output{"output"};                          // (tokens, hidden): stream after
  };

  Array2<T> forward(const DeviceCell& cell, const StepTokens& step, StepSums* sums,
                    IntervalCounts* counts);
  void forward(Block& block, const DeviceCell& cell, const StepTokens& step,
               const Array2<const T>& x, StepSums* sums, IntervalCounts* counts);
  void backward(Block& block, const DeviceCell& cell, const Array2<T>& dx);

  ModelConfig model_;
  Workspace<T> workspace_;
  kernels::RotaryTable<T> rotary_;
  Array2<const T> embedding_, head_;  // (vocabulary, hidden)
  kernels::GradientSum embedding_gradient_, head_gradient_;
  std::vector<Block> blocks_;
  Norm<T> final_norm_;

  GrowingArray<T> embedded_{"embedded"};                      // (tokens, hidden)
  GrowingArray<T> normed_{"final norm"};                      // (tokens, hidden)
  GrowingArray<T> dnormed_{"d normed"}, stream_{"d stream"};  // (tokens, hidden)
  GrowingArray<T> logits_{"logits"};                          // (rows of a chunk, vocabulary)
  GrowingArray<double> token_loss_{"token loss"};             // (tokens)
};

// Rows whose logits exist at a time; part of the arithmetic of the head's gradient.
inline constexpr Index head_chunk_rows = 512;

}  // namespace hearth
