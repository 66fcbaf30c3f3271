// Files appear whole or not at all: written under a temporary name, forced to the disk, renamed.
#pragma once

#include <string>
#include <utility>

#include "base/error.hpp"

namespace hearth {

inline constexpr const char* temporary_suffix = ".tmp";

// The name in the same folder under which `path` is prepared; there is one writer at a time
// (output_directory.hpp).
[[nodiscard]] std::string temporary_name(const std::string& path);

// Owner of a file descriptor; negative: none.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  [[nodiscard]] int number() const { return number_; }

 private:
  int number_;
};

// That a file of the output folder cannot be made, for errno's `error`: bad input, since another
// folder may be right, unless the disk is full or broken, which is no mistake of the deck's.
[[nodiscard]] Error cannot_be_written(const std::string& path, int error);

// That a file cannot be read: bad input, unless the disk is broken.
[[nodiscard]] Error cannot_be_read(const std::string& path, int error);

// Forces a file's contents to the disk, or throws failure: this is where a full disk or a quota
// on a network file system may show first.
void sync_file(const std::string& path);

// Asks for the blocks of `bytes` bytes, so that a full disk is found before anything is written.
// Does nothing on a file system that cannot.
void reserve_space(const std::string& path, std::size_t bytes);

// Gives a synced file its final name, replacing what had it, and makes the name permanent.
void publish(const std::string& temporary, const std::string& path);

// Removes a file if it is there. Never throws.
void discard(const std::string& path) noexcept;

}  // namespace hearth
