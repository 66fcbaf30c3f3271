#include "model/conservation.hpp"

#include "base/error.hpp"
#include "parallel/communicator.hpp"

namespace hearth {

void check_not_negative(Index layer, std::span<const int> counts) {
  for (std::size_t expert = 0; expert < counts.size(); ++expert) {
    if (counts[expert] >= 0) continue;
    throw failure("MoE layer ", layer, ": ", counts[expert], " token copies for expert ", expert);
  }
}

void check_copies(Index layer, std::span<const int> counts, Index tokens, Index top_k) {
  check_not_negative(layer, counts);
  std::int64_t copies = 0;
  for (const int count : counts) copies += count;
  if (copies == tokens * top_k) return;
  throw failure("MoE layer ", layer, ": ", copies, " token copies of ", tokens, " tokens with ",
                top_k, " experts each");
}

void check_step(const StepSums& layout, const HostArray1<std::int64_t>& sums,
                std::span<const std::int64_t> arrived, std::int64_t tokens, std::int64_t targets,
                Index top_k) {
  const auto stop = [](const auto&... parts) {
    throw CollectiveError(static_cast<int>(Status::failure), text(parts...));
  };
  for (Index layer = 0; layer < layout.moe_layers(); ++layer) {
    std::int64_t copies = 0;
    for (Index expert = 0; expert < layout.experts(); ++expert) {
      const std::int64_t sent = layout.counts(sums, layer)(expert);
      const std::int64_t got = arrived[static_cast<std::size_t>(layer * layout.experts() + expert)];
      copies += sent;
      if (sent < 0 || sent != got) {
        stop("MoE layer ", layer, ", all ranks: ", sent, " token copies were sent to expert ",
             expert, ", ", got, " arrived");
      }
    }
    if (copies != tokens * top_k) {
      stop("MoE layer ", layer, ", all ranks: ", copies, " token copies of ", tokens,
           " tokens with ", top_k, " experts each");
    }
  }
  std::int64_t with_loss = 0;
  for (Index source = 0; source < layout.sources(); ++source) {
    with_loss += layout.tokens(sums)(source);
  }
  if (with_loss != targets) {
    stop("all ranks: ", with_loss, " target tokens have a loss, of ", targets);
  }
}

}  // namespace hearth
