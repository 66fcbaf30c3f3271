#include <cassert>
#include <limits>

#include "kernels/attention_pair_tiles.hpp"
#include "kernels/attention_pairs.hpp"

namespace hearth::kernels {

namespace {

// Σ a b over n ≤ width elements.
template <int width>
float dot(const bfloat16* a, const bfloat16* b, int n) {
  constexpr int padded = rounded_up(width, 2 * lane_count);
  bfloat16 first[padded] = {}, second[padded] = {};
  std::memcpy(first, a, static_cast<std::size_t>(n) * sizeof(bfloat16));
  std::memcpy(second, b, static_cast<std::size_t>(n) * sizeof(bfloat16));
  Lanes sum{};
  for (int i = 0; i < padded; i += 2 * lane_count) {
    add_products(sum, load<PairLanes>(first + i), load<PairLanes>(second + i));
  }
  float lane[lane_count];
  store(lane, sum);
  for (int half = lane_count / 2; half > 0; half /= 2) {
    for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
  }
  return lane[0];
}

// Equation (5) for a segment and a key-value head, with p recomputed from log_sum:
// dv = Σ p dout, ds = p (dp - delta), dp = dout vᵀ, dk = scale Σ ds q, dq = scale Σ ds k.
// Blocks of keys are gone through in order, each over the queries that see it, so that dq can be
// added up. A block's strips of keys share tiles of queries.
template <int width>
struct PairBackward {
  static constexpr int block_keys = width <= 128 ? wide_block_rows : wide_block_rows / 2;
  static constexpr int strips = block_keys / strip_lanes;

  struct Strip {
    Pair key[width / 2 * strip_lanes], value[width / 2 * strip_lanes];  // (column pairs, keys)
    float dkey[width * strip_lanes], dvalue[width * strip_lanes];       // (width, keys)
  };
  struct Tiles {
    Strip strip[strips];
    Pair key_pairs[block_keys / 2 * width];                                    // (key pairs, width)
    bfloat16 query[pair_stream_rows * width], dout[pair_stream_rows * width];  // (queries, width)
    Pair query_pairs[pair_stream_rows / 2 * width];  // (query pairs, width)
    Pair dout_pairs[pair_stream_rows / 2 * width];
    float logarithm[pair_stream_rows], mean[pair_stream_rows];
    Pair p[pair_stream_rows / 2 * strip_lanes];       // (query pairs, keys of a strip)
    Pair ds[pair_stream_rows / 2 * strip_lanes];      // likewise
    bfloat16 ds_rows[pair_stream_rows * block_keys];  // (queries, keys)
    float dquery[pair_stream_rows * width];           // (queries, width)
    bfloat16 key_rows[block_keys * width];            // (keys, width)
  };

  Array1<AttentionSegment> segments;
  Array2<const bfloat16> dout, q, k, v, out;
  Array2<const float> log_sum;
  Array2<float> delta, dq_sum;
  Array2<bfloat16> dq, dk, dv;
  int head_dim;
  Index group;  // query heads of one key-value head
  float scale;
  TeamMemory memory;

  void operator()(const Member& member) const {
    const Index segment_count = segments.extent(0), team = member.league_rank();
    const AttentionSegment segment = segments(team % segment_count);
    const Index key_head = team / segment_count;
    for (Index head = key_head * group; head < (key_head + 1) * group; ++head) {
      begin_queries(segment, head);
    }
    Tiles& tiles = *memory.stack<Tiles>(member).take(1);
    for (Index key = segment.key_begin; key < segment.key_end; key += block_keys) {
      add_block(tiles, segment, key, key_head);
    }
    for (Index head = key_head * group; head < (key_head + 1) * group; ++head) {
      end_queries(segment, head);
    }
  }

 private:
  // The sum of dq of a segment and a head lies in one piece: in the order of dq its rows would be
  // far apart, and fall into few places of the caches.
  [[nodiscard]] float* query_sum(const AttentionSegment& segment, Index head) const {
    return row(dq_sum, segment.query_begin) +
           head * (segment.query_end - segment.query_begin) * head_dim;
  }

  void begin_queries(const AttentionSegment& segment, Index head) const {
    std::fill_n(query_sum(segment, head), (segment.query_end - segment.query_begin) * head_dim,
                0.0f);
    for (Index t = segment.query_begin; t < segment.query_end; ++t) {
      delta(t, head) =
          dot<width>(row(dout, t) + head * head_dim, row(out, t) + head * head_dim, head_dim);
    }
  }

  void end_queries(const AttentionSegment& segment, Index head) const {
    const float* from = query_sum(segment, head);
    for (Index t = segment.query_begin; t < segment.query_end; ++t, from += head_dim) {
      bfloat16* to = row(dq, t) + head * head_dim;
      for (int d = 0; d < head_dim; ++d) to[d] = static_cast<bfloat16>(scale * from[d]);
    }
  }

