// Token files in a temporary folder, and the golden files of the sample order.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "catch.hpp"

namespace hearth::fixture {

// A folder that is gone with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "hearth_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] std::string operator/(const std::string& name) const {
    return (path_ / name).string();
  }

 private:
  std::filesystem::path path_;
};

inline void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

template <class T>
void append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

// What an .idx file says; tests damage single fields.
struct IndexFile {
  std::string magic = std::string("MMIDIDX\0\0", 9);
  std::uint64_t version = 1;
  std::uint8_t token_type = 4;
  std::vector<std::int32_t> lengths;
  std::vector<std::int64_t> pointers;
  std::vector<std::int64_t> documents;

  [[nodiscard]] std::string bytes() const {
    std::string bytes = magic;
    append(bytes, version);
    append(bytes, token_type);
    append(bytes, std::uint64_t{lengths.size()});
    append(bytes, std::uint64_t{documents.size()});
    for (const auto length : lengths) append(bytes, length);
    for (const auto pointer : pointers) append(bytes, pointer);
    for (const auto document : documents) append(bytes, document);
    return bytes;
  }
};

// Sequences of these lengths back to back, one to a document.
inline IndexFile index_of(const std::vector<std::int32_t>& lengths, std::uint8_t token_type = 4,
                          std::int64_t token_bytes = 4) {
  IndexFile index;
  index.token_type = token_type;
  index.lengths = lengths;
  index.documents = {0};
  std::int64_t at = 0;
  for (const std::int32_t length : lengths) {
    index.pointers.push_back(at);
    at += length * token_bytes;
    index.documents.push_back(index.documents.back() + 1);
  }
  return index;
}

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  std::string bytes;
  for (const T value : values) append(bytes, value);
  return bytes;
}

// Token files of the type i32.
inline void write_tokens(const std::string& prefix, const std::vector<std::int32_t>& lengths,
                         const std::vector<std::int32_t>& tokens) {
  write_bytes(prefix + ".bin", bytes_of(tokens));
  write_bytes(prefix + ".idx", index_of(lengths).bytes());
}

// The same whose n-th token is n.
inline void write_counting(const std::string& prefix, const std::vector<std::int32_t>& lengths) {
  std::vector<std::int32_t> tokens(std::accumulate(lengths.begin(), lengths.end(), 0));
  std::iota(tokens.begin(), tokens.end(), 0);
  write_tokens(prefix, lengths, tokens);
}

// A case of a golden file of tests/golden/make_sample_order.py: records by name, in order.
struct GoldenCase {
  std::string name;
  std::map<std::string, std::vector<std::vector<std::string>>> records;

  [[nodiscard]] bool has(const std::string& record) const { return records.count(record) > 0; }
  [[nodiscard]] const std::vector<std::string>& words(const std::string& record,
                                                      std::size_t which = 0) const {
    return records.at(record).at(which);
  }
  template <class T = std::int64_t>
  [[nodiscard]] std::vector<T> numbers(const std::string& record, std::size_t which = 0) const {
    std::vector<T> values;
    for (const std::string& word : words(record, which)) {
      if constexpr (std::is_floating_point_v<T>) {
        values.push_back(std::stod(word));
      } else if constexpr (std::is_signed_v<T>) {
        values.push_back(static_cast<T>(std::stoll(word)));
      } else {
        values.push_back(static_cast<T>(std::stoull(word)));
      }
    }
    return values;
  }
  [[nodiscard]] std::int64_t number(const std::string& record) const {
    return numbers(record).at(0);
  }
};

inline std::vector<GoldenCase> read_golden(const std::string& name) {
  const std::string path = "tests/golden/" + name;
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": run from the root of the repository");
  std::vector<GoldenCase> cases;
  std::string record;
  for (std::size_t count = 0; file >> record >> count;) {
    std::vector<std::string> words(count);
    for (std::string& word : words) file >> word;
    if (record == "case") {
      cases.push_back({words.at(0), {}});
    } else {
      cases.back().records[record].push_back(words);
    }
  }
  return cases;
}

// FNV-1a over values instead of bytes.
template <class T>
std::uint64_t fingerprint(const std::vector<T>& values) {
  std::uint64_t result = 0xCBF29CE484222325ULL;
  for (const T value : values) {
    result = (result ^ static_cast<std::uint64_t>(value)) * 0x100000001B3ULL;
  }
  return result;
}

// The message of the input_error that `act` throws.
inline std::string message_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    CHECK(error.status() == Status::bad_input);
    CHECK(std::string(error.what()).find('\n') == std::string::npos);
    return error.what();
  }
  return "no error";
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace hearth::fixture
