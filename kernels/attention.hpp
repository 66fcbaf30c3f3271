// Causal attention in streaming blocks (Milakov, Gimelshein 2018; Dao et al. 2022), equations (4)
// and (5) of docs/equations.md. Neither pass stores a matrix of scores.
#pragma once

#include <type_traits>
#include <vector>

#include "base/types.hpp"
#include "kernels/processor.hpp"

namespace hearth::kernels {

// A run of query rows and the run of key rows that they see. The runs' ends are aligned: query i
// of n sees the keys up to and including number (keys - n + i). One segment per sequence is
// ordinary training; packed texts, document masks and a key-value cache are other lists.
struct AttentionSegment {
  Index query_begin, query_end;  // rows of q
  Index key_begin, key_end;      // rows of k and v
};

// The segments cut into blocks of fixed size: a result never depends on what else is in the plan.
class AttentionPlan {
 public:
  AttentionPlan() = default;
  explicit AttentionPlan(const std::vector<AttentionSegment>& list);

  struct Block {
    AttentionSegment segment;
    Index begin;  // first row of the block: a query row, or a key row
  };
  Array1<AttentionSegment> segments;
  Array1<Block> query_blocks;
  Array1<Block> key_blocks;
  Array1<Block> wide_query_blocks;  // for AttentionMethod::in_pairs
};

inline constexpr int query_block_rows = 32;
inline constexpr int key_block_rows = 32;
inline constexpr int wide_block_rows = 128;
inline constexpr int max_head_dim = 256;

// How the work is shared out and in what it is done. By block of queries and of keys there are many
// teams, as GPUs want it, but backward computes scores twice; by segment and head it computes them
// once. In pairs is by segment as well, but products read bfloat16, for processors that are faster
// so: probabilities and gradients of scores are then rounded to it.
enum class AttentionMethod { by_block, by_segment, in_pairs };
template <class T>
inline constexpr AttentionMethod attention_method =
    !Kokkos::SpaceAccessibility<Kokkos::HostSpace, Memory>::accessible ? AttentionMethod::by_block
    : std::is_same_v<T, bfloat16> && pairs_are_fast                    ? AttentionMethod::in_pairs
                                                    : AttentionMethod::by_segment;

// out = softmax(scale · q kᵀ, causal) v for every head; log_sum (the logarithm of the softmax's
// denominator) is kept for the adjoint. Heads are consecutive: query head h reads key-value head
// h / (heads/kv_heads). head_dim is at most max_head_dim, scale positive.
template <class T>
void attention(const AttentionPlan& plan,
               const Array2<const T>& q,  // (queries, heads · head_dim)
               const Array2<const T>& k,  // (keys, kv_heads · head_dim)
               const Array2<const T>& v,  // (keys, kv_heads · head_dim)
               Index head_dim, double scale,
               const Array2<T>& out,            // (queries, heads · head_dim)
               const Array2<Real<T>>& log_sum,  // (queries, heads)
               AttentionMethod method = attention_method<T>);

// Other than by block, dq is a sum over blocks of keys that stands in memory; where T is too short
// for that, the caller gives other memory for it.
template <class T>
inline constexpr bool attention_needs_dq_sum =
    !std::is_same_v<T, Real<T>> && attention_method<T> != AttentionMethod::by_block;

// dq, dk, dv are assigned. `delta` is scratch: the row sums of dout · out. `dq_sum` is scratch
// where attention_needs_dq_sum<T>, otherwise not looked at.
template <class T>
void attention_backward(const AttentionPlan& plan, const Array2<const T>& dout,
                        const Array2<const T>& q, const Array2<const T>& k,
                        const Array2<const T>& v, const Array2<const T>& out,
                        const Array2<const Real<T>>& log_sum, Index head_dim, double scale,
                        const Array2<Real<T>>& delta,        // (queries, heads), scratch
                        const Array2<T>& dq,                 // (queries, heads · head_dim)
                        const Array2<T>& dk,                 // (keys, kv_heads · head_dim)
                        const Array2<T>& dv,                 // (keys, kv_heads · head_dim)
                        const Array2<Real<T>>& dq_sum = {},  // (queries, heads · head_dim), scratch
                        AttentionMethod method = attention_method<T>);

}  // namespace hearth::kernels