  void add_block(Tiles& tiles, const AttentionSegment& segment, Index key_begin,
                 Index key_head) const {
    const int keys = static_cast<int>(std::min(Index{block_keys}, segment.key_end - key_begin));
    const Index key_column = key_head * head_dim;
    const auto keys_of_strip = [&](int s) { return std::min(strip_lanes, keys - s * strip_lanes); };
    load_bfloat16_rows<width>(head_rows(k, key_begin, key_column), keys, block_keys, head_dim,
                              tiles.key_rows);
    interleave_rows<width>(tiles.key_rows, block_keys, tiles.key_pairs);
    for (int s = 0; s * strip_lanes < keys; ++s) {
      Strip& strip = tiles.strip[s];
      const Index begin = key_begin + s * strip_lanes;
      load_strip<width>(head_rows(k, begin, key_column), keys_of_strip(s), head_dim, strip.key);
      load_strip<width>(head_rows(v, begin, key_column), keys_of_strip(s), head_dim, strip.value);
      std::fill_n(strip.dkey, width * strip_lanes, 0.0f);
      std::fill_n(strip.dvalue, width * strip_lanes, 0.0f);
    }
    // The query whose last visible key is the block's first.
    const Index diagonal = key_begin + segment.query_end - segment.key_end;
    const Index query_begin = std::max(segment.query_begin, diagonal);
    for (Index head = key_head * group; head < (key_head + 1) * group; ++head) {
      for (Index first = query_begin; first < segment.query_end; first += pair_stream_rows) {
        const int queries =
            static_cast<int>(std::min(Index{pair_stream_rows}, segment.query_end - first));
        load_queries(tiles, first, queries, head);
        const int rows = rounded_up(queries, group_rows);
        int strips_seen = 0;
        for (int s = 0; s * strip_lanes < keys; ++s) {
          // Query i of the run sees the strip's keys up to and including last_lane + i.
          const Index last_lane = first - diagonal - s * strip_lanes;
          if (last_lane + queries <= 0) break;
          differentiate_scores(tiles, s, rows,
                               static_cast<int>(std::min(last_lane, Index{strip_lanes})),
                               keys_of_strip(s));
          add_products_of_queries(tiles.dout_pairs, tiles.p, rows, tiles.strip[s].dvalue);
          add_products_of_queries(tiles.query_pairs, tiles.ds, rows, tiles.strip[s].dkey);
          ++strips_seen;
        }
        multiply_keys(tiles, rows, strips_seen * (strip_lanes / 2));
        float* to = query_sum(segment, head) + (first - segment.query_begin) * head_dim;
        for (int i = 0; i < queries; ++i) {
          const float* from = tiles.dquery + i * width;
          for (int d = 0; d < head_dim; ++d) to[i * head_dim + d] += from[d];
        }
      }
    }
    float factor[strip_lanes], one[strip_lanes];
    std::fill_n(factor, strip_lanes, scale);
    std::fill_n(one, strip_lanes, 1.0f);
    for (int s = 0; s * strip_lanes < keys; ++s) {
      const Index begin = key_begin + s * strip_lanes;
      store_strip(tiles.strip[s].dkey, keys_of_strip(s), head_dim, factor,
                  head_rows(dk, begin, key_column));
      store_strip(tiles.strip[s].dvalue, keys_of_strip(s), head_dim, one,
                  head_rows(dv, begin, key_column));
    }
  }

  void load_queries(Tiles& tiles, Index first, int queries, Index head) const {
    const int rows = rounded_up(queries, group_rows);
    const Index column = head * head_dim;
    load_bfloat16_rows<width>(head_rows(q, first, column), queries, rows, head_dim, tiles.query);
    load_bfloat16_rows<width>(head_rows(dout, first, column), queries, rows, head_dim, tiles.dout);
    interleave_rows<width>(tiles.query, rows, tiles.query_pairs);
    interleave_rows<width>(tiles.dout, rows, tiles.dout_pairs);
    for (int i = 0; i < queries; ++i) {
      tiles.logarithm[i] = log_sum(first + i, head) * static_cast<float>(log2_e);
      tiles.mean[i] = delta(first + i, head);
    }
    for (int i = queries; i < rows; ++i) {
      // p = 0 in rows without a query.
      tiles.logarithm[i] = std::numeric_limits<float>::infinity();
      tiles.mean[i] = 0.0f;
    }
  }

