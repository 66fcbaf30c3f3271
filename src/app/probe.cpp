#include "app/probe.hpp"

#include <algorithm>

#include "model/routers/router_table.hpp"
#include "train/upload.hpp"

namespace hearth {

Probe::Probe(const Config& config, const Corpus* corpus, const Communicator& world)
    : config_(config), world_(world) {
  if (corpus == nullptr || config.statistics.probe_tokens == 0 || config.moe_layers() == 0) return;
  const Index length = config.model.sequence_length;
  const Index wanted = (config.statistics.probe_tokens + length - 1) / length;
  const int sources = corpus->sources();
  std::vector<Cell> cells;
  world.together([&] {
    for (int source = 0; source < sources; ++source) {
      const Index sequences =
          std::min(share(wanted, sources, source).size(), corpus->epoch_samples(source));
      for (Index first = 0; first < sequences; first += config.batch.cell_sequences) {
        cells.push_back(make_epoch_cell(*corpus, source, first,
                                        std::min(config.batch.cell_sequences, sequences - first),
                                        config.model));
      }
    }
  });
  const auto count = static_cast<Index>(cells.size());
  const Range mine = share(count, world.size(), world.rank());
  Index begin = 0;
  for (Index i = 0; i < count; ++i) {
    const Cell& cell = cells[static_cast<std::size_t>(i)];
    if (mine.contains(i)) parts_.push_back({upload(cell), begin});
    begin += static_cast<Index>(cell.token.size());
    tokens_.insert(tokens_.end(), cell.token.begin(), cell.token.end());
  }
  Cell none;
  none.run_begin = {0};
  const auto rounds = static_cast<std::size_t>(share(count, world.size(), 0).size());
  while (parts_.size() < rounds) parts_.push_back({upload(none), 0});
}

template <class T>
std::vector<std::int32_t> Probe::choices(Trainer<T>& trainer) const {
  const auto total = static_cast<Index>(tokens_.size());
  const Index slots = most_slots(config_);
  std::vector<std::int64_t> all(static_cast<std::size_t>(config_.moe_layers() * total * slots), 0);
  for (const Part& part : parts_) {
    Index layer = 0;
    for (const auto& choice : trainer.route(part.cell)) {
      const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), choice);
      const auto used = static_cast<Index>(host.extent(1));
      for (Index t = 0; t < static_cast<Index>(host.extent(0)); ++t) {
        auto slot = all.begin() + (layer * total + part.begin + t) * slots;
        for (Index j = 0; j < slots; ++j) *slot++ = j < used ? host(t, j) : -1;
      }
      ++layer;
    }
  }
  world_.sum_to_first(all);  // every entry is one rank's
  if (!world_.is_first()) return {};
  return {all.begin(), all.end()};
}

template std::vector<std::int32_t> Probe::choices<float>(Trainer<float>&) const;
template std::vector<std::int32_t> Probe::choices<double>(Trainer<double>&) const;
template std::vector<std::int32_t> Probe::choices<bfloat16>(Trainer<bfloat16>&) const;

}  // namespace hearth
