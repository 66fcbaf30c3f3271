// What stands behind the program's name.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "app/commands.hpp"

namespace hearth {

// The text of --help.
[[nodiscard]] const char* usage();

struct CommandLine {
  std::string command, deck;
  std::vector<std::string> overrides;      // --section.key=value, and what else is the deck's
  std::map<std::string, std::string> own;  // arguments of the command itself, by name

  // An argument of the command itself that is a number from 1; none: it was not given.
  [[nodiscard]] std::optional<std::int64_t> number(const std::string& name) const;
  [[nodiscard]] DerivedRequest derived_request() const;
};

// Throws input_error where it is no command, or one without what it needs.
[[nodiscard]] CommandLine parse_command_line(int argc, char** argv);

// The overrides without those of [moe] and of routers, which upcycle means for the new model alone.
[[nodiscard]] std::vector<std::string> overrides_of_dense_model(const CommandLine& line);

}  // namespace hearth
