#include "data/mapped_file.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.hpp"
#include "data/byte_file.hpp"

namespace hearth {

MappedFile::MappedFile(const std::string& path) {
  const ByteFile file(path);  // a mapping outlives it
  const auto size = static_cast<std::size_t>(file.size());
  if (size == 0) return;  // nothing to map
  void* const start = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.descriptor(), 0);
  if (start == MAP_FAILED) throw failure(path, ": cannot be mapped: ", std::strerror(errno));
  bytes_ = {static_cast<const std::byte*>(start), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

}  // namespace hearth
