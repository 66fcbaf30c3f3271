#include "app/probe.hpp"

#include <algorithm>

#include "model/routers/router_table.hpp"
#include "train/ranked_choices.hpp"
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
  RankedChoices<Real<T>> seen(config_.moe_layers(), total, most_slots(config_));
  for (const Part& part : parts_) {
    seen.begin_cell(part.begin);
    trainer.observe(part.cell, seen);
  }
  std::vector<std::int64_t>& all = seen.values();
  world_.sum_to_first(all);  // every entry is one rank's
  if (!world_.is_first()) return {};
  return {all.begin(), all.end()};
}

template std::vector<std::int32_t> Probe::choices<float>(Trainer<float>&) const;
template std::vector<std::int32_t> Probe::choices<double>(Trainer<double>&) const;
template std::vector<std::int32_t> Probe::choices<bfloat16>(Trainer<bfloat16>&) const;

}  // namespace hearth
