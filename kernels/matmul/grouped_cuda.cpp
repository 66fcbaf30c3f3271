#include "kernels/matmul/grouped_cuda.hpp"

#include <mma.h>

#include <algorithm>

#include "base/error.hpp"

namespace hearth::kernels {

namespace {

using nvcuda::wmma::fragment;

// A block of 8 warps computes a tile of c; each warp 2 x 2 of the tensor cores' 16 x 16.
constexpr int tile_m = 128, tile_n = 64, depth = 32, edge = 16;
constexpr int warps_m = 4, warps_n = 2, threads = 32 * warps_m * warps_n;
constexpr int per_warp = 2;
static_assert(tile_m == warps_m * per_warp * edge && tile_n == warps_n * per_warp * edge);
constexpr int vector = 8;  // elements in 16 bytes

// Shape of a launch's problems beside their number of tiles; as an argument of a kernel it may have
// 4 KiB.
template <class C>
struct Item {
  const bfloat16* a;
  const bfloat16* b;
  C* c;
  int m, n, k, lda, ldb, ldc;
  int first;    // number of its first tile
  int columns;  // tiles in a row of tiles
};
constexpr int most_items = 60;
template <class C>
struct Items {
  Item<C> item[most_items];
  int count;
};
static_assert(sizeof(Items<float>) <= 4096 - 16);  // with the other argument

// A piece of an operand, `lines` x `length` elements of which `length` are consecutive in memory,
// on its way through a thread's registers to shared memory. Rows of shared memory are longer by one
// vector, so that those of a fragment lie in different banks.
template <int lines, int length>
struct Piece {
  static constexpr int stride = length + vector;
  static constexpr int elements = lines * stride;
  static constexpr int per_line = length / vector, per_thread = lines * per_line / threads;
  static_assert(lines * per_line % threads == 0);
  uint4 held[per_thread];

  // source[line][i], zero from line `valid_lines` and from element `valid_length`.
  __device__ void load(const bfloat16* source, int ld, int valid_lines, int valid_length) {
    const bool aligned = ld % vector == 0 && reinterpret_cast<std::uintptr_t>(source) % 16 == 0;
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
      const int number = static_cast<int>(threadIdx.x) + i * threads;
      const int line = number / per_line, begin = number % per_line * vector;
      const bfloat16* from = source + static_cast<Index>(line) * ld + begin;
      if (line < valid_lines && aligned && begin + vector <= valid_length) {
        held[i] = *reinterpret_cast<const uint4*>(from);
      } else {
        std::uint32_t word[4];
#pragma unroll
        for (int w = 0; w < 4; ++w) {
          const bool low = line < valid_lines && begin + 2 * w < valid_length;
          const bool high = line < valid_lines && begin + 2 * w + 1 < valid_length;
          word[w] = (low ? from[2 * w].bits : 0U) |
                    (high ? static_cast<std::uint32_t>(from[2 * w + 1].bits) << 16 : 0U);
        }
        held[i] = {word[0], word[1], word[2], word[3]};
      }
    }
  }

  __device__ void store(__nv_bfloat16* shared) const {
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
      const int number = static_cast<int>(threadIdx.x) + i * threads;
      const int line = number / per_line, begin = number % per_line * vector;
      *reinterpret_cast<uint4*>(shared + line * stride + begin) = held[i];
    }
  }
};

template <class C>
__device__ void put(C* to, float sum, bool add) {
  *to = static_cast<C>(add ? static_cast<float>(*to) + sum : sum);
}

template <Operation operation, class C>
__global__ void __launch_bounds__(threads)
    multiply_items(const __grid_constant__ Items<C> items, const bool add) {
  constexpr bool a_transposed = operation == Operation::tn;
  constexpr bool b_transposed = operation == Operation::nt;
  using PieceA = std::conditional_t<a_transposed, Piece<depth, tile_m>, Piece<tile_m, depth>>;
  using PieceB = std::conditional_t<b_transposed, Piece<tile_n, depth>, Piece<depth, tile_n>>;
  using LayoutA =
      std::conditional_t<a_transposed, nvcuda::wmma::col_major, nvcuda::wmma::row_major>;
  using LayoutB =
      std::conditional_t<b_transposed, nvcuda::wmma::col_major, nvcuda::wmma::row_major>;
  constexpr int sum_stride = tile_n + 4;
  constexpr int operand_bytes = 2 * (PieceA::elements + PieceB::elements) * 2;
  constexpr int sum_bytes = tile_m * sum_stride * 4;
  // The operands' two stages and, when those are done with, the sums.
  __shared__ __align__(128) char memory[operand_bytes > sum_bytes ? operand_bytes : sum_bytes];
  auto* const shared_a = reinterpret_cast<__nv_bfloat16*>(memory);
  auto* const shared_b = shared_a + 2 * PieceA::elements;

  const int tile = static_cast<int>(blockIdx.x);
  int low = 0, high = items.count;  // item[low].first <= tile < item[high].first
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (items.item[middle].first <= tile ? low : high) = middle;
  }
  const Item<C>& p = items.item[low];
  const int m0 = (tile - p.first) / p.columns * tile_m;
  const int n0 = (tile - p.first) % p.columns * tile_n;
  const int m = min(tile_m, p.m - m0), n = min(tile_n, p.n - n0);

  PieceA a;
  PieceB b;
  const auto load = [&](int k0) {
    const int k = min(depth, p.k - k0);
    if constexpr (a_transposed) {
      a.load(p.a + static_cast<Index>(k0) * p.lda + m0, p.lda, k, m);
    } else {
      a.load(p.a + static_cast<Index>(m0) * p.lda + k0, p.lda, m, k);
    }
    if constexpr (b_transposed) {
      b.load(p.b + static_cast<Index>(n0) * p.ldb + k0, p.ldb, n, k);
    } else {
      b.load(p.b + static_cast<Index>(k0) * p.ldb + n0, p.ldb, k, n);
    }
  };
  const auto store = [&](int stage) {
    a.store(shared_a + stage * PieceA::elements);
    b.store(shared_b + stage * PieceB::elements);
  };

  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warp_m = warp / warps_n * per_warp * edge, warp_n = warp % warps_n * per_warp * edge;
  fragment<nvcuda::wmma::accumulator, edge, edge, edge, float> sum[per_warp][per_warp];
