#include "io/flat_range.hpp"

#include <functional>
#include <numeric>

namespace hearth {

namespace {

Index product(const std::vector<Index>& factors) {
  return std::accumulate(factors.begin(), factors.end(), Index{1}, std::multiplies<>());
}

class BoxFinder {
 public:
  explicit BoxFinder(const std::vector<Index>& dims) : dims_(dims), row_(dims.size(), 1) {
    for (std::size_t axis = dims.size(); axis-- > 1;) row_[axis - 1] = row_[axis] * dims[axis];
    current_ = {std::vector<Index>(dims.size(), 0), std::vector<Index>(dims.size(), 1)};
  }

  // `range` counts elements within the sub-array that the indices before `axis` select.
  void find(std::size_t axis, Range range) {
    if (range.size() <= 0) return;
    const Index row = row_[axis];
    Index first = range.begin / row;
    const Index last = range.end / row;
    const Index head = range.begin % row, tail = range.end % row;
    if (head != 0) {  // begins inside row `first`
      const Index end = first < last ? row : tail;
      find_in_row(axis, first, {head, end});
      if (first == last) return;
      ++first;
    }
    if (first < last) {  // whole rows
      current_.start[axis] = first;
      current_.count[axis] = last - first;
      for (std::size_t inner = axis + 1; inner < dims_.size(); ++inner) {
        current_.start[inner] = 0;
        current_.count[inner] = dims_[inner];
      }
      boxes_.push_back(current_);
    }
    find_in_row(axis, last, {0, tail});
  }

  [[nodiscard]] std::vector<Box> boxes() { return std::move(boxes_); }

 private:
  void find_in_row(std::size_t axis, Index row, Range range) {
    current_.start[axis] = row;
    current_.count[axis] = 1;
    if (range.size() > 0) find(axis + 1, range);
  }

  const std::vector<Index>& dims_;
  std::vector<Index> row_;  // elements in one step along each axis
  Box current_;
  std::vector<Box> boxes_;
};

}  // namespace

Index Box::elements() const {
  return product(count);
}

std::vector<Box> flat_boxes(const std::vector<Index>& dims, Range range) {
  if (range.size() <= 0) return {};
  BoxFinder finder(dims);
  finder.find(0, range);
  return finder.boxes();
}

}  // namespace hearth
