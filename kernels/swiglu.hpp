// Gated linear unit with SiLU (Shazeer 2020), equation (6) of docs/equations.md.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

// out = silu(gate) · up, silu(z) = z / (1 + exp(-z)). `out` may be `up`.
template <class T>
void swiglu(const Array2<const T>& gate,  // (rows, ffn)
            const Array2<const T>& up,    // (rows, ffn)
            const Array2<T>& out);        // (rows, ffn)

// dgate and dup are assigned; either may be the array it differentiates, or dout.
template <class T>
void swiglu_backward(const Array2<const T>& dout, const Array2<const T>& gate,
                     const Array2<const T>& up, const Array2<T>& dgate, const Array2<T>& dup);

}  // namespace hearth::kernels
