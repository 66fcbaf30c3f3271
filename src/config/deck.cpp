#include "config/deck.hpp"

#include <algorithm>
#include <boost/program_options.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>
#include <optional>
#include <utility>

#include "base/error.hpp"
#include "config/options.hpp"
#include "config/traced_layers.hpp"

namespace po = boost::program_options;

namespace hearth {

// What boost reads values with. "6", or "2,2,4".
template <class T>
std::istream& operator>>(std::istream& stream, ByLayer<T>& value) {
  std::string list;
  std::getline(stream, list);
  value.values.clear();
  std::istringstream rest(list);
  for (std::string item; std::getline(rest, item, ',');) {
    std::istringstream one(item);
    T number{};
    if (!(one >> number) || !(one >> std::ws).eof()) stream.setstate(std::ios::failbit);
    value.values.push_back(number);
  }
  if (value.values.empty() || list.ends_with(',')) stream.setstate(std::ios::failbit);
  return stream;
}

namespace {

// Edits (insertion, deletion, substitution) that turn one word into the other.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({substituted, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string nearest_key(const std::vector<Option>& table, const std::string& key) {
  const auto distance = [&](const Option& option) {
    // A right name in a wrong section is nearer than any misspelling.
    const auto name = [](const std::string& k) { return k.substr(k.find('.') + 1); };
    return name(option.key) == name(key) ? 1 : edit_distance(option.key, key);
  };
  return std::min_element(
             table.begin(), table.end(),
             [&](const Option& a, const Option& b) { return distance(a) < distance(b); })
      ->key;
}

std::string trimmed(const std::string& s) {
  const auto first = s.find_first_not_of(" \t\r");
  if (first == std::string::npos) return "";
  return s.substr(first, s.find_last_not_of(" \t\r") - first + 1);
}

// Boost reports keys without lines: where in the deck does `key` stand (the last time)?
std::optional<int> line_of(const std::string& deck, const std::string& key) {
  std::istringstream stream(deck);
  std::optional<int> found;
  std::string line, section;
  for (int number = 1; std::getline(stream, line); ++number) {
    line = trimmed(line.substr(0, line.find('#')));
    if (line.size() > 1 && line.front() == '[' && line.back() == ']') {
      section = line.substr(1, line.size() - 2) + ".";
    } else if (section + trimmed(line.substr(0, line.find('='))) == key) {
      found = number;
    }
  }
  return found;
}

// Boost reads a line that is neither heading nor key as an odd heading or key, and names no line.
void check_lines(const std::string& deck, const std::string& name) {
  std::istringstream stream(deck);
  std::string line;
  for (int number = 1; std::getline(stream, line); ++number) {
    if (const auto at = line.find('\r'); at != std::string::npos && at + 1 != line.size()) {
      throw input_error(name, ":", number, ": a carriage return stands alone, as of an old ",
                        "Macintosh; expected lines that end with a newline");
    }
    line = trimmed(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    const bool heading = line.size() > 2 && line.front() == '[' && line.back() == ']';
    const auto equals = line.find('=');
    const bool value = line.front() != '[' && equals != std::string::npos && equals > 0;
    if (!heading && !value) {
      throw input_error(name, ":", number, ": '", line,
                        "' is neither a [section] nor a line of key = value");
    }
  }
}

template <class T>
void add_value(po::options_description& description, const Option& option, T* field) {
  description.add_options()(option.key.c_str(), po::value<T>(field), option.help.c_str());
}

// A bound as a deck would give it.
std::string number_text(double value) {
  const bool integer = value == std::floor(value) && std::abs(value) < 1e15;
  return integer ? text(static_cast<std::int64_t>(value)) : text(value);
}

// The numbers of an option; none: it is of another kind.
std::vector<double> numbers_of(const Option& option) {
  if (const auto* const* integer = std::get_if<std::int64_t*>(&option.field)) {
    return {static_cast<double>(**integer)};
  }
  if (const auto* const* number = std::get_if<double*>(&option.field)) return {**number};
  if (const auto* const* integers = std::get_if<ByLayer<std::int64_t>*>(&option.field)) {
    return {(*integers)->values.begin(), (*integers)->values.end()};
  }
  if (const auto* const* numbers = std::get_if<ByLayer<double>*>(&option.field)) {
    return (*numbers)->values;
  }
  return {};
}

// Text after the '=' of a bool is "true" or "false" here, not also boost's "yes", "on" and "1".
void check_value(const Option& option, const std::string& where) {
  const auto fail = [&](const std::string& expected) {
    const auto values = value_texts(option);
    throw input_error(where, ": ", option.key, " = ", values.empty() ? "" : values[0],
                      "; expected ", expected);
  };
  if (const auto* const* word = std::get_if<std::string*>(&option.field)) {
    const auto& choices = option.choices;
    if (!choices.empty() && std::find(choices.begin(), choices.end(), **word) == choices.end()) {
      std::string list;
      for (const auto& choice : choices) list += (list.empty() ? "" : ", ") + choice;
      fail("one of " + list);
    }
  }
  const bool bounded = option.maximum > option.minimum;
  const bool integer = std::holds_alternative<std::int64_t*>(option.field) ||
                       std::holds_alternative<ByLayer<std::int64_t>*>(option.field);
  for (const double value : numbers_of(option)) {
    if (!(value >= option.minimum) || (bounded && value > option.maximum)) {
      if (bounded) {
        fail(text("a number from ", number_text(option.minimum), " to ",
                  number_text(option.maximum)));
      }
      const bool above_zero = option.minimum > 0 && option.minimum < 1e-300;
      fail(above_zero ? "a number above 0" : text("at least ", number_text(option.minimum)));
    }
    if (integer && !bounded && value > std::numeric_limits<std::int32_t>::max()) {
      fail(text("at most ", std::numeric_limits<std::int32_t>::max()));
    }
    if (!std::isfinite(value)) fail("a finite number");
  }
}

// Sizes that no computer has, before products of them overflow.
void validate_size(const Config& c, const std::string& where) {
  const auto refuse = [&](const auto&... parts) { throw input_error(where, ": ", parts...); };
  const auto real = [](std::int64_t value) { return static_cast<double>(value); };
  const ModelConfig& m = c.model;
  constexpr double most = 1e15;
  const double experts = real(c.most_destinations()) * real(c.moe.expert_ffn);
  const double inner = std::max(real(m.dense_ffn), experts + real(c.moe.shared_ffn));
  const double attention = 4 * real(m.heads) * real(m.head_width());
  const double parameters =
      real(m.hidden) * (real(m.layers) * (attention + 3 * inner) + 2 * real(m.vocabulary));
  if (parameters > most) {
    refuse("the model would have up to ", parameters, " parameters; expected at most ", most,
           ": smaller values in [model] and [moe]");
  }
  const double counts = real(m.layers) * real(m.vocabulary) * real(c.most_destinations());
  if (c.statistics.token_counts && counts > most) {
    refuse("statistics.token_counts would take ", counts, " numbers; expected false");
  }
  const double tokens = real(c.run.steps) * real(c.batch.global_batch) * real(m.sequence_length);
  if (tokens > 1e18) {
    refuse("run.steps * batch.global_batch * model.sequence_length are ", tokens,
           " tokens; expected at most 1e18");
  }
}

// What cannot be run of a model with experts.
void validate_experts(const Config& c, const std::string& where) {
  const auto refuse = [&](const auto&... parts) { throw input_error(where, ": ", parts...); };
  const MoeConfig& moe = c.moe;
  if (moe.dense_layers > c.model.layers) {
    refuse("moe.dense_layers = ", moe.dense_layers,
           " is more than model.layers = ", c.model.layers);
  }
  const auto check_layers = [&](const char* key, std::size_t values) {
    if (values == 1 || static_cast<std::int64_t>(values) == c.moe_layers()) return;
    refuse(key, " has ", values, " values for ", c.moe_layers(),
           " layers with experts; expected one, or one for each");
  };
  check_layers("moe.experts", moe.experts.values.size());
  check_layers("moe.top_k", moe.top_k.values.size());
  check_layers("capacity.factor", c.capacity.factor.values.size());
  check_layers("top_k.skip_below", c.top_k.skip_below.values.size());
  for (std::int64_t layer = 0; layer < c.moe_layers(); ++layer) {
    const std::int64_t experts = moe.experts.at(layer), top_k = moe.top_k.at(layer);
    const std::int64_t choices = c.destinations(layer);
    if (experts == 0) {
      refuse("moe.experts = 0 in MoE layer ", layer,
             "; expected at least 1, or moe.dense_layers for layers without experts");
    }
    if (top_k > choices) {
      refuse("moe.top_k = ", top_k, " is more than moe.experts = ", experts,
             moe.light_experts() == 0 ? "" : text(" and ", moe.light_experts(), " light experts"),
             "; expected at most as many");
    }
    for (const auto& [router, group] :
         {std::pair("top_k", c.top_k.group), std::pair("frozen", c.top_k.group),
          std::pair("bias_balanced", c.bias_balanced.group)}) {
      if (moe.router != router || group.groups == 1) continue;
      const std::string section = moe.router == "frozen" ? "top_k" : moe.router;
      if (group.groups_chosen > group.groups) {
        refuse(section, ".groups_chosen = ", group.groups_chosen, " is more than ", section,
               ".groups = ", group.groups);
      }
      if (moe.light_experts() > 0 || experts % group.groups != 0) {
        refuse(section, ".groups = ", group.groups, " does not divide the ", c.destinations(layer),
               " destinations of the router; expected a divisor of ",
               "moe.experts, and no copy, constant, zero or null experts");
      }
      if (top_k > experts / group.groups * group.groups_chosen) {
        refuse("moe.top_k = ", top_k, " is more than the ",
               experts / group.groups * group.groups_chosen, " experts of ", section,
               ".groups_chosen groups");
      }
    }
  }
  const bool learns_which = moe.router != "hash" && moe.router != "random";
  if (moe.light_experts() > 0 && (moe.router == "expert_choice" || !learns_which)) {
    refuse("moe.router = ", moe.router, ": ",
           learns_which ? "experts without matrices choose no tokens"
                        : "it never chooses experts without matrices",
           "; expected moe.copy_experts, constant_experts, zero_experts and null_experts of 0");
  }
  if (c.top_p.threshold == 0) refuse("top_p.threshold = 0; expected more, up to 1");
  if (!traced_layers(c)) {
    refuse("statistics.trace_layers = ", c.statistics.trace_layers,
           "; expected all, or blocks with experts, which are ", moe.dense_layers, " to ",
           c.model.layers - 1, ", in ascending order, as in 1,4,8");
  }
}

}  // namespace

Config parse_deck(const std::string& deck, const std::string& name,
                  const std::vector<std::string>& overrides) {
  check_lines(deck, name);
  Config config;
  const std::vector<Option> table = option_table(config);
  po::options_description description;
  for (const Option& option : table) {
    std::visit([&](auto* field) { add_value(description, option, field); }, option.field);
  }

  const auto deck_place = [&](const std::string& key) {
    const auto line = line_of(deck, key);
    return line ? text(name, ":", *line) : name;
  };
  const auto is_override = [&](const std::string& key) {
    return std::any_of(overrides.begin(), overrides.end(),
                       [&](const std::string& o) { return o.starts_with("--" + key + "="); });
  };
  const auto place = [&](const std::string& key) {
    return is_override(key) ? std::string("command line") : deck_place(key);
  };
  const auto refuse_unknown = [&](const std::string& where, const std::string& key) {
    throw input_error(where, ": unknown key '", key, "'; the nearest known key is '",
                      nearest_key(table, key), "'");
  };

  // Boost takes an empty value only as a word of its own.
  std::vector<std::string> words;
  for (const std::string& override : overrides) {
    const bool empty = !override.empty() && override.find('=') == override.size() - 1;
    words.push_back(empty ? override.substr(0, override.size() - 1) : override);
    if (empty) words.emplace_back();
  }
  try {
    po::variables_map values;
    auto command_line =
        po::command_line_parser(words)
            .options(description)
            .style(po::command_line_style::default_style & ~po::command_line_style::allow_guessing)
            .allow_unregistered()
            .run();
    for (const auto& option : command_line.options) {
      if (option.unregistered) refuse_unknown("command line", option.string_key);
      if (option.string_key.empty() || option.position_key != -1) {
        throw input_error("command line: unexpected argument '", option.original_tokens.front(),
                          "'; expected --section.key=value");
      }
    }
    std::istringstream stream(deck);
    const auto lines = po::parse_config_file(stream, description, true);
    for (const auto& option : lines.options) {
      if (option.unregistered) refuse_unknown(deck_place(option.string_key), option.string_key);
    }
    po::store(command_line, values);  // the first value stored wins
    po::store(lines, values);
    po::notify(values);
  } catch (const po::multiple_occurrences& error) {
    const std::string key = trimmed(error.get_option_name());
    const std::string bare = key.starts_with("--") ? key.substr(2) : key;
    throw input_error(place(bare), ": ", bare, " is given twice; keep one of the lines");
  } catch (const po::validation_error& error) {
    std::string key = error.get_option_name();
    if (key.starts_with("--")) key = key.substr(2);
    const auto option =
        std::find_if(table.begin(), table.end(), [&](const Option& o) { return o.key == key; });
    throw input_error(place(key), ": ", error.what(), "; expected ",
                      option == table.end() ? "another value" : type_name(*option));
  } catch (const po::invalid_command_line_syntax& error) {
    throw input_error("command line: ", error.what(), "; expected --section.key=value");
  } catch (const po::error& error) {
    throw input_error(name, ": ", error.what());
  }

  for (const Option& option : table) check_value(option, place(option.key));
  validate(config, name);
  return config;
}

Config read_deck(const std::string& file, const std::vector<std::string>& overrides) {
  std::ifstream stream(file);
  const bool readable = stream && !std::filesystem::is_directory(file);  // a folder opens, too
  if (!readable) {
    throw input_error(file, ": cannot be read; expected a deck, such as inputs/quickstart.deck");
  }
  std::string deck(std::istreambuf_iterator<char>(stream), {});
  constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
  if (deck.starts_with(byte_order_mark)) deck.erase(0, byte_order_mark.size());
  if (deck.find_first_not_of(" \t\r\n") == std::string::npos) {
    throw input_error(file, ": is empty; expected a deck, such as inputs/quickstart.deck");
  }
  return parse_deck(deck, file, overrides);
}

std::string write_deck(const Config& config) {
  Config copy = config;
  std::string deck, section;
  for (const Option& option : option_table(copy)) {
    const auto dot = option.key.find('.');
    if (option.key.substr(0, dot) != section) {
      section = option.key.substr(0, dot);
      deck += text(deck.empty() ? "" : "\n", "[", section, "]\n");
    }
    for (const std::string& value : value_texts(option)) {
      deck += text(option.key.substr(dot + 1), " = ", value, "\n");
    }
  }
  return deck;
}

void validate(const Config& c, const std::string& where) {
  const auto refuse = [&](const auto&... parts) { throw input_error(where, ": ", parts...); };
  const ModelConfig& m = c.model;
  if (m.head_dim == 0 && m.hidden % m.heads != 0) {
    refuse("model.hidden = ", m.hidden, " is not a multiple of model.heads = ", m.heads,
           "; change one of them or give model.head_dim");
  }
  if (m.head_width() % 2 != 0) {
    refuse("the width of a head, ", m.head_width(),
           ", is odd; the rotary embedding needs an even model.head_dim");
  }
  if (m.head_width() > largest_head_width) {
    refuse("the width of a head, ", m.head_width(), ", is more than ", largest_head_width,
           "; give more model.heads or a smaller model.head_dim");
  }
  if (m.heads % m.key_value_heads() != 0) {
    refuse("model.kv_heads = ", m.kv_heads, " does not divide model.heads = ", m.heads);
  }
  validate_size(c, where);
  if (c.has_experts()) validate_experts(c, where);
  if (c.parallel.cells == "source" && c.parallel.placement.empty()) {
    refuse("parallel.cells = source, but parallel.placement is empty; expected a file that ",
           "postprocess/place_experts.py --by source has written");
  }
  if (c.batch.cell_sequences > c.batch.global_batch) {
    refuse("batch.cell_sequences = ", c.batch.cell_sequences,
           " is more than batch.global_batch = ", c.batch.global_batch);
  }
  for (const auto& [key, beta] : {std::pair("optimizer.beta1", c.optimizer.beta1),
                                  std::pair("optimizer.beta2", c.optimizer.beta2)}) {
    if (beta >= 1) refuse(key, " = ", beta, "; expected less than 1, or no gradient would count");
  }
  const double schedule = c.optimizer.warmup_fraction + c.optimizer.decay_fraction;
  if (schedule > 1) {
    refuse("optimizer.warmup_fraction + optimizer.decay_fraction = ", schedule,
           "; expected at most 1");
  }
  // Sums over an interval are integers in units of 2⁻³⁰; the largest are entropies, up to
  // ln(experts) a token, and probabilities.
  const double largest_sum =
      0x1p33 / std::max(1.0, std::log(static_cast<double>(c.most_destinations())));
  const auto step_tokens =
      static_cast<double>(c.batch.global_batch) * static_cast<double>(m.sequence_length);
  if (c.moe_layers() > 0 &&
      static_cast<double>(c.statistics.every_steps) * step_tokens >= largest_sum) {
    const auto most = static_cast<std::int64_t>(std::nextafter(largest_sum, 0) / step_tokens);
    refuse("statistics.every_steps = ", c.statistics.every_steps,
           ": sums over so many tokens overflow; expected ",
           most > 0 ? text("at most ", most, ", or ") : "",
           "a smaller batch.global_batch or model.sequence_length");
  }
  if (c.run.output.empty()) refuse("run.output is empty; expected a folder");
}

std::vector<std::string> check_resumed(const Config& then, const Config& now,
                                       const std::string& checkpoint) {
  Config before = then, after = now;
  const auto old_table = option_table(before);
  const auto new_table = option_table(after);
  std::vector<std::string> changes;
  for (std::size_t i = 0; i < new_table.size(); ++i) {
    const auto old_value = value_texts(old_table[i]), new_value = value_texts(new_table[i]);
    if (old_value == new_value || new_table[i].change == Change::free) continue;
    const auto joined = [](const std::vector<std::string>& values) {
      std::string all;
      for (const auto& value : values) all += (all.empty() ? "" : " ") + value;
      return all;
    };
    if (new_table[i].change == Change::identity) {
      throw input_error(checkpoint, ": was made with ", new_table[i].key, " = ", joined(old_value),
                        ", the deck says ", joined(new_value),
                        "; keep the value, or give another run.output");
    }
    changes.push_back(text(new_table[i].key, ": ", joined(old_value), " -> ", joined(new_value)));
  }
  return changes;
}

}  // namespace hearth
