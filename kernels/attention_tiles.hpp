// What both passes of attention are made of. A tile is an array of team memory, either with
// block_lanes numbers per row, one for each row of the team's block of queries (or keys), or with
// `width` numbers per row, a head's columns: loops over the other side's rows and over the head's
// columns run outside, so that every sum over them is taken in order while the lanes are a vector.
//
// Strides are constants, since the products' inner loops otherwise spend their time on addresses:
// a head is padded with zeros to `width` columns, the next larger one of with_attention_width.
//
// Tiles are of Real<T>: elements of T become that when they are loaded.
#pragma once

#include <utility>

#include "kernels/attention.hpp"
#include "kernels/team.hpp"

namespace hearth::kernels {

inline constexpr double log2_e = 1.4426950408889634074;
inline constexpr double ln_2 = 0.69314718055994530942;

inline constexpr int block_lanes = vector_lanes;
static_assert(query_block_rows == block_lanes && key_block_rows == block_lanes);

// Rows of the other side that are gone through at a time.
inline constexpr int stream_rows = on_host ? 64 : 32;

using AttentionTeam = Kokkos::TeamPolicy<Exec, Kokkos::Schedule<Kokkos::Dynamic>>;

// How many of a head's columns products go through: on the host all, padding too, since a constant
// is faster; a GPU's compiler would write a loop of constant length out, 256 times.
template <int width>
KOKKOS_INLINE_FUNCTION int columns_of_head([[maybe_unused]] int head_dim) {
  return on_host ? width : head_dim;
}

// work(integral_constant) with the least width that holds a head.
template <class Work>
void with_attention_width(Index head_dim, const Work& work) {
  if (head_dim <= 16) {
    work(std::integral_constant<int, 16>());
  } else if (head_dim <= 32) {
    work(std::integral_constant<int, 32>());
  } else if (head_dim <= 64) {
    work(std::integral_constant<int, 64>());
  } else if (head_dim <= 128) {
    work(std::integral_constant<int, 128>());
  } else {
    work(std::integral_constant<int, max_head_dim>());
  }
}

// What a block of queries sees: query `lane` sees the keys up to and including last_key + lane.
struct QueryRange {
  int rows;
  Index last_key;
  Index key_end;  // of all its queries
  KOKKOS_INLINE_FUNCTION explicit QueryRange(const AttentionPlan::Block& block)
      : rows(static_cast<int>(
            Kokkos::min(Index{block_lanes}, block.segment.query_end - block.begin))),
        last_key(block.begin + block.segment.key_end - block.segment.query_end),
        key_end(last_key + rows) {}
};

// Team memory taken piece by piece.
template <class T>
struct TeamStack {
  T* next;
  KOKKOS_INLINE_FUNCTION T* take(Index elements) {
    T* const taken = next;
    next += elements;
    return taken;
  }
};

// How much team memory a kernel takes, and of which level.
struct TeamMemory {
  static constexpr int alignment = 64;
  int bytes, level;

  explicit TeamMemory(std::size_t bytes_)
      : bytes(static_cast<int>(bytes_) + alignment),
        level(bytes <= AttentionTeam::scratch_size_max(0) ? 0 : 1) {}

  template <class T>
  [[nodiscard]] KOKKOS_INLINE_FUNCTION TeamStack<T> stack(const Member& member) const {
    return {static_cast<T*>(
        member.team_scratch(level).get_shmem_aligned(bytes - alignment, alignment))};
  }
};

inline AttentionTeam attention_teams(Index teams, const TeamMemory& memory) {
  AttentionTeam policy(static_cast<int>(teams), on_host ? 1 : 8, on_host ? 1 : vector_lanes);
  policy.set_scratch_size(memory.level, Kokkos::PerTeam(memory.bytes));
  policy.set_chunk_size(1);
  return policy;
}

// body(lane) for all lanes by each thread of the team that calls it.
template <class Body>
KOKKOS_INLINE_FUNCTION void for_lanes(const Member& member, const Body& body) {
  Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, block_lanes), body);
}

