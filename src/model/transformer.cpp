#include "model/transformer.hpp"

#include "kernels/cross_entropy.hpp"
#include "kernels/embedding.hpp"
#include "kernels/statistics.hpp"

namespace hearth {

namespace {

template <class A>
A rows_of(const A& a, Index begin, Index end) {
  return A(a.data() + begin * static_cast<Index>(a.extent(1)), end - begin, a.extent(1));
}

// work(begin, end) for every chunk of rows.
template <class Work>
void for_chunks(Index rows, const Work& work) {
  for (Index begin = 0; begin < rows; begin += head_chunk_rows) {
    work(begin, std::min(rows, begin + head_chunk_rows));
  }
}

}  // namespace

template <class T>
Transformer<T>::Transformer(const Config& config, const Parameters<T>& parameters, const Mesh& mesh,
                            const DeviceExchange& exchange, kernels::Matmul& matmul,
                            PhaseTimers& timers)
    : model_(config.model),
      workspace_{matmul, timers},
      rotary_(model_.sequence_length, model_.head_width(), model_.rotary_base),
      embedding_(parameters.matrix("embedding/weight")),
      head_(parameters.matrix("head/weight")),
      embedding_gradient_(parameters.gradient("embedding/weight")),
      head_gradient_(parameters.gradient("head/weight")),
      final_norm_(parameters, "final_norm/weight", model_.norm_epsilon, workspace_) {
  blocks_.reserve(static_cast<std::size_t>(model_.layers));
  for (Index layer = 0; layer < model_.layers; ++layer) {
    const std::string name = layer_prefix(layer);
    blocks_.push_back(
        {Norm<T>(parameters, name + "attention_norm/weight", model_.norm_epsilon, workspace_),
         AttentionLayer<T>(model_, parameters, name + "attention/", rotary_, workspace_),
         Norm<T>(parameters, name + "feed_forward_norm/weight", model_.norm_epsilon, workspace_),
         {}});
    if (config.is_moe_layer(layer)) {
      blocks_.back().feed_forward =
          std::make_unique<MoeLayer<T>>(config, parameters, name, layer - config.moe.dense_layers,
                                        mesh.placement, exchange, workspace_);
    } else {
      blocks_.back().feed_forward =
          std::make_unique<FeedForward<T>>(parameters, name + "dense/", workspace_);
    }
  }
}

template <class T>
Array2<T> Transformer<T>::forward(const DeviceCell& cell, const StepTokens& step, StepSums* sums,
                                  IntervalCounts* counts) {
  Array2<T> x = embedded_.rows(cell.tokens, model_.hidden);
  kernels::embed<T>(embedding_, cell.token, x);
  for (Block& block : blocks_) {
    forward(block, cell, step, x, sums, counts);
    x = block.output.rows(cell.tokens, model_.hidden);
  }
  const Array2<T> normed = normed_.rows(cell.tokens, model_.hidden);
  final_norm_.forward(x, normed);
  return normed;
}

template <class T>
void Transformer<T>::forward(Block& block, const DeviceCell& cell, const StepTokens& step,
                             const Array2<const T>& x, StepSums* sums, IntervalCounts* counts) {
  const Index tokens = cell.tokens, hidden = model_.hidden;
  const Array2<T> middle = block.middle.rows(tokens, hidden);
  const Array2<T> output = block.output.rows(tokens, hidden);
  {
    const auto phase = workspace_.timers.phase("attention");
    const Array2<T> normed = block.attention_input.rows(tokens, hidden);
    block.attention_norm.forward(x, normed);
    Kokkos::deep_copy(Exec(), middle, x);
    block.attention.forward(cell, normed, middle);
  }
  const auto phase = workspace_.timers.phase("feed-forward");
  const Array2<T> normed = block.feed_forward_input.rows(tokens, hidden);
  block.feed_forward_norm.forward(middle, normed);
  Kokkos::deep_copy(Exec(), output, middle);
  if (auto* dense = std::get_if<std::unique_ptr<FeedForward<T>>>(&block.feed_forward)) {
    (*dense)->forward(normed, output);
  } else {
    std::get<1>(block.feed_forward)->forward(cell, step, normed, output, sums, counts);
  }
}

template <class T>
void Transformer<T>::backward(Block& block, const DeviceCell& cell, const Array2<T>& dx) {
  const Array2<T> dnormed = dnormed_.rows(cell.tokens, model_.hidden);
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
                           IntervalCounts* counts) {
  const Array2<T> normed = forward(cell, step, &sums, counts);
  const Array2<T> dnormed = dnormed_.rows(cell.tokens, model_.hidden);
  const Array1<double> loss(token_loss_.rows(cell.tokens, 1).data(), cell.tokens);
  {
    const auto phase = workspace_.timers.phase("head");
    const Array2<T> dhead = workspace_.weight_gradient.rows(model_.vocabulary, model_.hidden);
    const double scale = 1.0 / static_cast<double>(step.targets);
    kernels::Matmul& matmul = workspace_.matmul;
    for_chunks(cell.tokens, [&](Index begin, Index end) {
      const Array2<T> x = rows_of(normed, begin, end);
      const Array2<T> logits = logits_.rows(end - begin, model_.vocabulary);
      matmul.template multiply_nt<T>(x, head_, logits);
      kernels::cross_entropy_with_gradient<T>(logits, run_of(cell.target, begin, end), scale,
                                              run_of(loss, begin, end));
      matmul.template multiply_nn<T>(logits, head_, rows_of(dnormed, begin, end));
      matmul.template multiply_tn<T>(logits, x, dhead,
                                     begin == 0 ? kernels::Output::assign : kernels::Output::add);
    });
    if (cell.tokens > 0) {
      kernels::add_gradient<T>(Array1<const T>(dhead.data(), dhead.size()), head_gradient_);
    }
    kernels::sum_labelled(cell.sequence_length, cell.source, cell.target, loss,
                          sums.loss(sums.values()), sums.tokens(sums.values()));
  }
  const Array2<T> dx = stream_.rows(cell.tokens, model_.hidden);
  Kokkos::deep_copy(Exec(), dx, T(0));
  final_norm_.backward(dnormed, dx);
  for (auto block = blocks_.rbegin(); block != blocks_.rend(); ++block) backward(*block, cell, dx);
  kernels::embed_backward<T>(dx, cell.token, cell.order, cell.run_begin, embedding_gradient_);
}

template <class T>
Array1<const double> Transformer<T>::evaluate(const DeviceCell& cell) {
  const Array2<T> normed = forward(cell, {}, nullptr, nullptr);
  const Array1<double> loss(token_loss_.rows(cell.tokens, 1).data(), cell.tokens);
  for_chunks(cell.tokens, [&](Index begin, Index end) {
    const Array2<T> logits = logits_.rows(end - begin, model_.vocabulary);
    workspace_.matmul.template multiply_nt<T>(rows_of(normed, begin, end), head_, logits);
    kernels::cross_entropy<T>(logits, run_of(cell.target, begin, end), run_of(loss, begin, end));
  });
  return loss;
}

template <class T>
std::vector<Array2<const int>> Transformer<T>::choices() const {
  std::vector<Array2<const int>> choices;
  for (const Block& block : blocks_) {
    if (const auto* moe = std::get_if<std::unique_ptr<MoeLayer<T>>>(&block.feed_forward)) {
      choices.push_back((*moe)->choice());
    }
  }
  return choices;
}

template class Transformer<float>;
template class Transformer<double>;

}  // namespace hearth
