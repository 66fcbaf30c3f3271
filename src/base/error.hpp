// Errors that reach a person, and the exit status each leads to (docs/architecture.md).
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace hearth {

enum class Status : int {
  done = 0,
  failure = 1,    // anything but the input: I/O, memory, a non-finite loss
  bad_input = 2,  // usage, deck, token files, a checkpoint of another model
  requeue = 75    // stopped early at a good checkpoint
};

// One line that names the file, the key or line, what was found and what would be right.
class Error : public std::runtime_error {
 public:
  Error(Status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  [[nodiscard]] Status status() const { return status_; }

 private:
  Status status_;
};

// Concatenates its arguments as an output stream would print them.
template <class... Parts>
[[nodiscard]] std::string text(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

template <class... Parts>
[[nodiscard]] Error input_error(const Parts&... parts) {
  return Error(Status::bad_input, text(parts...));
}

template <class... Parts>
[[nodiscard]] Error failure(const Parts&... parts) {
  return Error(Status::failure, text(parts...));
}

}  // namespace hearth
