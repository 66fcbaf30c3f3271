// Element types, array aliases and the legend of axis names.
//
// Axis names, used in the shape comment beside every array:
//   tokens      rows of the residual stream in one cell (cell_sequences · sequence_length)
//   hidden      width of the residual stream
//   heads, kv_heads, head_dim
//   ffn         inner width of a SwiGLU (dense, expert or shared)
//   experts     routed experts, in logical order; local_experts: those this rank owns
//   destinations  where a router can send a token: experts, then those without matrices
//   k           experts a token is sent to (moe.top_k); slots: the most that its router allows
//   rows        token copies on their way to, or at, their experts, padded by segment
//   vocabulary  rows of the embedding and of the head
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>

#include "base/bfloat16.hpp"
#include "base/pages.hpp"

namespace hearth {

using Index = std::int64_t;

using Exec = Kokkos::DefaultExecutionSpace;
using HostExec = Kokkos::DefaultHostExecutionSpace;
using Memory = Exec::memory_space;

// Row-major arrays in the memory of the execution space; the last axis is contiguous.
template <class T>
using Array1 = Kokkos::View<T*, Kokkos::LayoutRight, Memory>;
template <class T>
using Array2 = Kokkos::View<T**, Kokkos::LayoutRight, Memory>;
template <class T>
using Array3 = Kokkos::View<T***, Kokkos::LayoutRight, Memory>;

// The same on the host, for what the host must read or fill.
template <class T>
using HostArray1 = Kokkos::View<T*, Kokkos::LayoutRight, Kokkos::HostSpace>;
template <class T>
using HostArray2 = Kokkos::View<T**, Kokkos::LayoutRight, Kokkos::HostSpace>;

template <class View>
inline constexpr bool is_host_array =
    Kokkos::SpaceAccessibility<Kokkos::HostSpace, typename View::memory_space>::accessible;

template <class View>
std::size_t bytes_of(const View& array) {
  return array.size() * sizeof(typename View::value_type);
}

// An array whose contents the caller is about to write.
template <class View, class... Extents>
View uninitialized(const std::string& label, Extents... extents) {
  const View array(Kokkos::view_alloc(label, Kokkos::WithoutInitializing), extents...);
  if constexpr (is_host_array<View>) advise_huge_pages(array.data(), bytes_of(array));
  return array;
}

// The same with zeros, for large ones: a View's own constructor touches all of them, which takes
// longer than anything else in a program's start.
template <class View, class... Extents>
View zeroed(const std::string& label, Extents... extents) {
  const View array = uninitialized<View>(label, extents...);
  if constexpr (is_host_array<View>) {
    clear_pages(array.data(), bytes_of(array));
  } else {
    Kokkos::deep_copy(array, typename View::value_type(0));
  }
  return array;
}

// Rows [begin, end).
template <class T>
Array2<T> rows_of(const Array2<T>& a, Index begin, Index end) {
  return Array2<T>(a.data() + begin * static_cast<Index>(a.extent(1)), end - begin, a.extent(1));
}

// Elements [begin, end) of a one-dimensional array.
template <class A>
A run_of(const A& a, Index begin, Index end) {
  return Kokkos::subview(a, Kokkos::pair<Index, Index>(begin, end));
}

}  // namespace hearth
