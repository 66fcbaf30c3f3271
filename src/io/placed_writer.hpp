// Bytes put at given places of an existing file, by plain writes of the system: neither MPI nor
// HDF5, so that a thread beside the others may do it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "io/replace_file.hpp"

namespace hearth {

class PlacedWriter {
 public:
  // The file is there. Every function throws failure, naming the file and what the system said.
  explicit PlacedWriter(std::string path);

  void write(std::uint64_t offset, const void* bytes, std::size_t count) const;
  // Forces what was written to the disk. Done on the descriptor that wrote: an error of a write
  // that the system put off is told to it for certain.
  void sync() const;

 private:
  std::string path_;
  Descriptor file_;
};

}  // namespace hearth
