#include "parallel/placement_file.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <set>
#include <sstream>

#include "base/error.hpp"

namespace hearth {

namespace {

constexpr const char* right_line =
    "expected 'expert_ranks = R', 'layer BLOCK = RANK RANK ...' or 'source NAME = NUMBER ...', as "
    "postprocess/place_experts.py writes them";

std::string trimmed(const std::string& text) {
  const auto begin = text.find_first_not_of(" \t\r");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

std::optional<std::int64_t> whole_number(const std::string& word) {
  std::int64_t value = 0;
  const char* const end = word.data() + word.size();
  const auto [stop, error] = std::from_chars(word.data(), end, value);
  if (error != std::errc() || stop != end) return {};
  return value;
}

// One line "<kind> [<name>] = <numbers>".
class Line {
 public:
  // `place`: file and line, for messages.
  Line(const std::string& content, std::string place) : place_(std::move(place)) {
    const auto equals = content.rfind('=');
    if (equals == std::string::npos) throw wrong("no line of a placement; ", right_line);
    const std::string left = trimmed(content.substr(0, equals));
    const auto blank = left.find(' ');
    kind = left.substr(0, blank);
    if (blank != std::string::npos) name = trimmed(left.substr(blank));
    std::istringstream words(content.substr(equals + 1));
    for (std::string word; words >> word;) {
      const auto number = whole_number(word);
      if (!number) throw wrong(left, ": '", word, "' is not a whole number");
      numbers.push_back(*number);
    }
  }

  template <class... Parts>
  [[nodiscard]] Error wrong(const Parts&... parts) const {
    return input_error(place_, ": ", parts...);
  }

  std::string kind, name;
  std::vector<std::int64_t> numbers;

 private:
  std::string place_;
};

int expert_ranks_of(const Line& line) {
  constexpr std::int64_t most = std::numeric_limits<int>::max();
  if (!line.name.empty() || line.numbers.size() != 1 || line.numbers[0] < 1 ||
      line.numbers[0] > most) {
    throw line.wrong("expert_ranks; expected one number, at least 1");
  }
  return static_cast<int>(line.numbers[0]);
}

ExpertPlacement placement_of(const Line& line, Index experts, int expert_ranks) {
  if (static_cast<Index>(line.numbers.size()) != experts) {
    throw line.wrong("layer ", line.name, ": ", line.numbers.size(),
                     " numbers; expected the expert rank of each of its ", experts, " experts");
  }
  std::vector<int> owner;  // (experts)
  for (const std::int64_t rank : line.numbers) {
    owner.push_back(static_cast<int>(std::clamp<std::int64_t>(rank, -1, expert_ranks)));
  }
  try {
    return {std::move(owner), expert_ranks};
  } catch (const Error& error) {
    throw line.wrong("layer ", line.name, ": ", error.what());
  }
}

SourceCopies source_of(const Line& line, int expert_ranks) {
  constexpr std::int64_t most = 1000000;
  const bool fits = std::all_of(line.numbers.begin(), line.numbers.end(),
                                [](std::int64_t n) { return n >= 0 && n <= most; });
  if (line.name.empty() || static_cast<int>(line.numbers.size()) != expert_ranks || !fits) {
    throw line.wrong("source ", line.name, ": expected of a million copies those to each of the ",
                     expert_ranks, " expert ranks");
  }
  return {line.name, line.numbers};
}

}  // namespace

PlacementFile parse_placement(const std::string& content, const std::string& name,
                              const std::vector<Index>& experts, Index first_block) {
  PlacementFile found;
  const auto layers = static_cast<Index>(experts.size());
  std::vector<std::optional<ExpertPlacement>> placements(experts.size());  // (moe layers)
  std::set<std::string> sources;
  bool has_ranks = false;
  std::istringstream lines(content);
  std::string written;
  for (int number = 1; std::getline(lines, written); ++number) {
    const std::string bare = trimmed(written);
    if (bare.empty() || bare.front() == '#') continue;
    const Line line(bare, text(name, ":", number));
    if (line.kind == "expert_ranks" && !has_ranks) {
      found.expert_ranks = expert_ranks_of(line);
      has_ranks = true;
    } else if (line.kind == "expert_ranks") {
      throw line.wrong("expert_ranks is given twice; keep one of the lines");
    } else if (!has_ranks) {
      throw line.wrong("the line 'expert_ranks = R' must come first");
    } else if (line.kind == "layer") {
      const Index layer = whole_number(line.name).value_or(-1) - first_block;
      if (layer < 0 || layer >= layers) {
        throw line.wrong("layer '", line.name, "' has no experts; expected blocks ", first_block,
                         " to ", first_block + layers - 1);
      }
      auto& placement = placements[static_cast<std::size_t>(layer)];
      if (placement)
        throw line.wrong("layer ", line.name, " is given twice; keep one of the lines");
      placement = placement_of(line, experts[static_cast<std::size_t>(layer)], found.expert_ranks);
    } else if (line.kind == "source") {
      found.sources.push_back(source_of(line, found.expert_ranks));
      if (!sources.insert(line.name).second) {
        throw line.wrong("source ", line.name, " is given twice; keep one of the lines");
      }
    } else {
      throw line.wrong("no line of a placement; ", right_line);
    }
  }
  if (!has_ranks) throw input_error(name, ": no line 'expert_ranks = R'; ", right_line);
  for (Index layer = 0; layer < layers; ++layer) {
    auto& placement = placements[static_cast<std::size_t>(layer)];
    if (!placement) {
      throw input_error(name, ": no line 'layer ", first_block + layer,
                        " = ...'; expected one for ", "each of the blocks ", first_block, " to ",
                        first_block + layers - 1);
    }
    found.placements.push_back(std::move(*placement));
  }
  return found;
}

PlacementFile read_placement(const std::string& file, const std::vector<Index>& experts,
                             Index first_block) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream || std::filesystem::is_directory(file)) {
    throw input_error("parallel.placement = ", file, ": cannot be read; expected a file that ",
                      "postprocess/place_experts.py has written, or nothing");
  }
  const std::string content(std::istreambuf_iterator<char>(stream), {});
  if (content.find('\0') != std::string::npos) {
    throw input_error("parallel.placement = ", file, ": is not a text; ", right_line);
  }
  return parse_placement(content, file, experts, first_block);
}

}  // namespace hearth
