#include <cmath>
#include <limits>

#include "kernels/attention_pair_tiles.hpp"
#include "kernels/attention_pairs.hpp"

namespace hearth::kernels {

namespace {

// Equation (4) as AttentionForward has it, for a wide block of queries and a head. The block's
// strips of queries share tiles of keys and values.
template <int width>
struct PairForward {
  static constexpr int strips = wide_block_rows / strip_lanes;

  struct Strip {
    Pair query[width / 2 * strip_lanes];  // (column pairs, queries)
    float sum[width * strip_lanes];       // (width, queries): Σ p v
    float maximum[strip_lanes], denominator[strip_lanes];
  };
  struct Tiles {
    Strip strip[strips];
    bfloat16 key[pair_stream_rows * width];          // (keys, width)
    bfloat16 value[pair_stream_rows * width];        // (keys, width)
    Pair value_pairs[pair_stream_rows / 2 * width];  // (key pairs, width)
    float score[pair_stream_rows * strip_lanes];     // (keys, queries)
    Pair p[pair_stream_rows / 2 * strip_lanes];      // (key pairs, queries)
  };

  Array1<AttentionPlan::Block> blocks;
  Array2<const bfloat16> q, k, v;
  Array2<bfloat16> out;
  Array2<float> log_sum;
  int head_dim;
  Index group;         // query heads of one key-value head
  float score_factor;  // the scale of scores that are exponents to the base 2
  TeamMemory memory;

  void operator()(const Member& member) const {
    const Index block_count = blocks.extent(0), team = member.league_rank();
    // The later queries of a sequence see more keys: they come first.
    const AttentionPlan::Block& block = blocks(block_count - 1 - team % block_count);
    const AttentionSegment& segment = block.segment;
    const Index head = team / block_count;
    const Index column = head * head_dim, key_column = head / group * head_dim;
    const int rows =
        static_cast<int>(std::min(Index{wide_block_rows}, segment.query_end - block.begin));
    // Query i of the block sees the keys up to and including last_key + i.
    const Index last_key = block.begin + segment.key_end - segment.query_end;
    const Index key_end = last_key + rows;
    Tiles& tiles = *memory.stack<Tiles>(member).take(1);

    const auto rows_of_strip = [&](int s) { return std::min(strip_lanes, rows - s * strip_lanes); };
    for (int s = 0; s * strip_lanes < rows; ++s) {
      Strip& strip = tiles.strip[s];
      load_strip<width>(head_rows(q, block.begin + s * strip_lanes, column), rows_of_strip(s),
                        head_dim, strip.query);
      std::fill_n(strip.sum, width * strip_lanes, 0.0f);
      std::fill_n(strip.denominator, strip_lanes, 0.0f);
      // Finite, so that the difference to a masked score is -∞ and not NaN.
      std::fill_n(strip.maximum, strip_lanes, std::numeric_limits<float>::lowest());
    }
    for (Index first = segment.key_begin; first < key_end; first += pair_stream_rows) {
      const int keys = static_cast<int>(std::min(Index{pair_stream_rows}, key_end - first));
      const int tile_rows = rounded_up(keys, group_rows);
      load_bfloat16_rows<width>(head_rows(k, first, key_column), keys, tile_rows, head_dim,
                                tiles.key);
      load_bfloat16_rows<width>(head_rows(v, first, key_column), keys, tile_rows, head_dim,
                                tiles.value);
      interleave_rows<width>(tiles.value, tile_rows, tiles.value_pairs);
      for (int s = 0; s * strip_lanes < rows; ++s) {
        const Index last_row = last_key + s * strip_lanes - first;
        const Index seen = std::min(Index{keys}, last_row + rows_of_strip(s));
        if (seen > 0) {
          attend(tiles, tiles.strip[s], static_cast<int>(seen),
                 static_cast<int>(std::min(last_row, Index{pair_stream_rows})));
        }
      }
    }
    for (int s = 0; s * strip_lanes < rows; ++s) {
      finish(tiles.strip[s], block.begin + s * strip_lanes, rows_of_strip(s), head);
    }
  }