  // p and ds of `rows` queries and strip s.
  void differentiate_scores(Tiles& tiles, int s, int rows, int last_lane, int keys) const {
    constexpr int few_rows = group_rows / 2;  // two products at a time
    const Strip& strip = tiles.strip[s];
    const auto* query = reinterpret_cast<const Pair*>(tiles.query);
    const auto* dvalue = reinterpret_cast<const Pair*>(tiles.dout);
    const float factor = scale * static_cast<float>(log2_e);
    for (int i = 0; i < rows; i += few_rows) {
      using Tile = RegisterTile<few_rows, strip_runs>;
      Tile p, ds;  // scores and dp at first
      p.clear();
      ds.clear();
      for (int pair = 0; pair < width / 2; ++pair) {
        p.template add<width / 2>(query + i * (width / 2) + pair, strip.key + pair * strip_lanes);
        ds.template add<width / 2>(dvalue + i * (width / 2) + pair,
                                   strip.value + pair * strip_lanes);
      }
      Tile::each([&](auto r, auto n) __attribute__((always_inline)) {
        p.value[r][n] = short_power_of_two(p.value[r][n] * factor - tiles.logarithm[i + r]);
        ds.value[r][n] = p.value[r][n] * (ds.value[r][n] - tiles.mean[i + r]);
      });
      if (last_lane + i < strip_lanes - 1 || keys < strip_lanes) {
        Tile::each([&](auto r, auto n) __attribute__((always_inline)) {
          const LaneIndices lane = lane_indices() + (n * lane_count);
          const auto seen = lane <= std::min(last_lane + i + r, keys - 1);
          p.value[r][n] = seen ? p.value[r][n] : Lanes{};
          ds.value[r][n] = seen ? ds.value[r][n] : Lanes{};
        });
      }
      Tile::each([&](auto r, auto n) __attribute__((always_inline)) {
        store(tiles.ds_rows + (i + r) * block_keys + s * strip_lanes + n * lane_count,
              round_lanes(ds.value[r][n]));
        if constexpr (r % 2 == 0) {
          const int at = (i + r) / 2 * strip_lanes + n * lane_count;
          store(tiles.p + at, round_pairs(p.value[r][n], p.value[r + 1][n]));
          store(tiles.ds + at, round_pairs(ds.value[r][n], ds.value[r + 1][n]));
        }
      });
    }
  }

  // sum[d][key] += Σ a[query][d] b[query][key]
  static void add_products_of_queries(const Pair* a, const Pair* b, int queries, float* sum) {
    for (int d = 0; d < width; d += group_rows) {
      RegisterTile<group_rows, strip_runs> tile;
      float* at = sum + d * strip_lanes;
      tile.load_from(at, strip_lanes);
      for (int pair = 0; pair < queries / 2; ++pair) {
        tile.template add<1>(a + pair * width + d, b + pair * strip_lanes);
      }
      tile.store_to(at, strip_lanes);
    }
  }

  // dquery = ds k over the first pairs of keys.
  static void multiply_keys(Tiles& tiles, int rows, int pairs) {
    constexpr int runs = std::min(strip_runs, width / lane_count);
    const auto* ds = reinterpret_cast<const Pair*>(tiles.ds_rows);
    for (int d = 0; d < width; d += runs * lane_count) {
      for (int i = 0; i < rows; i += group_rows) {
        RegisterTile<group_rows, runs> tile;
        tile.clear();
        for (int pair = 0; pair < pairs; ++pair) {
          tile.template add<block_keys / 2>(ds + i * (block_keys / 2) + pair,
                                            tiles.key_pairs + pair * width + d);
        }
        tile.store_to(tiles.dquery + i * width + d, width);
      }
    }
  }
};

}  // namespace

void attention_backward_in_pairs(const AttentionPlan& plan, const Array2<const bfloat16>& dout,
                                 const Array2<const bfloat16>& q, const Array2<const bfloat16>& k,
                                 const Array2<const bfloat16>& v, const Array2<const bfloat16>& out,
                                 const Array2<const float>& log_sum, Index head_dim, double scale,
                                 const Array2<float>& delta, const Array2<bfloat16>& dq,
                                 const Array2<bfloat16>& dk, const Array2<bfloat16>& dv,
                                 const Array2<float>& dq_sum) {
  const Index heads = log_sum.extent(1), segments = plan.segments.extent(0);
  const Index kv_heads = static_cast<Index>(k.extent(1)) / head_dim;
  assert(dq_sum.extent(0) == dq.extent(0) && dq_sum.extent(1) == dq.extent(1));
  if (segments == 0) return;
  with_attention_width(head_dim, [&](auto width) {
    using Kernel = PairBackward<width()>;
    const TeamMemory memory(sizeof(typename Kernel::Tiles));
    Kokkos::parallel_for(
        "attention_gradient", attention_teams(segments * kv_heads, memory),
        Kernel{plan.segments, dout, q, k, v, out, log_sum, delta, dq_sum, dq, dk, dv,
               static_cast<int>(head_dim), heads / kv_heads, static_cast<float>(scale), memory});
  });
}

}  // namespace hearth::kernels
