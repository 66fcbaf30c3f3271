// A buffer for a number of rows that the step decides: it grows geometrically and never shrinks.
#pragma once

#include <algorithm>

#include "base/types.hpp"

namespace hearth {

template <class T>
class GrowingArray {
 public:
  explicit GrowingArray(std::string label) : label_(std::move(label)) {}

  // `rows` rows of `width`; contents are lost when it grows.
  Array2<T> rows(Index rows, Index width) {
    const Index elements = rows * width;
    if (static_cast<Index>(storage_.extent(0)) < elements) {
      const Index grown = std::max(elements, static_cast<Index>(storage_.extent(0)) * 3 / 2);
      storage_ = Array1<T>();  // before the new one, so that both never exist
      storage_ = uninitialized<Array1<T>>(label_, grown);
    }
    return Array2<T>(storage_.data(), rows, width);
  }

 private:
  std::string label_;
  Array1<T> storage_;
};

}  // namespace hearth
