#include "kernels/expert_products.hpp"

#include "kernels/team.hpp"

namespace hearth::kernels {

namespace {
using Policy = Kokkos::RangePolicy<Exec>;
}

template <class T>
void expert_products(const Array2<const T>& rows, const Array1<const int>& segment_begin,
                     const Array2<double>& product) {
  const auto experts = static_cast<Index>(segment_begin.extent(0));
  const Index hidden = rows.extent(1);
  for_rows(
      "expert_products", product.extent(0), KOKKOS_LAMBDA(const Member& member, const Index t) {
        double* out = row(product, t);
        for (Index i = 0; i < experts; ++i) {
          const T* a = row(rows, segment_begin(i) + t);
          for (Index j = 0; j <= i; ++j) {
            const T* b = row(rows, segment_begin(j) + t);
            const double sum = lane_sum<double>(member, hidden, [&](const Index h) {
              return static_cast<double>(a[h]) * static_cast<double>(b[h]);
            });
            out[i * experts + j] = out[j * experts + i] = sum;
          }
        }
      });
}

template <class R>
void squared_difference(const Mixture<R>& one, const Mixture<R>& other,
                        const Array2<const double>& product, const Array2<double>& scratch,
                        const Array1<double>& squared) {
  const auto experts = static_cast<int>(scratch.extent(1));
  const auto slots = static_cast<int>(one.choice.extent(1));
  const auto other_slots = static_cast<int>(other.choice.extent(1));
  Kokkos::parallel_for(
      "squared_difference", Policy(0, static_cast<Index>(squared.extent(0))),
      KOKKOS_LAMBDA(const Index t) {
        double* weight = row(scratch, t);
        const double* p = row(product, t);
        for (int e = 0; e < experts; ++e) weight[e] = 0;
        for (int j = 0; j < slots && one.choice(t, j) >= 0; ++j) {
          weight[one.choice(t, j)] += static_cast<double>(one.gate(t, j));
        }
        for (int j = 0; j < other_slots && other.choice(t, j) >= 0; ++j) {
          weight[other.choice(t, j)] -= static_cast<double>(other.gate(t, j));
        }
        double sum = 0;
        for (int i = 0; i < experts; ++i) {
          if (weight[i] == 0) continue;
          for (int j = 0; j < experts; ++j) sum += weight[i] * weight[j] * p[i * experts + j];
        }
        squared(t) = sum < 0 ? 0.0 : sum;  // rounding
      });
}

template void expert_products<float>(const Array2<const float>&, const Array1<const int>&,
                                     const Array2<double>&);
template void expert_products<double>(const Array2<const double>&, const Array1<const int>&,
                                      const Array2<double>&);
template void expert_products<bfloat16>(const Array2<const bfloat16>&, const Array1<const int>&,
                                        const Array2<double>&);
template void squared_difference<float>(const Mixture<float>&, const Mixture<float>&,
                                        const Array2<const double>&, const Array2<double>&,
                                        const Array1<double>&);
template void squared_difference<double>(const Mixture<double>&, const Mixture<double>&,
                                         const Array2<const double>&, const Array2<double>&,
                                         const Array1<double>&);

}  // namespace hearth::kernels
