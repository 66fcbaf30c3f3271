// One layer with experts on one rank, its input, and the same layer made of another's tensors.
#pragma once

#include <map>

#include "model/derived_tensors.hpp"
#include "unit/train/small_model.hpp"

namespace hearth {

// Weights so large that routing and experts matter.
inline Config one_layer_config() {
  Config config = small_config();
  config.model.layers = 1;
  config.moe.dense_layers = 0;
  config.model.init_std = 0.4;
  return config;
}

template <class T>
struct OneLayer {
  explicit OneLayer(const Config& c)
      : model(c),
        workspace{model.matmul, model.timers},
        layer(c, model.parameters, "layers/00/", 0, model.mesh.placements.at(0), model.exchange,
              workspace) {}

  // What the layer makes of x.
  std::vector<double> output(const std::vector<double>& x, ExpertObserver<Real<T>>* observer = {}) {
    const Index tokens = model.cell.tokens, hidden = model.config.model.hidden;
    const Array2<T> in("x", tokens, hidden), out("y", tokens, hidden);
    const auto host = Kokkos::create_mirror_view(in);
    for (std::size_t i = 0; i < x.size(); ++i) host.data()[i] = static_cast<T>(x[i]);
    Kokkos::deep_copy(in, host);
    const Array2<int> choice("choice", tokens, layer.routing().traits().slots);
    workspace.observer = observer;
    layer.forward(model.cell, {}, in, out, choice, nullptr, nullptr);
    workspace.observer = nullptr;
    const auto result = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), out);
    workspace.activations.clear();
    return {result.data(), result.data() + result.size()};
  }

  // A random input of about the size of a normed one.
  [[nodiscard]] std::vector<double> input() const {
    std::mt19937 random(7);
    std::normal_distribution<double> normal(0, 1);
    std::vector<double> x(static_cast<std::size_t>(model.cell.tokens * model.config.model.hidden));
    for (double& value : x) value = normal(random);
    return x;
  }

  SmallModel<T> model;
  Workspace<T> workspace;
  MoeLayer<T> layer;
};

// Element `index` of a whole tensor.
template <class T>
double element(SmallModel<T>& model, const std::string& name, Index index) {
  const TensorTable& table = model.parameters.table();
  for (Arena<T>& arena : model.parameters.arenas()) {
    for (const ArenaSlice& slice : arena.layout.slices()) {
      const TensorInfo& info = table[static_cast<std::size_t>(slice.tensor)];
      const Index within = index - slice.slice * info.slice_elements();
      if (info.name != name || within < 0 || within >= slice.elements) continue;
      T value{};
      Kokkos::deep_copy(value, Kokkos::subview(arena.weights, slice.begin + within));
      return static_cast<double>(value);
    }
  }
  throw failure("no element ", index, " of ", name);
}

// Gives the newer model its tensors from the older one, element by element.
template <class T>
void derive(SmallModel<T>& older, SmallModel<T>& newer, const TensorSources& sources) {
  std::map<std::string, std::vector<double>> whole_tensors;
  for (const TensorInfo& info : older.parameters.table()) {
    whole_tensors[info.name].resize(static_cast<std::size_t>(info.elements()));
  }
  for (Arena<T>& arena : older.parameters.arenas()) {
    const auto weights = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), arena.weights);
    for (const ArenaSlice& slice : arena.layout.slices()) {
      const std::string& name =
          older.parameters.table()[static_cast<std::size_t>(slice.tensor)].name;
      for (Index i = 0; i < slice.elements; ++i) {
        whole_tensors[name][static_cast<std::size_t>(slice.slice * slice.elements + i)] =
            static_cast<double>(weights(slice.begin + i));
      }
    }
  }
  for (Arena<T>& arena : newer.parameters.arenas()) {
    const auto weights = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), arena.weights);
    for (const ArenaSlice& slice : arena.layout.slices()) {
      const TensorSource& source = sources.at(static_cast<std::size_t>(slice.tensor));
      if (source.tensor.empty()) continue;
      for (Index i = 0; i < slice.elements; ++i) {
        const Index whole = slice.slice * slice.elements + i;
        double value = 0;
        for (const SourceTerm& term :
             source.terms.at(static_cast<std::size_t>(whole / source.unit))) {
          value +=
              term.weight * whole_tensors.at(source.tensor)
                                .at(static_cast<std::size_t>(term.begin + whole % source.unit));
        }
        weights(slice.begin + i) = static_cast<T>(value);
      }
    }
    Kokkos::deep_copy(arena.weights, weights);
  }
}

}  // namespace hearth
