// An HDF5 file that takes shape in memory, where no write can fail, and is then put on the disk.
//
// HDF5 (1.10) cannot get over a failed write: it keeps a file that it could not flush for ever and
// crashes over it when the program ends. So it never meets a full disk.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace hearth::hdf5 {

class MemoryImage {
 public:
  // Makes the files created with this access list live in this image, which must outlive them.
  void use_for(hid_t access);

  // Writes the file to a new one at `path`, leaving out the stretches that were never written.
  // Throws failure.
  void save(const std::string& path) const;

  // For the driver.
  void write(std::uint64_t address, const char* bytes, std::size_t count);
  void read(std::uint64_t address, char* bytes, std::size_t count) const;
  std::uint64_t size = 0;

 private:
  std::map<std::uint64_t, std::vector<char>> pages_;  // by number; those that were written
};

}  // namespace hearth::hdf5
