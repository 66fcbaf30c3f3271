#include "train/trainer.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/error.hpp"
#include "kernels/statistics.hpp"
#include "model/conservation.hpp"
#include "train/schedule.hpp"
#include "train/upload.hpp"

namespace hearth {

SourceLoss all_sources(const std::vector<SourceLoss>& losses) {
  SourceLoss all{"all", 0, 0};
  double sum = 0;
  for (const SourceLoss& source : losses) {
    sum += source.loss * static_cast<double>(source.tokens);
    all.tokens += source.tokens;
  }
  if (all.tokens > 0) all.loss = sum / static_cast<double>(all.tokens);
  return all;
}

template <class T>
Trainer<T>::Trainer(const Config& config, const Mesh& mesh, Index sources)
    : config_(config),
      mesh_(mesh),
      timers_(mesh.world.pulse()),
      everyone_(mesh.world),
      experts_(mesh.experts),
      data_(mesh.data),
      parameters_(make_tensor_table(config), mesh, config.cells_per_step(), summing(config.run)),
      transformer_(config_, parameters_, mesh, experts_, matmul_, timers_),
      optimizer_(config_, parameters_, mesh, everyone_, data_),
      sums_(config, sources),
      router_states_(static_cast<std::size_t>(transformer_.router_states()), 0) {}

template <class T>
void Trainer<T>::set_router_states(std::vector<std::int64_t> states) {
  router_states_ = std::move(states);
  transformer_.set_router_states(router_states_);
}

namespace {

double to_double(std::int64_t fixed) {
  return static_cast<double>(fixed) * kernels::statistic_unit;
}

void add_means(const StepSums& layout, const HostArray1<std::int64_t>& sums, StepReport& report) {
  std::int64_t loss = 0;
  for (Index source = 0; source < layout.sources(); ++source) {
    loss += layout.loss(sums)(source);
    report.tokens += layout.tokens(sums)(source);
  }
  std::int64_t balance = 0, z = 0, entropy = 0;
  for (Index layer = 0; layer < layout.moe_layers(); ++layer) {
    balance += layout.router_loss(sums, layer)(0);
    z += layout.router_loss(sums, layer)(1);
    entropy += layout.router_loss(sums, layer)(2);
  }
  report.cross_entropy = to_double(loss) / static_cast<double>(report.tokens);
  report.balance_loss = static_cast<double>(balance) * kernels::mean_unit;
  report.z_loss = static_cast<double>(z) * kernels::mean_unit;
  report.entropy_loss = static_cast<double>(entropy) * kernels::mean_unit;
  report.loss = report.cross_entropy + report.balance_loss + report.z_loss + report.entropy_loss;
}

}  // namespace

std::vector<std::vector<std::int64_t>> copies_by_source(const Config& config,
                                                        const std::vector<SourceCopies>& sources,
                                                        const std::vector<std::string>& names) {
  if (config.parallel.cells != "source" || !config.has_experts()) return {};
  std::vector<std::vector<std::int64_t>> copies;
  for (const std::string& name : names) {
    const auto found = std::find_if(sources.begin(), sources.end(),
                                    [&](const SourceCopies& s) { return s.source == name; });
    if (found == sources.end()) {
      throw input_error(config.parallel.placement, ": no line 'source ", name,
                        " = ...', which parallel.cells = source needs; expected a file of ",
                        "postprocess/place_experts.py --by source");
    }
    copies.push_back(found->per_million);
  }
  return copies;
}

// A rank computes what is its own from what all ranks know.
template <class T>
StepCells Trainer<T>::cells_of(const Corpus& corpus, std::int64_t step) const {
  const auto [global_batch, cell_sequences] = config_.batch;
  const int ranks = mesh_.world.size(), rank = mesh_.world.rank();
  const auto copies = copies_by_source(config_, mesh_.sources, corpus.names());
  if (copies.empty()) return {global_batch, cell_sequences, ranks, rank};
  const Index cells = count_cells(global_batch, cell_sequences);
  const auto expert_ranks = static_cast<std::size_t>(mesh_.grid.expert_ranks);
  std::vector<std::vector<std::int64_t>> gain(  // (cells) of (expert_ranks)
      static_cast<std::size_t>(cells), std::vector<std::int64_t>(expert_ranks, 0));
  for (Index sequence = 0; sequence < global_batch; ++sequence) {
    auto& of_cell = gain[static_cast<std::size_t>(sequence / cell_sequences)];
    const auto source = static_cast<std::size_t>(corpus.source(step * global_batch + sequence));
    for (std::size_t r = 0; r < expert_ranks; ++r) of_cell[r] += copies[source][r];
  }
  return {global_batch, cell_sequences, cells_by_gain(gain, mesh_.grid), ranks, rank};
}

template <class T>
std::vector<DeviceCell> Trainer<T>::load(const Corpus& corpus, std::int64_t step) {
  const auto phase = timers_.phase("data");
  const Index global_batch = config_.batch.global_batch;
  std::vector<DeviceCell> cells;
  mesh_.world.together([&] {
    const StepCells share = cells_of(corpus, step);
    for (Index round = 0; round < share.rounds(); ++round) {
      const Range slots = share.sequences(round);
      cells.push_back(upload(
          make_cell(corpus, step * global_batch + slots.begin, slots.size(), config_.model)));
    }
  });
  return cells;
}

template <class T>
StepReport Trainer<T>::step(const std::vector<DeviceCell>& cells, std::int64_t step,
                            IntervalCounts* counts, StepTrace* trace) {
  mesh_.world.pulse()->enter_step(step + 1);
  // 1. What the losses are divided by is known before anything is computed.
  std::array<std::int64_t, 2> all = {0, 0};
  for (const DeviceCell& cell : cells) {
    all[0] += cell.tokens;
    all[1] += cell.targets;
  }
  mesh_.world.sum(all);
  const StepTokens tokens{all[0], all[1]};

  // 2. Forward and backward, cell by cell.
  parameters_.clear_gradients();
  sums_.clear();
  for (const DeviceCell& cell : cells) transformer_.train(cell, tokens, sums_, counts, trace);

  // 3. Sum over ranks, clip, update, spread.
  GradientReport gradient;
  {
    const auto phase = timers_.phase("update");
    const auto unfit =
        Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), sums_.unfit_losses());
    gradient = optimizer_.update(
        step, std::accumulate(unfit.data(), unfit.data() + unfit.size(), std::int64_t{0}));
  }

  // 4. What the step says about itself.
  StepReport report;
  report.step = step + 1;
  report.learning_rate = learning_rate(config_, step);
  report.gradient_norm = gradient.norm;
  report.weights_checksum = optimizer_.weights_checksum();
  report.sums = HostArray1<std::int64_t>("step sums", sums_.values().extent(0));
  Kokkos::deep_copy(report.sums, sums_.values());
  mesh_.world.sum({report.sums.data(), report.sums.size()});
  mesh_.world.sum(sums_.arrived());
  report.tokens_routed = tokens.tokens;
  report.exchange = sums_.exchange().sums();
  mesh_.world.sum(report.exchange.values);
  check_step(sums_, report.sums, sums_.arrived(), tokens.tokens, tokens.targets);
  add_means(sums_, report.sums, report);
  if (!gradient.applied) {
    report.fault = diagnose(cells, std::move(gradient.overflow), counts);
    constexpr double nan = std::numeric_limits<double>::quiet_NaN();
    report.gradient_norm = nan;
    if (report.fault->in_forward_pass()) {
      report.loss = report.cross_entropy = nan;
      report.balance_loss = report.z_loss = report.entropy_loss = nan;
    }
    return report;
  }
  // 5. Routers that look back take up what they saw.
  transformer_.advance_routers(report.sums, sums_, tokens.tokens, router_states_);
  transformer_.set_router_states(router_states_);
  return report;
}

