// The weights that a rank computes with, and the sums of their gradients.
#pragma once

#include <array>

#include "kernels/fixed_point.hpp"
#include "kernels/matmul/matmul.hpp"
#include "model/arena.hpp"
#include "parallel/mesh.hpp"

namespace hearth {

// One arena: replicated tensors, or this rank's experts.
template <class T>
struct Arena {
  ArenaLayout layout;
  Array1<T> weights;                          // (elements), padding zero
  kernels::GradientArray<Real<T>> gradients;  // (elements), padding zero
};

// How a run sums its gradients.
[[nodiscard]] inline kernels::Summing summing(const RunConfig& run) {
  return run.reproducible ? kernels::Summing::fixed : kernels::Summing::plain;
}

// A stack of expert matrices and where their gradient is summed; matrix i is the i-th local expert.
template <class T>
struct ExpertWeights {
  kernels::MatrixStack<const T> stack;     // (local_experts, rows, columns)
  kernels::GradientSum<Real<T>> gradient;  // (local_experts · stride)
};

template <class T>
class Parameters {
 public:
  // Allocates; `cells` is the number of cells of a step, for the limit of gradient sums.
  Parameters(TensorTable table, const Mesh& mesh, Index cells,
             kernels::Summing summing = kernels::Summing::fixed);

  [[nodiscard]] const TensorTable& table() const { return table_; }
  [[nodiscard]] std::array<Arena<T>, 2>& arenas() { return arenas_; }  // by Owner
  [[nodiscard]] Arena<T>& arena(Owner owner) { return arenas_[static_cast<std::size_t>(owner)]; }
  [[nodiscard]] const std::vector<Index>& local_experts() const { return local_experts_; }

  // Tensors by their names in the table (aliases too); for layers, when they are built.
  [[nodiscard]] Array1<const T> vector(const std::string& name) const;
  [[nodiscard]] Array2<const T> matrix(const std::string& name) const;
  [[nodiscard]] ExpertWeights<T> experts(const std::string& name) const;
  [[nodiscard]] kernels::GradientSum<Real<T>> gradient(const std::string& name) const;

  // Gradient elements of this step that could not be summed; cleared by clear_gradients.
  [[nodiscard]] Array1<std::int64_t> overflow() const { return overflow_; }
  void clear_gradients();

 private:
  struct Place {
    const TensorInfo* info;
    Index begin, elements;
    const Arena<T>* arena;
  };
  [[nodiscard]] Place find(const std::string& name) const;

  TensorTable table_;
  std::vector<Index> local_experts_;
  std::array<Arena<T>, 2> arenas_;
  Array1<std::int64_t> overflow_;  // (1)
  double cells_;
};

// Sets elements of an arena to their initial values: a pure function of seed, name and global
// index, made in double precision on the host.
template <class T>
void initialize(const TensorTable& table, const ArenaLayout& layout, std::uint64_t seed,
                Range range, const HostArray1<T>& weights);  // (range.size())

}  // namespace hearth
