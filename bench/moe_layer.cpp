#include "model/moe_layer.hpp"

#include "bench/cases.hpp"
#include "bench/random_array.hpp"

namespace hearth::bench {

namespace {

// Rows that a router of unit vectors sends to experts t·k, t·k + 1, … (modulo their number): all
// get as many tokens.
template <class T>
void balance(const Config& config, const Array2<T>& x) {
  const Index experts = config.moe.experts.at(0), k = config.moe.top_k.at(0);
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), x);
  for (Index t = 0; t < static_cast<Index>(x.extent(0)); ++t) {
    for (Index j = 0; j < k; ++j) {
      auto& value = host(t, (t * k + j) % experts);
      value = static_cast<T>(static_cast<Real<T>>(value) + Real<T>(8));
    }
  }
  Kokkos::deep_copy(x, host);
}

template <class T>
void unit_router(const Config& config, Parameters<T>& parameters) {
  Arena<T>& arena = parameters.arena(Owner::everyone);
  const Array2<const T> router = parameters.matrix("layers/00/router/weight");
  const Index begin = router.data() - arena.weights.data(), elements = router.size();
  const auto part = run_of(arena.weights, begin, begin + elements);
  const auto host = Kokkos::create_mirror_view(part);
  for (Index i = 0; i < elements; ++i) {
    host(i) = static_cast<T>(Real<T>(i / config.model.hidden == i % config.model.hidden ? 1 : 0));
  }
  Kokkos::deep_copy(part, host);
}

}  // namespace

template <class T>
void moe_layer(const Config& deck, const Communicator& world, const Measure& measure) {
  // One layer, and no more of the embedding than the table wants.
  Config config = deck;
  config.model.layers = 1;
  config.model.vocabulary = 1;
  config.moe.dense_layers = 0;
  const Mesh mesh(world, config);
  const DeviceExchange exchange(mesh.experts);
  hearth::kernels::Matmul matmul;
  PhaseTimers timers;
  Workspace<T> workspace{matmul, timers};
  Parameters<T> parameters(make_tensor_table(config), mesh, 1, summing(config.run));
  for (Arena<T>& arena : parameters.arenas()) {
    const HostArray1<Real<T>> weights("weights", arena.layout.elements());
    initialize(parameters.table(), arena.layout, 1, {0, arena.layout.elements()}, weights);
    const auto host = Kokkos::create_mirror_view(arena.weights);
    for (std::size_t i = 0; i < weights.size(); ++i) host(i) = static_cast<T>(weights(i));
    Kokkos::deep_copy(arena.weights, host);
  }
  MoeLayer<T> layer(config, parameters, "layers/00/", 0, mesh.placements.at(0), exchange,
                    workspace);
  StepSums sums(config, 1);

  const Index tokens = config.cell_tokens(), hidden = config.model.hidden;
  DeviceCell cell;
  cell.tokens = cell.targets = tokens;
  const auto x = random_array<T>("x", tokens, hidden), dy = random_array<T>("dy", tokens, hidden);
  const auto y = uninitialized<Array2<T>>("y", tokens, hidden);
  const auto dx = uninitialized<Array2<T>>("dx", tokens, hidden);
  const auto choice = uninitialized<Array2<int>>("choice", tokens, router_traits(config, 0).slots);
  const double products = static_cast<double>(
      3 * (config.moe.top_k.at(0) * config.moe.expert_ffn + config.moe.shared_ffn) * hidden +
      config.moe.experts.at(0) * hidden);
  const double flops = 6.0 * static_cast<double>(tokens) * products;
  const auto pass = [&] {
    workspace.activations.clear();
    Kokkos::deep_copy(y, T(0));
    layer.forward(cell, {tokens, tokens}, x, y, choice, &sums, nullptr);
    layer.backward(cell, dy, dx);
  };
  measure("MoE layer, routing of random weights", flops, pass);
  if (config.moe.experts.at(0) > hidden) return;
  balance(config, x);
  unit_router(config, parameters);
  measure("MoE layer, balanced", flops, pass);
  for (const auto& [name, seconds] : timers.totals_s()) {
    std::printf("{\"phase\": \"%s\", \"type\": \"%s\", \"total_s\": %.6g}\n", name.c_str(),
                measure.type.c_str(), seconds);
  }
}

template void moe_layer<float>(const Config&, const Communicator&, const Measure&);
template void moe_layer<double>(const Config&, const Communicator&, const Measure&);
template void moe_layer<bfloat16>(const Config&, const Communicator&, const Measure&);

}  // namespace hearth::bench
