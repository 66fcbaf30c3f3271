// Some of a step's tokens, at random but the same on any layout.
#pragma once

#include <cstdint>
#include <vector>

namespace hearth {

// How many of `tokens` are taken where `wanted` are asked for; 0: all.
[[nodiscard]] std::int64_t sample_size(std::int64_t tokens, std::int64_t wanted);

// Places 0 … tokens - 1 of the global batch, of which those are taken, ascending, whose
// mix_bits(stream + place) are the smallest, with
//   stream = mix_bits(mix_bits(seed xor hash_text("trace")) + step):
// a pure function of the arguments. Costs 8 bytes for every token while it runs.
[[nodiscard]] std::vector<std::int64_t> sample_tokens(std::int64_t seed, std::int64_t step,
                                                      std::int64_t tokens, std::int64_t wanted);

}  // namespace hearth
