// The way back from rows to tokens: logits, cross-entropy and their gradients.
//
// Rows go in chunks and the vocabulary in blocks, so that a cell's logits never exist as a whole,
// and those of a block are still in a cache when their exponentials are taken. Chunks and blocks
// are part of the arithmetic: they are constants.
#pragma once

#include "kernels/cross_entropy.hpp"
#include "kernels/team.hpp"
#include "model/parameters.hpp"
#include "model/workspace.hpp"

namespace hearth {

// On a CPU what a core's or a socket's cache holds; a GPU wants large products.
inline constexpr Index head_chunk_rows = kernels::on_host ? 512 : 2048;
inline constexpr Index head_block_tokens = kernels::on_host ? 2048 : 1 << 16;

template <class T>
class Head {
 public:
  Head(const ModelConfig& model, const Parameters<T>& parameters, Workspace<T>& workspace);

  // Each row's cross-entropy, 0 where the target is below zero.
  void evaluate(const Array2<const T>& x,         // (tokens, hidden)
                const Array1<const int>& target,  // (tokens)
                const Array1<double>& loss);      // (tokens)

  // The same, and dx = the gradient of scale · Σ loss; adds the weight's gradient to its sum.
  void train(const Array2<const T>& x, const Array1<const int>& target, double scale,
             const Array1<double>& loss, const Array2<T>& dx);  // (tokens, hidden)

  // Takes from a counting stack what train takes.
  static void count_train(Activations& activations, const ModelConfig& model, Index tokens);

 private:
  struct Chunk {
    Array2<Real<T>> logits;  // (rows of a chunk, tokens of a block)
    kernels::SoftmaxSums<Real<T>> sums;
  };
  struct Gradients {
    Array1<T> exponential;   // (rows of a chunk · vocabulary), block after block
    Array2<Real<T>> weight;  // (vocabulary, hidden)
  };
  static Chunk take_chunk(Activations& activations, const ModelConfig& model, Index tokens);
  static Gradients take_gradients(Activations& activations, const ModelConfig& model, Index tokens);

  // Blocks of the vocabulary, in order; the exponentials stay where there is an array for them.
  void softmax(const Array2<const T>& x, const Array1<const int>& target, const Chunk& chunk,
               const Array1<T>& exponential);

  Workspace<T>& workspace_;
  ModelConfig model_;
  Array2<const T> weight_;  // (vocabulary, hidden)
  kernels::GradientSum<Real<T>> gradient_;
};

}  // namespace hearth
