// Counter-based random numbers: a value is a pure function of (seed, stream, index), so that
// initial weights depend on neither the number of ranks nor the order in which they are made.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace hearth {

// Philox4x32 with ten rounds (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
// 1, 2, 3", SC11, section 3.3).
[[nodiscard]] std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                      std::array<std::uint32_t, 2> key);

// A stream of independent numbers, named by the run's seed and a text such as a tensor's name.
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::string_view name);

  // Standard normal deviates number first, first + 1, …, in double precision (Box and Muller 1958;
  // deviates 2i and 2i + 1 are the two halves of one pair).
  void normals(std::uint64_t first, std::span<double> deviates) const;

  // One of them.
  [[nodiscard]] double normal(std::uint64_t index) const;

 private:
  std::uint64_t key_;
  std::uint64_t name_hash_;
};

}  // namespace hearth
