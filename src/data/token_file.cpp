#include "data/token_file.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/hash.hpp"

namespace hearth {

namespace {

static_assert(std::endian::native == std::endian::little, "token files are little-endian");

constexpr std::string_view magic("MMIDIDX\0\0", 9);
constexpr std::size_t header_bytes = 34;

struct TokenType {
  int code;
  const char* name;
  int bytes;
};
constexpr TokenType token_types[] = {{1, "u8", 1},  {2, "i8", 1},  {3, "i16", 2},
                                     {4, "i32", 4}, {5, "i64", 8}, {8, "u16", 2}};

const TokenType* find_token_type(int code) {
  const auto* const found =
      std::find_if(std::begin(token_types), std::end(token_types),
                   [code](const TokenType& type) { return type.code == code; });
  return found == std::end(token_types) ? nullptr : found;
}

// A MappedFile or a ByteFile.
template <class File>
File open_part(const std::string& path, const std::string& prefix) {
  try {
    return File(path);
  } catch (const Error& error) {
    throw Error(error.status(),
                text(error.what(), "; the prefix ", prefix, " of data.sources stands for ", prefix,
                     ".bin and ", prefix, ".idx"));
  }
}

// Sum of hash_element over the 8-byte words, the last filled up with zeros.
std::uint64_t hash_bytes(std::span<const std::byte> bytes) {
  std::uint64_t hash = 0;
  for (std::size_t at = 0; at < bytes.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, std::min<std::size_t>(8, bytes.size() - at));
    hash += hash_element(at / 8, word);
  }
  return hash;
}

}  // namespace

TokenFile::TokenFile(const std::string& prefix)
    : bin_path_(prefix + ".bin"),
      idx_path_(prefix + ".idx"),
      idx_(open_part<MappedFile>(idx_path_, prefix)),
      bin_(open_part<ByteFile>(bin_path_, prefix)) {
  parse_index();
  check_documents();
  check_sequences();
}

void TokenFile::parse_index() {
  const std::span<const std::byte> idx = idx_.bytes();
  if (idx.size() < header_bytes) {
    throw input_error(idx_path_, ": holds ", idx.size(), " bytes, but the header of a Megatron ",
                      ".idx file alone takes ", header_bytes, "; the file is truncated");
  }
  const std::byte* const at = idx.data();
  if (std::memcmp(at, magic.data(), magic.size()) != 0) {
    throw input_error(idx_path_, ": does not start with MMIDIDX and two zero bytes: it is not a ",
                      "Megatron .idx file");
  }
  const auto version = load<std::uint64_t>(at + 9, 0);
  if (version != 1) {
    throw input_error(idx_path_, ": is of format version ", version, "; only version 1 is known");
  }
  token_type_ = load<std::uint8_t>(at + 17, 0);
  const TokenType* const type = find_token_type(token_type_);
  if (type == nullptr) {
    throw input_error(idx_path_, ": token type ", token_type_,
                      " is not an integer type; right are 1 (u8), 2 (i8), 3 (i16), 4 (i32), ",
                      "5 (i64) and 8 (u16)");
  }
  token_bytes_ = type->bytes;

  const auto sequences = load<std::uint64_t>(at + 18, 0);
  const auto boundaries = load<std::uint64_t>(at + 26, 0);
  if (boundaries == 0) {
    throw input_error(idx_path_, ": its header gives 0 document boundaries, but a file without a ",
                      "document has 1");
  }
  const std::uint64_t room = idx.size() - header_bytes;
  // Divisions first, so that no count from a damaged header overflows.
  if (sequences > room / 12 || boundaries > (room - 12 * sequences) / 8) {
    throw input_error(idx_path_, ": is truncated: ", sequences, " sequences and ", boundaries,
                      " document boundaries do not fit into its ", idx.size(), " bytes");
  }
  if (sequences > static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max())) {
    throw input_error(idx_path_, ": has ", sequences, " sequences; at most 2147483647 can be ",
                      "ordered, so split the file into several sources");
  }
  sequences_ = static_cast<std::int64_t>(sequences);
  documents_ = static_cast<std::int64_t>(boundaries) - 1;
  lengths_ = at + header_bytes;
  pointers_ = lengths_ + 4 * sequences_;
  document_begins_ = pointers_ + 8 * sequences_;
}

