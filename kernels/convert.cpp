#include "kernels/convert.hpp"

#include "kernels/team.hpp"

namespace hearth::kernels {

template <class From, class To>
void convert(const Array1<const From>& from, const Array1<To>& to) {
  assert(from.extent(0) == to.extent(0));
  for_chunks(
      "convert", from.extent(0),
      KOKKOS_LAMBDA(const Member& member, const Index begin, const Index end) {
        const From* in = from.data() + begin;
        To* out = to.data() + begin;
        for_columns(member, end - begin, [&](const Index i) { out[i] = static_cast<To>(in[i]); });
      });
}

template void convert<float, bfloat16>(const Array1<const float>&, const Array1<bfloat16>&);
template void convert<bfloat16, float>(const Array1<const bfloat16>&, const Array1<float>&);

}  // namespace hearth::kernels
