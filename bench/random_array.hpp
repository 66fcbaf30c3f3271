// Arrays of normal numbers.
#pragma once

#include <string>

#include "base/random.hpp"
#include "base/types.hpp"

namespace hearth::bench {

template <class T>
Array2<T> random_array(const std::string& name, Index rows, Index columns, double deviation = 1) {
  const auto array = uninitialized<Array2<T>>(name, rows, columns);
  const auto host = Kokkos::create_mirror_view(array);
  std::vector<double> values(array.size());
  RandomStream(1, name).normals(0, values);
  for (std::size_t i = 0; i < values.size(); ++i) {
    host.data()[i] = static_cast<T>(static_cast<Real<T>>(deviation * values[i]));
  }
  Kokkos::deep_copy(array, host);
  return array;
}

}  // namespace hearth::bench