template <class Body>
KOKKOS_INLINE_FUNCTION void for_lanes_once(const Member& member, const Body& body) {
  Kokkos::parallel_for(Kokkos::TeamThreadRange(member, 1), [&](int) { for_lanes(member, body); });
}

// body(begin), each for the lanes [begin, begin + lanes_per_thread), by one thread of the team.
template <class Body>
KOKKOS_INLINE_FUNCTION void for_lane_groups_once(const Member& member, const Body& body) {
  Kokkos::parallel_for(Kokkos::TeamThreadRange(member, 1), [&](int) {
    Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, block_lanes / lanes_per_thread),
                         [&](const int group) { body(group * lanes_per_thread); });
  });
}

// The rows of an array from `first`, in the columns of one head.
template <class T>
struct HeadRows {
  T* data;
  Index stride;
};
template <class T>
KOKKOS_INLINE_FUNCTION HeadRows<T> head_rows(const Array2<T>& a, Index first, Index column) {
  return {row(a, first) + column, static_cast<Index>(a.stride(0))};
}

// tile[d][lane] = factor · source[lane][d], zero in lanes without a row and columns beyond the
// head's.
template <int width, class T>
KOKKOS_INLINE_FUNCTION void load_transposed(const Member& member, const HeadRows<const T>& source,
                                            int rows, int head_dim, Real<T> factor, Real<T>* tile) {
  using R = Real<T>;
  if constexpr (on_host) {
    // Row by row: rows may be a power of two apart, and then lie in few places of the cache.
    if (rows < block_lanes || head_dim < width) {
      for (int i = 0; i < width * block_lanes; ++i) tile[i] = R(0);
    }
    for (int lane = 0; lane < rows; ++lane) {
      const T* from = source.data + lane * source.stride;
      for (int d = 0; d < head_dim; ++d) tile[d * block_lanes + lane] = factor * from[d];
    }
  } else {
    Kokkos::parallel_for(Kokkos::TeamThreadRange(member, width), [&](const int d) {
      for_lanes(member, [&](const int lane) {
        tile[d * block_lanes + lane] =
            lane < rows && d < head_dim ? factor * source.data[lane * source.stride + d] : R(0);
      });
    });
  }
}

// tile[r][d] = source[r][d] for r < rows, zero up to `tile_rows` and in columns beyond the head's.
template <int width, class T>
KOKKOS_INLINE_FUNCTION void load_rows(const Member& member, const HeadRows<const T>& source,
                                      int rows, int tile_rows, int head_dim, Real<T>* tile) {
  using R = Real<T>;
  Kokkos::parallel_for(Kokkos::TeamThreadRange(member, tile_rows), [&](const int r) {
    const T* from = source.data + r * source.stride;
    R* to = tile + r * width;
    if (on_host && r < rows && head_dim == width) {
      // A constant length, without other conditions.
      for_columns(member, width, [&](const Index d) { to[d] = from[d]; });
    } else {
      Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, width), [&](const int d) {
        to[d] = r < rows && d < head_dim ? static_cast<R>(from[d]) : R(0);
      });
    }
  });
}

// target[lane][d] = factor · tile[d][lane]
template <class T>
KOKKOS_INLINE_FUNCTION void store_transposed(const Member& member, const Real<T>* tile, int rows,
                                             int head_dim, Real<T> factor,
                                             const HeadRows<T>& target) {
  Kokkos::parallel_for(Kokkos::TeamThreadRange(member, rows), [&](const int lane) {
    T* to = target.data + lane * target.stride;
    for_columns(member, head_dim, [&](const Index d) {
      to[d] = static_cast<T>(factor * tile[d * block_lanes + lane]);
    });
  });
}

template <class T>
KOKKOS_INLINE_FUNCTION void clear_tile(const Member& member, int rows, T* tile) {
  Kokkos::parallel_for(Kokkos::TeamThreadRange(member, rows), [&](const int r) {
    for_lanes(member, [&](const int lane) { tile[r * block_lanes + lane] = T(0); });
  });
}

