#include "data/byte_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.hpp"

namespace hearth {

ByteFile::ByteFile(const std::string& path)
    : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (descriptor_ < 0) throw input_error(path, ": cannot be read: ", std::strerror(errno));
  struct stat status {};
  const int known = ::fstat(descriptor_, &status);
  const int error = errno;
  if (known == 0 && S_ISREG(status.st_mode)) {
    size_ = status.st_size;
    return;
  }
  ::close(descriptor_);
  if (known == 0) throw input_error(path, ": is not a regular file");
  throw failure(path, ": its size cannot be read: ", std::strerror(error));
}

ByteFile::~ByteFile() {
  ::close(descriptor_);
}

void ByteFile::read(std::int64_t offset, std::span<std::byte> out) const {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t bytes = ::pread(descriptor_, out.data() + done, out.size() - done,
                                  offset + static_cast<std::int64_t>(done));
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0) throw failure(path_, ": cannot be read: ", std::strerror(errno));
    if (bytes == 0) {
      throw failure(path_, ": ends at byte ", offset + static_cast<std::int64_t>(done),
                    ", but had ", size_, " bytes when it was opened");
    }
    done += static_cast<std::size_t>(bytes);
  }
}

}  // namespace hearth
