#include "kernels/adam.hpp"

#include <cassert>
#include <type_traits>

#include "kernels/fixed_point.hpp"
#include "kernels/team.hpp"

namespace hearth::kernels {

template <class T, class G>
void adam(const AdamStep& step, const Array1<const G>& gradient,
          const Array1<const std::uint8_t>& decay, const Array1<Real<T>>& weight,
          const Array1<Real<T>>& first_moment, const Array1<Real<T>>& second_moment,
          const Array1<T>& rounded, const ChunkChecksums& checksums) {
  using R = Real<T>;
  const Index elements = gradient.extent(0);
  assert(static_cast<Index>(decay.extent(0)) >= whole_blocks(elements));
  assert(weight.extent(0) == gradient.extent(0));
  assert(first_moment.extent(0) == gradient.extent(0));
  assert(second_moment.extent(0) == gradient.extent(0));
  assert((std::is_same_v<T, R>) || rounded.extent(0) == gradient.extent(0));
  const bool take = checksums.wanted();
  assert(!take || static_cast<Index>(checksums.sum.extent(0)) == chunks(elements));
  static_assert(block_elements % chunk_elements == 0);  // a chunk lies in one block
  for_chunks(
      "adam", elements, KOKKOS_LAMBDA(const Member& member, const Index begin, const Index end) {
        const G* sum = gradient.data();
        R* w = weight.data();
        R* m = first_moment.data();
        R* v = second_moment.data();
        [[maybe_unused]] T* out = rounded.data();
        const double weight_decay = decay(begin / block_elements) != 0 ? step.weight_decay : 0.0;
        const double scale = unit_of_sum<G> * step.gradient_scale;
        const double mean_scale = 1 / step.correction1, square_scale = 1 / step.correction2;
        const double beta1 = step.beta1, beta2 = step.beta2, epsilon = step.epsilon;
        const double learning_rate = step.learning_rate;
        for_columns(member, end - begin, [&](const Index offset) {
          const Index i = begin + offset;
          const double g = static_cast<double>(sum[i]) * scale;
          const double mean = beta1 * m[i] + (1 - beta1) * g;
          const double square = beta2 * v[i] + (1 - beta2) * g * g;
          const double direction =
              mean * mean_scale / (Kokkos::sqrt(square * square_scale) + epsilon);
          const R updated =
              static_cast<R>(w[i] - learning_rate * (direction + weight_decay * w[i]));
          m[i] = static_cast<R>(mean);
          v[i] = static_cast<R>(square);
          w[i] = updated;
          if constexpr (!std::is_same_v<T, R>) out[i] = static_cast<T>(updated);
        });
        if (take) take_chunk<R>(member, w, begin, checksums);
      });
}

#define HEARTH_INSTANTIATE(T, G)                                                             \
  template void adam<T, G>(const AdamStep&, const Array1<const G>&,                          \
                           const Array1<const std::uint8_t>&, const Array1<Real<T>>&,        \
                           const Array1<Real<T>>&, const Array1<Real<T>>&, const Array1<T>&, \
                           const ChunkChecksums&);
HEARTH_INSTANTIATE(bfloat16, std::int64_t)
HEARTH_INSTANTIATE(bfloat16, float)
HEARTH_INSTANTIATE(float, std::int64_t)
HEARTH_INSTANTIATE(float, float)
HEARTH_INSTANTIATE(double, std::int64_t)
HEARTH_INSTANTIATE(double, double)
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
