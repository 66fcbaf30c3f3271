#include "data/token_file.hpp"

#include <limits>

#include "unit/data/fixture.hpp"

using namespace hearth;
using namespace hearth::fixture;

namespace {

template <class T>
void check_type(std::uint8_t code, const std::vector<T>& tokens) {
  const TemporaryFolder folder;
  const auto count = static_cast<std::int32_t>(tokens.size());
  write_bytes(folder / "a.bin", bytes_of(tokens));
  write_bytes(folder / "a.idx", index_of({1, count - 1}, code, sizeof(T)).bytes());
  const TokenFile file(folder / "a");
  std::vector<std::int32_t> read(tokens.size());
  const std::span<std::int32_t> all(read);
  file.copy(0, 0, all.first(1));
  file.copy(1, 0, all.subspan(1));
  CHECK(read == std::vector<std::int32_t>(tokens.begin(), tokens.end()));
}

}  // namespace

TEST_CASE("sequences are found and copied in part") {
  const TemporaryFolder folder;
  write_counting(folder / "a", {3, 0, 5});
  const TokenFile file(folder / "a");
  CHECK(file.sequences() == 3);
  CHECK(file.documents() == 3);
  CHECK(file.tokens() == 8);
  CHECK(file.length(0) == 3);
  CHECK(file.length(1) == 0);
  std::vector<std::int32_t> read(3);
  file.copy(2, 1, read);
  CHECK(read == std::vector<std::int32_t>{4, 5, 6});
  file.copy(1, 0, {});
}

TEST_CASE("sequences may lie anywhere, share documents and carry modes") {
  const TemporaryFolder folder;
  IndexFile index = index_of({2, 2});
  index.pointers = {8, 0};
  index.documents = {0, 2};
  write_bytes(folder / "a.idx", index.bytes() + std::string(2, '\1'));
  write_bytes(folder / "a.bin", bytes_of<std::int32_t>({5, 6, 7, 8, 9}));
  const TokenFile file(folder / "a");
  CHECK(file.documents() == 1);
  CHECK(file.document(0) == 0);
  CHECK(file.document(1) == 0);
  std::vector<std::int32_t> read(2);
  file.copy(0, 0, read);
  CHECK(read == std::vector<std::int32_t>{7, 8});
}

TEST_CASE("a sequence's document is found, also among empty ones") {
  const TemporaryFolder folder;
  IndexFile index = index_of({2, 1, 1, 3, 1});
  index.documents = {0, 0, 2, 2, 2, 3, 5, 5};
  write_bytes(folder / "a.idx", index.bytes());
  write_bytes(folder / "a.bin", std::string(32, '\0'));
  const TokenFile file(folder / "a");
  std::vector<std::int64_t> documents;
  for (std::int64_t s = 0; s < 5; ++s) documents.push_back(file.document(s));
  CHECK(documents == std::vector<std::int64_t>{1, 1, 4, 5, 5});
}

TEST_CASE("every integer type of token is read") {
  check_type<std::uint8_t>(1, {0, 127, 128, 255});
  check_type<std::int8_t>(2, {0, 127, -128, -1});
  check_type<std::int16_t>(3, {0, 32767, -32768, -1});
  check_type<std::int32_t>(4, {0, 2147483647, -1});
  check_type<std::int64_t>(5, {0, 2147483647, -1});
  check_type<std::uint16_t>(8, {0, 32768, 65535});
}

TEST_CASE("a token id beyond 32 bits is refused") {
  const TemporaryFolder folder;
  write_bytes(folder / "a.bin", bytes_of<std::int64_t>({1, std::int64_t{1} << 32}));
  write_bytes(folder / "a.idx", index_of({2}, 5, 8).bytes());
  const TokenFile file(folder / "a");
  std::vector<std::int32_t> read(2);
  const std::string message = message_of([&] { file.copy(0, 0, read); });
  CHECK(contains(message, folder / "a.bin"));
  CHECK(contains(message, "4294967296"));
}

TEST_CASE("tokens outside a sequence are not read") {
  const TemporaryFolder folder;
  write_counting(folder / "a", {3, 5});
  const TokenFile file(folder / "a");
  std::vector<std::int32_t> read(3);
  CHECK_THROWS_AS(file.copy(0, 1, read), Error);
  CHECK_THROWS_AS(file.copy(0, -1, read), Error);
  CHECK_THROWS_AS(file.copy(0, 4, std::span<std::int32_t>()), Error);
  CHECK_THROWS_AS(file.copy(2, 0, read), Error);
  CHECK_THROWS_AS(file.copy(-1, 0, read), Error);
}

TEST_CASE("a file without sequences opens") {
  const TemporaryFolder folder;
  write_counting(folder / "a", {});
  const TokenFile file(folder / "a");
  CHECK(file.sequences() == 0);
  CHECK(file.documents() == 0);
  CHECK(file.tokens() == 0);
}

TEST_CASE("identity follows the content, not the path") {
  const TemporaryFolder folder;
  write_counting(folder / "a", {3, 5});
  write_counting(folder / "b", {3, 5});
  write_counting(folder / "c", {5, 3});
  const std::string identity = TokenFile(folder / "a").identity();
  CHECK(contains(identity, "2 sequences, 2 documents, 8 tokens of type i32, 32 bytes"));
  CHECK(identity == TokenFile(folder / "b").identity());
  CHECK(identity != TokenFile(folder / "c").identity());
}

