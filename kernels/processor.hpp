// What the host's processor has, as far as the compiler is told.
#pragma once

namespace hearth::kernels {

#if defined(__AVX512F__)
inline constexpr int lane_bytes = 64, vector_registers = 32;
#elif defined(__AVX__)
inline constexpr int lane_bytes = 32, vector_registers = 16;
#elif defined(__aarch64__)
inline constexpr int lane_bytes = 16, vector_registers = 32;
#else
inline constexpr int lane_bytes = 16, vector_registers = 16;
#endif
inline constexpr int lane_count = lane_bytes / 4;  // floats in a vector

// Defined where the compiler may use AVX-512's instructions for bfloat16.
#if defined(__AVX512BF16__) && defined(__AVX512DQ__)
#define HEARTH_BFLOAT16_INSTRUCTIONS
#endif

// Whether products of pairs of bfloat16 are faster than those of floats: with AVX-512's instruction
// for them on AMD's processors. Intel's have it at half the rate of their products of floats, and
// nearly all of those have AMX too, by which they are told apart.
#if defined(HEARTH_BFLOAT16_INSTRUCTIONS) && !defined(__AMX_BF16__)
inline constexpr bool pairs_are_fast = true;
#else
inline constexpr bool pairs_are_fast = false;
#endif

}  // namespace hearth::kernels
