// The one table of tensors. Initialisation, optimizer, checkpoint and export iterate over it.
#pragma once

#include <string>
#include <vector>

#include "base/types.hpp"
#include "config/config.hpp"

namespace hearth {

// The axes of the mesh over which a tensor is cut; on the other axes it is repeated, and its
// gradient is summed over them.
enum class Owner {
  everyone,  // cut over no axis: every rank holds it whole
  experts    // first axis cut over "expert": a rank holds the experts that it owns
};

enum class Initial { normal, ones };

struct TensorInfo {
  std::string name;               // "layers/01/experts/gate"; its path in HDF5 files
  std::vector<Index> shape;       // global
  std::vector<std::string> axes;  // names of the axes, as in base/types.hpp
  Owner owner = Owner::everyone;
  Initial initial = Initial::normal;
  double init_std = 0;        // of Initial::normal
  bool decay = true;          // weight decay applies
  std::string hugging_face;   // name there; "{}" stands for the expert's number
  std::string alias_of = {};  // not a tensor of its own: another name of that one (tied)
  Index moe_layer = -1;       // of Owner::experts: the number among the layers with experts

  [[nodiscard]] Index elements() const;
  // An expert tensor is a stack of slices, one per expert, every other one is a single slice.
  // Norm blocks and shards start anew with each slice.
  [[nodiscard]] Index slices() const { return owner == Owner::experts ? shape[0] : 1; }
  [[nodiscard]] Index slice_elements() const { return elements() / slices(); }
};

using TensorTable = std::vector<TensorInfo>;

// Every tensor of the model, in the order in which a token meets them.
[[nodiscard]] TensorTable make_tensor_table(const Config& config);

// The number of each tensor's first slice when all slices of the table are numbered in its order,
// and at the end how many there are; an alias has none.
[[nodiscard]] std::vector<Index> first_slices(const TensorTable& table);  // (tensors + 1)

// "layers/07/" with two digits at least.
[[nodiscard]] std::string layer_prefix(Index layer);

}  // namespace hearth
