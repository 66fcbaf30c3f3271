#include "model/transformer.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "kernels/embedding.hpp"
#include "kernels/statistics.hpp"

namespace hearth {

template <class T>
Transformer<T>::Transformer(const Config& config, const Parameters<T>& parameters, const Mesh& mesh,
                            const DeviceExchange& exchange, kernels::Matmul& matmul,
                            PhaseTimers& timers)
    : model_(config.model),
      keep_(config.model.recompute == "block" ? Keep::inputs : Keep::all),
      workspace_{matmul, timers},
      rotary_(model_.sequence_length, model_.head_width(), model_.rotary_base),
      embedding_(parameters.matrix("embedding/weight")),
      embedding_gradient_(parameters.gradient("embedding/weight")),
      final_norm_(parameters, "final_norm/weight", model_.norm_epsilon, workspace_),
      head_(model_, parameters, workspace_) {
  blocks_.reserve(static_cast<std::size_t>(model_.layers));
  for (Index layer = 0; layer < model_.layers; ++layer) {
    const std::string name = layer_prefix(layer);
    blocks_.push_back(
        {Norm<T>(parameters, name + "attention_norm/weight", model_.norm_epsilon, workspace_),
         AttentionLayer<T>(model_, parameters, name + "attention/", rotary_, workspace_),
         Norm<T>(parameters, name + "feed_forward_norm/weight", model_.norm_epsilon, workspace_),
         {},
         text("layer ", layer)});
    if (config.is_moe_layer(layer)) {
      const Index number = layer - config.moe.dense_layers;
      blocks_.back().feed_forward = std::make_unique<MoeLayer<T>>(
          config, parameters, name, number, mesh.placements.at(static_cast<std::size_t>(number)),
          exchange, workspace_);
    } else {
      blocks_.back().feed_forward =
          std::make_unique<FeedForward<T>>(parameters, name + "dense/", workspace_);
    }
  }
}

template <class T>
Array2<T> Transformer<T>::take_stream(Activations& activations, const ModelConfig& model,
                                      Index tokens) {
  return activations.take<T>("residual stream", tokens, model.hidden);  // (tokens, hidden)
}

template <class T>
Array2<int> Transformer<T>::take_choice(Activations& activations, Index tokens, Index slots) {
  return activations.take<int>("choice", tokens, slots);  // (tokens, slots)
}

template <class T>
typename Transformer<T>::Stream Transformer<T>::take_block(Activations& activations,
                                                           const ModelConfig& model, Index tokens) {
  return {activations.take<T>("attention input", tokens, model.hidden),
          activations.take<T>("stream after attention", tokens, model.hidden),
          activations.take<T>("feed-forward input", tokens, model.hidden)};
}

template <class T>
Array1<double> Transformer<T>::take_loss(Activations& activations, Index tokens) {
  return activations.take<double>("token loss", tokens);  // (tokens)
}

template <class T>
typename Transformer<T>::Gradients Transformer<T>::take_gradients(Activations& activations,
                                                                  const ModelConfig& model,
                                                                  Index tokens) {
  return {take_loss(activations, tokens), activations.take<T>("d normed", tokens, model.hidden),
          activations.take<T>("d residual stream", tokens, model.hidden)};
}

template <class T>
Array2<T> Transformer<T>::forward(const DeviceCell& cell, const StepTokens& step, Keep keep,
                                  StepSums* sums, IntervalCounts* counts) {
  Activations& activations = workspace_.activations;
  activations.clear();
  activations.enter("embedding");
  Array2<T> x = take_stream(activations, model_, cell.tokens);
  kernels::embed<T>(embedding_, cell.token, x);
  ForwardCheck* const check = workspace_.check;
  if (check != nullptr) check->template embedding<T>(x);
  for (Block& block : blocks_) {
    activations.enter(block.place);
    block.input = x;
    block.output = take_stream(activations, model_, cell.tokens);
    if (auto* moe = std::get_if<std::unique_ptr<MoeLayer<T>>>(&block.feed_forward)) {
      block.choice = take_choice(activations, cell.tokens, (*moe)->routing().traits().slots);
    }
    const Activations::Mark inside = activations.mark();
    forward(block, cell, step, sums, counts);
    if (check != nullptr) check->template block<T>(block.output);
    if (keep == Keep::inputs) activations.release(inside);
    x = block.output;
  }
  activations.enter("head");
  const Array2<T> normed = take_stream(activations, model_, cell.tokens);
  final_norm_.forward(x, normed);
  if (check != nullptr) check->template final_norm<T>(normed);
  return normed;
}

template <class T>
void Transformer<T>::forward(Block& block, const DeviceCell& cell, const StepTokens& step,
                             StepSums* sums, IntervalCounts* counts) {
  const Stream stream = take_block(workspace_.activations, model_, cell.tokens);
  {
    const auto phase = workspace_.timers.phase("attention");
    block.attention_norm.forward(block.input, stream.attention_input);
    Kokkos::deep_copy(Exec(), stream.middle, block.input);
    block.attention.forward(cell, stream.attention_input, stream.middle);
    if (workspace_.check != nullptr) workspace_.check->template attention<T>(stream.middle);
  }
  const auto phase = workspace_.timers.phase("feed-forward");
  block.feed_forward_norm.forward(stream.middle, stream.feed_forward_input);
  Kokkos::deep_copy(Exec(), block.output, stream.middle);
  if (auto* dense = std::get_if<std::unique_ptr<FeedForward<T>>>(&block.feed_forward)) {
    (*dense)->forward(stream.feed_forward_input, block.output);
  } else {
    std::get<1>(block.feed_forward)
        ->forward(cell, step, stream.feed_forward_input, block.output, block.choice, sums, counts);
  }
}

template <class T>
void Transformer<T>::backward(Block& block, const DeviceCell& cell, const StepTokens& step,
                              const Gradients& gradients) {
  const Activations::Scope scope(workspace_.activations);
  workspace_.activations.enter(block.place);
  if (keep_ == Keep::inputs) {
    const auto phase = workspace_.timers.phase("forward again");
    forward(block, cell, step, nullptr, nullptr);
  }
  const Array2<T> dx = gradients.residual, dnormed = gradients.normed;
  {
    const auto phase = workspace_.timers.phase("feed-forward backward");
    if (auto* dense = std::get_if<std::unique_ptr<FeedForward<T>>>(&block.feed_forward)) {
      Kokkos::deep_copy(Exec(), dnormed, T(0));
      (*dense)->backward(dx, dnormed);
    } else {
      std::get<1>(block.feed_forward)->backward(cell, dx, dnormed);
    }
    block.feed_forward_norm.backward(dnormed, dx);
  }
  const auto phase = workspace_.timers.phase("attention backward");
  block.attention.backward(cell, dx, dnormed);
  block.attention_norm.backward(dnormed, dx);
}

template <class T>
void Transformer<T>::train(const DeviceCell& cell, const StepTokens& step, StepSums& sums,
                           IntervalCounts* counts, StepTrace* trace) {
  if (trace != nullptr) trace->add_cell(cell);
  workspace_.trace = trace;
  const Array2<T> normed = forward(cell, step, keep_, &sums, counts);
  workspace_.trace = nullptr;  // backward may run blocks again
  Activations& activations = workspace_.activations;
  const Gradients gradients = take_gradients(activations, model_, cell.tokens);
  const Array2<T> dnormed = gradients.normed, dx = gradients.residual;
  const Array1<double> loss = gradients.loss;
  {
    const auto phase = workspace_.timers.phase("head");
    head_.train(normed, cell.target, 1.0 / static_cast<double>(step.targets), loss, dnormed);
    kernels::sum_labelled(cell.sequence_length, cell.source, cell.target, loss,
                          sums.loss(sums.values()), sums.tokens(sums.values()),
                          sums.unfit_losses());
  }
  Kokkos::deep_copy(Exec(), dx, T(0));
  final_norm_.backward(dnormed, dx);
  for (auto block = blocks_.rbegin(); block != blocks_.rend(); ++block) {
    backward(*block, cell, step, gradients);
  }
  kernels::embed_backward<T>(dx, cell.token, cell.order, cell.run_begin, embedding_gradient_);
}

template <class T>
Array1<const double> Transformer<T>::evaluate(const DeviceCell& cell) {
  const Array2<T> normed = forward(cell, {}, Keep::inputs, nullptr, nullptr);
  const Array1<double> loss = take_loss(workspace_.activations, cell.tokens);
  head_.evaluate(normed, cell.target, loss);
  return loss;
}

template <class T>
void Transformer<T>::check_forward(const DeviceCell& cell, ForwardCheck& check,
                                   IntervalCounts* counts) {
  workspace_.check = &check;
  check.begin_cell();
  forward(cell, {}, Keep::inputs, nullptr, counts);
  workspace_.check = nullptr;
}

template <class T>
void Transformer<T>::observe(const DeviceCell& cell, ExpertObserver<Real<T>>& observer) {
  workspace_.observer = &observer;
  forward(cell, {}, Keep::inputs, nullptr, nullptr);
  workspace_.observer = nullptr;
}

template <class T>
std::vector<Array2<const int>> Transformer<T>::choices() const {
  std::vector<Array2<const int>> choices;
  for (const Block& block : blocks_) {
    if (block.feed_forward.index() == 1) choices.push_back(block.choice);
  }
  return choices;
}

template <class T>
template <class Work>
void Transformer<T>::for_routers(const Work& work) const {
  std::size_t begin = 0;
  for (const Block& block : blocks_) {
    const auto* moe = std::get_if<std::unique_ptr<MoeLayer<T>>>(&block.feed_forward);
    if (moe == nullptr) continue;
    RoutingLayer<T>& routing = (*moe)->routing();
    const auto size = static_cast<std::size_t>(routing.states());
    work(routing, begin, size);
    begin += size;
  }
}

template <class T>
Index Transformer<T>::router_states() const {
  Index all = 0;
  for_routers([&](const auto&, std::size_t, std::size_t size) { all += static_cast<Index>(size); });
  return all;
}

template <class T>
void Transformer<T>::advance_routers(const HostArray1<std::int64_t>& sums, const StepSums& layout,
                                     std::int64_t tokens, std::span<std::int64_t> states) const {
  for_routers([&](const auto& routing, std::size_t begin, std::size_t size) {
    routing.advance(layout, sums, tokens, states.subspan(begin, size));
  });
}

template <class T>
void Transformer<T>::set_router_states(std::span<const std::int64_t> states) {
  for_routers([&](auto& routing, std::size_t begin, std::size_t size) {
    routing.set_state(states.subspan(begin, size));
  });
}

template <class T>
std::vector<ExchangeRows> Transformer<T>::exchange_rows() const {
  std::vector<ExchangeRows> rows;
  for (const Block& block : blocks_) {
    if (const auto* moe = std::get_if<std::unique_ptr<MoeLayer<T>>>(&block.feed_forward)) {
      rows.push_back((*moe)->exchange_rows());
    }
  }
  return rows;
}

template <class T>
void Transformer<T>::count_train(Activations& activations, const Config& config, Index tokens,
                                 const std::vector<ExchangeRows>& rows,
                                 const std::vector<Index>& local_experts) {
  const ModelConfig& model = config.model;
  const bool again = model.recompute == "block";
  const auto number = [&](Index layer) { return layer - config.moe.dense_layers; };
  const auto rows_of_layer = [&](Index layer) {
    return rows.at(static_cast<std::size_t>(number(layer)));
  };
  const auto count_block = [&](Index layer) {
    take_block(activations, model, tokens);
    Norm<T>::count_forward(activations, tokens);
    AttentionLayer<T>::count_forward(activations, model, tokens);
    Norm<T>::count_forward(activations, tokens);
    if (config.is_moe_layer(layer)) {
      MoeLayer<T>::count_forward(activations, config, number(layer), tokens, rows_of_layer(layer));
    } else {
      FeedForward<T>::count_forward(activations, tokens, model.dense_ffn);
    }
  };
  take_stream(activations, model, tokens);
  for (Index layer = 0; layer < model.layers; ++layer) {
    take_stream(activations, model, tokens);
    if (config.is_moe_layer(layer)) {
      take_choice(activations, tokens, router_traits(config, number(layer)).slots);
    }
    const Activations::Mark inside = activations.mark();
    count_block(layer);
    if (again) activations.release(inside);
  }
  take_stream(activations, model, tokens);
  Norm<T>::count_forward(activations, tokens);
  take_gradients(activations, model, tokens);
  Head<T>::count_train(activations, model, tokens);
  Norm<T>::count_backward(activations, tokens, model.hidden);
  for (Index layer = model.layers - 1; layer >= 0; --layer) {
    const Activations::Scope scope(activations);
    if (again) count_block(layer);
    if (config.is_moe_layer(layer)) {
      MoeLayer<T>::count_backward(activations, config, number(layer), tokens, rows_of_layer(layer),
                                  local_experts.at(static_cast<std::size_t>(number(layer))));
    } else {
      FeedForward<T>::count_backward(activations, tokens, model.hidden, model.dense_ffn);
    }
    Norm<T>::count_backward(activations, tokens, model.hidden);
    AttentionLayer<T>::count_backward(activations, model, tokens);
    Norm<T>::count_backward(activations, tokens, model.hidden);
  }
}

template class Transformer<float>;
template class Transformer<double>;
template class Transformer<bfloat16>;

}  // namespace hearth