// The forward pass once more, with weights that are those of the step still. It takes back what the
// step has counted: routing of values that are not finite means nothing.
template <class T>
StepFault Trainer<T>::diagnose(const std::vector<DeviceCell>& cells,
                               std::vector<std::int64_t> overflow, IntervalCounts* counts) {
  const auto phase = timers_.phase("diagnosis");
  StepFault fault{config_};
  fault.gradients = std::move(overflow);
  if (counts != nullptr) counts->weight = -1;
  for (const DeviceCell& cell : cells) transformer_.check_forward(cell, fault.forward, counts);
  if (counts != nullptr) counts->weight = 1;
  mesh_.world.sum(fault.forward.counts());

  const auto unfit = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), sums_.unfit_losses());
  fault.losses.assign(unfit.data(), unfit.data() + unfit.size());
  mesh_.world.sum(fault.losses);

  // One copy of each tensor is enough; all ranks hold the same.
  fault.weights = parameters_.non_finite_weights();
  const auto first_slice = first_slices(parameters_.table());
  for (std::size_t tensor = 0; tensor < parameters_.table().size(); ++tensor) {
    const Owner owner = parameters_.table()[tensor].owner;
    const bool mine = owner == Owner::everyone ? mesh_.world.is_first() : mesh_.data.is_first();
    if (mine) continue;
    std::fill(fault.weights.begin() + first_slice[tensor],
              fault.weights.begin() + first_slice[tensor + 1], 0);
  }
  mesh_.world.sum(fault.weights);
  return fault;
}

