// A file of which parts are read when they are needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace hearth {

// Open for as long as it lives. Unlike a mapping it can say what went wrong when the file becomes
// shorter, or its disk or server fails, while a run reads it.
class ByteFile {
 public:
  // Throws input_error where there is no such regular file or it cannot be read.
  explicit ByteFile(const std::string& path);
  ~ByteFile();
  ByteFile(const ByteFile&) = delete;
  ByteFile& operator=(const ByteFile&) = delete;

  [[nodiscard]] std::int64_t size() const { return size_; }  // in bytes, when it was opened
  [[nodiscard]] int descriptor() const { return descriptor_; }

  // Fills `out` from byte `offset` on; throws failure where the file does not give that.
  void read(std::int64_t offset, std::span<std::byte> out) const;

 private:
  std::string path_;
  int descriptor_;
  std::int64_t size_ = 0;
};

}  // namespace hearth
