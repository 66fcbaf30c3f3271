// How kernels share their work out: teams of one thread on the host, of `threads` times 32 vector
// lanes on a GPU, and sums whose order depends on neither.
#pragma once

#include <string>

#include "base/types.hpp"

namespace hearth::kernels {

inline constexpr bool on_host = Kokkos::SpaceAccessibility<Kokkos::HostSpace, Memory>::accessible;

// Vector lanes of a row's sums, and of a team on a GPU.
inline constexpr int vector_lanes = 32;
// Lanes that one thread works for: on the host it runs over all of them in a loop of constant
// length, which compilers turn into vector instructions; on a GPU each thread is one lane.
inline constexpr int lanes_per_thread = on_host ? vector_lanes : 1;

using Team = Kokkos::TeamPolicy<Exec>;
using Member = Team::member_type;

inline Team team_policy(Index league, int threads) {
  return on_host ? Team(static_cast<int>(league), 1, 1)
                 : Team(static_cast<int>(league), threads, vector_lanes);
}

// Fast team memory where it fits, the larger kind otherwise.
template <class Policy>
int scratch_level(const Policy& policy, int bytes) {
  return bytes <= policy.scratch_size_max(0) ? 0 : 1;
}

// Team memory.
template <class T>
using TeamArray =
    Kokkos::View<T*, Exec::scratch_memory_space, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;

// The first element of a row.
template <class T>
KOKKOS_INLINE_FUNCTION T* row(const Array2<T>& a, Index i) {
  return a.data() + i * static_cast<Index>(a.stride(0));
}

template <class Body>
struct RowLoop {
  static constexpr Index rows_per_team = 8;
  Body body;
  Index rows;

  KOKKOS_INLINE_FUNCTION void operator()(const Member& member) const {
    const Index begin = member.league_rank() * rows_per_team;
    const Index end = Kokkos::min(begin + rows_per_team, rows);
    Kokkos::parallel_for(Kokkos::TeamThreadRange(member, begin, end),
                         [&](const Index i) { body(member, i); });
  }
};

// body(member, row) for every row; the body spreads its columns over ThreadVectorRange.
template <class Body>
void for_rows(const std::string& label, Index rows, const Body& body) {
  if (rows == 0) return;
  const Index teams = (rows + RowLoop<Body>::rows_per_team - 1) / RowLoop<Body>::rows_per_team;
  Kokkos::parallel_for(label, team_policy(teams, RowLoop<Body>::rows_per_team),
                       RowLoop<Body>{body, rows});
}

template <class Body>
struct RowBlockLoop {
  static constexpr int threads = 8;
  static constexpr Index columns_per_team = threads * vector_lanes;
  Body body;
  Index rows, block_rows, columns, groups;

  KOKKOS_INLINE_FUNCTION void operator()(const Member& member) const {
    const Index block = member.league_rank() / groups, group = member.league_rank() % groups;
    const Index begin = block * block_rows;
    const Index end = Kokkos::min(begin + block_rows, rows);
    Kokkos::parallel_for(Kokkos::TeamThreadRange(member, threads), [&](const int thread) {
      Kokkos::parallel_for(
          Kokkos::ThreadVectorRange(member, vector_lanes / lanes_per_thread), [&](const int lane) {
            const Index first =
                group * columns_per_team + thread * vector_lanes + lane * lanes_per_thread;
            // The usual number of columns as a constant, for the compiler.
            if (first + lanes_per_thread <= columns) {
              body(block, begin, end, first, lanes_per_thread);
            } else if (first < columns) {
              body(block, begin, end, first, static_cast<int>(columns - first));
            }
          });
    });
  }
};

// body(block, begin, end, first, n) for every block of rows [begin, end) and every run of n
// columns from `first`, n at most lanes_per_thread: for sums over rows in order.
template <class Body>
void for_row_blocks(const std::string& label, Index rows, Index block_rows, Index columns,
                    const Body& body) {
  if (rows == 0 || columns == 0) return;
  constexpr Index per_team = RowBlockLoop<Body>::columns_per_team;
  const Index blocks = (rows + block_rows - 1) / block_rows;
  const Index groups = (columns + per_team - 1) / per_team;
  Kokkos::parallel_for(label, team_policy(blocks * groups, RowBlockLoop<Body>::threads),
                       RowBlockLoop<Body>{body, rows, block_rows, columns, groups});
}

// Pieces of a long run of elements. A power of two that divides block_elements of fixed_point.hpp.
inline constexpr Index chunk_elements = 512;

template <class Body>
struct ChunkLoop {
  static constexpr Index chunks_per_team = 8;
  Body body;
  Index elements;