template <class T>
std::vector<SourceLoss> Trainer<T>::evaluate(const Corpus& corpus, std::int64_t batches) {
  const Index sources = corpus.sources();
  const Array1<std::int64_t> loss("validation loss", sources), tokens("validation tokens", sources),
      unfit("unfit losses", sources);
  for (Index source = 0; source < sources; ++source) {
    Index sequences = corpus.epoch_samples(static_cast<int>(source));
    if (batches > 0) sequences = std::min(sequences, batches * config_.batch.global_batch);
    const StepCells share(sequences, config_.batch.cell_sequences, mesh_.world.size(),
                          mesh_.world.rank());
    for (Index round = 0; round < share.rounds(); ++round) {
      DeviceCell cell;
      mesh_.world.together([&] {
        const Range slots = share.sequences(round);
        cell = upload(make_epoch_cell(corpus, static_cast<int>(source), slots.begin, slots.size(),
                                      config_.model));
      });
      const Array1<const double> token_loss = transformer_.evaluate(cell);
      kernels::sum_labelled(cell.sequence_length, cell.source, cell.target, token_loss, loss,
                            tokens, unfit, kernels::validation_unit);
    }
  }
  std::vector<std::int64_t> sums(static_cast<std::size_t>(3 * sources));
  const Kokkos::View<std::int64_t*, Kokkos::HostSpace> host(sums.data(), 3 * sources);
  Kokkos::deep_copy(run_of(host, 0, sources), loss);
  Kokkos::deep_copy(run_of(host, sources, 2 * sources), tokens);
  Kokkos::deep_copy(run_of(host, 2 * sources, 3 * sources), unfit);
  mesh_.world.sum(sums);
  const std::vector<std::string> names = corpus.names();
  std::vector<SourceLoss> result;
  for (Index s = 0; s < sources; ++s) {
    const auto i = static_cast<std::size_t>(s);
    const std::int64_t count = host(sources + s);
    double mean = 0;
    if (count > 0) {
      mean = static_cast<double>(host(s)) * kernels::validation_unit / static_cast<double>(count);
    }
    if (host(2 * sources + s) > 0) mean = std::numeric_limits<double>::quiet_NaN();
    result.push_back({names[i], mean, count});
  }
  return result;
}

template <class T>
std::vector<Array2<const int>> Trainer<T>::route(const DeviceCell& cell) {
  transformer_.evaluate(cell);
  return transformer_.choices();
}

template <class T>
void Trainer<T>::observe(const Corpus& corpus, std::int64_t batches,
                         ExpertObserver<Real<T>>& observer) {
  for (std::int64_t batch = 0; batch < batches; ++batch) {
    for (const DeviceCell& cell : load(corpus, batch)) {
      observe(cell, observer);
      observer.end_cell();
    }
  }
}

template class Trainer<float>;
template class Trainer<double>;
template class Trainer<bfloat16>;

}  // namespace hearth
