// The model: embedding, blocks, head. Forward from top to bottom, backward from bottom to top.
#pragma once

#include <memory>
#include <span>
#include <variant>

#include "model/attention_layer.hpp"
#include "model/head.hpp"
#include "model/moe_layer.hpp"

namespace hearth {

template <class T>
class Transformer {
 public:
  // `exchange` joins the ranks that hold one copy of the experts between them.
  Transformer(const Config& config, const Parameters<T>& parameters, const Mesh& mesh,
              const DeviceExchange& exchange, kernels::Matmul& matmul, PhaseTimers& timers);

  // Forward and backward of one cell: adds the gradients of the step's mean loss to the parameters'
  // sums, and losses and statistics to `sums`, `counts` and `trace` (of which the latter two may be
  // null). All ranks of the exchange call it together; a rank without a cell passes one with no
  // tokens.
  void train(const DeviceCell& cell, const StepTokens& step, StepSums& sums, IntervalCounts* counts,
             StepTrace* trace = nullptr);

  // Cross-entropy of every token of a cell, without gradients. Lives until the next pass.
  Array1<const double> evaluate(const DeviceCell& cell);  // (tokens)

  // The forward pass of a cell once more, for `check` to find out where values stop being finite;
  // `counts` (which may be null) count what the pass chooses, with their weight. All ranks of the
  // exchange call it together.
  void check_forward(const DeviceCell& cell, ForwardCheck& check, IntervalCounts* counts);

  // The forward pass of a cell, of which `observer` sees the layers with experts. All ranks of the
  // exchange call it together.
  void observe(const DeviceCell& cell, ExpertObserver<Real<T>>& observer);

  // Where the last pass sent the tokens in the layers with experts: ascending, then -1. They live
  // until the next pass.
  [[nodiscard]] std::vector<Array2<const int>> choices() const;  // (moe layers) of (tokens, slots)

  // Rows that the layers with experts exchanged in the last pass.
  [[nodiscard]] std::vector<ExchangeRows> exchange_rows() const;  // (moe layers)

  // Integers that the routers hand on from step to step, those of all layers one after another:
  // zero before the first step, the same on every rank.
  [[nodiscard]] Index router_states() const;
  void advance_routers(const HostArray1<std::int64_t>& sums, const StepSums& layout,
                       std::int64_t tokens, std::span<std::int64_t> states) const;
  void set_router_states(std::span<const std::int64_t> states);

  // The memory of cells: what is in it lives until the next pass.
  [[nodiscard]] Activations& activations() { return workspace_.activations; }

  // Takes from a counting stack what train() takes for a cell of `tokens` tokens on a rank with
  // those many experts.
  static void count_train(Activations& activations, const Config& config, Index tokens,
                          const std::vector<ExchangeRows>& rows,     // (moe layers)
                          const std::vector<Index>& local_experts);  // (moe layers)

 private:
  struct Block {
    Norm<T> attention_norm;
    AttentionLayer<T> attention;
    Norm<T> feed_forward_norm;
    std::variant<std::unique_ptr<FeedForward<T>>, std::unique_ptr<MoeLayer<T>>> feed_forward;
    std::string place;             // for errors
    Array2<T> input, output = {};  // (tokens, hidden): the stream before and after
    Array2<int> choice = {};       // (tokens, slots), of a layer with experts
  };
  enum class Keep {
    all,    // everything that backward needs
    inputs  // each block's input: backward runs the block again, or there is none
  };
  // Within a block.
  struct Stream {
    Array2<T> attention_input;     // (tokens, hidden): normed
    Array2<T> middle;              // (tokens, hidden): the stream between its halves
    Array2<T> feed_forward_input;  // (tokens, hidden): normed
  };
  // What train() needs besides.
  struct Gradients {
    Array1<double> loss;         // (tokens)
    Array2<T> normed, residual;  // (tokens, hidden): of the input of the layer at work
  };
  static Array2<T> take_stream(Activations& activations, const ModelConfig& model, Index tokens);
  static Array2<int> take_choice(Activations& activations, Index tokens, Index slots);
  static Stream take_block(Activations& activations, const ModelConfig& model, Index tokens);
  static Array1<double> take_loss(Activations& activations, Index tokens);
  static Gradients take_gradients(Activations& activations, const ModelConfig& model, Index tokens);

  Array2<T> forward(const DeviceCell& cell, const StepTokens& step, Keep keep, StepSums* sums,
                    IntervalCounts* counts);
  void forward(Block& block, const DeviceCell& cell, const StepTokens& step, StepSums* sums,
               IntervalCounts* counts);
  void backward(Block& block, const DeviceCell& cell, const StepTokens& step,
                const Gradients& gradients);

  // The layers with experts, in order, and their parts of the routers' integers.
  template <class Work>
  void for_routers(const Work& work) const;

  ModelConfig model_;
  Keep keep_;  // in training
  Workspace<T> workspace_;
  kernels::RotaryTable<Real<T>> rotary_;
  Array2<const T> embedding_;  // (vocabulary, hidden)
  kernels::GradientSum<Real<T>> embedding_gradient_;
  std::vector<Block> blocks_;
  Norm<T> final_norm_;
  Head<T> head_;
};

}  // namespace hearth