#pragma unroll
  for (int i = 0; i < per_warp; ++i) {
#pragma unroll
    for (int j = 0; j < per_warp; ++j) nvcuda::wmma::fill_fragment(sum[i][j], 0.0f);
  }

  load(0);
  store(0);
  __syncthreads();
  int stage = 0;
  for (int k0 = 0; k0 < p.k; k0 += depth) {
    const bool more = k0 + depth < p.k;
    if (more) load(k0 + depth);  // while the tensor cores work on what is in shared memory
    const __nv_bfloat16* stage_a = shared_a + stage * PieceA::elements;
    const __nv_bfloat16* stage_b = shared_b + stage * PieceB::elements;
#pragma unroll
    for (int k = 0; k < depth; k += edge) {
      fragment<nvcuda::wmma::matrix_a, edge, edge, edge, __nv_bfloat16, LayoutA> left[per_warp];
      fragment<nvcuda::wmma::matrix_b, edge, edge, edge, __nv_bfloat16, LayoutB> right[per_warp];
#pragma unroll
      for (int i = 0; i < per_warp; ++i) {
        const int row = warp_m + i * edge;
        nvcuda::wmma::load_matrix_sync(
            left[i], stage_a + (a_transposed ? k * PieceA::stride + row : row * PieceA::stride + k),
            PieceA::stride);
        const int column = warp_n + i * edge;
        nvcuda::wmma::load_matrix_sync(
            right[i],
            stage_b + (b_transposed ? column * PieceB::stride + k : k * PieceB::stride + column),
            PieceB::stride);
      }
#pragma unroll
      for (int i = 0; i < per_warp; ++i) {
#pragma unroll
        for (int j = 0; j < per_warp; ++j) {
          nvcuda::wmma::mma_sync(sum[i][j], left[i], right[j], sum[i][j]);
        }
      }
    }
    if (more) store(1 - stage);
    __syncthreads();
    stage = 1 - stage;
  }

  auto* const shared_sum = reinterpret_cast<float*>(memory);
#pragma unroll
  for (int i = 0; i < per_warp; ++i) {
#pragma unroll
    for (int j = 0; j < per_warp; ++j) {
      nvcuda::wmma::store_matrix_sync(
          shared_sum + (warp_m + i * edge) * sum_stride + warp_n + j * edge, sum[i][j], sum_stride,
          nvcuda::wmma::mem_row_major);
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < tile_m * tile_n; i += threads) {
    const int row = i / tile_n, column = i % tile_n;
    if (row < m && column < n) {
      put(p.c + static_cast<Index>(m0 + row) * p.ldc + n0 + column,
          shared_sum[row * sum_stride + column], add);
    }
  }
}

template <Operation operation, class C>
void launch(const std::vector<Problem<bfloat16, C>>& problems, bool add) {
  for (std::size_t begin = 0; begin < problems.size(); begin += most_items) {
    Items<C> items;
    items.count = static_cast<int>(std::min<std::size_t>(most_items, problems.size() - begin));
    int tiles = 0;
    for (int i = 0; i < items.count; ++i) {
      const Problem<bfloat16, C>& p = problems[begin + static_cast<std::size_t>(i)];
      const auto as_int = [](Index x) { return static_cast<int>(x); };
      const int columns = as_int((p.n + tile_n - 1) / tile_n);
      items.item[i] = {p.a,           p.b,         p.c,           as_int(p.m),
                       as_int(p.n),   as_int(p.k), as_int(p.lda), as_int(p.ldb),
                       as_int(p.ldc), tiles,       columns};
      tiles += as_int((p.m + tile_m - 1) / tile_m) * columns;
    }
    multiply_items<operation, C><<<tiles, threads, 0, Exec().cuda_stream()>>>(items, add);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) throw failure("grouped products: ", cudaGetErrorString(error));
  }
}

}  // namespace

template <class C>
void run_grouped_cuda(const std::vector<Problem<bfloat16, C>>& problems, Operation operation,
                      Output output) {
  const bool add = output == Output::add;
  if (operation == Operation::nt) launch<Operation::nt>(problems, add);
  if (operation == Operation::nn) launch<Operation::nn>(problems, add);
  if (operation == Operation::tn) launch<Operation::tn>(problems, add);
}

template void run_grouped_cuda<float>(const std::vector<Problem<bfloat16, float>>&, Operation,
                                      Output);
template void run_grouped_cuda<bfloat16>(const std::vector<Problem<bfloat16, bfloat16>>&, Operation,
                                         Output);

}  // namespace hearth::kernels
