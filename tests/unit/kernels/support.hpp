// Random arrays, copies between host and device, and comparisons, for the kernels' tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/hash.hpp"
#include "base/random.hpp"
#include "base/types.hpp"

namespace hearth::testing {

// Standard normal deviates that the name alone determines.
inline std::vector<double> random_values(std::string_view name, Index elements,
                                         double deviation = 1) {
  const RandomStream stream(20240229, name);
  std::vector<double> values;
  for (Index i = 0; i < elements; ++i) {
    values.push_back(deviation * stream.normal(static_cast<std::uint64_t>(i)));
  }
  return values;
}

// Integers below `end`, likewise.
inline std::vector<int> random_integers(std::string_view name, Index elements, int end) {
  std::vector<int> values;
  for (const double x : random_values(name, elements)) {
    values.push_back(static_cast<int>(std::abs(x) * 1e6) % end);
  }
  return values;
}

// The values as elements of T, back in double: what a kernel in T really reads.
template <class T>
std::vector<double> rounded(std::vector<double> values) {
  for (double& x : values) x = static_cast<double>(static_cast<T>(x));
  return values;
}

template <class T, class U>
Array1<T> to_device(const std::vector<U>& values) {
  const auto a = uninitialized<Array1<T>>("test", values.size());
  const auto host = Kokkos::create_mirror_view(a);
  for (std::size_t i = 0; i < values.size(); ++i) host(i) = static_cast<T>(values[i]);
  Kokkos::deep_copy(a, host);
  return a;
}

template <class T, class U>
Array2<T> to_device(const std::vector<U>& values, Index rows, Index columns) {
  const auto a = uninitialized<Array2<T>>("test", rows, columns);
  const auto host = Kokkos::create_mirror_view(a);
  for (std::size_t i = 0; i < values.size(); ++i) host.data()[i] = static_cast<T>(values[i]);
  Kokkos::deep_copy(a, host);
  return a;
}

// An array of a value that no kernel should leave where it writes, nor change elsewhere.
template <class T>
Array2<T> filled_matrix(Index rows, Index columns, double value = -77) {
  const auto a = uninitialized<Array2<T>>("test", rows, columns);
  Kokkos::deep_copy(a, static_cast<T>(value));
  return a;
}
template <class T>
Array1<T> filled(Index elements, double value = -77) {
  const auto a = uninitialized<Array1<T>>("test", elements);
  Kokkos::deep_copy(a, static_cast<T>(value));
  return a;
}

// The elements of a contiguous array in their own type.
template <class View>
auto to_host(const View& a) {
  using T = typename View::non_const_value_type;
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), a);
  return std::vector<T>(host.data(), host.data() + host.size());
}

// Elements [begin, begin + size) of a host array.
template <class T>
std::vector<T> slice(const std::vector<T>& values, Index begin, Index size) {
  return {values.begin() + begin, values.begin() + begin + size};
}

// max |a - b| / max |b|, but no less than `least` below the line, for differences of sums that
// cancel; infinite where sizes differ or a number is not finite.
template <class T>
double relative_difference(const std::vector<T>& a, const std::vector<double>& b,
                           double least = 1e-300) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  if (a.size() != b.size()) return infinity;
  double difference = 0, size = least;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(static_cast<double>(a[i]) - b[i]);
    if (!std::isfinite(d)) return infinity;
    difference = std::max(difference, d);
    size = std::max(size, std::abs(b[i]));
  }
  return difference / size;
}
template <class View>
double relative_difference_of(const View& a, const std::vector<double>& b) {
  return relative_difference(to_host(a), b);
}

// A relative_difference of what lies beyond one rounding to T where results of type T are computed
// in a longer type: half a unit in the last of bfloat16's eight binary digits. The same as
// relative_difference where T is Real<T>.
template <class T>
double deviation(const std::vector<T>& a, const std::vector<double>& b, double least = 1e-300) {
  if (std::is_same_v<T, Real<T>> || a.size() != b.size()) return relative_difference(a, b, least);
  std::vector<double> nearest;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double value = a[i], rounding = 0x1p-8 * std::abs(b[i]) + 0x1p-134;
    nearest.push_back(std::abs(value - b[i]) <= rounding ? b[i]
                      : value > b[i]                     ? value - rounding
                                                         : value + rounding);
  }
  return relative_difference(nearest, b, least);
}
template <class View>
double deviation_of(const View& a, const std::vector<double>& b) {
  return deviation(to_host(a), b);
}

// Allowed relative difference or deviation: about 5000 units in the last place of what is computed
// with, 1e-12 in double precision.
template <class T>
constexpr double tolerance() {
  return 5000 * static_cast<double>(std::numeric_limits<Real<T>>::epsilon());
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// To compare results between numbers of threads, a hidden test case prints a hash of its results'
// bits; bits_with_threads runs this executable again for that test case alone.
template <class T>
std::uint64_t combine_bits(std::uint64_t bits, const std::vector<T>& values) {
  for (const T& value : values) {
    std::uint64_t word = 0;
    std::memcpy(&word, &value, sizeof(T));
    bits = mix_bits(bits ^ word);
  }
  return bits;
}
inline void print_bits(std::uint64_t bits) {
  std::printf("bits %016llx\n", static_cast<unsigned long long>(bits));
}

// What print_bits printed, empty if nothing.
inline std::string bits_with_threads(const std::string& test_case, int threads) {
  // The child is a program of its own, not a process of this one's MPI job.
  const std::string command =
      "exec env -u PMIX_NAMESPACE -u PMIX_RANK KOKKOS_DISABLE_WARNINGS=1 OMP_PROC_BIND=false "
      "OMP_NUM_THREADS=" +
      std::to_string(threads) + " \"" + std::filesystem::read_symlink("/proc/self/exe").string() +
      "\" \"" + test_case + "\"";
  FILE* output = popen(command.c_str(), "r");
  if (output == nullptr) return "";
  std::string bits;
  for (char line[256]; std::fgets(line, sizeof line, output) != nullptr;) {
    if (std::strncmp(line, "bits ", 5) == 0) bits = line + 5;
  }
  return pclose(output) == 0 ? bits : "";
}

// d loss / d x by a complex step: the imaginary part of loss(x + i h e) / h has no difference of
// nearby numbers, hence no rounding error of its size. `loss` maps a vector of complex numbers to
// one complex number.
template <class Loss>
std::vector<double> complex_step(const std::vector<double>& x, const Loss& loss) {
  constexpr double h = 1e-100;
  std::vector<std::complex<double>> z(x.begin(), x.end());
  std::vector<double> gradient;
  for (std::size_t i = 0; i < x.size(); ++i) {
    z[i] = {x[i], h};
    gradient.push_back(loss(z).imag() / h);
    z[i] = x[i];
  }
  return gradient;
}

using Complex = std::complex<double>;

inline std::vector<Complex> complex(const std::vector<double>& x) {
  return {x.begin(), x.end()};
}

template <class S>
S dot(const std::vector<S>& a, const std::vector<double>& b) {
  S sum(0);
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace hearth::testing
