#include "train/step_fault.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace hearth {

namespace {

constexpr std::size_t names_shown = 4;

// "a, b, c, d and 12 more".
std::string first_of(const std::vector<std::string>& names) {
  std::string list;
  for (std::size_t i = 0; i < std::min(names.size(), names_shown); ++i) {
    list += (i == 0 ? "" : ", ") + names[i];
  }
  if (names.size() > names_shown) list += text(" and ", names.size() - names_shown, " more");
  return list;
}

// "layers/01/experts/gate of experts 3, 5".
std::string tensor_name(const TensorInfo& info, const std::vector<Index>& slices) {
  if (info.owner == Owner::everyone) return info.name;
  std::vector<std::string> numbers;
  for (const Index slice : slices) numbers.push_back(std::to_string(slice));
  return text(info.name, slices.size() > 1 ? " of experts " : " of expert ", first_of(numbers));
}

bool any(const std::vector<std::int64_t>& counts) {
  return std::any_of(counts.begin(), counts.end(), [](std::int64_t n) { return n > 0; });
}

std::string kinds(std::int64_t infinite, std::int64_t large) {
  if (infinite == 0) return text(large, " too large");
  return text(infinite, " not finite") + (large > 0 ? text(", ", large, " too large") : "");
}

// What was counted in one tensor.
struct Found {
  std::vector<Index> slices;  // where anything was
  std::int64_t infinite = 0, large = 0;
};

// infinite(slice) and large(slice), with the slice's number in the table, over a tensor.
template <class Infinite, class Large>
Found find(Index first, Index end, const Infinite& infinite, const Large& large) {
  Found found;
  for (Index slice = first; slice < end; ++slice) {
    const auto number = static_cast<std::size_t>(slice);
    if (infinite(number) + large(number) == 0) continue;
    found.slices.push_back(slice - first);
    found.infinite += infinite(number);
    found.large += large(number);
  }
  return found;
}

}  // namespace

bool StepFault::in_forward_pass() const {
  return any(losses) || any(forward.counts());
}

std::string describe(const StepFault& fault, const TensorTable& table,
                     const std::vector<std::string>& sources) {
  const std::vector<Index> first = first_slices(table);
  const auto none = [](std::size_t) { return std::int64_t{0}; };
  std::vector<std::string> weights, losses, gradients;
  for (std::size_t t = 0; t < table.size(); ++t) {
    const Found found = find(
        first[t], first[t + 1], [&](std::size_t slice) { return fault.weights[slice]; }, none);
    if (found.slices.empty()) continue;
    weights.push_back(text(tensor_name(table[t], found.slices), " (", found.infinite, ")"));
  }
  for (std::size_t t = table.size(); t-- > 0;) {
    const Found found = find(
        first[t], first[t + 1], [&](std::size_t slice) { return fault.gradients[2 * slice]; },
        [&](std::size_t slice) { return fault.gradients[2 * slice + 1]; });
    if (found.slices.empty()) continue;
    gradients.push_back(
        text(tensor_name(table[t], found.slices), " (", kinds(found.infinite, found.large), ")"));
  }
  for (std::size_t source = 0; source < sources.size(); ++source) {
    if (fault.losses[source] == 0) continue;
    losses.push_back(text(sources[source], " (", fault.losses[source], " sequences)"));
  }

  std::string line;
  const auto add = [&](const std::string& part) { line += (line.empty() ? "" : "; ") + part; };
  if (!weights.empty()) add("weights not finite: " + first_of(weights));
  const auto& places = fault.forward.counts();
  const auto place = std::find_if(places.begin(), places.end(), [](auto n) { return n > 0; });
  if (place != places.end()) {
    add(text("values not finite from ",
             fault.forward.describe(static_cast<std::size_t>(place - places.begin())), " on (",
             *place, ")"));
  }
  if (!losses.empty()) add("loss not finite: " + first_of(losses));
  if (!gradients.empty()) add("gradient: " + first_of(gradients));
  return line.empty() ? "the gradient's norm is not finite" : line;
}

}  // namespace hearth
