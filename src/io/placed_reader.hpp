// Bytes from given places of a file, by plain reads of the system: not HDF5, which serves one
// thread at a time, so that several threads may do it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "io/replace_file.hpp"

namespace hearth {

class PlacedReader {
 public:
  // Every function throws, naming the file and what the system said: failure where the disk is
  // broken, otherwise input_error.
  explicit PlacedReader(std::string path);

  // Throws input_error too where the file ends before.
  void read(std::uint64_t offset, void* bytes, std::size_t count) const;

 private:
  std::string path_;
  Descriptor file_;
};

}  // namespace hearth
