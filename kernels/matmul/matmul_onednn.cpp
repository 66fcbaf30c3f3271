// Single precision on the CPU through oneDNN: each tile is one call on one thread.
#include <dnnl.h>
#include <omp.h>

#include <type_traits>

#include "base/error.hpp"
#include "kernels/matmul/backend.hpp"
#include "kernels/matmul/portable.hpp"
#include "kernels/matmul/tiling.hpp"

namespace hearth::kernels {

namespace {

// Tiles of c, each a call. Large enough that a call runs as fast as one for the whole product
// (within 5 %, measured on the shapes of FLAME-MoE models on AVX-512), small enough that there is
// one for every thread; least so in weight gradients, which are small and have a long inner sum.
constexpr TileShape tile_shape(Operation operation) {
  return operation == Operation::tn ? TileShape{128, 256, 16, 16} : TileShape{256, 256, 16, 16};
}

// oneDNN would take all threads where Kokkos runs on a single one, for then its calls do not
// stand in an active parallel region; and its sums may depend on the number of threads.
class OneThread {
 public:
  OneThread() : threads_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(threads_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int threads_;
};

dnnl_status_t multiply_tile(const TiledProblem<float, float>& entry, Index tile,
                            Operation operation, Output output) {
  const Problem<float, float>& p = entry.problem;
  const Index row = tile / entry.columns.parts, column = tile % entry.columns.parts;
  const Index m0 = entry.rows.begin(row), n0 = entry.columns.begin(column);
  const bool a_transposed = operation == Operation::tn, b_transposed = operation == Operation::nt;
  const OneThread one_thread;
  return dnnl_sgemm(a_transposed ? 'T' : 'N', b_transposed ? 'T' : 'N', entry.rows.size(row),
                    entry.columns.size(column), p.k, 1.0F, p.a + m0 * (a_transposed ? 1 : p.lda),
                    p.lda, p.b + n0 * (b_transposed ? p.ldb : 1), p.ldb,
                    output == Output::add ? 1.0F : 0.0F, p.c + m0 * p.ldc + n0, p.ldc);
}

}  // namespace

struct Matmul::Vendor::Library {};

Matmul::Vendor::Vendor() = default;
Matmul::Vendor::~Vendor() = default;

template <class T, class C>
void Matmul::Vendor::run(const std::vector<Problem<T, C>>& problems, Operation operation,
                         Output output) {
  if constexpr (std::is_same_v<T, float>) {
    Index tiles = 0;
    const auto tiled = cut_into_tiles(problems, tile_shape(operation), tiles);
    const auto* list = tiled.data();
    const Index count = static_cast<Index>(tiled.size());
    HostArray1<int> failed("matmul_failed", 1);
    using Policy =
        Kokkos::RangePolicy<HostExec, Kokkos::Schedule<Kokkos::Dynamic>, Kokkos::IndexType<Index>>;
    Kokkos::parallel_for(
        "matmul_onednn", Policy(0, tiles, Kokkos::ChunkSize(1)), [=](const Index tile) {
          const TiledProblem<float, float>& entry = problem_of_tile(list, count, tile);
          const dnnl_status_t status = multiply_tile(entry, tile - entry.first, operation, output);
          if (status != dnnl_success) Kokkos::atomic_store(&failed(0), static_cast<int>(status));
        });
    if (failed(0) != 0) throw failure("oneDNN: dnnl_sgemm failed with status ", failed(0));
  } else {
    run_portable<T, C>(problems, operation, output);
  }
}

#define HEARTH_INSTANTIATE(T, C) \
  template void Matmul::Vendor::run<T, C>(const std::vector<Problem<T, C>>&, Operation, Output)
HEARTH_INSTANTIATE(float, float);
HEARTH_INSTANTIATE(double, double);
HEARTH_INSTANTIATE(bfloat16, bfloat16);
HEARTH_INSTANTIATE(bfloat16, float);
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
