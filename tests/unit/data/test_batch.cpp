#include "data/batch.hpp"

#include <algorithm>
#include <numeric>

#include "unit/data/fixture.hpp"

using namespace hearth;
using namespace hearth::fixture;

namespace {

// 60 tokens and 30 tokens with few ids, so that they repeat.
Corpus small_corpus(const TemporaryFolder& folder, std::int64_t samples) {
  std::vector<std::int32_t> tokens(60);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<std::int32_t>((i * i + 3 * i) % 11);
  }
  write_tokens(folder / "a", {25, 5, 30}, tokens);
  tokens.resize(30);
  for (std::int32_t& token : tokens) token += 5;
  write_tokens(folder / "b", {30}, tokens);
  return {parse_sources({"a:" + (folder / "a"), "b:" + (folder / "b")}),
          "1",
          Split::train,
          7,
          samples,
          1234};
}

void check_order(const Cell& cell) {
  std::vector<int> expected(cell.token.size());
  std::iota(expected.begin(), expected.end(), 0);
  std::stable_sort(expected.begin(), expected.end(),
                   [&](int i, int j) { return cell.token[i] < cell.token[j]; });
  CHECK(cell.order == expected);
  std::vector<int> begin;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (i == 0 || cell.token[expected[i]] != cell.token[expected[i - 1]]) {
      begin.push_back(static_cast<int>(i));
    }
  }
  begin.push_back(static_cast<int>(expected.size()));
  CHECK(cell.run_begin == begin);
}

}  // namespace

TEST_CASE("a cell holds its samples") {
  const TemporaryFolder folder;
  const Corpus corpus = small_corpus(folder, 12);
  const Cell cell = make_cell(corpus, 3, 5, 16);
  REQUIRE(cell.token.size() == 35);
  REQUIRE(cell.target.size() == 35);
  REQUIRE(cell.position.size() == 35);
  REQUIRE(cell.sequence_source.size() == 5);
  std::vector<std::int32_t> tokens(8);
  for (int s = 0; s < 5; ++s) {
    CHECK(corpus.sample(3 + s, tokens) == cell.sequence_source[s]);
    for (int t = 0; t < 7; ++t) {
      CHECK(cell.token[7 * s + t] == tokens[t]);
      CHECK(cell.target[7 * s + t] == tokens[t + 1]);
      CHECK(cell.position[7 * s + t] == t);
    }
  }
  check_order(cell);
}

TEST_CASE("cells do not depend on how a batch is cut") {
  const TemporaryFolder folder;
  const Corpus corpus = small_corpus(folder, 12);
  const Cell whole = make_cell(corpus, 0, 12, 16);
  std::vector<int> tokens;
  for (int c = 0; c < 4; ++c) {
    const Cell part = make_cell(corpus, 3 * c, 3, 16);
    tokens.insert(tokens.end(), part.token.begin(), part.token.end());
  }
  CHECK(tokens == whole.token);
}

TEST_CASE("a cell of one pass comes from one source") {
  const TemporaryFolder folder;
  const Corpus corpus = small_corpus(folder, 0);
  REQUIRE(corpus.epoch_samples(1) == 4);
  const Cell cell = make_epoch_cell(corpus, 1, 2, 2, 16);
  CHECK(cell.sequence_source == std::vector<int>{1, 1});
  std::vector<std::int32_t> tokens(8);
  corpus.epoch_sample(1, 3, tokens);
  CHECK(std::vector<int>(cell.target.begin() + 7, cell.target.end()) ==
        std::vector<int>(tokens.begin() + 1, tokens.end()));
  check_order(cell);
}

TEST_CASE("a cell may be without sequences") {
  const TemporaryFolder folder;
  const Corpus corpus = small_corpus(folder, 12);
  const Cell cell = make_cell(corpus, 12, 0, 16);
  CHECK(cell.token.empty());
  CHECK(cell.target.empty());
  CHECK(cell.position.empty());
  CHECK(cell.sequence_source.empty());
  CHECK(cell.order.empty());
  CHECK(cell.run_begin == std::vector<int>{0});
}

TEST_CASE("token ids outside the vocabulary are refused") {
  const TemporaryFolder folder;
  const Corpus corpus = small_corpus(folder, 12);
  const std::string message = message_of([&] { (void)make_cell(corpus, 0, 12, 11); });
  CHECK(message.find(folder / "b.bin: holds the token id 1") == 0);
  CHECK(contains(message, "model.vocabulary is 11"));
  CHECK(contains(message, "must be larger"));

  write_tokens(folder / "c", {9}, {0, 1, 2, 3, -4, 5, 6, 7, 8});
  const Corpus negative(parse_sources({"c:" + (folder / "c")}), "1", Split::train, 8, 1, 1);
  CHECK(contains(message_of([&] { (void)make_cell(negative, 0, 1, 16); }),
                 "c.bin: holds the token id -4"));
  // The last token of a sample is only a target.
  write_tokens(folder / "d", {9}, {0, 1, 2, 3, 4, 5, 6, 7, 99});
  const Corpus last(parse_sources({"d:" + (folder / "d")}), "1", Split::train, 8, 1, 1);
  CHECK(contains(message_of([&] { (void)make_cell(last, 0, 1, 16); }), "token id 99"));
}

TEST_CASE("a cell of too many tokens is refused") {
  const TemporaryFolder folder;
  const Corpus corpus = small_corpus(folder, 12);
  CHECK(contains(message_of([&] { (void)make_cell(corpus, 0, 400000000, 16); }),
                 "batch.cell_sequences: 400000000"));
}