 private:
  // The first `keys` keys of the tile, of which query `lane` sees those up to last_row + lane.
  void attend(Tiles& tiles, Strip& strip, int keys, int last_row) const {
    const auto* key_pairs = reinterpret_cast<const Pair*>(tiles.key);
    constexpr float masked = -std::numeric_limits<float>::infinity();
    Lanes largest[strip_runs];
    written_out<strip_runs>([&](auto n) { largest[n] = all_lanes(masked); });
    for (int j = 0; j < keys; j += group_rows) {
      RegisterTile<group_rows, strip_runs> s;
      s.clear();
      for (int pair = 0; pair < width / 2; ++pair) {
        s.template add<width / 2>(key_pairs + j * (width / 2) + pair,
                                  strip.query + pair * strip_lanes);
      }
      if (j + group_rows - 1 > last_row) {
        s.each([&](auto r, auto n) {
          const LaneIndices lane = lane_indices() + (n * lane_count);
          s.value[r][n] = lane >= j + r - last_row ? s.value[r][n] : all_lanes(masked);
        });
      }
      s.each([&](auto r, auto n) {
        largest[n] = larger(largest[n], s.value[r][n]);
        store(tiles.score + (j + r) * strip_lanes + n * lane_count, s.value[r][n]);
      });
    }

    Lanes maximum[strip_runs], shrink[strip_runs], total[strip_runs];
    written_out<strip_runs>([&](auto n) {
      const Lanes before = load<Lanes>(strip.maximum + n * lane_count);
      maximum[n] = larger(largest[n] * score_factor, before);
      shrink[n] = short_power_of_two(before - maximum[n]);
      total[n] = load<Lanes>(strip.denominator + n * lane_count) * shrink[n];
    });
    const int pairs = (keys + 1) / 2;
    for (int pair = 0; pair < pairs; ++pair) {
      written_out<strip_runs>([&](auto n) __attribute__((always_inline)) {
        const float* s = tiles.score + 2 * pair * strip_lanes + n * lane_count;
        const Lanes first = short_power_of_two(load<Lanes>(s) * score_factor - maximum[n]);
        const Lanes second =
            short_power_of_two(load<Lanes>(s + strip_lanes) * score_factor - maximum[n]);
        total[n] += first + second;
        store(tiles.p + pair * strip_lanes + n * lane_count, round_pairs(first, second));
      });
    }
    written_out<strip_runs>([&](auto n) {
      store(strip.maximum + n * lane_count, maximum[n]);
      store(strip.denominator + n * lane_count, total[n]);
    });

    for (int d = 0; d < width; d += group_rows) {
      RegisterTile<group_rows, strip_runs> sum;
      float* at = strip.sum + d * strip_lanes;
      sum.each([&](auto r, auto n) {
        sum.value[r][n] = load<Lanes>(at + r * strip_lanes + n * lane_count) * shrink[n];
      });
      for (int pair = 0; pair < pairs; ++pair) {
        sum.template add<1>(tiles.value_pairs + pair * width + d, tiles.p + pair * strip_lanes);
      }
      sum.store_to(at, strip_lanes);
    }
  }

  void finish(const Strip& strip, Index first, int rows, Index head) const {
    float inverse[strip_lanes];
    for (int lane = 0; lane < rows; ++lane) {
      const float denominator = strip.denominator[lane];
      log_sum(first + lane, head) =
          strip.maximum[lane] * static_cast<float>(ln_2) + std::log(denominator);
      // A query without keys has the output 0.
      inverse[lane] = denominator == 0.0f ? 0.0f : 1.0f / denominator;
    }
    store_strip(strip.sum, rows, head_dim, inverse, head_rows(out, first, head * head_dim));
  }
};

}  // namespace

void attention_in_pairs(const AttentionPlan& plan, const Array2<const bfloat16>& q,
                        const Array2<const bfloat16>& k, const Array2<const bfloat16>& v,
                        Index head_dim, double scale, const Array2<bfloat16>& out,
                        const Array2<float>& log_sum) {
  const Index heads = log_sum.extent(1), blocks = plan.wide_query_blocks.extent(0);
  const Index kv_heads = static_cast<Index>(k.extent(1)) / head_dim;
  with_attention_width(head_dim, [&](auto width) {
    using Kernel = PairForward<width()>;
    const TeamMemory memory(sizeof(typename Kernel::Tiles));
    Kokkos::parallel_for(
        "attention", attention_teams(blocks * heads, memory),
        Kernel{plan.wide_query_blocks, q, k, v, out, log_sum, static_cast<int>(head_dim),
               heads / kv_heads, static_cast<float>(scale * log2_e), memory});
  });
}

}  // namespace hearth::kernels
