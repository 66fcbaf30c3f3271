#include "io/placed_writer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.hpp"

namespace hearth {

namespace {

constexpr std::size_t largest_write_bytes = std::size_t{64} << 20;

}  // namespace

PlacedWriter::PlacedWriter(std::string path)
    : path_(std::move(path)), file_(::open(path_.c_str(), O_WRONLY | O_CLOEXEC)) {
  if (file_.number() < 0) throw failure(path_, ": cannot be opened: ", std::strerror(errno));
}

void PlacedWriter::write(std::uint64_t offset, const void* bytes, std::size_t count) const {
  const char* from = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t put = ::pwrite(file_.number(), from, std::min(count, largest_write_bytes),
                                 static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) throw failure(path_, ": cannot be written: ", std::strerror(errno));
    // A disk that fills up may take a part first.
    from += put;
    offset += static_cast<std::uint64_t>(put);
    count -= static_cast<std::size_t>(put);
  }
}

void PlacedWriter::sync() const {
  int status = ::fsync(file_.number());
  while (status != 0 && errno == EINTR) status = ::fsync(file_.number());
  if (status != 0) {
    throw failure(path_, ": cannot be forced to the disk: ", std::strerror(errno));
  }
}

}  // namespace hearth
