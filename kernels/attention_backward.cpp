#include <cassert>

#include "kernels/attention_tiles.hpp"
#include "kernels/vector_math.hpp"

namespace hearth::kernels {

namespace {

// Equation (5), with p recomputed from log_sum: ds = p (dp - delta), dp = dout vᵀ. For a block of
// queries and a head: dq = scale Σ_keys ds k.
template <class T>
struct QueryGradient {
  Array1<AttentionPlan::Block> blocks;
  Array2<const T> dout, q, k, v, log_sum, delta;
  Array2<T> dq;
  int head_dim;
  Index group;  // query heads of one key-value head
  T scale;
  TeamMemory memory;

  [[nodiscard]] static Index elements(Index head_dim) {
    return Index{block_lanes} * (3 * head_dim + 2 * stream_rows + 2);
  }

  KOKKOS_INLINE_FUNCTION void operator()(const Member& member) const {
    const BlockAndHead at(member.league_rank(), blocks.extent(0));
    const AttentionPlan::Block& block = blocks(at.block);
    const QueryRange range(block);
    const Index column = at.head * head_dim, key_column = at.head / group * head_dim;
    TeamStack<T> stack = memory.stack<T>(member);
    T* const query = stack.take(head_dim * block_lanes);   // (head_dim, lanes), scaled
    T* const dvalue = stack.take(head_dim * block_lanes);  // (head_dim, lanes): dout
    T* const sum = stack.take(head_dim * block_lanes);     // (head_dim, lanes): Σ ds k
    T* const score = stack.take(stream_rows * block_lanes);
    T* const dscore = stack.take(stream_rows * block_lanes);
    T* const logarithm = stack.take(block_lanes);
    T* const mean = stack.take(block_lanes);

    load_transposed(member, row(q, block.begin) + column, q.stride(0), range.rows, head_dim, scale,
                    query);
    load_transposed(member, row(dout, block.begin) + column, dout.stride(0), range.rows, head_dim,
                    T(1), dvalue);
    clear_tile(member, head_dim, sum);
    for_lanes_once(member, [&](const int lane) {
      const bool used = lane < range.rows;
      logarithm[lane] = used ? log_sum(block.begin + lane, at.head) : T(0);
      mean[lane] = used ? delta(block.begin + lane, at.head) : T(0);
    });
    member.team_barrier();
    for (Index first = block.segment.key_begin; first < range.key_end; first += stream_rows) {
      const int keys = static_cast<int>(Kokkos::min(Index{stream_rows}, range.key_end - first));
      const Strided<T> key = rows_of(k, first, key_column), value = rows_of(v, first, key_column);
      multiply_tile<false>(member, key, keys, head_dim, query, score);
      multiply_tile<false>(member, value, keys, head_dim, dvalue, dscore);
      member.team_barrier();
      const int last_row = static_cast<int>(range.last_key - first);
      Kokkos::parallel_for(Kokkos::TeamThreadRange(member, keys), [&](const int j) {
        const T* s = score + j * block_lanes;
        T* ds = dscore + j * block_lanes;
        for_lanes(member, [&](const int lane) {
          const T p = exponential(s[lane] - logarithm[lane]);
          ds[lane] = j <= last_row + lane ? p * (ds[lane] - mean[lane]) : T(0);
        });
      });
      member.team_barrier();
      multiply_tile<true>(member, transposed(key), head_dim, keys, dscore, sum);
      member.team_barrier();
    }
    store_transposed(member, sum, range.rows, head_dim, scale, row(dq, block.begin) + column,
                     dq.stride(0));
  }
};

// For a block of keys and a key-value head, over the queries that see them, one query head after
// the other: dv = Σ p dout, dk = scale Σ ds q.
template <class T>
struct KeyGradient {
  Array1<AttentionPlan::Block> blocks;
  Array2<const T> dout, q, k, v, log_sum, delta;
  Array2<T> dk, dv;
  int head_dim;
  Index group;
  T scale;
  TeamMemory memory;

  [[nodiscard]] static Index elements(Index head_dim) {
    return Index{block_lanes} * (4 * head_dim + 2 * block_lanes);
  }

