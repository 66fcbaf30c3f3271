#include "data/blend.hpp"

#include "unit/data/fixture.hpp"

using namespace hearth;
using namespace hearth::fixture;

TEST_CASE("blends are Megatron's") {
  for (const GoldenCase& golden : read_golden("sample_order_blend.txt")) {
    INFO(golden.name);
    const std::int64_t samples = golden.number("samples");
    const std::vector<double> weights = normalized(golden.numbers<double>("weights"));
    std::vector<std::int64_t> prepared;
    for (const double weight : weights) prepared.push_back(samples_to_prepare(samples, weight));
    CHECK(prepared == golden.numbers("prepared"));

    const Blend blend = build_blend(weights, samples);
    if (golden.has("source")) {
      CHECK(blend.source == golden.numbers<std::int16_t>("source"));
      CHECK(blend.source_sample == golden.numbers("source_sample"));
    }
    CHECK(fingerprint(blend.source) == golden.numbers<std::uint64_t>("source_fingerprint")[0]);
    CHECK(fingerprint(blend.source_sample) ==
          golden.numbers<std::uint64_t>("sample_fingerprint")[0]);
    for (std::int64_t i = 0; i < samples; ++i) {
      REQUIRE(blend.source_sample[i] < prepared[blend.source[i]]);
    }
  }
}

TEST_CASE("a blend of nothing or of too many sources is refused") {
  CHECK(contains(message_of([] { (void)build_blend({}, 3); }), "data.sources: 0 sources"));
  const std::vector<double> many(32767, 1.0);
  CHECK(contains(message_of([&] { (void)build_blend(many, 3); }), "32767 sources"));
}

TEST_CASE("a blend may be empty") {
  const std::vector<double> weights = {1, 2};
  CHECK(build_blend(weights, 0).source.empty());
}
