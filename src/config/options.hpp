// The one table of options. Parsing, --help, the echoed deck, the rules for a resumed run and
// docs/deck.md are all made of it.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "config/config.hpp"

namespace hearth {

// What a resumed run may do with a changed value.
enum class Change {
  identity,  // refuse: it would be another model, another order of data or other arithmetic
  schedule,  // allow and log: the course of training changes from here on
  free       // allow: layout and output
};

struct Option {
  using Field = std::variant<bool*, std::int64_t*, double*, std::string*, std::vector<std::string>*,
                             ByLayer<std::int64_t>*, ByLayer<double>*>;

  std::string key;  // section.name
  Field field;      // into the Config that the table was made for
  std::string unit;
  std::string help;
  Change change;
  double minimum = 0;                // of a number
  double maximum = 0;                // of a number; 0: none, but that of 32-bit integers
  std::vector<std::string> choices;  // of a text; empty: any
};

// The table, bound to the fields of `config`, in the order of the deck manual.
[[nodiscard]] std::vector<Option> option_table(Config& config);

// The value as a deck would give it; several lines' worth for a list.
[[nodiscard]] std::vector<std::string> value_texts(const Option& option);

// "integer", "number", "true or false", "text", "list", "integer or one by layer".
[[nodiscard]] std::string type_name(const Option& option);

// Text of docs/deck.md, the deck manual.
[[nodiscard]] std::string deck_manual();

}  // namespace hearth
