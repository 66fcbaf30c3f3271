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

ModelConfig vocabulary(std::int64_t tokens) {
  ModelConfig model;
  model.vocabulary = tokens;
  return model;
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
  const Cell cell = make_cell(corpus, 3, 5, vocabulary(16));
  REQUIRE(cell.token.size() == 35);
  REQUIRE(cell.target.size() == 35);
  REQUIRE(cell.position.size() == 35);
  REQUIRE(cell.sequence_source.size() == 5);
  std::vector<std::int32_t> tokens(8);
  for (int s = 0; s < 5; ++s) {
    CHECK(corpus.sample(3 + s, tokens).source == cell.sequence_source[s]);
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
  const Cell whole = make_cell(corpus, 0, 12, vocabulary(16));
  std::vector<int> tokens;
  for (int c = 0; c < 4; ++c) {
    const Cell part = make_cell(corpus, 3 * c, 3, vocabulary(16));
    tokens.insert(tokens.end(), part.token.begin(), part.token.end());
  }
  CHECK(tokens == whole.token);
}

TEST_CASE("halves of the data are the even and the odd samples of each source") {
  const TemporaryFolder folder;
  const Corpus corpus = small_corpus(folder, 12);
  const Cell cell = make_cell(corpus, 3, 9, vocabulary(16));
  // Two sources, of which the first three samples of the order have taken some.
  int next[2] = {0, 0};
  std::vector<std::int32_t> tokens(8);
  for (int sample = 0; sample < 12; ++sample) {
    const int source = corpus.sample(sample, tokens).source;
    const int half = next[source]++ % 2;
    if (sample >= 3) CHECK(cell.sequence_half[static_cast<std::size_t>(sample - 3)] == half);
  }
  CHECK(next[0] > 1);
  CHECK(next[1] > 1);
  CHECK(make_epoch_cell(small_corpus(folder, 0), 1, 1, 2, vocabulary(16)).sequence_half ==
        std::vector<int>{1, 0});
}

TEST_CASE("a cell of one pass comes from one source") {
  const TemporaryFolder folder;
  const Corpus corpus = small_corpus(folder, 0);
  REQUIRE(corpus.epoch_samples(1) == 4);
  const Cell cell = make_epoch_cell(corpus, 1, 2, 2, vocabulary(16));
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
  const Cell cell = make_cell(corpus, 12, 0, vocabulary(16));
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
  const std::string message = message_of([&] { (void)make_cell(corpus, 0, 12, vocabulary(11)); });
  CHECK(message.find(folder / "b.bin: holds the token id 1") == 0);
  CHECK(contains(message, "model.vocabulary is 11"));
  CHECK(contains(message, "must be larger"));

  write_tokens(folder / "c", {9}, {0, 1, 2, 3, -4, 5, 6, 7, 8});
  const Corpus negative(parse_sources({"c:" + (folder / "c")}), "1", Split::train, 8, 1, 1);
  CHECK(contains(message_of([&] { (void)make_cell(negative, 0, 1, vocabulary(16)); }),
                 "c.bin: holds the token id -4"));
  // The last token of a sample is only a target.
  write_tokens(folder / "d", {9}, {0, 1, 2, 3, 4, 5, 6, 7, 99});
  const Corpus last(parse_sources({"d:" + (folder / "d")}), "1", Split::train, 8, 1, 1);
  CHECK(contains(message_of([&] { (void)make_cell(last, 0, 1, vocabulary(16)); }), "token id 99"));
}

TEST_CASE("a cell of too many tokens is refused") {
  const TemporaryFolder folder;
  const Corpus corpus = small_corpus(folder, 12);
  CHECK(contains(message_of([&] { (void)make_cell(corpus, 0, 400000000, vocabulary(16)); }),
                 "batch.cell_sequences: 400000000"));
}

TEST_CASE("documents begin where the index of the token file says") {
  const TemporaryFolder folder;
  ModelConfig model = vocabulary(64);
  model.document_mask = true;
  // The begins in a cell of one pass over these documents, in sequences of 8 tokens.
  const auto begins = [&](const IndexFile& index) {
    std::vector<std::int32_t> tokens(
        std::accumulate(index.lengths.begin(), index.lengths.end(), 0));
    std::iota(tokens.begin(), tokens.end(), 0);
    write_tokens(folder / "a", {}, tokens);
    write_bytes(folder / "a.idx", index.bytes());
    const Corpus corpus(parse_sources({"a:" + (folder / "a")}), "1", Split::train, 8, 0, 1);
    const Cell masked = make_epoch_cell(corpus, 0, 0, corpus.epoch_samples(0), model);
    const Cell plain = make_epoch_cell(corpus, 0, 0, corpus.epoch_samples(0), vocabulary(64));
    CHECK(plain.document_begin.empty());
    CHECK(masked.token == plain.token);
    CHECK(masked.target == plain.target);
    CHECK(masked.position == plain.position);
    return masked.document_begin;
  };
  using Begins = std::vector<int>;
  CHECK(begins(index_of({3, 2, 1, 19})) == Begins{3, 5, 6});  // the last is longer than a sequence
  CHECK(begins(index_of({0, 3, 0, 0, 10, 20, 0})) == Begins{3, 13});
  // On the boundary of two sequences, where the begin is a target first, and beside it.
  CHECK(begins(index_of({8, 17})).empty());
  CHECK(begins(index_of({7, 18})) == Begins{7});
  CHECK(begins(index_of({9, 16})) == Begins{9});
  CHECK(begins(index_of({24, 1})).empty());  // only a target

  // Documents of several sequences, and of none.
  IndexFile several = index_of({3, 0, 4, 9, 9});
  several.documents = {0, 0, 3, 3, 5};
  CHECK(begins(several) == Begins{7});
}

TEST_CASE("documents of a shuffled order begin where the reading jumps") {
  const TemporaryFolder folder;
  ModelConfig model = vocabulary(128);
  model.document_mask = true;
  // Each token's id tells its sequence: four sequences of 12, two to a document.
  write_counting(folder / "a", {12, 12, 12, 12});
  IndexFile index = index_of({12, 12, 12, 12});
  index.documents = {0, 2, 4};
  write_bytes(folder / "a.idx", index.bytes());
  const Corpus corpus(parse_sources({"a:" + (folder / "a")}), "1", Split::train, 31, 20, 5);
  const Cell cell = make_cell(corpus, 0, 20, model);
  std::vector<int> expected;
  int within = 0;  // sequences that follow one of their document
  for (int t = 1; t < 20 * 31; ++t) {
    const int before = cell.token[t - 1] / 12, now = cell.token[t] / 12;
    if (t % 31 == 0 || (before == now && cell.token[t] % 12 != 0)) continue;
    const bool follows = before < now && before / 2 == now / 2;
    within += follows ? 1 : 0;
    if (!follows) expected.push_back(t);
  }
  CHECK(cell.document_begin == expected);
  CHECK(within > 0);
}

TEST_CASE("an epoch's end is a document's") {
  const TemporaryFolder folder;
  ModelConfig model = vocabulary(128);
  model.document_mask = true;
  write_counting(folder / "a", {11});
  const Corpus corpus(parse_sources({"a:" + (folder / "a")}), "1", Split::train, 40, 1, 5);
  CHECK(make_cell(corpus, 0, 1, model).document_begin == std::vector<int>{11, 22, 33});
}
