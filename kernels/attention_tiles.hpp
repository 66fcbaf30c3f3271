// What both passes of attention are made of. A tile is an array of team memory with
// block_lanes numbers per row, one for each row of the team's block of queries (or keys): loops
// over the other side's rows and over head_dim run outside, so that every sum over them is taken
// in order while the lanes are a vector.
#pragma once

#include "kernels/attention.hpp"
#include "kernels/team.hpp"

namespace hearth::kernels {

inline constexpr int block_lanes = vector_lanes;
static_assert(query_block_rows == block_lanes && key_block_rows == block_lanes);

// Rows of the other side that are gone through at a time.
inline constexpr int stream_rows = on_host ? 64 : 32;

using AttentionTeam = Kokkos::TeamPolicy<Exec, Kokkos::Schedule<Kokkos::Dynamic>>;

// The block and the head of a team.
struct BlockAndHead {
  Index block, head;
  KOKKOS_INLINE_FUNCTION BlockAndHead(Index team, Index blocks)
      : block(blocks - 1 - team % blocks), head(team / blocks) {}
};

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

// tile[d][lane] = factor · source[lane][d], zero in lanes without a row.
template <class T>
KOKKOS_INLINE_FUNCTION void load_transposed(const Member& member, const T* source, Index stride,
                                            int rows, int head_dim, T factor, T* tile) {
  Kokkos::parallel_for(Kokkos::TeamThreadRange(member, head_dim), [&](const int d) {
    for_lanes(member, [&](const int lane) {
      tile[d * block_lanes + lane] = lane < rows ? factor * source[lane * stride + d] : T(0);
    });
  });
}

// target[lane][d] = factor · tile[d][lane]
template <class T>
KOKKOS_INLINE_FUNCTION void store_transposed(const Member& member, const T* tile, int rows,
                                             int head_dim, T factor, T* target, Index stride) {
  Kokkos::parallel_for(Kokkos::TeamThreadRange(member, rows), [&](const int lane) {
    Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, head_dim), [&](const int d) {
      target[lane * stride + d] = factor * tile[d * block_lanes + lane];
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

// A matrix by its strides: element (r, i) is data[r · row_stride + i · column_stride].
template <class T>
struct Strided {
  const T* data;
  Index row_stride, column_stride;
};

template <class T>
KOKKOS_INLINE_FUNCTION Strided<T> transposed(const Strided<T>& a) {
  return {a.data, a.column_stride, a.row_stride};
}

// The rows of an array from `first`, in the columns of one head.
template <class T>
KOKKOS_INLINE_FUNCTION Strided<T> rows_of(const Array2<const T>& a, Index first, Index column) {
  return {row(a, first) + column, static_cast<Index>(a.stride(0)), 1};
}

// A copy of `rows` rows in team memory.
template <class T>
KOKKOS_INLINE_FUNCTION Strided<T> copy_rows(const Member& member, const Strided<T>& a, int rows,
                                            int head_dim, T* tile) {
  Kokkos::parallel_for(Kokkos::TeamThreadRange(member, rows), [&](const int r) {
    const T* source = a.data + r * a.row_stride;
    Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, head_dim),
                         [&](const int d) { tile[r * head_dim + d] = source[d]; });
  });
  return {tile, head_dim, 1};
}

// Rows that are held in registers while the inner dimension is gone through.
template <class T>
inline constexpr int register_rows = 32 / sizeof(T);

// c[r][lane] = (or +=) Σ_i a(r, i) b[i][lane] for `Rows` rows and one thread's lanes.
template <int Rows, bool add, class T>
KOKKOS_INLINE_FUNCTION void multiply_rows(const Strided<T>& a, int inner, const T* b, T* c) {
  T sum[Rows][lanes_per_thread];
  for (int r = 0; r < Rows; ++r) {
    for (int l = 0; l < lanes_per_thread; ++l) sum[r][l] = add ? c[r * block_lanes + l] : T(0);
  }
  for (int i = 0; i < inner; ++i) {
    for (int r = 0; r < Rows; ++r) {
      const T factor = a.data[r * a.row_stride + i * a.column_stride];
      for (int l = 0; l < lanes_per_thread; ++l) sum[r][l] += factor * b[i * block_lanes + l];
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int l = 0; l < lanes_per_thread; ++l) c[r * block_lanes + l] = sum[r][l];
  }
}

// c[r][lane] = (or +=) Σ_i a(r, i) b[i][lane], by a team.
template <bool add, class T>
KOKKOS_INLINE_FUNCTION void multiply_tile(const Member& member, const Strided<T>& a, int rows,
                                          int inner, const T* b, T* c) {
  constexpr int step = register_rows<T>;
  Kokkos::parallel_for(Kokkos::TeamThreadRange(member, (rows + step - 1) / step), [&](int group) {
    Kokkos::parallel_for(
        Kokkos::ThreadVectorRange(member, block_lanes / lanes_per_thread), [&](const int lane) {
          const int first = lane * lanes_per_thread;
          int r = group * step;
          const auto part = [&]() {
            return Strided<T>{a.data + r * a.row_stride, a.row_stride, a.column_stride};
          };
          if (r + step <= rows) {
            multiply_rows<step, add>(part(), inner, b + first, c + r * block_lanes + first);
          } else {
            for (; r < rows; ++r) {
              multiply_rows<1, add>(part(), inner, b + first, c + r * block_lanes + first);
            }
          }
        });
  });
}

}  // namespace hearth::kernels
