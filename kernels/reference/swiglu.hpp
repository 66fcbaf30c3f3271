// Oracle of kernels/swiglu.hpp.
#pragma once

#include "kernels/reference/scalar.hpp"

namespace hearth::kernels::reference {

template <class S>
Vector<S> swiglu(const Vector<S>& gate, const Vector<S>& up) {
  using std::exp;
  Vector<S> out(gate.size());
  for (std::size_t i = 0; i < gate.size(); ++i) out[i] = gate[i] / (1.0 + exp(-gate[i])) * up[i];
  return out;
}

template <class S>
struct SwigluGradients {
  Vector<S> dgate, dup;
};

template <class S>
SwigluGradients<S> swiglu_backward(const Vector<S>& dout, const Vector<S>& gate,
                                   const Vector<S>& up) {
  using std::exp;
  SwigluGradients<S> result{Vector<S>(gate.size()), Vector<S>(gate.size())};
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const S e = exp(-gate[i]);
    const S slope = (1.0 + e + gate[i] * e) / ((1.0 + e) * (1.0 + e));
    result.dgate[i] = dout[i] * up[i] * slope;
    result.dup[i] = dout[i] * gate[i] / (1.0 + e);
  }
  return result;
}

}  // namespace hearth::kernels::reference
