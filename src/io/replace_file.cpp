#include "io/replace_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

namespace hearth {

namespace {

Descriptor open_file(const std::string& path, int flags) {
  Descriptor file(::open(path.c_str(), flags | O_CLOEXEC));
  if (file.number() < 0) throw failure(path, ": cannot be opened: ", std::strerror(errno));
  return file;
}

void sync(const std::string& path, int flags) {
  const Descriptor file = open_file(path, flags);
  // Some file systems cannot sync a folder and say EINVAL; there is nothing more to be done there.
  if (::fsync(file.number()) != 0 && errno != EINVAL) {
    throw failure(path, ": cannot be forced to the disk: ", std::strerror(errno));
  }
}

}  // namespace

Error cannot_be_written(const std::string& path, int error) {
  const bool disk = error == EIO || error == ENOSPC || error == EDQUOT;
  return {disk ? Status::failure : Status::bad_input,
          text(path, ": cannot be written: ", std::strerror(error))};
}

Error cannot_be_read(const std::string& path, int error) {
  return {error == EIO ? Status::failure : Status::bad_input,
          text(path, ": cannot be read: ", std::strerror(error))};
}

std::string temporary_name(const std::string& path) {
  return path + temporary_suffix;
}

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

void sync_file(const std::string& path) {
  sync(path, O_RDWR);
}

void reserve_space(const std::string& path, std::size_t bytes) {
  const Descriptor file = open_file(path, O_RDWR);
  if (bytes == 0 || ::fallocate(file.number(), 0, 0, static_cast<off_t>(bytes)) == 0) return;
  if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL) {
    throw failure(path, ": has no room for ", bytes, " bytes: ", std::strerror(errno));
  }
}

void publish(const std::string& temporary, const std::string& path) {
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    throw failure(temporary, ": cannot be renamed to ", path, ": ", std::strerror(errno));
  }
  const std::string folder = std::filesystem::path(path).parent_path().string();
  sync(folder.empty() ? "." : folder, O_RDONLY | O_DIRECTORY);
}

void discard(const std::string& path) noexcept {
  ::unlink(path.c_str());
}

}  // namespace hearth
