#include "io/placed_reader.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.hpp"

namespace hearth {

namespace {

constexpr std::size_t largest_read_bytes = std::size_t{64} << 20;

}  // namespace

PlacedReader::PlacedReader(std::string path)
    : path_(std::move(path)), file_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (file_.number() < 0) throw cannot_be_read(path_, errno);
}

void PlacedReader::read(std::uint64_t offset, void* bytes, std::size_t count) const {
  char* into = static_cast<char*>(bytes);
  while (count > 0) {
    const ssize_t got = ::pread(file_.number(), into, std::min(count, largest_read_bytes),
                                static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw cannot_be_read(path_, errno);
    if (got == 0) {
      throw input_error(path_, ": ends at byte ", offset, ", where ", count, " more should follow");
    }
    into += got;
    offset += static_cast<std::uint64_t>(got);
    count -= static_cast<std::size_t>(got);
  }
}

}  // namespace hearth
