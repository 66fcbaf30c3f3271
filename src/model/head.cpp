#include "model/head.hpp"

#include <algorithm>

namespace hearth {

using kernels::Output;

namespace {

template <class Work>
void for_parts(Index extent, Index part, const Work& work) {
  for (Index begin = 0; begin < extent; begin += part) work(begin, std::min(extent, begin + part));
}

// The block of tokens [begin, end) of a chunk's exponentials.
template <class T>
Array2<T> block_of(const Array1<T>& exponential, Index rows, Index begin, Index end) {
  if (exponential.size() == 0) return {};
  return Array2<T>(exponential.data() + rows * begin, rows, end - begin);
}

}  // namespace

template <class T>
Head<T>::Head(const ModelConfig& model, const Parameters<T>& parameters, Workspace<T>& workspace)
    : workspace_(workspace),
      model_(model),
      weight_(parameters.matrix("head/weight")),
      gradient_(parameters.gradient("head/weight")) {}

template <class T>
typename Head<T>::Chunk Head<T>::take_chunk(Activations& activations, const ModelConfig& model,
                                            Index tokens) {
  const Index rows = std::min(tokens, head_chunk_rows);
  const Index block = std::min(model.vocabulary, head_block_tokens);
  const Index blocks = (model.vocabulary + head_block_tokens - 1) / head_block_tokens;
  return {activations.take<Real<T>>("logits", rows, block),
          {activations.take<Real<T>>("largest logits", rows, blocks),
           activations.take<double>("sums of exponentials", rows, blocks),
           activations.take<double>("target logits", rows),
           activations.take<double>("log sums", rows)}};
}

template <class T>
typename Head<T>::Gradients Head<T>::take_gradients(Activations& activations,
                                                    const ModelConfig& model, Index tokens) {
  const Index rows = std::min(tokens, head_chunk_rows);
  return {activations.take<T>("exponentials of logits", rows * model.vocabulary),
          Workspace<T>::take_weight_gradient(activations, model.vocabulary, model.hidden)};
}

template <class T>
void Head<T>::softmax(const Array2<const T>& x, const Array1<const int>& target, const Chunk& chunk,
                      const Array1<T>& exponential) {
  const Index rows = x.extent(0);
  for_parts(model_.vocabulary, head_block_tokens, [&](Index begin, Index end) {
    const Array2<Real<T>> logits(chunk.logits.data(), rows, end - begin);
    workspace_.matmul.template multiply_nt<T>(x, rows_of(weight_, begin, end), logits);
    kernels::softmax_block<T>(logits, target, begin, begin / head_block_tokens, chunk.sums,
                              block_of(exponential, rows, begin, end));
  });
}

template <class T>
void Head<T>::evaluate(const Array2<const T>& x, const Array1<const int>& target,
                       const Array1<double>& loss) {
  const Index tokens = x.extent(0);
  const Activations::Scope scope(workspace_.activations);
  const Chunk chunk = take_chunk(workspace_.activations, model_, tokens);
  for_parts(tokens, head_chunk_rows, [&](Index begin, Index end) {
    const Array1<const int> chunk_target = run_of(target, begin, end);
    softmax(rows_of(x, begin, end), chunk_target, chunk, {});
    kernels::cross_entropy(chunk.sums, chunk_target, run_of(loss, begin, end));
  });
}

template <class T>
void Head<T>::train(const Array2<const T>& x, const Array1<const int>& target, double scale,
                    const Array1<double>& loss, const Array2<T>& dx) {
  const Index tokens = x.extent(0);
  const Activations::Scope scope(workspace_.activations);
  const Chunk chunk = take_chunk(workspace_.activations, model_, tokens);
  const Gradients gradients = take_gradients(workspace_.activations, model_, tokens);
  kernels::Matmul& matmul = workspace_.matmul;
  for_parts(tokens, head_chunk_rows, [&](Index begin, Index end) {
    const Index rows = end - begin;
    const Array2<const T> chunk_x = rows_of(x, begin, end);
    const Array1<const int> chunk_target = run_of(target, begin, end);
    softmax(chunk_x, chunk_target, chunk, gradients.exponential);
    kernels::cross_entropy(chunk.sums, chunk_target, run_of(loss, begin, end));

    const Activations::Scope wide(workspace_.activations);
    const Array2<T> chunk_dx = rows_of(dx, begin, end);
    const Array2<Real<T>> dx_sum = Workspace<T>::take_real(workspace_.activations, chunk_dx);
    for_parts(model_.vocabulary, head_block_tokens, [&](Index first, Index last) {
      const Array2<T> dlogits = block_of(gradients.exponential, rows, first, last);
      kernels::cross_entropy_gradient<T>(chunk.sums, chunk_target, first, first / head_block_tokens,
                                         scale, dlogits);
      matmul.template multiply_nn<T>(dlogits, rows_of(weight_, first, last), dx_sum,
                                     first == 0 ? Output::assign : Output::add);
      const kernels::GradientSum<Real<T>> sum =
          gradient_.part(first * model_.hidden, last * model_.hidden);
      if (sum.is_plain()) {
        const Array2<Real<T>> whole(sum.sum.plain.data(), last - first, model_.hidden);
        matmul.template multiply_tn<T>(dlogits, chunk_x, whole, Output::add);
        return;
      }
      const Array2<Real<T>> dweight = rows_of(gradients.weight, first, last);
      matmul.template multiply_tn<T>(dlogits, chunk_x, dweight,
                                     begin == 0 ? Output::assign : Output::add);
      if (end < tokens) return;
      kernels::add_gradient<Real<T>>(Array1<const Real<T>>(dweight.data(), dweight.size()), sum);
    });
    Workspace<T>::put_back(dx_sum, chunk_dx);
  });
}

template <class T>
void Head<T>::count_train(Activations& activations, const ModelConfig& model, Index tokens) {
  const Activations::Scope scope(activations);
  take_chunk(activations, model, tokens);
  take_gradients(activations, model, tokens);
  Workspace<T>::count_real(activations, std::min(tokens, head_chunk_rows), model.hidden);
}

template class Head<float>;
template class Head<double>;
template class Head<bfloat16>;

}  // namespace hearth
