#include "io/checkpoint_folder.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "base/error.hpp"

namespace hearth {

namespace fs = std::filesystem;

namespace {

// The step of "step_<8 digits or more>.h5"; none of another name.
std::optional<std::int64_t> step_of(const std::string& name) {
  const std::string prefix = "step_", suffix = ".h5";
  if (!name.starts_with(prefix) || !name.ends_with(suffix)) return std::nullopt;
  const std::string digits =
      name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
  if (digits.size() < 8 || digits.size() > 18) return std::nullopt;
  if (digits.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  return std::stoll(digits);
}

}  // namespace

CheckpointFolder::CheckpointFolder(const std::string& output)
    : path_((fs::path(output) / "checkpoints").string()) {}

std::string CheckpointFolder::file(std::int64_t step) const {
  std::array<char, 32> name{};
  std::snprintf(name.data(), name.size(), "step_%08lld.h5", static_cast<long long>(step));
  return (fs::path(path_) / name.data()).string();
}

std::vector<CheckpointFolder::Entry> CheckpointFolder::list() const {
  std::vector<Entry> found;
  std::error_code error;
  for (fs::directory_iterator entry(path_, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (const auto step = step_of(name)) found.push_back({*step, entry->path().string()});
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    throw input_error(path_, ": cannot be read: ", error.message());
  }
  std::sort(found.begin(), found.end(),
            [](const Entry& a, const Entry& b) { return a.step > b.step; });
  return found;
}

}  // namespace hearth
