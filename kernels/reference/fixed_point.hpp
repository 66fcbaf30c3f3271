// Oracle of kernels/fixed_point.hpp.
#pragma once

#include "kernels/fixed_point.hpp"
#include "kernels/reference/scalar.hpp"

namespace hearth::kernels::reference {

// What is added to a gradient's sum for one term, and whether it can be.
struct FixedTerm {
  std::int64_t value;
  bool overflow;
};

inline FixedTerm fixed_term(double g, double cells) {
  if (!std::isfinite(g) || std::abs(g) * cells >= 8192.0) return {0, true};
  return {static_cast<std::int64_t>(std::nearbyint(std::ldexp(g, 50))), false};
}

inline double squared_norm(const std::vector<std::int64_t>& gradient) {
  long double sum = 0;
  for (const std::int64_t g : gradient) {
    const long double value = std::ldexp(static_cast<long double>(g), -50);
    sum += value * value;
  }
  return static_cast<double>(sum);
}

}  // namespace hearth::kernels::reference
