// Oracle of kernels/attention.hpp, one row of scores at a time.
#pragma once

#include "kernels/attention.hpp"
#include "kernels/reference/scalar.hpp"

namespace hearth::kernels::reference {

struct AttentionShape {
  Index queries, keys;  // rows of q, and of k and v
  Index heads, kv_heads, head_dim;
  double scale;

  [[nodiscard]] Index query(Index t, Index head) const { return (t * heads + head) * head_dim; }
  [[nodiscard]] Index key(Index t, Index head) const {
    return (t * kv_heads + head / (heads / kv_heads)) * head_dim;
  }
};

template <class S>
struct Attended {
  Vector<S> out, log_sum;
};

// The scores of one query with the keys [key_begin, visible_end).
template <class S>
Vector<S> attention_scores(const AttentionShape& shape, const Vector<S>& q, const Vector<S>& k,
                           Index query, Index head, Index key_begin, Index visible_end) {
  Vector<S> scores;
  for (Index j = key_begin; j < visible_end; ++j) {
    S dot(0);
    for (Index d = 0; d < shape.head_dim; ++d) {
      dot += q[shape.query(query, head) + d] * k[shape.key(j, head) + d];
    }
    scores.push_back(shape.scale * dot);
  }
  return scores;
}

inline Index visible_end(const AttentionSegment& s, Index query) {
  return std::max(s.key_begin, s.key_end - (s.query_end - 1 - query));
}

template <class S>
Attended<S> attention(const std::vector<AttentionSegment>& segments, const AttentionShape& shape,
                      const Vector<S>& q, const Vector<S>& k, const Vector<S>& v) {
  using std::exp, std::log;
  Attended<S> result{zeros<S>(shape.queries * shape.heads * shape.head_dim),
                     zeros<S>(shape.queries * shape.heads)};
  for (const AttentionSegment& segment : segments) {
    for (Index t = segment.query_begin; t < segment.query_end; ++t) {
      for (Index head = 0; head < shape.heads; ++head) {
        const Vector<S> s =
            attention_scores(shape, q, k, t, head, segment.key_begin, visible_end(segment, t));
        double largest = s.empty() ? 0 : real_part(s[0]);
        for (const S& value : s) largest = std::max(largest, real_part(value));
        S sum(0);
        for (const S& value : s) sum += exp(value - largest);
        const S log_sum = log(sum) + largest;
        result.log_sum[t * shape.heads + head] = log_sum;
        for (std::size_t j = 0; j < s.size(); ++j) {
          const S p = exp(s[j] - log_sum);
          const Index row = segment.key_begin + static_cast<Index>(j);
          for (Index d = 0; d < shape.head_dim; ++d) {
            result.out[shape.query(t, head) + d] += p * v[shape.key(row, head) + d];
          }
        }
      }
    }
  }
  return result;
}

template <class S>
struct AttentionGradients {
  Vector<S> dq, dk, dv;
};

template <class S>
AttentionGradients<S> attention_backward(const std::vector<AttentionSegment>& segments,
                                         const AttentionShape& shape, const Vector<S>& dout,
                                         const Vector<S>& q, const Vector<S>& k,
                                         const Vector<S>& v) {
  using std::exp;
  const Attended<S> forward = attention(segments, shape, q, k, v);
  AttentionGradients<S> result{zeros<S>(static_cast<Index>(q.size())),
                               zeros<S>(static_cast<Index>(k.size())),
                               zeros<S>(static_cast<Index>(v.size()))};
  for (const AttentionSegment& segment : segments) {
    for (Index t = segment.query_begin; t < segment.query_end; ++t) {
      for (Index head = 0; head < shape.heads; ++head) {
        const Index query = shape.query(t, head);
        const Vector<S> s =
            attention_scores(shape, q, k, t, head, segment.key_begin, visible_end(segment, t));
        Vector<S> p, dp;
        S mean(0);
        for (std::size_t j = 0; j < s.size(); ++j) {
          const Index key = shape.key(segment.key_begin + static_cast<Index>(j), head);
          p.push_back(exp(s[j] - forward.log_sum[t * shape.heads + head]));
          S dot(0);
          for (Index d = 0; d < shape.head_dim; ++d) {
            dot += dout[query + d] * v[key + d];
            result.dv[key + d] += p[j] * dout[query + d];
          }
          dp.push_back(dot);
          mean += p[j] * dot;
        }
        for (std::size_t j = 0; j < s.size(); ++j) {
          const Index key = shape.key(segment.key_begin + static_cast<Index>(j), head);
          const S ds = shape.scale * p[j] * (dp[j] - mean);
          for (Index d = 0; d < shape.head_dim; ++d) {
            result.dq[query + d] += ds * k[key + d];
            result.dk[key + d] += ds * q[query + d];
          }
        }
      }
    }
  }
  return result;
}

}  // namespace hearth::kernels::reference
