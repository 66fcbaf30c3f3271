#include "app/command_line.hpp"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <limits>

#include "config/options.hpp"

namespace hearth {

namespace {

constexpr const char* usage_text =
    "usage: hearth COMMAND [DECK] [--section.key=value ...]\n"
    "\n"
    "  train DECK               train; resumes from the newest good checkpoint in run.output\n"
    "  check DECK [--ranks=R]   validate; print the resolved deck, sizes, decomposition and data\n"
    "  evaluate DECK            validation loss of each data source from a checkpoint\n"
    "  prune DECK --experts=R --output=FOLDER [--batches=B]\n"
    "                           drop experts of a checkpoint, those that change layers least\n"
    "  merge DECK --experts=R --output=FOLDER [--batches=B]\n"
    "                           merge experts of a checkpoint that give similar outputs\n"
    "  calibrate-skip DECK --output=FOLDER [--batches=B]\n"
    "                           find below which gate a token's lower choices can be skipped\n"
    "  upcycle DECK --output=FOLDER --moe.experts=E [--moe.key=value ...]\n"
    "                           make a model with experts of a dense checkpoint\n"
    "  keys                     the deck manual\n"
    "\n"
    "On several ranks: mpirun -n R hearth train DECK\n"
    "Exit status: 0 done, 2 bad usage, deck or data, 75 stopped early at a good checkpoint,\n"
    "1 any other failure.\n";

// Arguments of a command beside the deck's keys, and whether it cannot do without.
struct Argument {
  const char *command, *name, *meaning;
  bool needed;
};
constexpr Argument arguments[] = {
    {"check", "ranks", "a number of ranks", false},
    {"prune", "experts", "a number of experts that stay in each layer", true},
    {"prune", "output", "a folder that is not there yet", true},
    {"prune", "batches", "a number of global batches", false},
    {"merge", "experts", "a number of experts for each layer", true},
    {"merge", "output", "a folder that is not there yet", true},
    {"merge", "batches", "a number of global batches", false},
    {"calibrate-skip", "output", "a folder that is not there yet", true},
    {"calibrate-skip", "batches", "a number of global batches", false},
    {"upcycle", "output", "a folder that is not there yet", true},
};
constexpr const char* with_deck[] = {"train", "check",          "evaluate", "prune",
                                     "merge", "calibrate-skip", "upcycle"};

const Argument* find_argument(const std::string& command, const std::string& name) {
  const auto found =
      std::find_if(std::begin(arguments), std::end(arguments), [&](const Argument& argument) {
        return command == argument.command && name == argument.name;
      });
  return found == std::end(arguments) ? nullptr : found;
}

// Takes up an argument of the command; false where it is none.
bool take_own(const std::string& given, CommandLine& line) {
  for (const Argument& argument : arguments) {
    const std::string start = text("--", argument.name, "=");
    if (line.command != argument.command || !given.starts_with(start)) continue;
    line.own[argument.name] = given.substr(start.size());
    return true;
  }
  return false;
}

}  // namespace

const char* usage() {
  return usage_text;
}

std::optional<std::int64_t> CommandLine::number(const std::string& name) const {
  const auto found = own.find(name);
  if (found == own.end()) return std::nullopt;
  const std::string& digits = found->second;
  std::int64_t value = 0;
  const char* const end = digits.data() + digits.size();
  const auto parsed = std::from_chars(digits.data(), end, value);
  if (value < 1 || value > std::numeric_limits<int>::max() || parsed.ec != std::errc() ||
      parsed.ptr != end) {
    throw input_error("command line: --", name, "=", digits, "; expected ",
                      find_argument(command, name)->meaning);
  }
  return value;
}

DerivedRequest CommandLine::derived_request() const {
  return {own.at("output"), number("experts").value_or(0), number("batches").value_or(1)};
}

CommandLine parse_command_line(int argc, char** argv) {
  CommandLine line;
  line.command = argc > 1 ? argv[1] : "--help";
  for (int i = 2; i < argc; ++i) {
    const std::string argument = argv[i];
    if (take_own(argument, line)) continue;
    if (argument.starts_with("--") || !line.deck.empty()) {
      line.overrides.push_back(argument);
    } else {
      line.deck = argument;
    }
  }
  const bool needs_deck =
      std::find(std::begin(with_deck), std::end(with_deck), line.command) != std::end(with_deck);
  const bool known = needs_deck || line.command == "keys" || line.command == "--help" ||
                     line.command == "--version";
  if (!known) {
    throw input_error(
        "unknown command '", line.command,
        "'; expected train, check, evaluate, prune, merge, calibrate-skip, upcycle or "
        "keys (hearth --help)");
  }
  if (needs_deck && line.deck.empty()) {
    throw input_error("hearth ", line.command, " needs a deck, such as inputs/quickstart.deck");
  }
  for (const Argument& argument : arguments) {
    if (line.command != argument.command) continue;
    const auto found = line.own.find(argument.name);
    if (found == line.own.end()) {
      if (!argument.needed) continue;
      throw input_error("hearth ", line.command, " needs --", argument.name, "=, ",
                        argument.meaning);
    }
    if (found->second.empty()) {
      throw input_error("command line: --", argument.name, "=; expected ", argument.meaning);
    }
    if (std::string_view(argument.name) != "output") (void)line.number(argument.name);
  }
  return line;
}

std::vector<std::string> overrides_of_dense_model(const CommandLine& line) {
  Config any;
  std::vector<std::string> sections = {"moe"};
  for (const Option& option : option_table(any)) {
    if (option.key != "moe.router") continue;
    sections.insert(sections.end(), option.choices.begin(), option.choices.end());
  }
  std::vector<std::string> overrides = line.overrides;
  std::erase_if(overrides, [&](const std::string& given) {
    return std::any_of(sections.begin(), sections.end(), [&](const std::string& section) {
      return given.starts_with("--" + section + ".");
    });
  });
  return overrides;
}

}  // namespace hearth