void TokenFile::check_documents() {
  if (document_begin(0) != 0) {
    throw input_error(idx_path_, ": its first document begins at sequence ", document_begin(0),
                      "; right is 0");
  }
  for (std::int64_t d = 0; d < documents_; ++d) {
    if (document_begin(d + 1) < document_begin(d)) {
      throw input_error(idx_path_, ": document ", d, " ends at sequence ", document_begin(d + 1),
                        ", before its begin, sequence ", document_begin(d));
    }
  }
  if (document_begin(documents_) != sequences_) {
    throw input_error(idx_path_, ": its documents end at sequence ", document_begin(documents_),
                      ", but it has ", sequences_, " sequences");
  }
}

void TokenFile::check_sequences() {
  const auto bin_bytes = bin_.size();
  for (std::int64_t s = 0; s < sequences_; ++s) {
    const std::int64_t tokens = length(s);
    if (tokens < 0) {
      throw input_error(idx_path_, ": sequence ", s, " has the length ", tokens,
                        "; lengths are 0 or more tokens");
    }
    const auto begin = load<std::int64_t>(pointers_, s);
    if (begin < 0) {
      throw input_error(idx_path_, ": sequence ", s, " begins at byte ", begin, " of ", bin_path_,
                        "; offsets are 0 or more bytes");
    }
    if (begin > bin_bytes || tokens * token_bytes_ > bin_bytes - begin) {
      throw input_error(bin_path_, ": is truncated: it holds ", bin_bytes, " bytes, but ",
                        idx_path_, " places sequence ", s, " of ", tokens, " tokens at byte ",
                        begin);
    }
    tokens_ += tokens;
  }
}

std::int64_t TokenFile::document(std::int64_t sequence) const {
  // Of documents without sequences, which begin where their successor does, the successor.
  std::int64_t at = 0;
  for (std::int64_t end = documents_; end - at > 1;) {
    const std::int64_t middle = at + (end - at) / 2;
    (document_begin(middle) <= sequence ? at : end) = middle;
  }
  return at;
}

void TokenFile::copy(std::int64_t sequence, std::int64_t offset,
                     std::span<std::int32_t> out) const {
  const auto count = static_cast<std::int64_t>(out.size());
  if (sequence < 0 || sequence >= sequences_ || offset < 0 || offset > length(sequence) ||
      count > length(sequence) - offset) {
    throw failure(bin_path_, ": tokens ", offset, " to ", offset + count, " of sequence ", sequence,
                  " were asked for, which do not exist");
  }
  const std::int64_t begin = load<std::int64_t>(pointers_, sequence) + offset * token_bytes_;
  switch (token_type_) {
    case 1:
      return copy_as<std::uint8_t>(sequence, begin, out);
    case 2:
      return copy_as<std::int8_t>(sequence, begin, out);
    case 3:
      return copy_as<std::int16_t>(sequence, begin, out);
    case 4:
      return copy_as<std::int32_t>(sequence, begin, out);
    case 5:
      return copy_as<std::int64_t>(sequence, begin, out);
    default:
      return copy_as<std::uint16_t>(sequence, begin, out);
  }
}

template <class T>
void TokenFile::copy_as(std::int64_t sequence, std::int64_t begin,
                        std::span<std::int32_t> out) const {
  std::vector<T> tokens(out.size());
  bin_.read(begin, std::as_writable_bytes(std::span(tokens)));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const T token = tokens[i];
    // NOLINTNEXTLINE(bugprone-signed-char-misuse): ids of the type i8 have a sign
    out[i] = static_cast<std::int32_t>(token);
    if constexpr (sizeof(T) > sizeof(std::int32_t)) {
      if (out[i] != token) {
        throw input_error(bin_path_, ": sequence ", sequence, " holds the token id ", token,
                          "; token ids must be less than 2147483648");
      }
    }
  }
}

std::string TokenFile::identity() const {
  constexpr std::int64_t pieces = 64, piece_bytes = 4096;
  const std::int64_t spread = std::max<std::int64_t>(0, bin_.size() - piece_bytes);
  std::uint64_t bin_hash = 0;
  std::vector<std::byte> piece(
      static_cast<std::size_t>(std::min<std::int64_t>(bin_.size(), piece_bytes)));
  for (std::int64_t i = 0; i < pieces; ++i) {
    bin_.read(spread * i / (pieces - 1), piece);
    bin_hash = mix_bits(bin_hash + hash_bytes(piece));
  }
  return text(sequences_, " sequences, ", documents_, " documents, ", tokens_, " tokens of type ",
              find_token_type(token_type_)->name, ", ", bin_.size(), " bytes, idx ", std::hex,
              hash_bytes(idx_.bytes()), ", bin ", bin_hash);
}

}  // namespace hearth
