#include <cassert>

#include "kernels/attention_pairs.hpp"
#include "kernels/attention_tiles.hpp"
#include "kernels/vector_math.hpp"

namespace hearth::kernels {

namespace {

// Equation (5), with p recomputed from log_sum: ds = p (dp - delta), dp = dout vᵀ. For a block of
// queries and a head: dq = scale Σ_keys ds k.
template <int width, class T>
struct QueryGradient {
  using R = Real<T>;
  Array1<AttentionPlan::Block> blocks;
  Array2<const T> dout, q, k, v;
  Array2<const R> log_sum, delta;
  Array2<T> dq;
  int head_dim;
  Index group;  // query heads of one key-value head
  R scale;
  TeamMemory memory;

  [[nodiscard]] static Index elements() {
    return Index{block_lanes} * (3 * width + 2 * stream_rows + 2) + 2 * stream_rows * width;
  }

  KOKKOS_INLINE_FUNCTION void operator()(const Member& member) const {
    const Index block_count = blocks.extent(0), team = member.league_rank();
    const AttentionPlan::Block& block = blocks(block_count - 1 - team % block_count);
    const Index head = team / block_count;
    const QueryRange range(block);
    const Index column = head * head_dim, key_column = head / group * head_dim;
    const int columns = columns_of_head<width>(head_dim);
    TeamStack<R> stack = memory.stack<R>(member);
    R* const query = stack.take(width * block_lanes);   // (width, lanes), scaled
    R* const dvalue = stack.take(width * block_lanes);  // (width, lanes): dout
    R* const sum = stack.take(width * block_lanes);     // (width, lanes): Σ ds k
    R* const score = stack.take(stream_rows * block_lanes);
    R* const dscore = stack.take(stream_rows * block_lanes);
    R* const logarithm = stack.take(block_lanes);
    R* const mean = stack.take(block_lanes);
    R* const key = stack.take(stream_rows * width);    // (keys, width)
    R* const value = stack.take(stream_rows * width);  // (keys, width)

    load_transposed<width>(member, head_rows(q, block.begin, column), range.rows, head_dim,
                           scale * static_cast<R>(log2_e), query);
    load_transposed<width>(member, head_rows(dout, block.begin, column), range.rows, head_dim, R(1),
                           dvalue);
    clear_tile(member, width, sum);
    for_lanes_once(member, [&](const int lane) {
      const bool used = lane < range.rows;
      logarithm[lane] = used ? log_sum(block.begin + lane, head) * static_cast<R>(log2_e) : R(0);
      mean[lane] = used ? delta(block.begin + lane, head) : R(0);
    });
    member.team_barrier();  // where no key is seen the sum is stored as it stands
    for (Index first = block.segment.key_begin; first < range.key_end; first += stream_rows) {
      const int keys = static_cast<int>(Kokkos::min(Index{stream_rows}, range.key_end - first));
      load_rows<width>(member, head_rows(k, first, key_column), keys, stream_rows, head_dim, key);
      load_rows<width>(member, head_rows(v, first, key_column), keys, stream_rows, head_dim, value);
      member.team_barrier();
      multiply_tile<false, block_lanes>(member, by_row<width>(key), keys, columns, query, score);
      multiply_tile<false, block_lanes>(member, by_row<width>(value), keys, columns, dvalue,
                                        dscore);
      member.team_barrier();
      const int last_row = static_cast<int>(range.last_key - first);
      Kokkos::parallel_for(Kokkos::TeamThreadRange(member, keys), [&](const int j) {
        const R* s = score + j * block_lanes;
        R* ds = dscore + j * block_lanes;
        for_lanes(member, [&](const int lane) {
          const R p = power_of_two(s[lane] - logarithm[lane]);
          ds[lane] = j <= last_row + lane ? p * (ds[lane] - mean[lane]) : R(0);
        });
      });
      member.team_barrier();
      multiply_tile<true, block_lanes>(member, by_column<width>(key), width, keys, dscore, sum);
      member.team_barrier();
    }
    store_transposed(member, sum, range.rows, head_dim, scale, head_rows(dq, block.begin, column));
  }
};

// For a block of keys and a key-value head, over the queries that see them, one query head after
// the other: dv = Σ p dout, dk = scale Σ ds q, and with `with_queries` also the block's part of
// dq = scale Σ ds k, which is added to dq_sum.
template <int width, bool with_queries, class T>
struct KeyGradient {
  using R = Real<T>;
  Array2<const T> dout, q, k, v;
  Array2<const R> log_sum, delta;
  Array2<R> dq_sum;
  Array2<T> dk, dv;
  int head_dim;
  Index group;
  R scale;

