#include "io/heartbeat_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <type_traits>

#include "io/replace_file.hpp"

namespace hearth {

namespace {

// Nodes that write the same page of a file may undo each other's work on a network file system.
constexpr off_t page_bytes = 4096;
static_assert(sizeof(Heartbeat) <= page_bytes && std::is_trivially_copyable_v<Heartbeat>);

class OpenFile {
 public:
  OpenFile(const std::string& path, int flags) : descriptor_(open(path.c_str(), flags, 0666)) {}
  ~OpenFile() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  bool write(const void* data, std::size_t bytes, off_t at) const {
    return descriptor_ >= 0 && pwrite(descriptor_, data, bytes, at) == static_cast<ssize_t>(bytes);
  }
  bool read(void* data, std::size_t bytes) const {
    return descriptor_ >= 0 && pread(descriptor_, data, bytes, 0) == static_cast<ssize_t>(bytes);
  }

 private:
  int descriptor_;
};

}  // namespace

void HeartbeatFile::create() const {
  remove();
  const OpenFile file(path_, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC);
  // Whole pages: later writes then need no new room on the disk.
  std::vector<char> page(static_cast<std::size_t>(page_bytes), 0);
  for (int rank = 0; rank < ranks_; ++rank) {
    const Heartbeat none;
    std::memcpy(page.data(), &none, sizeof none);
    if (!file.write(page.data(), page.size(), rank * page_bytes)) {
      throw cannot_be_written(path_, errno);
    }
  }
}

void HeartbeatFile::remove() const {
  unlink(path_.c_str());
}

bool HeartbeatFile::write(int rank, const Heartbeat& heartbeat) const {
  return OpenFile(path_, O_WRONLY | O_CLOEXEC)
      .write(&heartbeat, sizeof heartbeat, rank * page_bytes);
}

bool HeartbeatFile::read(std::vector<Heartbeat>& heartbeats) const {
  std::vector<char> pages(static_cast<std::size_t>(ranks_ * page_bytes));
  if (!OpenFile(path_, O_RDONLY | O_CLOEXEC).read(pages.data(), pages.size())) return false;
  heartbeats.resize(static_cast<std::size_t>(ranks_));
  for (int rank = 0; rank < ranks_; ++rank) {
    Heartbeat& heartbeat = heartbeats[static_cast<std::size_t>(rank)];
    std::memcpy(&heartbeat, pages.data() + rank * page_bytes, sizeof heartbeat);
    heartbeat.phase[sizeof heartbeat.phase - 1] = '\0';
    heartbeat.host[sizeof heartbeat.host - 1] = '\0';
  }
  return true;
}

}  // namespace hearth
