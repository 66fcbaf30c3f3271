// Reading and writing decks.
#pragma once

#include <string>
#include <vector>

#include "config/config.hpp"

namespace hearth {

// The deck in the file, with `--section.key=value` overrides, validated. Throws input_error with
// the file and line (or the override) of what is wrong.
[[nodiscard]] Config read_deck(const std::string& file, const std::vector<std::string>& overrides);

// The same from a text; `name` stands for the file in messages.
[[nodiscard]] Config parse_deck(const std::string& deck, const std::string& name,
                                const std::vector<std::string>& overrides = {});

// The resolved deck: every key with its value, so that reading it back gives the same Config.
[[nodiscard]] std::string write_deck(const Config& config);

// Refuses combinations that cannot be run; `where` opens the message.
void validate(const Config& config, const std::string& where);

// Compares a run's deck with the one it resumes from. Throws input_error where an identity option
// differs; returns a line for each changed schedule option.
[[nodiscard]] std::vector<std::string> check_resumed(const Config& then, const Config& now,
                                                     const std::string& checkpoint);

}  // namespace hearth
