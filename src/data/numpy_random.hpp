// The random numbers behind Megatron's shuffles: numpy.random.RandomState(seed).shuffle.
#pragma once

#include <cstdint>
#include <random>
#include <span>

namespace hearth {

// numpy seeds MT19937 from an integer as std::mt19937 does; the standard fixes its output.
class NumpyRandom {
 public:
  explicit NumpyRandom(std::uint32_t seed) : generator_(seed) {}

  // A random order of `values`, as RandomState.shuffle leaves a one-dimensional array; at most
  // 2³² of them (numpy draws differently beyond), otherwise failure.
  void shuffle(std::span<std::int32_t> values);
  void shuffle(std::span<std::uint32_t> values);

 private:
  template <class T>
  void shuffle_values(std::span<T> values);
  // Uniform in [0, last]: 32-bit draws under the smallest mask of ones that covers `last`, drawn
  // again while beyond it.
  std::uint32_t interval(std::uint32_t last);

  std::mt19937 generator_;
};

}  // namespace hearth
