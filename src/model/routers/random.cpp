// Experts at random, new ones for every token of every step: a function of the seed, the layer and
// the token's place in the data, so that they are the same on any layout and when a cell is run
// again.
#include "model/routers/router_table.hpp"
#include "model/routers/unlearned_router.hpp"

namespace hearth {

namespace {

void keys_of_places(std::uint64_t seed, Index first_sequence, Index sequence_length,
                    const Array1<std::uint64_t>& keys) {
  Kokkos::parallel_for(
      "keys_of_places", Kokkos::RangePolicy<Exec>(0, static_cast<Index>(keys.extent(0))),
      KOKKOS_LAMBDA(const Index t) {
        const Index place = first_sequence * sequence_length + t;
        keys(t) = mix_bits(seed + mix_bits(static_cast<std::uint64_t>(place)));
      });
}

template <class R>
class Random final : public UnlearnedRouter<R> {
 public:
  using UnlearnedRouter<R>::UnlearnedRouter;

 protected:
  void make_keys(const DeviceCell& cell, const Array1<std::uint64_t>& keys) const override {
    keys_of_places(this->seed(), cell.first_sequence, cell.sequence_length, keys);
  }
};

}  // namespace

HEARTH_DEFINE_ROUTER(random, Random)

}  // namespace hearth
