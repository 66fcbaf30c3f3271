#include "model/activations.hpp"

#include <algorithm>
#include <cstdio>
#include <exception>

#include "base/error.hpp"

namespace hearth {

namespace {

constexpr Index smallest_block = Index{1} << 20;

// "512 bytes", "1.5 MiB".
std::string readable(Index bytes) {
  const char* const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  char number[32];
  std::snprintf(number, sizeof number, unit == 0 ? "%.0f" : "%.1f", value);
  return text(number, " ", units[unit]);
}

}  // namespace

char* Activations::take_bytes(const Request& request) {
  const Index used = request.rows * request.width * request.element_bytes;
  const Index bytes = (used + alignment - 1) / alignment * alignment;
  char* place = nullptr;
  if (bytes > 0 && !counting_) {
    const auto fits = [&] {
      return mark_.block < blocks_.size() &&
             mark_.begin + bytes <= static_cast<Index>(blocks_[mark_.block].extent(0));
    };
    if (!fits() && mark_.block + 1 < blocks_.size()) {
      ++mark_.block;
      mark_.begin = 0;
    }
    if (!fits()) add_block(request, bytes);
    place = blocks_[mark_.block].data() + mark_.begin;
    mark_.begin += bytes;
  }
  mark_.in_use += bytes;
  high_water_ = std::max(high_water_, mark_.in_use);
  return place;
}

void Activations::add_block(const Request& request, Index bytes) {
  // Nothing lies in the blocks from here on, and they are too small.
  const std::size_t first_empty = mark_.begin == 0 ? mark_.block : mark_.block + 1;
  if (first_empty < blocks_.size()) blocks_.resize(first_empty);
  const Index grown = std::max({bytes, held_bytes() / 2, next_block_, smallest_block});
  if (!try_block(grown) && !try_block(bytes)) {
    throw failure(place_, ": no memory for '", request.label, "', ", request.rows, " rows of ",
                  request.width * request.element_bytes, " bytes: ", bytes, " bytes (",
                  readable(bytes), ") beside ", readable(held_bytes()),
                  " of activations; a smaller batch.cell_sequences, more parallel.expert_ranks or "
                  "model.recompute = block would need less");
  }
  next_block_ = 0;
  mark_.block = blocks_.size() - 1;
  mark_.begin = 0;
}

bool Activations::try_block(Index bytes) {
  if (limit_ > 0 && held_bytes() + bytes > limit_) return false;
  try {
    blocks_.push_back(uninitialized<Block>("activations", bytes));
    return true;
  } catch (const std::exception&) {  // Kokkos' type differs between its versions
    return false;
  }
}

void Activations::clear() {
  mark_ = Mark();
  if (blocks_.size() < 2) return;
  // A little more, since the next cell may need a little more.
  next_block_ = high_water_ + high_water_ / 16;
  blocks_.clear();
}

Index Activations::held_bytes() const {
  Index bytes = 0;
  for (const Block& block : blocks_) bytes += static_cast<Index>(block.extent(0));
  return bytes;
}

}  // namespace hearth
