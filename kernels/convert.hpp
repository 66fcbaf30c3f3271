// Elements of one type as elements of another.
#pragma once

#include <cassert>

#include "base/types.hpp"

namespace hearth::kernels {

// to[i] = from[i], rounded to nearest even where To is shorter. One of From and To is float, the
// other bfloat16.
template <class From, class To>
void convert(const Array1<const From>& from, const Array1<To>& to);  // (elements)

template <class From, class To>
void convert(const Array2<const From>& from, const Array2<To>& to) {  // (rows, columns)
  assert(from.extent(0) == to.extent(0) && from.extent(1) == to.extent(1));
  assert(from.span_is_contiguous() && to.span_is_contiguous());
  convert<From, To>(Array1<const From>(from.data(), from.size()), Array1<To>(to.data(), to.size()));
}

}  // namespace hearth::kernels
