// Fixed capacity (GShard, arXiv:2006.16668; Switch, arXiv:2101.03961): top_k, but an expert takes
// at most C = ⌈factor · k · tokens / experts⌉ copies of a cell's tokens and drops the others, whose
// tokens pass it by. Light experts take all.
#include <algorithm>
#include <cmath>

#include "kernels/routing/nth_largest.hpp"
#include "model/routers/learned_router.hpp"
#include "model/routers/router_table.hpp"

namespace hearth {

namespace {

// Which copies an expert keeps: those of the largest affinity; of the earliest tokens; or of the
// tokens to which it comes first, then second, …, each in the tokens' order (GShard).
enum class Keep { probability, position, rank };

Keep keep_by(const std::string& name) {
  return name == "position" ? Keep::position : name == "rank" ? Keep::rank : Keep::probability;
}

// How many of a token's choices come before choice j: those of a larger affinity, of equal ones the
// lower expert.
template <class R>
KOKKOS_INLINE_FUNCTION int rank_of(const Array2<const int>& wanted, const Array2<const R>& affinity,
                                   Index t, int j, int slots) {
  const R mine = affinity(t, wanted(t, j));
  int rank = 0;
  for (int i = 0; i < slots; ++i) {
    const R other = affinity(t, wanted(t, i));
    rank += other > mine || (i < j && other == mine) ? 1 : 0;
  }
  return rank;
}

template <class R>
void mark_kept(Keep keep, Index capacity, Index experts, const Array2<const int>& wanted,
               const Array2<const R>& affinity, const Array2<char>& kept) {  // (tokens, k)
  const Index tokens = wanted.extent(0);
  const int slots = static_cast<int>(wanted.extent(1));
  Kokkos::deep_copy(Exec(), kept, char(1));
  Kokkos::parallel_for(
      "mark_kept", Kokkos::RangePolicy<Exec>(0, experts), KOKKOS_LAMBDA(const Index e) {
        const auto copies = [&](const auto& visit) {
          for (Index t = 0; t < tokens; ++t) {
            for (int j = 0; j < slots; ++j) {
              if (wanted(t, j) == e) visit(t, j);
            }
          }
        };
        Index all = 0;
        copies([&](Index, int) { ++all; });
        if (all <= capacity) return;
        Index left = capacity;
        if (keep == Keep::position) {
          copies([&](const Index t, const int j) { kept(t, j) = left-- > 0 ? 1 : 0; });
        } else if (keep == Keep::rank) {
          for (int rank = 0; rank < slots; ++rank) {
            copies([&](const Index t, const int j) {
              if (rank_of(wanted, affinity, t, j, slots) != rank) return;
              kept(t, j) = left-- > 0 ? 1 : 0;
            });
          }
        } else {
          const auto bits = [&](const Index t) {
            return kernels::order_bits(static_cast<double>(affinity(t, e)));
          };
          kernels::Cutoff cutoff = kernels::find_cutoff(
              [&](const auto& visit) { copies([&](const Index t, int) { visit(bits(t)); }); },
              left);
          copies([&](const Index t, const int j) {
            const bool tie = bits(t) == cutoff.bits && cutoff.ties > 0;
            if (tie) --cutoff.ties;
            kept(t, j) = tie || bits(t) > cutoff.bits ? 1 : 0;
          });
        }
      });
}

void drop(const Array2<const int>& wanted, const Array2<const char>& kept,
          const Array2<int>& choice) {
  const int slots = static_cast<int>(wanted.extent(1));
  Kokkos::parallel_for(
      "drop", Kokkos::RangePolicy<Exec>(0, static_cast<Index>(wanted.extent(0))),
      KOKKOS_LAMBDA(const Index t) {
        int used = 0;
        for (int j = 0; j < slots; ++j) {
          if (kept(t, j) != 0) choice(t, used++) = wanted(t, j);
        }
        for (; used < slots; ++used) choice(t, used) = -1;
      });
}

template <class R>
class Capacity final : public LearnedRouter<R> {
 public:
  explicit Capacity(const RouterPlace& place)
      : LearnedRouter<R>(place, gate_rule(place.config.capacity.gate, place)) {}

  [[nodiscard]] RouterTraits traits() const override {
    RouterTraits traits;
    traits.slots = this->place().top_k;
    traits.drops = true;
    traits.scratch_bytes = traits.slots;
    return traits;
  }

  [[nodiscard]] Index least_rows(Index tokens) const override {
    return this->place().config.capacity.padded ? capacity(tokens) : 0;
  }

 protected:
  void select(const RouterInput<R>& input, const Routing<R>& routing) const override {
    const RouterPlace& place = this->place();
    kernels::select_top_k<R>(routing.affinity, {}, routing.gate, routing.wanted);
    const Array2<char> kept = input.template scratch_of<char>(place.top_k);
    mark_kept<R>(keep_by(place.config.capacity.drop), capacity(input.cell.tokens), place.experts,
                 routing.wanted, routing.affinity, kept);
    drop(routing.wanted, kept, routing.choice);
  }

 private:
  // Rows of each expert: no more than the cell has tokens.
  [[nodiscard]] Index capacity(Index tokens) const {
    const RouterPlace& place = this->place();
    const double share =
        static_cast<double>(tokens * place.top_k) / static_cast<double>(place.experts);
    const double rows = std::ceil(place.config.capacity.factor.at(place.layer) * share);
    return static_cast<Index>(std::min(static_cast<double>(tokens), rows));
  }
};

}  // namespace

HEARTH_DEFINE_ROUTER(capacity, Capacity)

}  // namespace hearth
