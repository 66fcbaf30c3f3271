// Device memory for what a cell's forward and backward compute: one stack for all layers.
//
// What backward needs is taken in forward and stays until the cell is done; scratch is taken inside
// a Scope and given back at its end. The memory lies in blocks that are kept between cells and
// steps, so that a step costs neither page faults nor zeroing; they grow geometrically, since the
// rows that a rank receives vary from cell to cell.
#pragma once

#include <string>
#include <vector>

#include "base/types.hpp"

namespace hearth {

class Activations {
 public:
  // Where the stack stood.
  struct Mark {
    std::size_t block = 0;
    Index begin = 0;   // bytes used of that block
    Index in_use = 0;  // bytes used of all
  };

  // Gives back, at its end, what was taken since its beginning.
  class Scope {
   public:
    explicit Scope(Activations& activations)
        : activations_(activations), mark_(activations.mark()) {}
    ~Scope() { activations_.release(mark_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Activations& activations_;
    Mark mark_;
  };

  Activations() = default;
  Activations(const Activations&) = delete;
  Activations& operator=(const Activations&) = delete;

  // A stack that only counts: arrays have shapes and no memory.
  [[nodiscard]] static Activations counting() { return Activations(true); }

  // An array (rows, width), 64-byte aligned, whose contents the caller is about to write. Throws
  // failure naming the place (enter), `label`, rows and bytes where there is no memory for it.
  template <class T>
  [[nodiscard]] Array2<T> take(const char* label, Index rows, Index width) {
    const Request request{label, rows, width, Index{sizeof(T)}};
    return Array2<T>(reinterpret_cast<T*>(take_bytes(request)), rows, width);
  }
  template <class T>
  [[nodiscard]] Array1<T> take(const char* label, Index rows) {
    return Array1<T>(take<T>(label, rows, 1).data(), rows);
  }

  // In stack order: whatever was taken after the mark is given back.
  [[nodiscard]] Mark mark() const { return mark_; }
  void release(const Mark& mark) { mark_ = mark; }

  // Gives everything back. If it had come to lie in several blocks, the next cell gets one that is
  // large enough for all of it.
  void clear();

  // Which part of the model takes memory from here on, for errors: "layer 3".
  void enter(std::string place) { place_ = std::move(place); }

  // Bytes taken and not given back, rounded up to the alignment: now, and the most there were.
  [[nodiscard]] Index in_use_bytes() const { return mark_.in_use; }
  [[nodiscard]] Index high_water_bytes() const { return high_water_; }
  // Bytes of all blocks.
  [[nodiscard]] Index held_bytes() const;

  // More than this is refused as if the device had no more; 0: no limit.
  void set_limit_bytes(Index bytes) { limit_ = bytes; }

  static constexpr Index alignment = 64;

 private:
  using Block = Array1<char>;
  struct Request {
    const char* label;
    Index rows, width, element_bytes;
  };

  explicit Activations(bool counting) : counting_(counting) {}
  char* take_bytes(const Request& request);
  void add_block(const Request& request, Index bytes);
  [[nodiscard]] bool try_block(Index bytes);

  std::vector<Block> blocks_;  // those above mark_.block are empty
  Mark mark_;
  Index high_water_ = 0, next_block_ = 0, limit_ = 0;
  bool counting_ = false;
  std::string place_ = "model";
};

}  // namespace hearth
