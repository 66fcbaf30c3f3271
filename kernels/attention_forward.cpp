#include <algorithm>
#include <cassert>

#include "kernels/attention_pairs.hpp"
#include "kernels/attention_tiles.hpp"
#include "kernels/vector_math.hpp"

namespace hearth::kernels {

namespace {

template <class Item>
Array1<Item> on_device(const char* label, const std::vector<Item>& items) {
  const auto copy = uninitialized<Array1<Item>>(label, items.size());
  const auto host = Kokkos::create_mirror_view(copy);
  std::copy(items.begin(), items.end(), host.data());
  Kokkos::deep_copy(copy, host);
  return copy;
}

}  // namespace

AttentionPlan::AttentionPlan(const std::vector<AttentionSegment>& list) {
  std::vector<Block> queries, keys, wide;
  for (const AttentionSegment& s : list) {
    assert(s.query_begin <= s.query_end && s.key_begin <= s.key_end);
    for (Index q = s.query_begin; q < s.query_end; q += query_block_rows) queries.push_back({s, q});
    for (Index k = s.key_begin; k < s.key_end; k += key_block_rows) keys.push_back({s, k});
    if (!on_host) continue;  // nobody else takes wide blocks
    for (Index q = s.query_begin; q < s.query_end; q += wide_block_rows) wide.push_back({s, q});
  }
  segments = on_device("attention_segments", list);
  query_blocks = on_device("attention_query_blocks", queries);
  key_blocks = on_device("attention_key_blocks", keys);
  wide_query_blocks = on_device("attention_wide_query_blocks", wide);
}

namespace {

// Equation (4) for a block of queries and a head: the scores of a run of keys at a time, with
// each query's running maximum and denominator. Exponents are to the base 2.
template <int width, class T>
struct AttentionForward {
  using R = Real<T>;
  Array1<AttentionPlan::Block> blocks;
  Array2<const T> q, k, v;
  Array2<T> out;
  Array2<R> log_sum;
  int head_dim;
  Index group;  // query heads of one key-value head
  R scale;
  TeamMemory memory;

  [[nodiscard]] static Index elements() {
    return Index{block_lanes} * (2 * width + stream_rows + 3) + 2 * stream_rows * width;
  }

  KOKKOS_INLINE_FUNCTION void operator()(const Member& member) const {
    const Index block_count = blocks.extent(0), team = member.league_rank();
    // The later queries of a sequence see more keys: they come first.
    const AttentionPlan::Block& block = blocks(block_count - 1 - team % block_count);
    const Index head = team / block_count;
    const QueryRange range(block);
    const Index column = head * head_dim, key_column = head / group * head_dim;
    const int columns = columns_of_head<width>(head_dim);
    TeamStack<R> stack = memory.stack<R>(member);
    R* const query = stack.take(width * block_lanes);  // (width, lanes), scaled
    R* const sum = stack.take(width * block_lanes);    // (width, lanes): Σ p v
    R* const score = stack.take(stream_rows * block_lanes);
    R* const maximum = stack.take(block_lanes);
    R* const denominator = stack.take(block_lanes);
    R* const shrink = stack.take(block_lanes);
    R* const key = stack.take(stream_rows * width);    // (keys, width)
    R* const value = stack.take(stream_rows * width);  // (keys, width)

    load_transposed<width>(member, head_rows(q, block.begin, column), range.rows, head_dim,
                           scale * static_cast<R>(log2_e), query);
    clear_tile(member, width, sum);
    for_lanes_once(member, [&](const int lane) {
      // Finite, so that the difference to a masked score is -∞ and not NaN.
      maximum[lane] = Kokkos::Experimental::finite_min_v<R>;
      denominator[lane] = R(0);
    });
    for (Index first = block.segment.key_begin; first < range.key_end; first += stream_rows) {
      const int keys = static_cast<int>(Kokkos::min(Index{stream_rows}, range.key_end - first));
      load_rows<width>(member, head_rows(k, first, key_column), keys, stream_rows, head_dim, key);
      load_rows<width>(member, head_rows(v, first, key_column), keys, stream_rows, head_dim, value);
      member.team_barrier();
      multiply_tile<false, block_lanes>(member, by_row<width>(key), keys, columns, query, score);
      member.team_barrier();
      raise_maximum(member, keys, static_cast<int>(range.last_key - first), score, maximum, shrink);
      member.team_barrier();
      Kokkos::parallel_for(Kokkos::TeamThreadRange(member, keys), [&](const int j) {
        R* s = score + j * block_lanes;
        for_lanes(member, [&](const int lane) { s[lane] = power_of_two(s[lane] - maximum[lane]); });
      });
      scale_tile(member, width, shrink, sum);
      member.team_barrier();
      for_lane_groups_once(member, [&](const int begin) {
        R total[lanes_per_thread];
        for (int l = 0; l < lanes_per_thread; ++l) {
          total[l] = denominator[begin + l] * shrink[begin + l];
        }
        for (int j = 0; j < keys; ++j) {
          for (int l = 0; l < lanes_per_thread; ++l) total[l] += score[j * block_lanes + begin + l];
        }
        for (int l = 0; l < lanes_per_thread; ++l) denominator[begin + l] = total[l];
      });
      multiply_tile<true, block_lanes>(member, by_column<width>(value), width, keys, score, sum);
      member.team_barrier();
    }
    for_lanes_once(member, [&](const int lane) {
      if (lane < range.rows) {
        log_sum(block.begin + lane, head) =
            maximum[lane] * static_cast<R>(ln_2) + Kokkos::log(denominator[lane]);
      }
      // A query without keys has the output 0.
      shrink[lane] = denominator[lane] == R(0) ? R(0) : R(1) / denominator[lane];
    });
    member.team_barrier();
    scale_tile(member, width, shrink, sum);
    member.team_barrier();
    store_transposed(member, sum, range.rows, head_dim, R(1), head_rows(out, block.begin, column));
  }

