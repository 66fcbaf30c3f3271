// What both passes of attention in pairs are made of: host code. A tile is an array of team memory.
// Its rows are a strip of queries (or keys), two vectors long, or a head's columns, padded with
// zeros to `width`. Where a product does not sum over the contiguous dimension, neighbours of the
// one it sums over are interleaved to pairs.
#pragma once

#include <algorithm>

#include "kernels/attention_tiles.hpp"
#include "kernels/register_tile.hpp"

namespace hearth::kernels {

// Queries (or keys) that are a vector dimension of products together.
inline constexpr int strip_runs = 2, strip_lanes = strip_runs * lane_count;

// Sums that products hold in registers are about half of these, in groups of rows times one strip.
inline constexpr int group_rows = vector_registers / 4;

// Rows of the other side that are gone through at a time.
inline constexpr int pair_stream_rows = 64;
static_assert(pair_stream_rows % group_rows == 0 && wide_block_rows % strip_lanes == 0);

[[nodiscard]] constexpr int rounded_up(int n, int unit) {
  return (n + unit - 1) / unit * unit;
}

// tile[pair][lane] = the pair of columns of source row `lane`, zero in lanes without a row and
// beyond the head's columns.
template <int width>
void load_strip(const HeadRows<const bfloat16>& source, int rows, int head_dim, Pair* tile) {
  if (rows < strip_lanes || head_dim < width) {
    for (int i = 0; i < width / 2 * strip_lanes; ++i) tile[i] = 0;
  }
  for (int lane = 0; lane < rows; ++lane) {
    const bfloat16* from = source.data + lane * source.stride;
    for (int pair = 0; pair < head_dim / 2; ++pair) {
      tile[pair * strip_lanes + lane] = load<Pair>(from + 2 * pair);
    }
    if (head_dim % 2 == 1) tile[head_dim / 2 * strip_lanes + lane] = from[head_dim - 1].bits;
  }
}

// tile[r][d] = source[r][d] for r < rows, zero up to `tile_rows` and beyond the head's columns.
template <int width>
void load_bfloat16_rows(const HeadRows<const bfloat16>& source, int rows, int tile_rows,
                        int head_dim, bfloat16* tile) {
  for (int r = 0; r < rows; ++r) {
    const bfloat16* from = source.data + r * source.stride;
    bfloat16* to = tile + r * width;
    if (head_dim == width) {
      std::memcpy(to, from, width * sizeof(bfloat16));
    } else {
      for (int d = 0; d < width; ++d) to[d] = d < head_dim ? from[d] : bfloat16{0};
    }
  }
  for (int i = rows * width; i < tile_rows * width; ++i) tile[i] = bfloat16{0};
}

// pairs[r/2][d] = rows r and r + 1 of a tile of an even number of rows.
template <int width>
void interleave_rows(const bfloat16* tile, int rows, Pair* pairs) {
  for (int r = 0; r < rows; r += 2) {
    const bfloat16 *first = tile + r * width, *second = first + width;
    Pair* to = pairs + r / 2 * width;
    for (int d = 0; d < width; ++d) to[d] = pair_of(first[d], second[d]);
  }
}

// target[lane][d] = factor[lane] · tile[d][lane]
inline void store_strip(const float* tile, int rows, int head_dim, const float* factor,
                        const HeadRows<bfloat16>& target) {
  for (int lane = 0; lane < rows; ++lane) {
    bfloat16* to = target.data + lane * target.stride;
    for (int d = 0; d < head_dim; ++d) {
      to[d] = static_cast<bfloat16>(factor[lane] * tile[d * strip_lanes + lane]);
    }
  }
}

}  // namespace hearth::kernels
