#include "app/run_state.hpp"

#include <algorithm>
#include <cstdio>
#include <limits>

#include "base/error.hpp"
#include "base/version.hpp"
#include "config/deck.hpp"
#include "io/resume_point.hpp"

namespace hearth {

namespace {

CounterTensor interval_tensor(const StepSums& layout, std::vector<std::int64_t> values) {
  const auto sums = static_cast<Index>(layout.values().extent(0));
  return {"open_interval", {sums + 1}, {"sum"}, std::move(values)};
}

constexpr const char* skipped_name = "skipped_steps";
constexpr const char* routers_name = "router_states";
constexpr const char* from_seed_name = "drift_from_seed";
constexpr const char* row_before_name = "drift_row_before";  // row_before_group is there

CounterTensor skipped_tensor(std::vector<std::int64_t> values) {
  return {skipped_name, {2}, {"all, in a row"}, std::move(values)};
}

std::vector<CounterTensor> drift_tensors(bool from_seed, bool row_is_open) {
  std::vector<CounterTensor> tensors = {{from_seed_name, {1}, {"flag"}, {from_seed ? 1 : 0}}};
  if (row_is_open) tensors.push_back({row_before_name, {1}, {"flag"}, {1}});
  return tensors;
}

bool has_counter(const CheckpointHeader& header, const char* name) {
  return std::find(header.counters.begin(), header.counters.end(), name) != header.counters.end();
}

// Whether the first rank has read it, and it is set.
bool flag(const std::vector<CounterTensor>& tensors, const char* name, const Communicator& world) {
  std::int64_t set = 0;
  for (const CounterTensor& tensor : tensors) {
    if (tensor.name == name && tensor.values.size() == 1) set = tensor.values[0];
  }
  return world.max(set) == 1;
}

template <class T>
void add_row_before(Trainer<T>& trainer, const WeightDrift<T>& drift,
                    std::vector<TensorPart<Real<T>>>& parts) {
  for (const Owner owner : {Owner::everyone, Owner::experts}) {
    const auto number = static_cast<std::size_t>(owner);
    parts.push_back({row_before_group, &trainer.parameters().arena(owner).layout,
                     trainer.optimizer().shards()[number].range, drift.before()[number]});
  }
}

// None, for routers that hand nothing on.
std::vector<CounterTensor> router_tensor(const std::vector<std::int64_t>& states, bool values) {
  if (states.empty()) return {};
  return {{routers_name,
           {static_cast<Index>(states.size())},
           {"layer*state"},
           values ? states : std::vector<std::int64_t>()}};
}

// What the first rank has read, on every rank; `states` as they are where nothing was.
std::vector<std::int64_t> router_states(const std::vector<CounterTensor>& tensors,
                                        const Communicator& world,
                                        std::vector<std::int64_t> states) {
  std::fill(states.begin(), states.end(), 0);
  for (const CounterTensor& tensor : tensors) {
    if (tensor.name == routers_name && world.is_first()) states = tensor.values;
  }
  world.sum(states);
  return states;
}

// Those that the first rank has read, on every rank.
SkippedSteps skipped_steps(const std::vector<CounterTensor>& tensors, const Communicator& world) {
  SkippedSteps skipped;
  for (const CounterTensor& tensor : tensors) {
    if (tensor.name == skipped_name && tensor.values.size() == 2) {
      skipped = {tensor.values[0], tensor.values[1]};
    }
  }
  return {world.max(skipped.all), world.max(skipped.in_a_row)};
}

// What a checkpoint holds of the statistics that this run may have open: a row by checkpoint was
// written with it where it holds no counts.
std::vector<CounterTensor> wanted_tensors(const CheckpointHeader& header, const StepSums& layout,
                                          const IntervalCounts& counts) {
  std::vector<CounterTensor> tensors = expert_count_tensors(counts);
  tensors.push_back(skipped_tensor({}));
  std::erase_if(tensors, [&](const CounterTensor& tensor) {
    return !has_counter(header, tensor.name.c_str());
  });
  tensors.push_back(interval_tensor(layout, {}));
  return tensors;
}

std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  for (char& c : text) {
    if (c == '\n') c = ',';
  }
  return text;
}

void say(const Communicator& world, const std::string& line) {
  if (world.is_first()) std::fprintf(stderr, "%s\n", line.c_str());
}

}  // namespace

template <class T>
std::vector<TensorPart<Real<T>>> tensor_parts(Trainer<T>& trainer, bool moments) {
  std::vector<TensorPart<Real<T>>> parts;
  for (const Owner owner : {Owner::everyone, Owner::experts}) {
    const Shard<T>& shard = trainer.optimizer().shards()[static_cast<std::size_t>(owner)];
    const ArenaLayout& layout = trainer.parameters().arena(owner).layout;
    parts.push_back({model_group, &layout, shard.range, shard.weights});
    if (!moments) continue;
    parts.push_back({first_moment_group, &layout, shard.range, shard.first_moment});
    parts.push_back({second_moment_group, &layout, shard.range, shard.second_moment});
  }
  return parts;
}

CheckpointHeader run_header(const Config& config, const Mesh& mesh,
                            const std::string& data_identity) {
  CheckpointHeader header;
  header.deck = write_deck(config);
  header.version = version;
  header.revision = revision;
  header.decomposition = describe(mesh.grid, config);
  header.data_identity = data_identity;
  return header;
}

