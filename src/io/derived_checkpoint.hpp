// Reading the tensors of one model out of the checkpoint of another that it is made of.
#pragma once

#include "io/checkpoint.hpp"
#include "model/derived_tensors.hpp"

namespace hearth {

// Fills those elements of the parts that come from the checkpoint, in group model_group; others and
// the padding stay as they are. `sources` is one for each tensor of `table`. Every rank reads what
// its own parts need. Sums of several terms are made in double precision, in their order.
// Collective; the checkpoint's checksums are not looked at: read_checkpoint() has done so.
template <class T>
void read_derived(const Communicator& world, const std::string& path, const TensorTable& table,
                  const TensorSources& sources, const std::vector<TensorPart<T>>& parts);

}  // namespace hearth
