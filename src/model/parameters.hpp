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
  Array2<std::int64_t> overflow;  // (layout.slices(), 2): gradient elements of this step that were
                                  // not finite, were too large; none are counted in plain sums
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
  [[nodiscard]] const Arena<T>& arena(Owner owner) const {
    return arenas_[static_cast<std::size_t>(owner)];
  }

  // Tensors by their names in the table (aliases too); for layers, when they are built.
  [[nodiscard]] Array1<const T> vector(const std::string& name) const;
  [[nodiscard]] Array2<const T> matrix(const std::string& name) const;
  [[nodiscard]] ExpertWeights<T> experts(const std::string& name) const;
  [[nodiscard]] kernels::GradientSum<Real<T>> gradient(const std::string& name) const;

  void clear_gradients();

  // Gradient elements of this step and rank that could not be summed, by slice of the whole table
  // (first_slices): [2 s] those that are not finite, [2 s + 1] those that are too large.
  [[nodiscard]] std::vector<std::int64_t> overflow() const;  // (2 · slices)
  // Elements of this rank's weights that are not finite.
  [[nodiscard]] std::vector<std::int64_t> non_finite_weights() const;  // (slices of the table)

 private:
  struct Place {
    const TensorInfo* info;
    Index begin, elements;
    const Arena<T>* arena;
  };
  [[nodiscard]] Place find(const std::string& name) const;
  [[nodiscard]] std::size_t number_of(const ArenaSlice& slice) const {  // in the whole table
    return static_cast<std::size_t>(first_slices_[static_cast<std::size_t>(slice.tensor)] +
                                    slice.slice);
  }

  TensorTable table_;
  std::vector<Index> first_slices_;
  std::array<Arena<T>, 2> arenas_;
  double cells_;
};

// Sets elements of an arena to their initial values: a pure function of seed, name and global
// index, made in double precision on the host.
template <class T>
void initialize(const TensorTable& table, const ArenaLayout& layout, std::uint64_t seed,
                Range range, const HostArray1<T>& weights);  // (range.size())

}  // namespace hearth