template <class T>
std::uint64_t begin_save(CheckpointWriter<Real<T>>& writer, const std::string& path,
                         const CheckpointHeader& header, Trainer<T>& trainer,
                         OpenStatistics<T> open) {
  std::vector<CounterTensor> counts = std::move(open.counts);
  const SkippedSteps& skipped = trainer.optimizer().skipped();
  counts.push_back(skipped_tensor({skipped.all, skipped.in_a_row}));
  for (CounterTensor& routers : router_tensor(trainer.router_states(), true)) {
    counts.push_back(std::move(routers));
  }
  std::vector<TensorPart<Real<T>>> parts = tensor_parts(trainer, true);
  if (open.drift != nullptr) {
    for (CounterTensor& tensor : drift_tensors(open.drift->from_seed(), open.row_is_open)) {
      counts.push_back(std::move(tensor));
    }
    if (open.row_is_open) add_row_before(trainer, *open.drift, parts);
  }
  counts.push_back(interval_tensor(trainer.sums(), std::move(open.interval)));
  return writer.begin(path, header, trainer.parameters().table(), parts, counts);
}

template <class T>
std::optional<Resumed> resume(const Config& config, const std::string& data_identity,
                              const Communicator& world, const CheckpointFolder& checkpoints,
                              Trainer<T>& trainer, const IntervalCounts* counts,
                              WeightDrift<T>* drift) {
  const bool named = config.checkpoint.resume != "auto" && config.checkpoint.resume != "none";
  std::int64_t before = std::numeric_limits<std::int64_t>::max();
  while (true) {
    std::string path;
    CheckpointHeader header;
    world.together([&] {
      if (!world.is_first()) return;
      if (named) {
        path = config.checkpoint.resume;
        header = read_checkpoint_header(path);
      } else {
        std::vector<std::string> notes;
        const auto point = find_resume_point(checkpoints, notes, before);
        for (const std::string& note : notes) say(world, note);
        if (!point) return;
        if (config.checkpoint.resume == "none") {
          throw input_error(point->path,
                            " is there and checkpoint.resume = none; "
                            "give another run.output or checkpoint.resume = auto");
        }
        path = point->path;
        header = point->header;
      }
      Config then = parse_deck(header.deck, path);
      // A model may be evaluated on any text: the run's own, or what it has never seen.
      if (data_identity.empty()) then.data = config.data;
      const std::vector<std::string> changes = check_resumed(then, config, path);
      if (!data_identity.empty() && header.data_identity != data_identity) {
        throw input_error(path, ": was made with other token files: then ",
                          one_line(header.data_identity), "; now ", one_line(data_identity),
                          "; restore them, or give another run.output");
      }
      for (const std::string& change : changes) {
        say(world, "changed since " + path + ": " + change);
      }
    });
    path = world.broadcast(path);
    if (path.empty()) return std::nullopt;
    const std::int64_t step = world.max(header.step);

    auto parts = tensor_parts(trainer, counts != nullptr);
    std::vector<CounterTensor> tensors;
    if (counts != nullptr) tensors = wanted_tensors(header, trainer.sums(), *counts);
    const auto routers = router_tensor(trainer.router_states(), false);
    tensors.insert(tensors.begin(), routers.begin(), routers.end());
    bool row_was_open = false;
    if (drift != nullptr) {
      row_was_open = world.max(has_counter(header, row_before_name) ? 1 : 0) == 1;
      if (row_was_open) add_row_before(trainer, *drift, parts);
      // A model that was made of another has none.
      if (has_counter(header, from_seed_name)) {
        tensors.insert(tensors.begin(), CounterTensor{from_seed_name, {1}, {"flag"}, {}});
      }
    }
    try {
      read_checkpoint<Real<T>>(world, path, trainer.parameters().table(), parts, tensors);
    } catch (const CollectiveError& error) {
      if (named) throw;
      if (step == 0) throw CollectiveError(error.status(), text(error.what(), damaged_origin));
      say(world, text("passed over: ", error.what()));
      before = std::min(before - 1, step);  // on, whatever the damaged file claims
      continue;
    }
    trainer.optimizer().spread_weights();
    trainer.optimizer().set_skipped(skipped_steps(tensors, world));
    trainer.set_router_states(router_states(tensors, world, trainer.router_states()));
    if (drift != nullptr) {
      drift->set_from_seed(flag(tensors, from_seed_name, world));
      if (!row_was_open) drift->mark();
    }
    Resumed resumed{step, path, {}};
    if (counts != nullptr && world.is_first()) {
      restore(tensors, *counts);
      resumed.open_interval = std::move(tensors.back().values);
    }
    return resumed;
  }
}

#define HEARTH_INSTANTIATE(T)                                                                    \
  template std::vector<TensorPart<Real<T>>> tensor_parts<T>(Trainer<T>&, bool);                  \
  template std::uint64_t begin_save<T>(CheckpointWriter<Real<T>>&, const std::string&,           \
                                       const CheckpointHeader&, Trainer<T>&, OpenStatistics<T>); \
  template std::optional<Resumed> resume<T>(const Config&, const std::string&,                   \
                                            const Communicator&, const CheckpointFolder&,        \
                                            Trainer<T>&, const IntervalCounts*, WeightDrift<T>*)
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
HEARTH_INSTANTIATE(bfloat16);
#undef HEARTH_INSTANTIATE

}  // namespace hearth
