// Memory that is read next, brought into the cache by lines while something else is computed.
#pragma once

#include <cstdint>

#include "kernels/matmul/pair_panels.hpp"

namespace hearth::kernels {

class Ahead {
 public:
  // Forgets what has been wanted before.
  void clear() { region_ = regions_ = 0; }

  // Two parts at most.
  void want(const OperandPart& x) {
    const Index row_bytes = (x.outer_contiguous ? x.outer : x.depth) * Index{sizeof(bfloat16)};
    const Index rows = x.outer_contiguous ? x.depth : x.outer;
    const Index stride = x.ld * Index{sizeof(bfloat16)};
    const auto data = reinterpret_cast<std::uintptr_t>(x.data);
    wanted_[regions_++] = stride == row_bytes ? Region{data, stride, rows * row_bytes, 1}
                                              : Region{data, stride, row_bytes, rows};
    if (regions_ == 1) begin_row();
  }

  // About how many there are.
  [[nodiscard]] Index lines() const {
    Index sum = 0;
    for (int i = region_; i < regions_; ++i) {
      sum += wanted_[i].rows * (wanted_[i].row_bytes / line_bytes + 1);
    }
    return sum;
  }

  // Asks for so many more. It calls nothing, which would cost vectors their registers.
  [[gnu::always_inline]] void fetch(Index lines) {
    for (; lines > 0 && region_ < regions_; --lines) {
      constexpr int to_be_read = 0, second_cache = 2;
      __builtin_prefetch(reinterpret_cast<const void*>(at_), to_be_read, second_cache);
      at_ += line_bytes;
      if (at_ < row_end_) continue;
      Region& region = wanted_[region_];
      region.data += region.stride;
      if (--region.rows == 0) ++region_;
      begin_row();
    }
  }

 private:
  static constexpr Index line_bytes = 64;

  struct Region {
    std::uintptr_t data;
    Index stride, row_bytes, rows;
  };

  [[gnu::always_inline]] void begin_row() {
    const Region& region = wanted_[region_ < regions_ ? region_ : 0];
    at_ = region.data / line_bytes * line_bytes;
    row_end_ = region.data + static_cast<std::uintptr_t>(region.row_bytes);
  }

  Region wanted_[2];
  int region_ = 0, regions_ = 0;
  std::uintptr_t at_ = 0, row_end_ = 0;
};

}  // namespace hearth::kernels