  KOKKOS_INLINE_FUNCTION void operator()(const Member& member) const {
    const BlockAndHead at(member.league_rank(), blocks.extent(0));
    const AttentionPlan::Block& block = blocks(at.block);
    const AttentionSegment& segment = block.segment;
    const int rows =
        static_cast<int>(Kokkos::min(Index{block_lanes}, segment.key_end - block.begin));
    const Index key_column = at.head * head_dim;
    TeamStack<T> stack = memory.stack<T>(member);
    T* const key = stack.take(head_dim * block_lanes);    // (head_dim, lanes), scaled
    T* const value = stack.take(head_dim * block_lanes);  // (head_dim, lanes)
    T* const dkey = stack.take(head_dim * block_lanes);
    T* const dvalue = stack.take(head_dim * block_lanes);
    T* const score = stack.take(block_lanes * block_lanes);
    T* const dscore = stack.take(block_lanes * block_lanes);

    load_transposed(member, row(k, block.begin) + key_column, k.stride(0), rows, head_dim, scale,
                    key);
    load_transposed(member, row(v, block.begin) + key_column, v.stride(0), rows, head_dim, T(1),
                    value);
    clear_tile(member, head_dim, dkey);
    clear_tile(member, head_dim, dvalue);
    member.team_barrier();
    // The query whose last visible key is the block's first.
    const Index diagonal = block.begin + segment.query_end - segment.key_end;
    const Index query_begin = Kokkos::max(segment.query_begin, diagonal);
    for (Index head = at.head * group; head < (at.head + 1) * group; ++head) {
      const Index column = head * head_dim;
      for (Index first = query_begin; first < segment.query_end; first += block_lanes) {
        const int queries =
            static_cast<int>(Kokkos::min(Index{block_lanes}, segment.query_end - first));
        const Strided<T> query = rows_of(q, first, column), dsum = rows_of(dout, first, column);
        multiply_tile<false>(member, query, queries, head_dim, key, score);
        multiply_tile<false>(member, dsum, queries, head_dim, value, dscore);
        member.team_barrier();
        const Index last_lane = first - diagonal;  // that the run's first query sees
        Kokkos::parallel_for(Kokkos::TeamThreadRange(member, queries), [&](const int i) {
          T* s = score + i * block_lanes;
          T* ds = dscore + i * block_lanes;
          const T logarithm = log_sum(first + i, head), mean = delta(first + i, head);
          const int last = static_cast<int>(Kokkos::min(last_lane + i, Index{block_lanes}));
          for_lanes(member, [&](const int lane) {
            const T p = lane <= last ? exponential(s[lane] - logarithm) : T(0);
            ds[lane] = p * (ds[lane] - mean);
            s[lane] = p;
          });
        });
        member.team_barrier();
        multiply_tile<true>(member, transposed(dsum), head_dim, queries, score, dvalue);
        multiply_tile<true>(member, transposed(query), head_dim, queries, dscore, dkey);
        member.team_barrier();
      }
    }
    store_transposed(member, dkey, rows, head_dim, scale, row(dk, block.begin) + key_column,
                     dk.stride(0));
    store_transposed(member, dvalue, rows, head_dim, T(1), row(dv, block.begin) + key_column,
                     dv.stride(0));
  }
};

// delta = the row sums of dout · out, for the queries of the plan.
template <class T>
void sum_products(const Array1<AttentionPlan::Block>& blocks, const Array2<const T>& dout,
                  const Array2<const T>& out, Index head_dim, const Array2<T>& delta) {
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
              const T sum =
                  lane_sum<T>(member, head_dim, [&](const Index d) { return a[d] * b[d]; });
              Kokkos::single(Kokkos::PerThread(member), [&]() { delta(t, head) = sum; });
            });
      });
}

}  // namespace

template <class T>
void attention_backward(const AttentionPlan& plan, const Array2<const T>& dout,
                        const Array2<const T>& q, const Array2<const T>& k,
                        const Array2<const T>& v, const Array2<const T>& out,
                        const Array2<const T>& log_sum, Index head_dim, double scale,
                        const Array2<T>& delta, const Array2<T>& dq, const Array2<T>& dk,
                        const Array2<T>& dv) {
  const Index heads = log_sum.extent(1);
  const Index kv_heads = static_cast<Index>(k.extent(1)) / head_dim, group = heads / kv_heads;
  const Index query_blocks = plan.query_blocks.extent(0), key_blocks = plan.key_blocks.extent(0);
  assert(static_cast<Index>(q.extent(1)) == heads * head_dim && dq.extent(1) == q.extent(1));
  assert(dout.extent(1) == q.extent(1) && out.extent(1) == q.extent(1));
  assert(static_cast<Index>(k.extent(1)) == kv_heads * head_dim && v.extent(1) == k.extent(1));
  assert(dk.extent(1) == k.extent(1) && dv.extent(1) == k.extent(1));
  assert(delta.extent(1) == log_sum.extent(1));
  assert(kv_heads > 0 && heads % kv_heads == 0);
  const int width = static_cast<int>(head_dim);
  const T factor = static_cast<T>(scale);
  if (query_blocks > 0) {
    sum_products(plan.query_blocks, dout, out, head_dim, delta);
    const TeamMemory memory(QueryGradient<T>::elements(head_dim) * sizeof(T));
    Kokkos::parallel_for("attention_query_gradient", attention_teams(query_blocks * heads, memory),
                         QueryGradient<T>{plan.query_blocks, dout, q, k, v, log_sum, delta, dq,
                                          width, group, factor, memory});
  }
  if (key_blocks > 0) {
    const TeamMemory memory(KeyGradient<T>::elements(head_dim) * sizeof(T));
    Kokkos::parallel_for("attention_key_gradient", attention_teams(key_blocks * kv_heads, memory),
                         KeyGradient<T>{plan.key_blocks, dout, q, k, v, log_sum, delta, dk, dv,
                                        width, group, factor, memory});
  }
}

#define HEARTH_INSTANTIATE(T)                                                                  \
  template void attention_backward<T>(const AttentionPlan&, const Array2<const T>&,            \
                                      const Array2<const T>&, const Array2<const T>&,          \
                                      const Array2<const T>&, const Array2<const T>&,          \
                                      const Array2<const T>&, Index, double, const Array2<T>&, \
                                      const Array2<T>&, const Array2<T>&, const Array2<T>&);
HEARTH_INSTANTIATE(float)
HEARTH_INSTANTIATE(double)
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
