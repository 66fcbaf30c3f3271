#include "data/corpus.hpp"

#include "unit/data/fixture.hpp"

using namespace hearth;
using namespace hearth::fixture;

TEST_CASE("sources are read from their lines") {
  const DataSource plain = parse_source("web:data/web");
  CHECK(plain.name == "web");
  CHECK(plain.prefix == "data/web");
  CHECK_FALSE(plain.weighted);
  const DataSource weighted = parse_source("code:/d/code.v2:2.5e-1");
  CHECK(weighted.prefix == "/d/code.v2");
  CHECK(weighted.weighted);
  CHECK(weighted.weight == 0.25);
  CHECK(parse_sources({"a:x:1", "b:x:2"}).size() == 2);
}

TEST_CASE("what is wrong with a source is named") {
  const auto message = [](const std::vector<std::string>& lines) {
    const std::string found = message_of([&] { (void)parse_sources(lines); });
    CHECK(found.find("data.sources: ") == 0);
    return found;
  };
  CHECK(message({"data/web"}) ==
        "data.sources: 'data/web' has no ':'; right is name:prefix or name:prefix:weight");
  CHECK(contains(message({":data/web"}), "has an empty name"));
  CHECK(contains(message({"web:"}), "has an empty prefix"));
  CHECK(contains(message({"web::3"}), "has an empty prefix"));
  for (const char* weight : {"", "heavy", "0", "-1", "nan", "inf", "1:2", "1x"}) {
    CHECK(contains(message({text("web:data/web:", weight)}), text("the weight '", weight, "'")));
  }
  CHECK(contains(message({"a:x", "a:y"}), "two sources are named 'a'"));
  CHECK(contains(message({"a:x", "b:y:2"}), "give every source a weight or none"));
  CHECK(contains(message({"a:x:2", "b:y"}), "'b:y' has no weight, but 'a:x:2' has one"));
}

TEST_CASE("a corpus reads Megatron's samples") {
  for (const GoldenCase& golden : read_golden("sample_order_corpus.txt")) {
    INFO(golden.name);
    const TemporaryFolder folder;
    std::vector<std::string> lines;
    for (std::size_t d = 0; d < golden.records.at("lengths").size(); ++d) {
      const std::string prefix = folder / text("source", d);
      write_counting(prefix, golden.numbers<std::int32_t>("lengths", d));
      lines.push_back(text("s", d, ":", prefix));
      if (golden.has("weights")) lines.back() += ":" + golden.words("weights")[d];
    }
    const std::int64_t samples = golden.number("samples");
    const std::int64_t length = golden.number("sequence_length");
    const Corpus corpus(parse_sources(lines), golden.words("shares")[0], Split::train, length,
                        samples, golden.number("seed"));
    CHECK(corpus.samples() == samples);
    CHECK(corpus.sources() == static_cast<int>(lines.size()));
    CHECK(corpus.epoch_samples(0) == 0);
    std::vector<std::int32_t> tokens(length + 1);
    for (std::int64_t i = 0; i < samples; ++i) {
      std::vector<std::int32_t> expected = golden.numbers<std::int32_t>("sample", i);
      CHECK(corpus.sample(i, tokens).source == expected[0]);
      CHECK(corpus.source(i) == expected[0]);
      expected.erase(expected.begin());
      CHECK(tokens == expected);
    }
    CHECK_THROWS_AS(corpus.sample(samples, tokens), Error);
    CHECK_THROWS_AS(corpus.source(samples), Error);
    CHECK_THROWS_AS(corpus.sample(-1, tokens), Error);
    tokens.pop_back();
    CHECK_THROWS_AS(corpus.sample(0, tokens), Error);
  }
}

TEST_CASE("a corpus of one pass reads each source in the order of its file") {
  const TemporaryFolder folder;
  write_counting(folder / "a", {10, 10, 10, 5});
  write_counting(folder / "b", {7, 2});
  const Corpus corpus(parse_sources({"a:" + (folder / "a"), "b:" + (folder / "b")}), "1,1",
                      Split::validation, 4, 0, 1);
  CHECK(corpus.samples() == 0);
  CHECK(corpus.names() == std::vector<std::string>{"a", "b"});
  CHECK(corpus.epoch_samples(0) == 3);
  CHECK(corpus.epoch_samples(1) == 0);
  std::vector<std::int32_t> tokens(5);
  corpus.epoch_sample(0, 1, tokens);
  CHECK(tokens == std::vector<std::int32_t>{24, 25, 26, 27, 28});
  CHECK_THROWS_AS(corpus.epoch_sample(0, 3, tokens), Error);
  CHECK_THROWS_AS(corpus.epoch_sample(1, 0, tokens), Error);
  CHECK_THROWS_AS(corpus.sample(0, tokens), Error);
}