 private:
  // Masks the scores of keys that a query does not see (query `lane` sees rows up to
  // last_row + lane), raises the running maximum to the largest, and sets shrink to what that
  // makes of the exponentials so far.
  KOKKOS_INLINE_FUNCTION static void raise_maximum(const Member& member, int keys, int last_row,
                                                   R* score, R* maximum, R* shrink) {
    constexpr R masked = -Kokkos::Experimental::infinity_v<R>;
    for_lane_groups_once(member, [&](const int begin) {
      R largest[lanes_per_thread];
      for (int l = 0; l < lanes_per_thread; ++l) largest[l] = maximum[begin + l];
      const int seen_by_all = Kokkos::max(0, Kokkos::min(keys, last_row + 1));
      for (int j = 0; j < seen_by_all; ++j) {
        const R* s = score + j * block_lanes + begin;
        for (int l = 0; l < lanes_per_thread; ++l)
          largest[l] = s[l] > largest[l] ? s[l] : largest[l];
      }
      for (int j = seen_by_all; j < keys; ++j) {
        R* s = score + j * block_lanes + begin;
        for (int l = 0; l < lanes_per_thread; ++l) {
          s[l] = j <= last_row + begin + l ? s[l] : masked;
          largest[l] = s[l] > largest[l] ? s[l] : largest[l];
        }
      }
      for (int l = 0; l < lanes_per_thread; ++l) {
        shrink[begin + l] = power_of_two(maximum[begin + l] - largest[l]);
        maximum[begin + l] = largest[l];
      }
    });
  }
};

}  // namespace

template <class T>
void attention(const AttentionPlan& plan, const Array2<const T>& q, const Array2<const T>& k,
               const Array2<const T>& v, Index head_dim, double scale, const Array2<T>& out,
               const Array2<Real<T>>& log_sum, [[maybe_unused]] AttentionMethod method) {
  const Index heads = log_sum.extent(1), blocks = plan.query_blocks.extent(0);
  const Index kv_heads = static_cast<Index>(k.extent(1)) / head_dim;
  assert(static_cast<Index>(q.extent(1)) == heads * head_dim && out.extent(1) == q.extent(1));
  assert(static_cast<Index>(k.extent(1)) == kv_heads * head_dim && v.extent(1) == k.extent(1));
  assert(kv_heads > 0 && heads % kv_heads == 0 && head_dim <= max_head_dim);
  if (blocks == 0) return;
  if constexpr (on_host && std::is_same_v<T, bfloat16>) {
    if (method == AttentionMethod::in_pairs) {
      attention_in_pairs(plan, q, k, v, head_dim, scale, out, log_sum);
      return;
    }
  }
  with_attention_width(head_dim, [&](auto width) {
    using Kernel = AttentionForward<width(), T>;
    const TeamMemory memory(Kernel::elements() * sizeof(Real<T>));
    Kokkos::parallel_for(
        "attention", attention_teams(blocks * heads, memory),
        Kernel{plan.query_blocks, q, k, v, out, log_sum, static_cast<int>(head_dim),
               heads / kv_heads, static_cast<Real<T>>(scale), memory});
  });
}

#define HEARTH_INSTANTIATE(T)                                                                      \
  template void attention<T>(const AttentionPlan&, const Array2<const T>&, const Array2<const T>&, \
                             const Array2<const T>&, Index, double, const Array2<T>&,              \
                             const Array2<Real<T>>&, AttentionMethod);
HEARTH_INSTANTIATE(bfloat16)
HEARTH_INSTANTIATE(float)
HEARTH_INSTANTIATE(double)
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
