// From the deck's name of a type to the type.
#pragma once

#include "base/types.hpp"
#include "config/config.hpp"

namespace hearth {

// work(a value of the type that the model computes in), and what it returns.
template <class Work>
auto with_compute_type(const ModelConfig& model, const Work& work) {
  if (model.compute_type == "fp64") return work(double());
  if (model.compute_type == "bf16") return work(bfloat16());
  return work(float());
}

}  // namespace hearth
