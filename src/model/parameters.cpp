#include "model/parameters.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "base/random.hpp"
#include "kernels/statistics.hpp"

namespace hearth {

namespace {

template <class T>
Arena<T> make_arena(const TensorTable& table, Owner owner, const Mesh& mesh,
                    kernels::Summing summing) {
  ArenaLayout layout(table, owner, mesh.placements, mesh.experts.rank());
  const Index elements = layout.elements();
  kernels::GradientArray<Real<T>> gradients;
  if (summing == kernels::Summing::fixed) {
    gradients.fixed = zeroed<Array1<std::int64_t>>("gradients", elements);
  } else {
    gradients.plain = zeroed<Array1<Real<T>>>("gradients", elements);
  }
  Array2<std::int64_t> overflow("overflow", layout.slices().size(), 2);
  return {std::move(layout), zeroed<Array1<T>>("weights", elements), gradients,
          std::move(overflow)};
}

}  // namespace

template <class T>
Parameters<T>::Parameters(TensorTable table, const Mesh& mesh, Index cells,
                          kernels::Summing summing)
    : table_(std::move(table)),
      first_slices_(first_slices(table_)),
      arenas_{make_arena<T>(table_, Owner::everyone, mesh, summing),
              make_arena<T>(table_, Owner::experts, mesh, summing)},
      cells_(static_cast<double>(cells)) {}

template <class T>
typename Parameters<T>::Place Parameters<T>::find(const std::string& name) const {
  const auto entry = std::find_if(table_.begin(), table_.end(),
                                  [&](const TensorInfo& info) { return info.name == name; });
  if (entry == table_.end()) throw failure("no tensor is named ", name);
  if (!entry->alias_of.empty()) return find(entry->alias_of);
  const Arena<T>& arena = arenas_[static_cast<std::size_t>(entry->owner)];
  const auto number = static_cast<int>(entry - table_.begin());
  const Index begin = arena.layout.begin(number);
  const auto& slices = arena.layout.slices();
  const auto here = std::count_if(slices.begin(), slices.end(),
                                  [&](const ArenaSlice& slice) { return slice.tensor == number; });
  const Index elements =
      entry->owner == Owner::experts ? here * padded_slice(*entry) : entry->elements();
  return {&*entry, begin, elements, &arena};
}

template <class T>
Array1<const T> Parameters<T>::vector(const std::string& name) const {
  const Place place = find(name);
  return run_of(place.arena->weights, place.begin, place.begin + place.elements);
}

template <class T>
Array2<const T> Parameters<T>::matrix(const std::string& name) const {
  const Place place = find(name);
  return Array2<const T>(place.arena->weights.data() + place.begin, place.info->shape[0],
                         place.info->shape[1]);
}

template <class T>
ExpertWeights<T> Parameters<T>::experts(const std::string& name) const {
  const Place place = find(name);
  return {{place.arena->weights.data() + place.begin, padded_slice(*place.info),
           place.info->shape[1], place.info->shape[2]},
          gradient(name)};
}

template <class T>
kernels::GradientSum<Real<T>> Parameters<T>::gradient(const std::string& name) const {
  const Place place = find(name);
  // A tied tensor gets a term from each of its uses in every cell.
  const auto uses = 1 + std::count_if(table_.begin(), table_.end(), [&](const TensorInfo& info) {
                      return info.alias_of == place.info->name;
                    });
  const std::vector<ArenaSlice>& slices = place.arena->layout.slices();
  const auto first =
      std::find_if(slices.begin(), slices.end(),
                   [&](const ArenaSlice& slice) { return slice.begin == place.begin; }) -
      slices.begin();
  const Index stride = padded_slice(*place.info);
  return {place.arena->gradients.part(place.begin, place.begin + place.elements),
          rows_of(place.arena->overflow, first,
                  first + kernels::whole_blocks(place.elements) * kernels::block_elements / stride),
          cells_ * static_cast<double>(uses), stride};
}

template <class T>
void Parameters<T>::clear_gradients() {
  for (const Arena<T>& arena : arenas_) {
    arena.gradients.visit([](const auto& sums) { Kokkos::deep_copy(sums, 0); });
    Kokkos::deep_copy(arena.overflow, 0);
  }
}

template <class T>
std::vector<std::int64_t> Parameters<T>::overflow() const {
  std::vector<std::int64_t> all(static_cast<std::size_t>(2 * first_slices_.back()));
  for (const Arena<T>& arena : arenas_) {
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), arena.overflow);
    const auto& slices = arena.layout.slices();
    for (std::size_t s = 0; s < slices.size(); ++s) {
      const std::size_t at = 2 * number_of(slices[s]);
      all[at] += host(s, 0);
      all[at + 1] += host(s, 1);
    }
  }
  return all;
}

template <class T>
std::vector<std::int64_t> Parameters<T>::non_finite_weights() const {
  std::vector<std::int64_t> all(static_cast<std::size_t>(first_slices_.back()));
  for (const Arena<T>& arena : arenas_) {
    for (const ArenaSlice& slice : arena.layout.slices()) {
      all[number_of(slice)] += kernels::count_non_finite<T>(
          run_of(arena.weights, slice.begin, slice.begin + slice.elements));
    }
  }
  return all;
}

template <class T>
void initialize(const TensorTable& table, const ArenaLayout& layout, std::uint64_t seed,
                Range range, const HostArray1<T>& weights) {
  Kokkos::deep_copy(weights, T(0));
  for (const ArenaLayout::Run& run : layout.runs(range)) {
    const TensorInfo& info = table[static_cast<std::size_t>(run.tensor)];
    const Index global = run.slice * info.slice_elements() + run.first;
    T* const out = weights.data() + (run.begin - range.begin);
    const RandomStream stream(seed, info.name);
    const double std = info.init_std;
    const bool ones = info.initial == Initial::ones;
    constexpr Index chunk = 1024;
    Kokkos::parallel_for(
        "initialize", Kokkos::RangePolicy<HostExec>(0, (run.elements + chunk - 1) / chunk),
        [=](const Index c) {
          const Index begin = c * chunk, count = std::min(chunk, run.elements - begin);
          double deviates[chunk];
          if (!ones) {
            stream.normals(static_cast<std::uint64_t>(global + begin),
                           {deviates, static_cast<std::size_t>(count)});
          }
          for (Index i = 0; i < count; ++i) {
            out[begin + i] = ones ? T(1) : static_cast<T>(std * deviates[i]);
          }
        });
  }
  HostExec().fence("initialize");
}

template class Parameters<float>;
template class Parameters<double>;
template class Parameters<bfloat16>;
template void initialize<float>(const TensorTable&, const ArenaLayout&, std::uint64_t, Range,
                                const HostArray1<float>&);
template void initialize<double>(const TensorTable&, const ArenaLayout&, std::uint64_t, Range,
                                 const HostArray1<double>&);

}  // namespace hearth
