#include "base/error.hpp"
#include "catch.hpp"
#include "config/deck.hpp"
#include "config/options.hpp"
#include "unit/data/fixture.hpp"

using namespace hearth;
using hearth::fixture::TemporaryFolder;
using hearth::fixture::write_bytes;

namespace {

std::string message_of(const std::string& deck, const std::vector<std::string>& overrides = {}) {
  try {
    (void)parse_deck(deck, "some.deck", overrides);
  } catch (const Error& error) {
    CHECK(error.status() == Status::bad_input);
    return error.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a deck's values reach their fields") {
  const Config c = parse_deck(
      "# a comment\n[model]\nhidden = 64  # wide\nheads = 4\ntie_embeddings = true\n"
      "[data]\nsources = a:x/a\nsources = b:x/b:2.5\n[optimizer]\nlearning_rate = 1e-3\n",
      "some.deck");
  CHECK(c.model.hidden == 64);
  CHECK(c.model.tie_embeddings);
  CHECK(c.optimizer.learning_rate == 1e-3);
  CHECK(c.data.sources == std::vector<std::string>{"a:x/a", "b:x/b:2.5"});
  CHECK(c.moe.experts.values == Config().moe.experts.values);
}

TEST_CASE("the command line overrides the deck") {
  const std::string deck =
      "[model]\nhidden = 64\nheads = 4\n[data]\nsources = a:x/a\nsources = b:x/b\n";
  const Config c = parse_deck(deck, "some.deck", {"--model.hidden=128", "--data.sources=c:x/c"});
  CHECK(c.model.hidden == 128);
  CHECK(c.data.sources == std::vector<std::string>{"c:x/c"});
}

TEST_CASE("a resolved deck reads back as itself") {
  Config c;
  c.optimizer.learning_rate = 0.1 + 0.2;
  c.data.sources = {"a:x/a", "b:y/b:0.25"};
  c.model.qk_norm = true;
  c.model.layers = 4;
  c.moe.experts.values = {8, 8, 16};
  c.capacity.factor.values = {1, 1.25, 0.1};
  const std::string written = write_deck(c);
  CHECK(write_deck(parse_deck(written, "some.deck")) == written);
  CHECK(parse_deck(written, "some.deck").optimizer.learning_rate == c.optimizer.learning_rate);
}

TEST_CASE("what is wrong in a deck is named with its line") {
  CHECK(message_of("[model]\n\nhiden = 64\n") ==
        "some.deck:3: unknown key 'model.hiden'; the nearest known key is 'model.hidden'");
  CHECK(contains(message_of("[moe]\nhidden = 64\n"), "nearest known key is 'model.hidden'"));
  CHECK(contains(message_of("[model]\nhidden = wide\n"), "some.deck:2: "));
  CHECK(contains(message_of("[model]\nhidden = wide\n"), "integer"));
  CHECK(contains(message_of("[model]\nhidden = 0\n"),
                 "some.deck:2: model.hidden = 0; expected at least 1"));
  CHECK(contains(message_of("[model]\nhidden = 8\nhidden = 9\n"), "given twice"));
  CHECK(contains(message_of("[model]\ncompute_type = fp8\n"), "expected one of fp32, bf16, fp64"));
  CHECK(contains(message_of("[moe]\nexperts = 4\ntop_k = 5\n"),
                 "moe.top_k = 5 is more than moe.experts = 4"));
  CHECK(contains(message_of("[model]\nhidden = 65\nheads = 4\n"), "not a multiple of model.heads"));
  CHECK(contains(message_of("[optimizer]\nepsilon = 0\n"), "above 0"));
  CHECK(contains(message_of("[optimizer]\nbeta1 = nan\n"), "from 0 to 1"));
  CHECK(contains(message_of("hidden\n"), "some.deck"));
}

TEST_CASE("numbers may differ from layer to layer") {
  const std::string deck = "[model]\nlayers = 4\n[moe]\ntop_k = 2\nexperts = ";
  const Config c = parse_deck(deck + "8, 16,4\n", "some.deck");
  CHECK(c.moe.experts.values == std::vector<std::int64_t>{8, 16, 4});
  CHECK(c.moe.experts.at(1) == 16);
  CHECK(c.moe.experts.largest() == 16);
  CHECK(c.moe.top_k.at(2) == 2);
  CHECK(contains(message_of(deck + "8,16\n"),
                 "moe.experts has 2 values for 3 layers with experts; expected one, or one for "
                 "each"));
  CHECK(contains(message_of(deck + "8,0,8\n"), "moe.experts = 0 in MoE layer 1"));
  CHECK(contains(message_of(deck + "8,1,8\n"), "moe.top_k = 2 is more than moe.experts = 1"));
  for (const char* list : {"8,", ",8", "8,,8", "8,x,8", "8 16 4", "8,1.5,8"}) {
    INFO(list);
    CHECK(contains(message_of(deck + list + "\n"), "expected integer or one by layer"));
  }
  CHECK(contains(message_of(deck + "8,-1,8\n"), "expected a number from 0 to 65536"));
}

TEST_CASE("routers that cannot be run are refused") {
  const std::string deck = "[moe]\nexperts = 12\ntop_k = 4\nrouter = ";
  CHECK(contains(message_of(deck + "best\n"), "expected one of top_k, capacity, expert_choice"));
  CHECK(contains(message_of(deck + "top_k\n[top_k]\ngroups = 5\n"),
                 "top_k.groups = 5 does not divide the 12 destinations"));
  CHECK(contains(message_of(deck + "top_k\nzero_experts = 3\n[top_k]\ngroups = 3\n"),
                 "top_k.groups = 3 does not divide"));
  CHECK(contains(message_of(deck + "bias_balanced\n[bias_balanced]\ngroups = 6\n"),
                 "moe.top_k = 4 is more than the 2 experts of bias_balanced.groups_chosen groups"));
  CHECK(contains(message_of(deck + "frozen\n[top_k]\ngroups = 3\ngroups_chosen = 4\n"),
                 "top_k.groups_chosen = 4 is more than top_k.groups = 3"));
  CHECK(message_of(deck + "top_k\n[bias_balanced]\ngroups = 5\n") == "no error");
  CHECK(contains(message_of(deck + "expert_choice\ncopy_experts = 1\n"),
                 "experts without matrices choose no tokens"));
  CHECK(contains(message_of(deck + "hash\nnull_experts = 2\n"),
                 "moe.router = hash: it never chooses experts without matrices"));
  CHECK(contains(message_of(deck + "top_p\n[top_p]\nthreshold = 0\n"), "top_p.threshold = 0"));
  CHECK(contains(message_of(deck + "capacity\n[capacity]\nfactor = 0\n"), "above 0"));
  CHECK(contains(message_of("[moe]\nexperts = 4\ntop_k = 7\nnull_experts = 2\n"),
                 "moe.top_k = 7 is more than moe.experts = 4 and 2 light experts"));
  CHECK(message_of("[moe]\nexperts = 4\ntop_k = 5\nnull_experts = 2\n") == "no error");
}

TEST_CASE("sizes that no computer has are refused") {
  const auto model = [](const std::string& line) { return message_of("[model]\n" + line + "\n"); };
  CHECK(contains(model("vocabulary = 9223372036854775807"), "expected at most 2147483647"));
  CHECK(contains(model("layers = 1000000000"),
                 "model.layers = 1000000000; expected a number from 1 "
                 "to 10000"));
  CHECK(contains(model("hidden = 2000000000\ndense_ffn = 2000000000\nhead_dim = 64"),
                 "parameters; expected at most 1e+15"));
  CHECK(contains(message_of("[moe]\nexperts = 8,100000000000\n"), "from 0 to 65536"));
  CHECK(contains(message_of("[run]\nseed = 4294967296\n"), "from 0 to 4294967295"));
  const std::string counts = "vocabulary = 2000000000\nhidden = 16\nheads = 1\n[moe]\nexperts = ";
  CHECK(contains(model(counts + "65536\nexpert_ffn = 1"), "statistics.token_counts would take"));
  CHECK(contains(message_of("[run]\nsteps = 2000000000\n[batch]\nglobal_batch = 1000000000\n"),
                 "tokens; expected at most 1e18"));
}

TEST_CASE("a deck may come from other systems") {
  CHECK(message_of("[model]\r\nhidden = 64\r\n") == "no error");
  CHECK(contains(message_of("# all in one line\r[model]\rhidden = 64\r"),
                 "some.deck:1: a carriage return stands alone"));
  const TemporaryFolder folder;
  write_bytes(folder / "marked.deck", "\xEF\xBB\xBF[model]\nhidden = 64\n");
  CHECK(read_deck(folder / "marked.deck", {}).model.hidden == 64);
}

TEST_CASE("the command line can empty a value") {
  const std::string deck = "[parallel]\nplacement = a.txt\n";
  CHECK(parse_deck(deck, "some.deck", {}).parallel.placement == "a.txt");
  CHECK(parse_deck(deck, "some.deck", {"--parallel.placement="}).parallel.placement.empty());
  CHECK(contains(message_of("", {"--model.hidden="}), "command line: "));
}

TEST_CASE("what is wrong on the command line is named as such") {
  CHECK(
      contains(message_of("", {"--model.hiden=64"}),
               "command line: unknown key 'model.hiden'; the nearest known key is 'model.hidden'"));
  CHECK(contains(message_of("", {"--model.hidden=x"}), "command line: "));
  CHECK(contains(message_of("", {"model.hidden=64"}), "expected --section.key=value"));
}

TEST_CASE("a resumed run may change its schedule but not its identity") {
  Config then, now;
  now.optimizer.learning_rate = 1;
  now.run.output = "elsewhere";
  CHECK(check_resumed(then, now, "c.h5") ==
        std::vector<std::string>{"optimizer.learning_rate: 0.0003 -> 1"});
  now.model.hidden = 512;
  CHECK_THROWS_AS(check_resumed(then, now, "c.h5"), Error);
}

TEST_CASE("every option is documented") {
  const std::string manual = deck_manual();
  Config config;
  for (const Option& option : option_table(config)) {
    CHECK_FALSE(option.help.empty());
    CHECK(contains(manual, "`" + option.key.substr(option.key.find('.') + 1) + "`"));
  }
}

TEST_CASE("a line that is neither heading nor value is named") {
  const std::string right = " is neither a [section] nor a line of key = value";
  for (const std::string line : {"foo", "[run", "run]", "[]", "= 3", "[run = 3"}) {
    CHECK(message_of("# a deck\n[model]\n" + line + "  # why\nhidden = 64\n") ==
          "some.deck:3: '" + line + "'" + right);
  }
}

TEST_CASE("an interval whose sums would overflow is refused") {
  const std::string deck =
      "[model]\nsequence_length = 1024\n[batch]\nglobal_batch = 1024\n[moe]\nexperts = ";
  const std::string interval = "\n[statistics]\nevery_steps = ";
  // 2^33 / (2^20 ln 64) = 1969.8; with few experts a probability is the largest term.
  CHECK(message_of(deck + "64" + interval + "1969") == "no error");
  CHECK(message_of(deck + "64" + interval + "1970") ==
        "some.deck: statistics.every_steps = 1970: sums over so many tokens overflow; expected at "
        "most 1969, or a smaller batch.global_batch or model.sequence_length");
  CHECK(contains(message_of(deck + "2\ntop_k = 1" + interval + "8192"), "at most 8191"));
  CHECK(message_of(deck + "0" + interval + "8192") == "no error");
}