  [[nodiscard]] static Index elements() {
    constexpr Index tiles = 6 + (with_queries ? 2 : 0);
    return Index{block_lanes} * (tiles * width + 2 * block_lanes);
  }

  KOKKOS_INLINE_FUNCTION void add_block(const Member& member, TeamStack<R> stack,
                                        const AttentionSegment& segment, Index key_begin,
                                        Index key_head) const {
    const int rows = static_cast<int>(Kokkos::min(Index{block_lanes}, segment.key_end - key_begin));
    const Index key_column = key_head * head_dim;
    const int columns = columns_of_head<width>(head_dim);
    R* const key = stack.take(width * block_lanes);    // (width, lanes), scaled
    R* const value = stack.take(width * block_lanes);  // (width, lanes)
    R* const dkey = stack.take(width * block_lanes);
    R* const dvalue = stack.take(width * block_lanes);
    R* const query = stack.take(block_lanes * width);  // (queries, width)
    R* const dsum = stack.take(block_lanes * width);   // (queries, width): dout
    R* const score = stack.take(block_lanes * block_lanes);
    R* const dscore = stack.take(block_lanes * block_lanes);
    R* const key_rows = with_queries ? stack.take(block_lanes * width) : nullptr;  // (keys, width)
    R* const dquery = with_queries ? stack.take(block_lanes * width) : nullptr;

    const auto key_source = head_rows(k, key_begin, key_column);
    load_transposed<width>(member, key_source, rows, head_dim, scale * static_cast<R>(log2_e), key);
    load_transposed<width>(member, head_rows(v, key_begin, key_column), rows, head_dim, R(1),
                           value);
    if constexpr (with_queries) {
      load_rows<width>(member, key_source, rows, block_lanes, head_dim, key_rows);
    }
    clear_tile(member, width, dkey);
    clear_tile(member, width, dvalue);
    member.team_barrier();  // where no query sees the keys these are stored as they stand
    // The query whose last visible key is the block's first.
    const Index diagonal = key_begin + segment.query_end - segment.key_end;
    const Index query_begin = Kokkos::max(segment.query_begin, diagonal);
    for (Index head = key_head * group; head < (key_head + 1) * group; ++head) {
      const Index column = head * head_dim;
      for (Index first = query_begin; first < segment.query_end; first += block_lanes) {
        const int queries =
            static_cast<int>(Kokkos::min(Index{block_lanes}, segment.query_end - first));
        load_rows<width>(member, head_rows(q, first, column), queries, block_lanes, head_dim,
                         query);
        load_rows<width>(member, head_rows(dout, first, column), queries, block_lanes, head_dim,
                         dsum);
        member.team_barrier();
        multiply_tile<false, block_lanes>(member, by_row<width>(query), queries, columns, key,
                                          score);
        multiply_tile<false, block_lanes>(member, by_row<width>(dsum), queries, columns, value,
                                          dscore);
        member.team_barrier();
        const Index last_lane = first - diagonal;  // that the run's first query sees
        Kokkos::parallel_for(Kokkos::TeamThreadRange(member, queries), [&](const int i) {
          R* s = score + i * block_lanes;
          R* ds = dscore + i * block_lanes;
          const R logarithm = log_sum(first + i, head) * static_cast<R>(log2_e);
          const R mean = delta(first + i, head);
          const int last = static_cast<int>(Kokkos::min(last_lane + i, Index{rows - 1}));
          for_lanes(member, [&](const int lane) {
            const R p = lane <= last ? power_of_two(s[lane] - logarithm) : R(0);
            ds[lane] = lane <= last ? p * (ds[lane] - mean) : R(0);
            s[lane] = p;
          });
        });
        member.team_barrier();
        multiply_tile<true, block_lanes>(member, by_column<width>(dsum), width, queries, score,
                                         dvalue);
        multiply_tile<true, block_lanes>(member, by_column<width>(query), width, queries, dscore,
                                         dkey);
        if constexpr (with_queries) {
          multiply_tile<false, width>(member, by_row<block_lanes>(dscore), queries, rows, key_rows,
                                      dquery);
          const HeadRows<R> target = head_rows(dq_sum, first, column);
          for (int i = 0; i < queries; ++i) {
            R* to = target.data + i * target.stride;
            const R* from = dquery + i * width;
            for_columns(member, head_dim, [&](const Index d) { to[d] += scale * from[d]; });
          }
        }
        member.team_barrier();
      }
    }
    store_transposed(member, dkey, rows, head_dim, scale, head_rows(dk, key_begin, key_column));
    store_transposed(member, dvalue, rows, head_dim, R(1), head_rows(dv, key_begin, key_column));
  }
};

// A team for each block of keys: many teams, but the queries' gradient needs the scores again.
template <int width, class T>
struct KeyBlocks {
  Array1<AttentionPlan::Block> blocks;
  KeyGradient<width, false, T> gradient;
  TeamMemory memory;

