// AdamW (Loshchilov, Hutter 2019), equation (16) of docs/equations.md.
#pragma once

#include "kernels/checksum.hpp"

namespace hearth::kernels {

// What one step needs beside the arrays; a pure function of deck and step.
struct AdamStep {
  double learning_rate;
  double beta1, beta2, epsilon, weight_decay;
  double correction1, correction2;  // 1 - beta1^t, 1 - beta2^t with t from 1
  double gradient_scale;            // clipping
};

// Updates a run of elements; arithmetic in double precision, element by element. The gradient is
// a sum of fixed_point.hpp, fixed or plain; decay[block] says whether weight decay applies to the
// elements of that block of block_elements. `rounded` is assigned the weights as the model computes
// with them; where T is Real<T> those are the weights themselves, and it is not looked at.
template <class T, class G>
void adam(const AdamStep& step, const Array1<const G>& gradient,  // (elements)
          const Array1<const std::uint8_t>& decay,                // (blocks)
          const Array1<Real<T>>& weight,                          // (elements)
          const Array1<Real<T>>& first_moment,                    // (elements)
          const Array1<Real<T>>& second_moment,                   // (elements)
          const Array1<T>& rounded = {},                          // (elements)
          const ChunkChecksums& checksums = {});

}  // namespace hearth::kernels