TEST_CASE("a sequential corpus blends sources alike and shuffles none") {
  const TemporaryFolder folder;
  write_counting(folder / "a", {10, 11, 20});
  write_counting(folder / "b", {7, 2, 14});
  const std::int64_t samples = 60, length = 4;
  const std::vector<std::string> plain = {"a:" + (folder / "a"), "b:" + (folder / "b")};
  for (const auto& lines : {plain, {plain[0] + ":1", plain[1] + ":3"}}) {
    const Corpus shuffled(parse_sources(lines), "1", Split::train, length, samples, 1);
    const Corpus sequential(parse_sources(lines), "1", Split::train, length, samples, 1,
                            Order::sequential);
    CHECK(sequential.samples() == samples);
    CHECK(sequential.epoch_samples(0) == 0);
    const std::int32_t epoch[] = {41, 23};
    std::int32_t next[] = {0, 0};
    bool differ = false;
    std::vector<std::int32_t> tokens(length + 1), other(length + 1);
    for (std::int64_t i = 0; i < samples; ++i) {
      const int source = sequential.sample(i, tokens).source;
      CHECK(source == shuffled.sample(i, other).source);
      differ = differ || tokens != other;
      for (std::int32_t t = 0; t <= length; ++t) {
        CHECK(tokens[t] == (next[source] + t) % epoch[source]);
      }
      next[source] += length;
    }
    CHECK(differ);
    CHECK(next[0] > epoch[0]);
    CHECK(next[1] > epoch[1]);
  }
}

TEST_CASE("a sequential corpus does not depend on seed or number of samples") {
  const TemporaryFolder folder;
  write_counting(folder / "a", {30});
  const auto lines = parse_sources({"a:" + (folder / "a")});
  const Corpus few(lines, "1", Split::train, 4, 5, 1, Order::sequential);
  const Corpus many(lines, "1", Split::train, 4, 50, 2, Order::sequential);
  std::vector<std::int32_t> tokens(5), other(5);
  for (std::int64_t i = 0; i < 5; ++i) {
    few.sample(i, tokens);
    many.sample(i, other);
    CHECK(tokens == other);
  }
}

TEST_CASE("orders are read") {
  CHECK(parse_order("shuffled") == Order::shuffled);
  CHECK(parse_order("sequential") == Order::sequential);
  CHECK(message_of([] { (void)parse_order("random"); }) ==
        "data.order: 'random' is neither shuffled nor sequential");
}

TEST_CASE("a shuffled corpus gives one pass over another split of its files") {
  const TemporaryFolder folder;
  write_counting(folder / "a", {10, 10, 10, 5});
  const auto sources = parse_sources({"a:" + (folder / "a")});
  const Corpus shuffled(sources, "1,1", Split::train, 4, 9, 1);
  const Corpus pass = shuffled.one_pass(Split::validation);
  const Corpus alone(sources, "1,1", Split::validation, 4, 0, 1);
  CHECK(pass.samples() == 0);
  CHECK(pass.names() == alone.names());
  CHECK(&pass.file(0) == &shuffled.file(0));
  REQUIRE(pass.epoch_samples(0) == alone.epoch_samples(0));
  std::vector<std::int32_t> tokens(5), expected(5);
  for (std::int64_t i = 0; i < pass.epoch_samples(0); ++i) {
    pass.epoch_sample(0, i, tokens);
    alone.epoch_sample(0, i, expected);
    CHECK(tokens == expected);
  }
}

TEST_CASE("identity has a line for each source") {
  const TemporaryFolder folder;
  write_counting(folder / "a", {10, 10});
  write_counting(folder / "b", {20});
  const Corpus corpus(parse_sources({"x:" + (folder / "a"), "y:" + (folder / "b")}), "1",
                      Split::train, 4, 8, 1);
  CHECK(corpus.identity() == "x: " + TokenFile(folder / "a").identity() +
                                 "\ny: " + TokenFile(folder / "b").identity() + "\n");
}

TEST_CASE("a corpus that cannot be is refused") {
  const TemporaryFolder folder;
  write_counting(folder / "a", {10});
  const std::vector<std::string> lines = {"a:" + (folder / "a")};
  const auto message = [](const std::vector<std::string>& sources, const std::string& shares,
                          Split split, std::int64_t length, std::int64_t samples,
                          std::int64_t seed) {
    return message_of(
        [&] { Corpus(parse_sources(sources), shares, split, length, samples, seed); });
  };
  CHECK(message(lines, "1", Split::train, 4, 3, 1) == "no error");
  CHECK(contains(message({}, "1", Split::train, 4, 3, 1), "data.sources: no source"));
  CHECK(
      contains(message(lines, "1", Split::test, 4, 3, 1), "data.split: '1' gives the test split"));
  CHECK(contains(message(lines, "1,1", Split::train, 4, 3, 1), "the train split gets none of"));
  CHECK(contains(message(lines, "1,1", Split::train, 4, 0, 1), folder / "a.idx"));
  CHECK(contains(message(lines, "1", Split::train, 0, 3, 1), "model.sequence_length: 0"));
  CHECK(contains(message(lines, "1", Split::train, 4, 3, -1), "run.seed: -1"));
  CHECK(contains(message(lines, "1", Split::train, 4, 3, std::int64_t{1} << 32), "4294967295"));
  CHECK(contains(message({"a:" + (folder / "gone")}, "1", Split::train, 4, 3, 1),
                 folder / "gone.idx: cannot be read"));
}