  KOKKOS_INLINE_FUNCTION void operator()(const Member& member) const {
    const Index block_count = blocks.extent(0), team = member.league_rank();
    const AttentionPlan::Block& block = blocks(team % block_count);
    gradient.add_block(member, memory.stack<Real<T>>(member), block.segment, block.begin,
                       team / block_count);
  }
};

// A team for each segment, which goes through its blocks of keys in order and so can add up the
// queries' gradient: fewer teams, but the scores are computed once.
template <int width, class T>
struct KeySegments {
  using R = Real<T>;
  Array1<AttentionSegment> segments;
  KeyGradient<width, true, T> gradient;
  Array2<T> dq;  // the array of its sums where T is R
  TeamMemory memory;

  KOKKOS_INLINE_FUNCTION void operator()(const Member& member) const {
    const Index segment_count = segments.extent(0), team = member.league_rank();
    const AttentionSegment segment = segments(team % segment_count);
    const Index key_head = team / segment_count;
    const Index begin = key_head * gradient.group * gradient.head_dim;
    const Index columns = gradient.group * gradient.head_dim;
    for (Index t = segment.query_begin; t < segment.query_end; ++t) {
      R* to = row(gradient.dq_sum, t) + begin;
      for_columns(member, columns, [&](const Index c) { to[c] = R(0); });
    }
    const TeamStack<R> stack = memory.stack<R>(member);
    for (Index key = segment.key_begin; key < segment.key_end; key += block_lanes) {
      gradient.add_block(member, stack, segment, key, key_head);
    }
    if constexpr (!std::is_same_v<T, R>) {
      for (Index t = segment.query_begin; t < segment.query_end; ++t) {
        const R* from = row(gradient.dq_sum, t) + begin;
        T* to = row(dq, t) + begin;
        for_columns(member, columns, [&](const Index c) { to[c] = static_cast<T>(from[c]); });
      }
    }
  }
};

// delta = the row sums of dout · out, for the queries of the plan.
template <class T>
void sum_products(const Array1<AttentionPlan::Block>& blocks, const Array2<const T>& dout,
                  const Array2<const T>& out, Index head_dim, const Array2<Real<T>>& delta) {
  using R = Real<T>;
  const Index heads = delta.extent(1);
  Kokkos::parallel_for(
      "attention_delta", team_policy(blocks.extent(0), 8), KOKKOS_LAMBDA(const Member& member) {
        const AttentionPlan::Block& block = blocks(member.league_rank());
        const int rows = QueryRange(block).rows;
        Kokkos::parallel_for(
            Kokkos::TeamThreadRange(member, rows * static_cast<int>(heads)), [&](const int i) {
              const Index t = block.begin + i / heads, head = i % heads;
              const T* a = row(dout, t) + head * head_dim;
              const T* b = row(out, t) + head * head_dim;
              const R sum =
                  lane_sum<R>(member, head_dim, [&](const Index d) { return a[d] * b[d]; });
              Kokkos::single(Kokkos::PerThread(member), [&]() { delta(t, head) = sum; });
            });
      });
}

}  // namespace

template <class T>
void attention_backward(const AttentionPlan& plan, const Array2<const T>& dout,
                        const Array2<const T>& q, const Array2<const T>& k,
                        const Array2<const T>& v, const Array2<const T>& out,
                        const Array2<const Real<T>>& log_sum, Index head_dim, double scale,
                        const Array2<Real<T>>& delta, const Array2<T>& dq, const Array2<T>& dk,
                        const Array2<T>& dv, const Array2<Real<T>>& dq_sum,
                        AttentionMethod method) {
  using R = Real<T>;
  const Index heads = log_sum.extent(1);
  const Index kv_heads = static_cast<Index>(k.extent(1)) / head_dim, group = heads / kv_heads;
  const Index query_blocks = plan.query_blocks.extent(0), key_blocks = plan.key_blocks.extent(0);
  assert(static_cast<Index>(q.extent(1)) == heads * head_dim && dq.extent(1) == q.extent(1));
  assert(dout.extent(1) == q.extent(1) && out.extent(1) == q.extent(1));
  assert(static_cast<Index>(k.extent(1)) == kv_heads * head_dim && v.extent(1) == k.extent(1));
  assert(dk.extent(1) == k.extent(1) && dv.extent(1) == k.extent(1));
  assert(delta.extent(1) == log_sum.extent(1));
  assert(kv_heads > 0 && heads % kv_heads == 0 && head_dim <= max_head_dim);
  const int head_width = static_cast<int>(head_dim);
  const R factor = static_cast<R>(scale);
  if constexpr (on_host && std::is_same_v<T, bfloat16>) {
    if (method == AttentionMethod::in_pairs) {
      attention_backward_in_pairs(plan, dout, q, k, v, out, log_sum, head_dim, scale, delta, dq, dk,
                                  dv, dq_sum);
      return;
    }
  }
  if (query_blocks > 0) sum_products(plan.query_blocks, dout, out, head_dim, delta);
  with_attention_width(head_dim, [&](auto width) {
    if constexpr (on_host) {
      const Index segments = plan.segments.extent(0);
      if (method == AttentionMethod::by_segment) {
        if (segments == 0) return;
        using Keys = KeyGradient<width(), true, T>;
        const TeamMemory memory(Keys::elements() * sizeof(R));
        Array2<R> sum = dq_sum;
        if constexpr (std::is_same_v<T, R>) sum = dq;
        assert(sum.extent(0) == dq.extent(0) && sum.extent(1) == dq.extent(1));
        const Keys keys{dout, q, k, v, log_sum, delta, sum, dk, dv, head_width, group, factor};
        Kokkos::parallel_for("attention_gradient", attention_teams(segments * kv_heads, memory),
                             KeySegments<width(), T>{plan.segments, keys, dq, memory});
        return;
      }
    }
    if (query_blocks > 0) {
      using Queries = QueryGradient<width(), T>;
      const TeamMemory memory(Queries::elements() * sizeof(R));
      Kokkos::parallel_for("attention_query_gradient",
                           attention_teams(query_blocks * heads, memory),
                           Queries{plan.query_blocks, dout, q, k, v, log_sum, delta, dq, head_width,
                                   group, factor, memory});
    }
    if (key_blocks > 0) {
      using Keys = KeyGradient<width(), false, T>;
      const TeamMemory memory(Keys::elements() * sizeof(R));
      const Keys keys{dout, q, k, v, log_sum, delta, {}, dk, dv, head_width, group, factor};
      Kokkos::parallel_for("attention_key_gradient", attention_teams(key_blocks * kv_heads, memory),
                           KeyBlocks<width(), T>{plan.key_blocks, keys, memory});
    }
  });
}

#define HEARTH_INSTANTIATE(T)                                                                \
  template void attention_backward<T>(                                                       \
      const AttentionPlan&, const Array2<const T>&, const Array2<const T>&,                  \
      const Array2<const T>&, const Array2<const T>&, const Array2<const T>&,                \
      const Array2<const Real<T>>&, Index, double, const Array2<Real<T>>&, const Array2<T>&, \
      const Array2<T>&, const Array2<T>&, const Array2<Real<T>>&, AttentionMethod);
HEARTH_INSTANTIATE(bfloat16)
HEARTH_INSTANTIATE(float)
HEARTH_INSTANTIATE(double)
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
