// Sums that do not depend on their order: floating-point terms are rounded to a fixed unit and
// added as 64-bit integers. Section "Order-free sums" of docs/equations.md.
#pragma once

#include <limits>

#include "base/types.hpp"

namespace hearth::kernels {

inline constexpr double gradient_unit = 0x1p-50;    // of a weight's gradient; sums within ±8192
inline constexpr double gradient_limit = 0x1p13;    // |g| · cells must stay below
inline constexpr double statistic_unit = 0x1p-30;   // of sums over tokens: loss, entropy, …
inline constexpr double norm_unit = 0x1p-20;        // of sums over tokens of what has no bound
inline constexpr double validation_unit = 0x1p-20;  // of a whole split's loss: 2⁴³ nats fit
inline constexpr double mean_unit = 0x1p-50;  // of what is divided by the step's tokens already

// How gradients are summed over cells and ranks: as integers, whose sum does not depend on order,
// or in floating point, in half the memory and with one pass less.
enum class Summing { fixed, plain };

// Sums of gradients, one for each element; one of the two arrays, the other is empty.
template <class R>
struct GradientArray {
  Array1<std::int64_t> fixed;  // in units of gradient_unit
  Array1<R> plain;

  // work(array) with the one that there is.
  template <class Work>
  decltype(auto) visit(const Work& work) const {
    return plain.is_allocated() ? work(plain) : work(fixed);
  }
  [[nodiscard]] GradientArray part(Index begin, Index end) const {
    if (plain.is_allocated()) return {{}, run_of(plain, begin, end)};
    return {run_of(fixed, begin, end), {}};
  }
};

// Where the gradient of one tensor is summed over cells and ranks.
template <class R>
struct GradientSum {
  GradientArray<R> sum;
  Array2<std::int64_t> overflow;  // (slices, 2): elements that were not finite, were too large
  double cells = 1;               // terms that the whole sum has (cells times uses), for the limit
  Index slice_elements = std::numeric_limits<Index>::max();  // of `sum`, whole blocks

  [[nodiscard]] KOKKOS_INLINE_FUNCTION bool is_plain() const { return sum.plain.data() != nullptr; }
  // Elements [begin, end): whole slices, or some of one.
  [[nodiscard]] GradientSum part(Index begin, Index end) const {
    const Index first = begin / slice_elements, last = (end - 1) / slice_elements + 1;
    return {sum.part(begin, end), rows_of(overflow, first, last), cells, slice_elements};
  }
};

// Round to nearest even; the caller has checked the range.
KOKKOS_INLINE_FUNCTION std::int64_t to_fixed(double value, double unit) {
  return static_cast<std::int64_t>(Kokkos::nearbyint(value / unit));
}

// sum += value in units of `unit`, for a statistic, whose range nobody has checked: a value that is
// not finite or too large counts as ±2⁶² units. Returns whether it was neither.
KOKKOS_INLINE_FUNCTION bool add_statistic_term(std::int64_t& sum, double value, double unit) {
  const double limit = 0x1p62;
  const bool fits = Kokkos::fabs(value / unit) < limit;  // false for NaN too
  const std::int64_t term = to_fixed(fits ? value : Kokkos::copysign(limit * unit, value), unit);
  // Unsigned, since several such terms wrap around.
  sum =
      static_cast<std::int64_t>(static_cast<std::uint64_t>(sum) + static_cast<std::uint64_t>(term));
  return fits;
}

// One term of a gradient: false if it is not finite or too large to be summed.
KOKKOS_INLINE_FUNCTION bool representable(double g, double cells) {
  return Kokkos::fabs(g) * cells < gradient_limit;  // false for NaN too
}

// sum += g in units of gradient_unit. Returns 1 where that cannot be done, otherwise 0.
KOKKOS_INLINE_FUNCTION int add_term(std::int64_t& sum, double g, double cells) {
  const bool possible = representable(g, cells);
  sum += to_fixed(possible ? g : 0.0, gradient_unit);
  return possible ? 0 : 1;
}

// Notes that `elements` of a slice's gradient could not be added, of which `infinite` were not
// finite.
template <class R>
KOKKOS_INLINE_FUNCTION void note_overflow(const GradientSum<R>& gradient, Index slice,
                                          std::int64_t elements, std::int64_t infinite) {
  if (infinite > 0) Kokkos::atomic_add(&gradient.overflow(slice, 0), infinite);
  if (elements > infinite) Kokkos::atomic_add(&gradient.overflow(slice, 1), elements - infinite);
}

// sum[i] += g[i]; in fixed point, elements that cannot be added are counted instead. R is float or
// double.
template <class R>
void add_gradient(const Array1<const R>& g, const GradientSum<R>& gradient);

// statistic[i] += value[i] in units of `unit`.
void add_statistic(const Array1<const double>& value, const Array1<std::int64_t>& statistic,
                   double unit = statistic_unit);

// Norms are summed over blocks of this many consecutive elements, each within one tensor (one
// expert's slice of an expert tensor). No shard boundary cuts a block.
inline constexpr Index block_elements = 4096;
[[nodiscard]] constexpr Index whole_blocks(Index elements) {
  return (elements + block_elements - 1) / block_elements;
}

// What a sum of gradients is multiplied by to become the gradient.
template <class G>
inline constexpr double unit_of_sum = 1;
template <>
inline constexpr double unit_of_sum<std::int64_t> = gradient_unit;

// Σ gradient² as two integers, in units of 2⁻²⁴ and 2⁻⁶⁵: each block's fp64 sum, in fixed order, is
// split into the two, which are added over blocks in any order. Padding elements must be zero.
struct SquaredNorm {
  std::int64_t high = 0, low = 0;
  std::int64_t out_of_range = 0;  // blocks of plain sums that are not finite or too large, left out
  [[nodiscard]] double value() const {
    return static_cast<double>(high) * 0x1p-24 + static_cast<double>(low) * 0x1p-65;
  }
};
// G is std::int64_t, in units of gradient_unit, or the type of plain sums.
template <class G>
SquaredNorm squared_norm(const Array1<const G>& gradient);  // (blocks · block_elements)

}  // namespace hearth::kernels
