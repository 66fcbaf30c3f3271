#include "model/step_trace.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

namespace hearth {

namespace {

std::int64_t packed(std::int32_t high, std::uint32_t low) {
  return (static_cast<std::int64_t>(high) << 32) | static_cast<std::int64_t>(low);
}
std::int32_t high_half(std::int64_t word) {
  return static_cast<std::int32_t>(word >> 32);
}
std::uint32_t low_half(std::int64_t word) {
  return static_cast<std::uint32_t>(word & 0xFFFFFFFF);
}

template <class A>
auto on_host(const A& a) {
  return Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), a);
}

}  // namespace

StepTrace::StepTrace(std::vector<std::int64_t> places, std::vector<Index> layers, Index slots,
                     Index first_sequence)
    : places_(std::move(places)),
      layers_(std::move(layers)),
      slots_(slots),
      first_sequence_(first_sequence),
      words_(places_.size() * (1 + layers_.size() * static_cast<std::size_t>(slots)), 0) {}

StepTrace::Part StepTrace::part_of(const DeviceCell& cell) const {
  const Index begin = (cell.first_sequence - first_sequence_) * cell.sequence_length;
  const auto index_of = [&](Index place) {
    return static_cast<std::size_t>(std::lower_bound(places_.begin(), places_.end(), place) -
                                    places_.begin());
  };
  return {index_of(begin), index_of(begin + cell.tokens), begin};
}

std::int64_t& StepTrace::choice_word(std::size_t layer, std::size_t token, Index slot) {
  const std::size_t tokens = places_.size(), slots = static_cast<std::size_t>(slots_);
  return words_[tokens + (layer * tokens + token) * slots + static_cast<std::size_t>(slot)];
}

void StepTrace::add_cell(const DeviceCell& cell) {
  const Part part = part_of(cell);
  if (part.first == part.last) return;
  const auto token = on_host(cell.token), source = on_host(cell.source);
  for (std::size_t i = part.first; i < part.last; ++i) {
    const Index t = places_[i] - part.begin;
    words_[i] = packed(source(t), static_cast<std::uint32_t>(token(t)));
  }
}

template <class R>
void StepTrace::add_layer(Index layer, const DeviceCell& cell, const Array2<const int>& choice,
                          const Array2<const R>& gate) {
  const auto found = std::lower_bound(layers_.begin(), layers_.end(), layer);
  if (found == layers_.end() || *found != layer) return;
  const Part part = part_of(cell);
  if (part.first == part.last) return;
  const auto number = static_cast<std::size_t>(found - layers_.begin());
  const auto host_choice = on_host(choice);
  const auto host_gate = on_host(gate);
  const auto slots = static_cast<Index>(choice.extent(1));
  for (std::size_t i = part.first; i < part.last; ++i) {
    const Index t = places_[i] - part.begin;
    for (Index j = 0; j < slots && host_choice(t, j) >= 0; ++j) {
      const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(host_gate(t, j)));
      choice_word(number, i, j) = packed(host_choice(t, j) + 1, bits);
    }
  }
}

void StepTrace::collect(const Communicator& world) {
  world.sum_to_first(words_);
}

std::vector<std::int32_t> StepTrace::token_ids() const {
  std::vector<std::int32_t> ids(places_.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<std::int32_t>(low_half(words_[i]));
  }
  return ids;
}

std::vector<std::int32_t> StepTrace::sources() const {
  std::vector<std::int32_t> sources(places_.size());
  for (std::size_t i = 0; i < sources.size(); ++i) sources[i] = high_half(words_[i]);
  return sources;
}

std::vector<TracedChoice> StepTrace::choices() const {
  const TracedChoice none{-1, std::numeric_limits<float>::quiet_NaN()};
  std::vector<TracedChoice> choices(words_.size() - places_.size(), none);
  const auto slots = static_cast<std::size_t>(slots_);
  for (std::size_t row = 0; row < choices.size(); row += slots) {
    const std::int64_t* word = words_.data() + places_.size() + row;
    for (std::size_t j = 0; j < slots && word[j] != 0; ++j) {
      const TracedChoice choice{high_half(word[j]) - 1, std::bit_cast<float>(low_half(word[j]))};
      // They come in ascending order, so that those of equal gates stay in it.
      std::size_t place = row + j;
      for (; place > row && choices[place - 1].gate < choice.gate; --place) {
        choices[place] = choices[place - 1];
      }
      choices[place] = choice;
    }
  }
  return choices;
}

template void StepTrace::add_layer<float>(Index, const DeviceCell&, const Array2<const int>&,
                                          const Array2<const float>&);
template void StepTrace::add_layer<double>(Index, const DeviceCell&, const Array2<const int>&,
                                           const Array2<const double>&);

}  // namespace hearth
