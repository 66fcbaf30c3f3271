// A file's bytes in memory, read-only.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace hearth {

// Maps a file for as long as it lives; processes on one machine share the memory. The file must
// not shrink meanwhile.
class MappedFile {
 public:
  // Throws input_error where there is no such regular file or it cannot be read.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  MappedFile& operator=(MappedFile&&) = delete;

  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace hearth
