// A model of odd shapes, cut over any layout of ranks, whose values are a function of tensor and
// element.
#pragma once

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/hash.hpp"
#include "io/checkpoint.hpp"
#include "parallel/mesh.hpp"
#include "unit/data/fixture.hpp"

namespace hearth::fixture {

inline constexpr Index experts = 5;

inline TensorTable odd_table() {
  TensorTable table = {
      {"embedding/weight", {97, 50}, {"vocabulary", "hidden"}},
      {"layers/00/norm/weight", {7}, {"hidden"}},
      {"layers/00/wide", {3, 5000}, {"ffn", "hidden"}},
      {"layers/00/router/weight", {experts, 11}, {"expert", "hidden"}},
      {"layers/00/experts/gate", {experts, 37, 129}, {"expert", "expert_ffn", "hidden"}},
      {"layers/00/experts/bias", {experts, 3}, {"expert", "hidden"}},
      {"layers/00/cube", {6, 7, 200}, {"heads", "head_dim", "hidden"}},
      {"one", {1}, {"hidden"}},
      {"head/weight", {97, 50}, {"vocabulary", "hidden"}},
      // No padding between its experts.
      {"layers/00/experts/up", {experts, 64, 128}, {"expert", "expert_ffn", "hidden"}},
  };
  table[0].hugging_face = "model.embed_tokens.weight";
  for (const std::size_t stack : {4, 5, 9}) {
    table[stack].owner = Owner::experts;
    table[stack].moe_layer = 0;
  }
  table[8].alias_of = "embedding/weight";
  return table;
}

// Element `index` of a tensor: any finite number, of either sign.
template <class T>
T value_of(const std::string& group, const std::string& tensor, Index index) {
  const std::uint64_t hash =
      mix_bits(hash_text(group + tensor) + static_cast<std::uint64_t>(index));
  return static_cast<T>(static_cast<double>(hash >> 11) * 0x1p-53 - 0.5);
}

// What one rank of `world` holds, laid out as expert_ranks × data_ranks.
template <class T>
class RankParts {
 public:
  RankParts(const Communicator& world, Index expert_ranks, const TensorTable& table,
            const std::vector<std::string>& groups)
      : table_(&table),
        mesh_(world, expert_ranks, {experts}),
        everyone_(table, Owner::everyone, mesh_.placements, 0),
        experts_(table, Owner::experts, mesh_.placements, mesh_.grid.expert_index(world.rank())) {
    const RankGrid& grid = mesh_.grid;
    for (const std::string& group : groups) {
      add(group, everyone_, everyone_.shard(world.size(), world.rank()));
      add(group, experts_, experts_.shard(grid.data_ranks(), grid.data_index(world.rank())));
    }
  }
  RankParts(const RankParts&) = delete;  // parts point into it
  RankParts& operator=(const RankParts&) = delete;

  std::vector<TensorPart<T>> parts;

  void fill() {
    each([&](const TensorPart<T>& part, const ArenaLayout::Run& run, T* values) {
      for (Index i = 0; i < run.elements; ++i) values[i] = expected(part, run, i);
    });
  }
  void spoil() {
    for (TensorPart<T>& part : parts) {
      Kokkos::deep_copy(part.values, std::numeric_limits<T>::quiet_NaN());
    }
  }
  // Elements that are not what fill() makes, and padding that is not zero.
  Index wrong() {
    Index count = 0, held = 0;
    each([&](const TensorPart<T>& part, const ArenaLayout::Run& run, const T* values) {
      for (Index i = 0; i < run.elements; ++i) count += values[i] != expected(part, run, i);
      held += run.elements;
    });
    Index zeros = 0, all = 0;
    for (TensorPart<T>& part : parts) {
      const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), part.values);
      zeros += std::count(host.data(), host.data() + host.size(), T(0));
      all += part.range.size();
    }
    return count + (all - held) - zeros;
  }

 private:
  void add(const std::string& group, const ArenaLayout& layout, Range range) {
    parts.push_back({group, &layout, range, Array1<T>("values", range.size())});
  }
  T expected(const TensorPart<T>& part, const ArenaLayout::Run& run, Index i) const {
    const TensorInfo& info = (*table_)[static_cast<std::size_t>(run.tensor)];
    return value_of<T>(part.group, info.name, run.slice * info.slice_elements() + run.first + i);
  }
  template <class Visit>
  void each(Visit visit) {
    for (TensorPart<T>& part : parts) {
      const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), part.values);
      for (const ArenaLayout::Run& run : part.layout->runs(part.range)) {
        visit(part, run, host.data() + (run.begin - part.range.begin));
      }
      Kokkos::deep_copy(part.values, host);
    }
  }

  const TensorTable* table_;
  Mesh mesh_;
  ArenaLayout everyone_, experts_;
};

inline const std::vector<std::string> all_groups = {model_group, first_moment_group,
                                                    second_moment_group};

inline CheckpointHeader some_header() {
  CheckpointHeader header;
  header.step = 1234567890123;
  header.deck = "[run]\nseed = 7\n# größer\n";
  header.version = "1.2.3";
  header.revision = "abc";
  header.decomposition = "";
  header.data_identity = std::string(100000, 'x');  // larger than a header message
  return header;
}

// `values` on the first rank only.
inline std::vector<CounterTensor> some_counters(bool with_values) {
  std::vector<CounterTensor> counters = {{"expert_counts", {2, experts}, {"layer", "expert"}},
                                         {"empty", {0, 3}, {"row", "column"}}};
  if (with_values) counters[0].values = {1, -2, 3, 4, 5, 6, 7, 8, 9, std::int64_t{1} << 60};
  return counters;
}

inline std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// What `work` throws: its text; empty when it throws nothing. `status` receives the exit status.
template <class Work>
std::string message_of(const Work& work, int* status = nullptr) {
  try {
    work();
  } catch (const CollectiveError& error) {
    if (status != nullptr) *status = error.status();
    return error.what();
  } catch (const Error& error) {
    if (status != nullptr) *status = static_cast<int>(error.status());
    return error.what();
  }
  return "";
}

}  // namespace hearth::fixture
