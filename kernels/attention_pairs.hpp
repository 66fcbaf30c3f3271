// Attention in bfloat16 on the host, with products of pairs: probabilities and the gradients of
// scores are rounded to bfloat16 as the other operands are, sums stand in float. What
// AttentionMethod::in_pairs calls.
#pragma once

#include "kernels/attention.hpp"

namespace hearth::kernels {

void attention_in_pairs(const AttentionPlan& plan,
                        const Array2<const bfloat16>& q,  // (queries, heads · head_dim)
                        const Array2<const bfloat16>& k,  // (keys, kv_heads · head_dim)
                        const Array2<const bfloat16>& v,  // (keys, kv_heads · head_dim)
                        Index head_dim, double scale,
                        const Array2<bfloat16>& out,    // (queries, heads · head_dim)
                        const Array2<float>& log_sum);  // (queries, heads)

void attention_backward_in_pairs(const AttentionPlan& plan, const Array2<const bfloat16>& dout,
                                 const Array2<const bfloat16>& q, const Array2<const bfloat16>& k,
                                 const Array2<const bfloat16>& v, const Array2<const bfloat16>& out,
                                 const Array2<const float>& log_sum, Index head_dim, double scale,
                                 const Array2<float>& delta,    // (queries, heads), scratch
                                 const Array2<bfloat16>& dq,    // (queries, heads · head_dim)
                                 const Array2<bfloat16>& dk,    // (keys, kv_heads · head_dim)
                                 const Array2<bfloat16>& dv,    // (keys, kv_heads · head_dim)
                                 const Array2<float>& dq_sum);  // (queries, heads · head_dim)

}  // namespace hearth::kernels