template <class T>
KOKKOS_INLINE_FUNCTION void scale_tile(const Member& member, int rows, const T* factor, T* tile) {
  Kokkos::parallel_for(Kokkos::TeamThreadRange(member, rows), [&](const int r) {
    for_lanes(member, [&](const int lane) { tile[r * block_lanes + lane] *= factor[lane]; });
  });
}

// Element (r, i) of a matrix is data[r · row_step + i · inner_step].
template <int row_step_, int inner_step_, class T>
struct Stepped {
  static constexpr int row_step = row_step_, inner_step = inner_step_;
  const T* data;
};
// A tile of rows as it lies, and its transpose.
template <int width, class T>
KOKKOS_INLINE_FUNCTION Stepped<width, 1, T> by_row(const T* tile) {
  return {tile};
}
template <int width, class T>
KOKKOS_INLINE_FUNCTION Stepped<1, width, T> by_column(const T* tile) {
  return {tile};
}

// Numbers that make one vector, as far as the products are concerned, and how many of them a
// product holds for each row while the inner dimension is gone through.
inline constexpr int run_lanes = on_host ? 16 : 1;

// c[r][lane] = (or +=) Σ_i a(r, i) b[i][lane] for rows r... and `runs` runs of lanes. Rows are
// written out by the fold and each run is one loop: that keeps the sums in vector registers.
template <int runs, bool add, int lanes, class A, class T, int... r>
KOKKOS_INLINE_FUNCTION void multiply_rows(std::integer_sequence<int, r...>, const A& a, int inner,
                                          const T* b, T* c) {
  static_assert(runs == 1 || runs == 2);
  constexpr int rows = sizeof...(r), second = runs == 2 ? run_lanes : 0;
  T sum[rows][run_lanes], other[rows][run_lanes];
  for (int l = 0; l < run_lanes; ++l) {
    ((sum[r][l] = add ? c[r * lanes + l] : T(0)), ...);
    if constexpr (runs == 2) ((other[r][l] = add ? c[r * lanes + second + l] : T(0)), ...);
  }
  for (int i = 0; i < inner; ++i) {
    const T factor[rows] = {a.data[r * A::row_step + i * A::inner_step]...};
    for (int l = 0; l < run_lanes; ++l) {
      const T element = b[i * lanes + l];
      ((sum[r][l] += factor[r] * element), ...);
      if constexpr (runs == 2) {
        const T next = b[i * lanes + second + l];
        ((other[r][l] += factor[r] * next), ...);
      }
    }
  }
  for (int l = 0; l < run_lanes; ++l) {
    ((c[r * lanes + l] = sum[r][l]), ...);
    if constexpr (runs == 2) ((c[r * lanes + second + l] = other[r][l]), ...);
  }
}

// c[r][lane] = (or +=) Σ_i a(r, i) b[i][lane] for `lanes` lanes, by a team; `rows` is rounded up to
// whole groups, for which a and c must have room.
template <bool add, int lanes, class A, class T>
KOKKOS_INLINE_FUNCTION void multiply_tile(const Member& member, const A& a, int rows, int inner,
                                          const T* b, T* c) {
  constexpr int group = on_host ? 8 : 4, runs = on_host && lanes % (2 * run_lanes) == 0 ? 2 : 1;
  constexpr int parts = lanes / (runs * run_lanes);
  static_assert(lanes % run_lanes == 0);
  Kokkos::parallel_for(Kokkos::TeamThreadRange(member, (rows + group - 1) / group), [&](int g) {
    Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, parts), [&](const int part) {
      const int first = part * runs * run_lanes;
      const A rows_of_group{a.data + g * group * A::row_step};
      multiply_rows<runs, add, lanes>(std::make_integer_sequence<int, group>(), rows_of_group,
                                      inner, b + first, c + g * group * lanes + first);
    });
  });
}

}  // namespace hearth::kernels
