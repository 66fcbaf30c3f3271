#include "model/conservation.hpp"

#include <numeric>

#include "base/error.hpp"
#include "parallel/communicator.hpp"

namespace hearth {

namespace {

std::int64_t sum_of(const HostArray1<std::int64_t>& counts) {
  return std::accumulate(counts.data(), counts.data() + counts.size(), std::int64_t{0});
}

template <class... Parts>
[[noreturn]] void stop(Index layer, const Parts&... parts) {
  throw CollectiveError(static_cast<int>(Status::failure),
                        text("MoE layer ", layer, ", all ranks: ", parts...));
}

}  // namespace

void check_not_negative(Index layer, std::span<const int> counts) {
  for (std::size_t expert = 0; expert < counts.size(); ++expert) {
    if (counts[expert] >= 0) continue;
    throw failure("MoE layer ", layer, ": ", counts[expert], " token copies for expert ", expert);
  }
}

void check_copies(Index layer, std::span<const int> wanted, std::span<const int> sent, Index tokens,
                  Index chosen) {
  check_not_negative(layer, sent);
  std::int64_t choices = 0;
  for (std::size_t expert = 0; expert < sent.size(); ++expert) {
    choices += wanted[expert];
    if (sent[expert] <= wanted[expert]) continue;
    throw failure("MoE layer ", layer, ": ", sent[expert], " token copies for expert ", expert,
                  ", which ", wanted[expert], " chose");
  }
  if (chosen == 0 || choices == tokens * chosen) return;
  throw failure("MoE layer ", layer, ": ", choices, " token copies of ", tokens, " tokens with ",
                chosen, " experts each");
}

void check_step(const StepSums& layout, const HostArray1<std::int64_t>& sums,
                std::span<const std::int64_t> arrived, std::int64_t tokens, std::int64_t targets) {
  std::size_t next = 0;  // of `arrived`
  for (Index layer = 0; layer < layout.moe_layers(); ++layer) {
    const HostArray1<std::int64_t> sent = layout.counts(sums, layer);
    for (Index expert = 0; expert < layout.experts(layer); ++expert) {
      const std::int64_t got = arrived[next++];
      if (sent(expert) >= 0 && sent(expert) == got) continue;
      stop(layer, sent(expert), " token copies were sent to expert ", expert, ", ", got,
           " arrived");
    }
    const std::int64_t copies = sum_of(sent), dropped = sum_of(layout.dropped(sums, layer));
    if (layout.chosen(layer) > 0 && copies + dropped != tokens * layout.chosen(layer)) {
      stop(layer, copies, " token copies and ", dropped, " dropped ones of ", tokens,
           " tokens with ", layout.chosen(layer), " experts each");
    }
    const HostArray1<std::int64_t> by_copies = layout.tokens_by_copies(sums, layer);
    std::int64_t with = 0, held = 0;
    for (Index n = 0; n <= layout.slots(layer); ++n) {
      with += by_copies(n);
      held += n * by_copies(n);
    }
    if (with != tokens || held != copies) {
      stop(layer, copies, " token copies were sent, ", with, " of ", tokens, " tokens have ", held);
    }
  }
  std::int64_t with_loss = 0;
  for (Index source = 0; source < layout.sources(); ++source) {
    with_loss += layout.tokens(sums)(source);
  }
  if (with_loss != targets) {
    throw CollectiveError(
        static_cast<int>(Status::failure),
        text("all ranks: ", with_loss, " target tokens have a loss, of ", targets));
  }
}

}  // namespace hearth
