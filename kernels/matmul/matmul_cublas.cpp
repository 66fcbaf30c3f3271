// The products on NVIDIA GPUs: one cuBLAS call per problem, on Kokkos' stream. For one GPU model
// and library version cuBLAS repeats its results bitwise on one stream with a fixed workspace.
#include <cublas_v2.h>

#include <Kokkos_Core.hpp>
#include <type_traits>

#include "base/error.hpp"
#include "kernels/matmul/backend.hpp"

namespace hearth::kernels {

namespace {

constexpr std::size_t workspace_bytes = std::size_t{32} << 20;  // cuBLAS' advice for Hopper

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
    require(cublasSetMathMode(handle, CUBLAS_PEDANTIC_MATH), "cublasSetMathMode");
    require(cublasSetAtomicsMode(handle, CUBLAS_ATOMICS_NOT_ALLOWED), "cublasSetAtomicsMode");
  }
  ~Library() { cublasDestroy(handle); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
};

Matmul::Vendor::Vendor() : library(std::make_unique<Library>()) {}
Matmul::Vendor::~Vendor() = default;

template <class T>
void Matmul::Vendor::run(const std::vector<Problem<T>>& problems, Operation operation,
                         Output output) {
  constexpr bool single = std::is_same_v<T, float>;
  constexpr cudaDataType_t type = single ? CUDA_R_32F : CUDA_R_64F;
  constexpr cublasComputeType_t compute =
      single ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_64F_PEDANTIC;
  const T alpha = 1, beta = output == Output::add ? 1 : 0;
  // cuBLAS is column-major: it sees every array transposed and computes cᵀ = op(b)ᵀ op(a)ᵀ.
  const cublasOperation_t op_a = operation == Operation::tn ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t op_b = operation == Operation::nt ? CUBLAS_OP_T : CUBLAS_OP_N;
  for (const Problem<T>& p : problems) {
    require(
        cublasGemmEx_64(library->handle, op_b, op_a, p.n, p.m, p.k, &alpha, p.b, type, p.ldb, p.a,
                        type, p.lda, &beta, p.c, type, p.ldc, compute, CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx");
  }
}

template void Matmul::Vendor::run<float>(const std::vector<Problem<float>>&, Operation, Output);
template void Matmul::Vendor::run<double>(const std::vector<Problem<double>>&, Operation, Output);

}  // namespace hearth::kernels
