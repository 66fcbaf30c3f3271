// Megatron's indexed dataset: <prefix>.bin holds the tokens, <prefix>.idx where each sequence lies.
//
// <prefix>.idx, little-endian and without padding:
//   bytes 0-8  "MMIDIDX\0\0"
//   u64        version, 1
//   u8         token type: 1 u8, 2 i8, 3 i16, 4 i32, 5 i64, 8 u16 (6 and 7, floats, are refused)
//   u64        S, the number of sequences
//   u64        D, the number of documents + 1
//   i32[S]     tokens in each sequence
//   i64[S]     byte offset of each sequence in <prefix>.bin
//   i64[D]     first sequence of each document, from 0 to S
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "data/byte_file.hpp"
#include "data/mapped_file.hpp"

namespace hearth {

class TokenFile {
 public:
  // Opens and checks both files; throws input_error, naming the file, where either is missing,
  // truncated or not of this format.
  explicit TokenFile(const std::string& prefix);

  [[nodiscard]] const std::string& bin_path() const { return bin_path_; }
  [[nodiscard]] const std::string& idx_path() const { return idx_path_; }
  [[nodiscard]] std::int64_t sequences() const { return sequences_; }
  [[nodiscard]] std::int64_t documents() const { return documents_; }
  [[nodiscard]] std::int64_t tokens() const { return tokens_; }

  // Tokens in one sequence, 0 ≤ sequence < sequences().
  [[nodiscard]] std::int32_t length(std::int64_t sequence) const {
    return load<std::int32_t>(lengths_, sequence);
  }

  // The document that a sequence belongs to, 0 ≤ sequence < sequences().
  [[nodiscard]] std::int64_t document(std::int64_t sequence) const;

  // Copies the tokens [offset, offset + out.size()) of one sequence. Throws failure where they do
  // not all lie in the sequence or the file does not give them, and input_error for a token id
  // beyond 32 bits.
  void copy(std::int64_t sequence, std::int64_t offset, std::span<std::int32_t> out) const;

  // Sizes, token type, a hash of the whole .idx file and one of 64 pieces of the .bin file, of 4096
  // bytes each and spread evenly, in one line; independent of the path. What changes between the
  // pieces alone is not seen.
  [[nodiscard]] std::string identity() const;

 private:
  // Arrays in the .idx file are not aligned.
  template <class T>
  static T load(const std::byte* array, std::int64_t i) {
    T value;
    std::memcpy(&value, array + i * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
    return value;
  }
  template <class T>
  void copy_as(std::int64_t sequence, std::int64_t begin, std::span<std::int32_t> out) const;
  [[nodiscard]] std::int64_t document_begin(std::int64_t document) const {
    return load<std::int64_t>(document_begins_, document);
  }
  void parse_index();
  void check_documents();
  void check_sequences();

  std::string bin_path_;
  std::string idx_path_;
  MappedFile idx_;
  ByteFile bin_;
  int token_type_ = 0;  // the code in the file
  int token_bytes_ = 0;
  std::int64_t sequences_ = 0;
  std::int64_t documents_ = 0;
  std::int64_t tokens_ = 0;
  const std::byte* lengths_ = nullptr;          // i32 (sequences)
  const std::byte* pointers_ = nullptr;         // i64 (sequences)
  const std::byte* document_begins_ = nullptr;  // i64 (documents + 1)
};

}  // namespace hearth
