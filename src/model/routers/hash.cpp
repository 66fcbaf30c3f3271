// A token's experts follow from its id alone, as in hash layers (Roller et al., arXiv:2106.04426).
#include "model/routers/router_table.hpp"
#include "model/routers/unlearned_router.hpp"

namespace hearth {

namespace {

void keys_of_ids(std::uint64_t seed, const Array1<const int>& token,
                 const Array1<std::uint64_t>& keys) {
  Kokkos::parallel_for(
      "keys_of_ids", Kokkos::RangePolicy<Exec>(0, static_cast<Index>(keys.extent(0))),
      KOKKOS_LAMBDA(const Index t) {
        keys(t) = mix_bits(seed + static_cast<std::uint64_t>(token(t)));
      });
}

template <class R>
class Hash final : public UnlearnedRouter<R> {
 public:
  using UnlearnedRouter<R>::UnlearnedRouter;

 protected:
  void make_keys(const DeviceCell& cell, const Array1<std::uint64_t>& keys) const override {
    keys_of_ids(this->seed(), cell.token, keys);
  }
};

}  // namespace

HEARTH_DEFINE_ROUTER(hash, Hash)

}  // namespace hearth
