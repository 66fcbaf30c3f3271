// Rotary position embedding (Su et al. 2021), half rotation: element i is paired with element
// i + head_dim/2 of its head. Equation (3) of docs/equations.md.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

// cosine[p][i] and sine[p][i] of the angle p · base^(-2i/head_dim), made in double precision on
// the host. head_dim must be even.
template <class T>
struct RotaryTable {  // T: float or double
  RotaryTable(Index positions, Index head_dim, double base);
  Array2<T> cosine;  // (positions, head_dim/2)
  Array2<T> sine;    // (positions, head_dim/2)
};

// Rotates every head of every row, in place, by the angle of the row's position.
template <class T>
void rotate(const Array2<T>& x,                 // (tokens, heads · head_dim)
            Index head_dim,                     //
            const Array1<const int>& position,  // (tokens)
            const RotaryTable<Real<T>>& table);

// The adjoint of rotate: the rotation by minus the angle.
template <class T>
void rotate_backward(const Array2<T>& dx, Index head_dim, const Array1<const int>& position,
                     const RotaryTable<Real<T>>& table);

}  // namespace hearth::kernels
