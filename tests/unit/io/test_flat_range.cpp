#include <numeric>

#include "catch.hpp"
#include "io/flat_range.hpp"

using namespace hearth;

namespace {

// The flat indices of a box's elements, ascending.
void list(const std::vector<Index>& dims, const Box& box, std::size_t axis, Index base,
          std::vector<Index>& into) {
  if (axis == dims.size()) {
    into.push_back(base);
    return;
  }
  for (Index i = 0; i < box.count[axis]; ++i) {
    list(dims, box, axis + 1, base * dims[axis] + box.start[axis] + i, into);
  }
}

}  // namespace

TEST_CASE("flat ranges are unions of few boxes, in order") {
  const std::vector<std::vector<Index>> shapes = {{1},    {9},       {3, 4},    {4, 1},
                                                  {1, 5}, {2, 3, 4}, {3, 1, 2}, {2, 3, 2, 3}};
  for (const std::vector<Index>& dims : shapes) {
    Index elements = 1;
    for (const Index size : dims) elements *= size;
    for (Index begin = 0; begin <= elements; ++begin) {
      for (Index end = begin; end <= elements; ++end) {
        const std::vector<Box> boxes = flat_boxes(dims, {begin, end});
        std::vector<Index> found;
        Index counted = 0;
        for (const Box& box : boxes) {
          list(dims, box, 0, 0, found);
          counted += box.elements();
        }
        std::vector<Index> wanted(static_cast<std::size_t>(end - begin));
        std::iota(wanted.begin(), wanted.end(), begin);
        REQUIRE(found == wanted);
        REQUIRE(counted == end - begin);
        REQUIRE(boxes.size() <= 2 * dims.size() - 1);
      }
    }
  }
}
