#include "bench/cases.hpp"
#include "bench/random_array.hpp"
#include "kernels/matmul/matmul.hpp"

namespace hearth::bench {

template <class T>
void ceiling(const Measure& measure) {
  hearth::kernels::Matmul matmul;
  for (const Index n : {1024, 2048}) {
    const auto a = random_array<T>("a", n, n), b = random_array<T>("b", n, n);
    const auto c = uninitialized<Array2<T>>("c", n, n);
    const std::string name = "product of " + std::to_string(n) + " x " + std::to_string(n);
    measure(name.c_str(), 2.0 * static_cast<double>(n * n * n),
            [&] { matmul.multiply_nt<T>(a, b, c); });
  }
}

template void ceiling<float>(const Measure&);
template void ceiling<double>(const Measure&);
template void ceiling<bfloat16>(const Measure&);

}  // namespace hearth::bench