TEST_CASE("identity sees other tokens of the same sizes") {
  const TemporaryFolder folder;
  // More than the 64 pieces of 4096 bytes that are looked at.
  const std::vector<std::int32_t> lengths(300, 1000);
  write_counting(folder / "a", lengths);
  const std::string identity = TokenFile(folder / "a").identity();
  std::string tokens(300 * 1000 * 4, '\1');
  write_bytes(folder / "a.bin", tokens);
  const std::string other = TokenFile(folder / "a").identity();
  CHECK(other != identity);
  for (const std::size_t place : {std::size_t{0}, tokens.size() - 1}) {
    tokens[place] = '\2';
    write_bytes(folder / "a.bin", tokens);
    CHECK(TokenFile(folder / "a").identity() != other);
    tokens[place] = '\1';
  }
}

TEST_CASE("a .bin file that becomes shorter while it is read is named") {
  const TemporaryFolder folder;
  write_counting(folder / "a", {3, 5});
  const TokenFile file(folder / "a");
  std::filesystem::resize_file(folder / "a.bin", 20);
  std::vector<std::int32_t> read(3);
  file.copy(0, 0, read);
  try {
    file.copy(1, 1, read);
    FAIL("what is not there was read");
  } catch (const Error& error) {
    CHECK(error.status() == Status::failure);
    CHECK(error.what() ==
          (folder / "a.bin") + ": ends at byte 20, but had 32 bytes when it was opened");
  }
}

TEST_CASE("a missing token file is named") {
  const TemporaryFolder folder;
  const auto message = [&] { return message_of([&] { TokenFile(folder / "a"); }); };
  CHECK(contains(message(), folder / "a.idx: cannot be read: No such file"));
  write_bytes(folder / "a.idx", index_of({3}).bytes());
  CHECK(contains(message(), folder / "a.bin: cannot be read: No such file"));
  std::filesystem::create_directory(folder / "a.bin");
  CHECK(contains(message(), folder / "a.bin: is not a regular file"));
}

TEST_CASE("what is wrong in an .idx file is named") {
  const TemporaryFolder folder;
  write_bytes(folder / "a.bin", std::string(32, '\0'));
  const auto message_of_bytes = [&](const std::string& bytes) {
    write_bytes(folder / "a.idx", bytes);
    const std::string message = message_of([&] { TokenFile(folder / "a"); });
    CHECK(message.find(folder / "a.idx") == 0);
    return message;
  };
  const IndexFile good = index_of({3, 5});
  CHECK(contains(message_of_bytes(""), "holds 0 bytes"));
  CHECK(contains(message_of_bytes(good.bytes().substr(0, 33)), "holds 33 bytes"));
  CHECK(contains(message_of_bytes(good.bytes().substr(0, good.bytes().size() - 1)),
                 "is truncated: 2 sequences and 3 document boundaries"));

  IndexFile bad = good;
  bad.magic = "MMIDIDX!!";
  CHECK(contains(message_of_bytes(bad.bytes()), "does not start with MMIDIDX"));
  bad = good;
  bad.version = 2;
  CHECK(contains(message_of_bytes(bad.bytes()), "format version 2; only version 1"));
  for (const int type : {0, 6, 7, 9, 255}) {
    bad = good;
    bad.token_type = static_cast<std::uint8_t>(type);
    CHECK(contains(message_of_bytes(bad.bytes()), text("token type ", type, " is not an integer")));
  }
  bad = good;
  bad.lengths[1] = -5;
  CHECK(contains(message_of_bytes(bad.bytes()), "sequence 1 has the length -5"));
  bad = good;
  bad.pointers[0] = -4;
  CHECK(contains(message_of_bytes(bad.bytes()), "sequence 0 begins at byte -4"));
  bad = good;
  bad.documents = {};
  CHECK(contains(message_of_bytes(bad.bytes()), "0 document boundaries"));
  bad = good;
  bad.documents.back() = 7;
  CHECK(contains(message_of_bytes(bad.bytes()), "end at sequence 7, but it has 2"));
  bad = good;
  bad.documents[0] = 1;
  CHECK(contains(message_of_bytes(bad.bytes()), "first document begins at sequence 1"));
  bad = good;
  bad.documents[1] = 5;
  CHECK(contains(message_of_bytes(bad.bytes()),
                 "document 1 ends at sequence 2, before its begin, sequence 5"));
}

TEST_CASE("counts of a damaged header do not overflow") {
  const TemporaryFolder folder;
  write_bytes(folder / "a.bin", "");
  for (const std::uint64_t count : {std::numeric_limits<std::uint64_t>::max(),
                                    std::uint64_t{1} << 61, std::uint64_t{0x1555555555555556}}) {
    for (const std::size_t field : {18, 26}) {
      std::string bytes = index_of({}).bytes();
      std::memcpy(bytes.data() + field, &count, sizeof(count));
      write_bytes(folder / "a.idx", bytes);
      CHECK(contains(message_of([&] { TokenFile(folder / "a"); }), "is truncated"));
    }
  }
}

TEST_CASE("a truncated .bin file is named") {
  const TemporaryFolder folder;
  const auto message = [&](const IndexFile& index, std::size_t bytes) {
    write_bytes(folder / "a.idx", index.bytes());
    write_bytes(folder / "a.bin", std::string(bytes, '\0'));
    return message_of([&] { TokenFile(folder / "a"); });
  };
  CHECK(message(index_of({3, 5}), 32) == "no error");
  CHECK(message(index_of({3, 5}), 31).find(folder / "a.bin: is truncated: it holds 31 bytes") == 0);
  CHECK(contains(message(index_of({3, 5}), 0), "is truncated: it holds 0 bytes"));
  IndexFile far = index_of({1});
  far.pointers[0] = std::numeric_limits<std::int64_t>::max();
  CHECK(contains(message(far, 32), "is truncated"));
}