  KOKKOS_INLINE_FUNCTION void operator()(const Member& member) const {
    Kokkos::parallel_for(Kokkos::TeamThreadRange(member, chunks_per_team), [&](const Index chunk) {
      const Index begin = (member.league_rank() * chunks_per_team + chunk) * chunk_elements;
      if (begin < elements) body(member, begin, Kokkos::min(begin + chunk_elements, elements));
    });
  }
};

// body(member, begin, end) for every chunk; the body spreads it over ThreadVectorRange.
template <class Body>
void for_chunks(const std::string& label, Index elements, const Body& body) {
  if (elements == 0) return;
  constexpr Index per_team = ChunkLoop<Body>::chunks_per_team * chunk_elements;
  Kokkos::parallel_for(
      label, team_policy((elements + per_team - 1) / per_team, ChunkLoop<Body>::chunks_per_team),
      ChunkLoop<Body>{body, elements});
}

// body(i) for i < n by one thread of a team with its vector lanes. Arrays that the body reads and
// writes may be the same, element by element, but not overlap otherwise: without that promise
// compilers look at run time whether they overlap, and what works in place stays scalar.
template <class Body>
KOKKOS_INLINE_FUNCTION void for_columns([[maybe_unused]] const Member& member, Index n,
                                        const Body& body) {
  if constexpr (on_host) {
#pragma GCC ivdep
    for (Index i = 0; i < n; ++i) body(i);
  } else {
    Kokkos::parallel_for(Kokkos::ThreadVectorRange(member, n), body);
  }
}

// Σ term(i) over i < n by one thread of a team with its vector lanes: lane l adds the terms
// l, l + 32, l + 64, …; then the lanes are added in a tree. The order is fixed.
template <class T, class Term>
KOKKOS_INLINE_FUNCTION T lane_sum([[maybe_unused]] const Member& member, Index n,
                                  const Term& term) {
  if constexpr (on_host) {
    T sum[vector_lanes] = {};
    Index i = 0;
    for (; i + vector_lanes <= n; i += vector_lanes) {
      for (int lane = 0; lane < vector_lanes; ++lane) sum[lane] += term(i + lane);
    }
    for (int lane = 0; i + lane < n; ++lane) sum[lane] += term(i + lane);
    for (int width = vector_lanes / 2; width > 0; width /= 2) {
      for (int lane = 0; lane < width; ++lane) sum[lane] += sum[lane + width];
    }
    return sum[0];
  } else {
    T sum = 0;
    Kokkos::parallel_reduce(
        Kokkos::ThreadVectorRange(member, vector_lanes),
        [&](const int lane, T& partial) {
          for (Index i = lane; i < n; i += vector_lanes) partial += term(i);
        },
        sum);
    return sum;
  }
}

// The largest term; NaN is passed over.
template <class T, class Term>
KOKKOS_INLINE_FUNCTION T lane_max([[maybe_unused]] const Member& member, Index n,
                                  const Term& term) {
  constexpr T lowest = -Kokkos::Experimental::infinity_v<T>;
  if constexpr (on_host) {
    T largest[vector_lanes];
    for (int lane = 0; lane < vector_lanes; ++lane) largest[lane] = lowest;
    const auto raise = [&](int lane, T value) {
      largest[lane] = value > largest[lane] ? value : largest[lane];
    };
    Index i = 0;
    for (; i + vector_lanes <= n; i += vector_lanes) {
      for (int lane = 0; lane < vector_lanes; ++lane) raise(lane, term(i + lane));
    }
    for (int lane = 0; i + lane < n; ++lane) raise(lane, term(i + lane));
    for (int lane = 1; lane < vector_lanes; ++lane) raise(0, largest[lane]);
    return largest[0];
  } else {
    T largest = lowest;
    Kokkos::parallel_reduce(
        Kokkos::ThreadVectorRange(member, vector_lanes),
        [&](const int lane, T& value) {
          for (Index i = lane; i < n; i += vector_lanes) value = term(i) > value ? term(i) : value;
        },
        Kokkos::Max<T>(largest));
    return largest;
  }
}

[[nodiscard]] KOKKOS_INLINE_FUNCTION constexpr Index chunks(Index elements) {
  return (elements + chunk_elements - 1) / chunk_elements;
}

// Σ term(i) over i < n by a whole team: lane sums of chunks, added in order. `partial` is team
// memory for chunks(n) numbers; every thread gets the sum.
template <class T, class Term>
KOKKOS_INLINE_FUNCTION double team_sum(const Member& member, double* partial, Index n,
                                       const Term& term) {
  Kokkos::parallel_for(Kokkos::TeamThreadRange(member, chunks(n)), [&](const Index chunk) {
    const Index begin = chunk * chunk_elements;
    const T sum = lane_sum<T>(member, Kokkos::min(Index{chunk_elements}, n - begin),
                              [&](const Index i) { return term(begin + i); });
    Kokkos::single(Kokkos::PerThread(member), [&]() { partial[chunk] = sum; });
  });
  member.team_barrier();
  double sum = 0;
  for (Index chunk = 0; chunk < chunks(n); ++chunk) sum += partial[chunk];
  member.team_barrier();  // before `partial` is used again
  return sum;
}

template <class T, class Term>
KOKKOS_INLINE_FUNCTION T team_max(const Member& member, double* partial, Index n,
                                  const Term& term) {
  Kokkos::parallel_for(Kokkos::TeamThreadRange(member, chunks(n)), [&](const Index chunk) {
    const Index begin = chunk * chunk_elements;
    const T largest = lane_max<T>(member, Kokkos::min(Index{chunk_elements}, n - begin),
                                  [&](const Index i) { return term(begin + i); });
    Kokkos::single(Kokkos::PerThread(member), [&]() { partial[chunk] = largest; });
  });
  member.team_barrier();
  double largest = -Kokkos::Experimental::infinity_v<double>;
  for (Index chunk = 0; chunk < chunks(n); ++chunk) {
    largest = partial[chunk] > largest ? partial[chunk] : largest;
  }
  member.team_barrier();
  return static_cast<T>(largest);
}

}  // namespace hearth::kernels
