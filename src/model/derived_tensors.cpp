#include "model/derived_tensors.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace hearth {

namespace {

// Null where there is none of that name.
const TensorInfo* find_tensor(const TensorTable& table, const std::string& name) {
  const auto found = std::find_if(table.begin(), table.end(),
                                  [&](const TensorInfo& info) { return info.name == name; });
  return found == table.end() ? nullptr : &*found;
}

TensorSource same(const TensorInfo& info) {
  return {info.name, info.elements(), {{{0, 1}}}};
}

// The part of a name behind its layer, "experts/gate" of "layers/01/experts/gate".
std::string part_of(const std::string& name) {
  return name.starts_with("layers/") ? name.substr(name.find('/', 7) + 1) : name;
}
std::string layer_of(const std::string& name) {
  return name.substr(0, name.size() - part_of(name).size());
}

}  // namespace

ExpertTerms unchanged_experts(const std::vector<Index>& experts) {
  ExpertTerms terms;
  for (const Index expert : experts) terms.push_back({{expert, 1}});
  return terms;
}

TensorSources combined_experts(const TensorTable& older, const TensorTable& newer,
                               const std::vector<ExpertTerms>& experts) {
  TensorSources sources;
  std::size_t next_router = 0;
  for (const TensorInfo& info : newer) {
    const TensorInfo* const from = find_tensor(older, info.name);
    if (from == nullptr) throw failure("no tensor to make ", info.name, " of");
    const bool router = part_of(info.name) == "router/weight";
    if (info.owner != Owner::experts && !router) {
      sources.push_back(same(info));
      continue;
    }
    // A router's weight has no number of its layer; routers stand in the layers' order.
    const ExpertTerms& layer =
        experts.at(router ? next_router++ : static_cast<std::size_t>(info.moe_layer));
    const Index unit = info.elements() / info.shape[0];
    TensorSource source{info.name, unit, {}};
    for (const auto& expert : layer) {
      auto& terms = source.terms.emplace_back();
      for (const ExpertTerm& term : expert) terms.push_back({term.expert * unit, term.weight});
    }
    // Light experts follow the others.
    for (Index light = static_cast<Index>(layer.size()); light < info.shape[0]; ++light) {
      source.terms.push_back({{(from->shape[0] - info.shape[0] + light) * unit, 1}});
    }
    sources.push_back(std::move(source));
  }
  return sources;
}

TensorSources upcycled(const TensorTable& older, const TensorTable& newer) {
  TensorSources sources;
  for (const TensorInfo& info : newer) {
    const std::string part = part_of(info.name);
    if (find_tensor(older, info.name) != nullptr) {
      sources.push_back(same(info));
      continue;
    }
    if (part == "shared/down") {
      sources.push_back({info.name, info.elements(), {{}}});
      continue;
    }
    if (info.owner != Owner::experts) {
      sources.push_back({});
      continue;
    }
    const std::string name =
        layer_of(info.name) + "dense/" + part.substr(std::string("experts/").size());
    const TensorInfo* const dense = find_tensor(older, name);
    if (dense == nullptr) throw failure("no tensor to make ", info.name, " of");
    const Index experts = info.shape[0], rows = info.shape[1], columns = info.shape[2];
    const bool down = part == "experts/down";
    const Index width = down ? dense->shape[1] : dense->shape[0];  // of the dense layer
    const Index slices = width / (down ? columns : rows);
    TensorSource source{name, down ? columns : rows * columns, {}};
    for (Index expert = 0; expert < experts; ++expert) {
      const Index slice = expert % slices;
      if (!down) {
        source.terms.push_back({{slice * rows * columns, 1}});
        continue;
      }
      for (Index row = 0; row < rows; ++row) {
        source.terms.push_back({{row * width + slice * columns, static_cast<double>(slices)}});
      }
    }
    if (slices == 1)
      source = {name, info.slice_elements(), {static_cast<std::size_t>(experts), {{0, 1}}}};
    sources.push_back(std::move(source));
  }
  return sources;
}

}  // namespace hearth
