// The products on NVIDIA GPUs: one cuBLAS call per problem, on Kokkos' stream. For one GPU model
// and library version cuBLAS repeats its results bitwise on one stream with a fixed workspace.
// Segments in bfloat16 have a kernel of their own, which takes them all in one launch and rounds
// once.
#include <cublas_v2.h>

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <type_traits>

#include "base/error.hpp"
#include "kernels/matmul/backend.hpp"
#include "kernels/matmul/grouped_cuda.hpp"

namespace hearth::kernels {

namespace {

constexpr std::size_t workspace_bytes = std::size_t{32} << 20;  // cuBLAS' advice for Hopper

template <class T>
constexpr cudaDataType_t type = CUDA_R_32F;
template <>
constexpr cudaDataType_t type<double> = CUDA_R_64F;
template <>
constexpr cudaDataType_t type<bfloat16> = CUDA_R_16BF;

// In what products of T are summed. The tensor cores' order of addition is their own for bfloat16;
// pedantic sums would pass them by.
template <class T>
constexpr cublasComputeType_t compute = CUBLAS_COMPUTE_32F_PEDANTIC;
template <>
constexpr cublasComputeType_t compute<double> = CUBLAS_COMPUTE_64F_PEDANTIC;
template <>
constexpr cublasComputeType_t compute<bfloat16> = CUBLAS_COMPUTE_32F;

// Whether cuBLAS may split the inner dimension of one of the products: it does so where the output
// has few tiles. What it then adds to a c of bfloat16 is rounded before, and the sum once more.
template <class T, class C>
bool is_split(const std::vector<Problem<T, C>>& problems) {
  constexpr Index tile = 128 * 64, multiprocessors = 132;  // of Hopper
  return std::any_of(problems.begin(), problems.end(),
                     [](const Problem<T, C>& p) { return p.m * p.n < tile * multiprocessors; });
}

void require(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw failure("cuBLAS: ", call, " failed: ", cublasGetStatusString(status));
  }
}

}  // namespace

struct Matmul::Vendor::Library {
  cublasHandle_t handle = nullptr;
  Kokkos::View<char*, Memory> workspace;

  Library()
      : workspace(uninitialized<Kokkos::View<char*, Memory>>("cublas_workspace", workspace_bytes)) {
    require(cublasCreate(&handle), "cublasCreate");
    // Setting the stream takes the workspace away: the stream comes first.
    require(cublasSetStream(handle, Exec().cuda_stream()), "cublasSetStream");
    require(cublasSetWorkspace(handle, workspace.data(), workspace.size()), "cublasSetWorkspace");
    // Pedantic single precision is asked for by the compute type, call by call; the mode keeps
    // bfloat16 products from adding their parts in bfloat16.
    constexpr auto mode = static_cast<cublasMath_t>(
        CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
    require(cublasSetMathMode(handle, mode), "cublasSetMathMode");
    require(cublasSetAtomicsMode(handle, CUBLAS_ATOMICS_NOT_ALLOWED), "cublasSetAtomicsMode");
  }
  ~Library() { cublasDestroy(handle); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
};

Matmul::Vendor::Vendor(Bfloat16Products /*products*/) : library(std::make_unique<Library>()) {}
Matmul::Vendor::~Vendor() = default;

template <class T, class C>
void Matmul::Vendor::run(const std::vector<Problem<T, C>>& problems, Operation operation,
                         Output output, Grouping grouping) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    if (grouping == Grouping::grouped ||
        (output == Output::add && std::is_same_v<C, bfloat16> && is_split(problems))) {
      run_grouped_cuda(problems, operation, output);
      return;
    }
  }
  // cuBLAS is column-major: it sees every array transposed and computes cᵀ = op(b)ᵀ op(a)ᵀ.
  const cublasOperation_t op_a = operation == Operation::tn ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t op_b = operation == Operation::nt ? CUBLAS_OP_T : CUBLAS_OP_N;
  const Real<T> alpha = 1, beta = output == Output::add ? 1 : 0;
  for (const Problem<T, C>& p : problems) {
    require(cublasGemmEx_64(library->handle, op_b, op_a, p.n, p.m, p.k, &alpha, p.b, type<T>, p.ldb,
                            p.a, type<T>, p.lda, &beta, p.c, type<C>, p.ldc, compute<T>,
                            CUBLAS_GEMM_DEFAULT),
            "cublasGemmEx");
  }
}

#define HEARTH_INSTANTIATE(T, C)                                                                \
  template void Matmul::Vendor::run<T, C>(const std::vector<Problem<T, C>>&, Operation, Output, \
                                          Grouping)
HEARTH_FOR_PRODUCT_TYPES(HEARTH_INSTANTIATE)
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
