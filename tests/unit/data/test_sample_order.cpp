#include "data/sample_order.hpp"

#include <algorithm>

#include "unit/data/fixture.hpp"

using namespace hearth;
using namespace hearth::fixture;

namespace {

Split split_of(const std::string& name) {
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    if (split_name(split) == name) return split;
  }
  throw std::runtime_error("no split " + name);
}

std::vector<std::int32_t> tokens_of(const TokenFile& file, const SampleOrder& order,
                                    std::int64_t sample) {
  std::vector<std::int32_t> tokens;
  for (const Piece& piece : order.pieces(file, sample)) {
    CHECK(piece.length > 0);
    tokens.resize(tokens.size() + piece.length);
    file.copy(piece.sequence, piece.offset, std::span(tokens).last(piece.length));
  }
  return tokens;
}

}  // namespace

TEST_CASE("the order of samples is Megatron's") {
  for (const GoldenCase& golden : read_golden("sample_order_single.txt")) {
    INFO(golden.name);
    const TemporaryFolder folder;
    write_counting(folder / "a", golden.numbers<std::int32_t>("lengths"));
    const TokenFile file(folder / "a");
    const Split split = split_of(golden.words("split")[0]);
    const SequenceRange range =
        SplitShares(golden.words("shares")[0]).range(split, file.sequences());
    CHECK(range.begin == golden.numbers("range")[0]);
    CHECK(range.end == golden.numbers("range")[1]);

    const std::int64_t length = golden.number("sequence_length");
    const SampleOrder order = shuffled_order(file, split, range, length, golden.number("samples"),
                                             static_cast<std::uint32_t>(golden.number("seed")));
    CHECK(order.epochs == golden.number("epochs"));
    CHECK(order.document_index == golden.numbers<std::int32_t>("document_index"));
    CHECK(order.start_document == golden.numbers("start_document"));
    CHECK(order.start_offset == golden.numbers<std::int32_t>("start_offset"));
    CHECK(order.shuffle_index == golden.numbers<std::uint32_t>("shuffle_index"));
    CHECK(order.samples() >= golden.number("samples"));

    std::vector<std::int32_t> line = {0};
    for (std::int64_t i = 0; i < order.samples(); ++i) {
      const std::vector<std::int32_t> tokens = tokens_of(file, order, i);
      CHECK(static_cast<std::int64_t>(tokens.size()) == length + 1);
      line.insert(line.end(), tokens.begin(), tokens.end());
    }
    CHECK(fingerprint(line) == golden.numbers<std::uint64_t>("fingerprint")[0]);
  }
}

TEST_CASE("one pass cuts the split in the order of the file") {
  const TemporaryFolder folder;
  write_counting(folder / "a", {4, 0, 3, 9, 1, 6});
  const TokenFile file(folder / "a");
  const SampleOrder order = file_order(file, Split::validation, {2, 5}, 4, 0);
  REQUIRE(order.samples() == 3);
  for (std::int32_t i = 0; i < 3; ++i) {
    const std::int32_t first = 4 + 4 * i;
    CHECK(tokens_of(file, order, i) ==
          std::vector<std::int32_t>{first, first + 1, first + 2, first + 3, first + 4});
  }
  CHECK(file_order(file, Split::validation, {2, 5}, 12, 0).samples() == 1);
  CHECK(file_order(file, Split::validation, {2, 5}, 13, 0).samples() == 0);
}

TEST_CASE("over whole epochs every token but the last few is equally often a target") {
  const TemporaryFolder folder;
  write_counting(folder / "a", {13, 7, 20, 1, 24});
  const TokenFile file(folder / "a");
  const SampleOrder order = shuffled_order(file, Split::train, {0, 5}, 8, 24, 1);
  CHECK(order.epochs == 3);
  std::vector<int> count(65, 0);
  for (std::int64_t i = 0; i < order.samples(); ++i) {
    const std::vector<std::int32_t> tokens = tokens_of(file, order, i);
    for (std::size_t t = 1; t < tokens.size(); ++t) ++count[tokens[t]];
  }
  int missing = 0;
  for (const int times : count) {
    CHECK(times <= 3);
    missing += 3 - times;
  }
  CHECK(missing == 3 * 65 - 8 * order.samples());
}

TEST_CASE("the order of the file goes on through epochs") {
  const TemporaryFolder folder;
  write_counting(folder / "a", {4, 0, 3, 9, 1, 6});
  const TokenFile file(folder / "a");
  // Tokens 4 to 15, again and again; samples of 5 and the next token.
  for (const std::int64_t samples : {1, 2, 3, 7, 12}) {
    const SampleOrder order = file_order(file, Split::train, {1, 4}, 5, samples);
    CHECK(order.epochs == (5 * samples + 12) / 12);
    CHECK(order.samples() == (12 * order.epochs - 1) / 5);
    REQUIRE(order.samples() >= samples);
    CHECK(order.shuffle_index.empty());
    for (std::int64_t i = 0; i < order.samples(); ++i) {
      std::vector<std::int32_t> expected;
      for (std::int64_t t = 5 * i; t <= 5 * i + 5; ++t) {
        expected.push_back(static_cast<std::int32_t>(4 + t % 12));
      }
      CHECK(tokens_of(file, order, i) == expected);
    }
  }
}

TEST_CASE("a split without documents or tokens is refused") {
  const TemporaryFolder folder;
  write_counting(folder / "none", {});
  write_counting(folder / "empty", {0, 0, 0});
  write_counting(folder / "a", std::vector<std::int32_t>(57, 10));
  const auto message = [&](const std::string& name, Split split, const std::string& shares) {
    const TokenFile file(folder / name);
    const SequenceRange range = SplitShares(shares).range(split, file.sequences());
    const std::string shuffled =
        message_of([&] { (void)shuffled_order(file, split, range, 8, 3, 1); });
    CHECK(shuffled == message_of([&] { (void)file_order(file, split, range, 8, 0); }));
    return shuffled;
  };
  CHECK(message("a", Split::validation, "999,1,0")
            .find(folder / "a.idx: the validation split gets none of its 57 documents") == 0);
  CHECK(contains(message("none", Split::train, "1"), "none of its 0 documents"));
  CHECK(contains(message("empty", Split::train, "1"), "the 3 documents of the train split hold"));
}

TEST_CASE("more samples than can be numbered are refused") {
  const TemporaryFolder folder;
  write_counting(folder / "a", {10, 10});
  const TokenFile file(folder / "a");
  const auto message = [&](std::int64_t length, std::int64_t samples) {
    return message_of([&] {
      (void)shuffled_order(file, Split::train, {0, 2}, length, samples, 1);
    });
  };
  CHECK(contains(message(8, std::int64_t{1} << 32), "4294967296 samples were asked"));
  CHECK(contains(message(2048, 4000000000), "more than can be ordered"));
  CHECK(contains(message(2048, 4000000000), "lower run.steps or batch.global_batch"));
}
