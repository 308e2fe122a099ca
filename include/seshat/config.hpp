// seshat/config.hpp - defaults, TOML file, environment and flags -> one validated Config.
//
//   defaults  <  seshat.toml  <  SESHAT_RAFT_LEASE_MS=200  <  --raft.lease_ms=200
//
//   int main(int argc, char** argv) {
//     const auto line = seshat::parse_command_line({argv + 1, argv + argc},
//                                                  seshat::environment_of(environ));
//     for (const auto& problem : line.problems) std::cerr << problem.text() << '\n';
//     if (line.action == seshat::CommandLine::Action::kRefuse) return 2;
//     ...
//   }
//
// Keeps:    a Config that leaves here is valid as a whole. All problems are told at once, each with
//           where it stands, the key, what is wrong and what would be right.
// Threads:  none inside; call it before threads start.
// Alone:    needs config_keys.hpp, config_rules.hpp, version.hpp, log.hpp; toml++ 3, compiled in
//           or linked, with or without exceptions; no other header includes it. Reads the named
//           file and the host's name, nothing else.
#ifndef SESHAT_CONFIG_HPP
#define SESHAT_CONFIG_HPP

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#if __has_include(<toml++/toml.hpp>)
#include <toml++/toml.hpp>
#else
#include <toml++/toml.h>
#endif

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

#include "seshat/config_keys.hpp"
#include "seshat/config_rules.hpp"
#include "seshat/version.hpp"

namespace seshat {

using Arguments = std::vector<std::string>;              // without the program's name
using Environment = std::map<std::string, std::string>;  // name -> value

// One thing that is wrong (or, among the warnings, doubtful), and where.
struct Problem {
  std::string source;    // the file as it was named, the environment variable or the flag
  std::size_t line = 0;  // in the file, from 1; 0: not a file, or the file as a whole
  std::string key;       // "raft.lease_ms"; empty: not about one key
  std::string value;     // as it was given; empty: nothing worth showing
  std::string what;      // what is wrong and what would be right

  // "seshat.toml:12: raft.lease_ms = 290: must be at most 0.85 of vote_withhold_ms (255 here)"
  [[nodiscard]] std::string text() const;
};

// What the command line asks for.
struct CommandLine {
  enum class Action : std::uint8_t {
    kRun,
    kShowHelp,     // print help_text, exit 0
    kShowVersion,  // print kVersion, exit 0
    kCheckConfig,  // say that it is valid, exit 0
    kRefuse,       // print `problems`, exit 2; nothing was opened
  };
  Action action = Action::kRun;
  Config config;                  // valid and with its derived values for kRun and kCheckConfig
  std::vector<Problem> warnings;  // to be logged at start
  std::vector<Problem> problems;  // not empty exactly for kRefuse

  // Where a key was set: file and line, variable, or flag. For what is found wrong with it later.
  struct Place {
    std::string source;
    std::size_t line = 0;
  };
  std::map<std::string, Place, std::less<>> places = {};
};

// Reads all sources in their order. --help and --version win over everything, also over problems.
// A flag or --config given twice: the last one counts.
[[nodiscard]] CommandLine parse_command_line(const Arguments& arguments,
                                             const Environment& environment);

// What --help prints: every flag, every key with default, range and comment.
// `also`: another way to call the program, if there is one.
[[nodiscard]] std::string help_text(std::string_view program, std::string_view also = {});

// `environ` (zero-terminated, may be null) as a map.
[[nodiscard]] Environment environment_of(const char* const* variables);

// This machine's name as others may know it; "localhost" if it has none.
[[nodiscard]] std::string host_name();

// ---------------------------------------------------------------------------------------------
// Flags that are no keys
// ---------------------------------------------------------------------------------------------

namespace config {

struct ActionFlag {
  std::string_view name;
  CommandLine::Action action;
  std::string_view comment;
};

inline constexpr auto kActionFlags = std::to_array<ActionFlag>({
    {"--help", CommandLine::Action::kShowHelp, "print this and exit"},
    {"--version", CommandLine::Action::kShowVersion, "print the version and exit"},
    {"--check-config", CommandLine::Action::kCheckConfig, "validate all sources and exit"},
});

inline constexpr std::string_view kConfigFlag = "--config";

// A configuration beyond this size is some other file.
inline constexpr std::size_t kMaxFileSizeBytes = 1'048'576;

// ---------------------------------------------------------------------------------------------
// Bodies: names and numbers
// ---------------------------------------------------------------------------------------------

namespace detail {

[[nodiscard]] inline std::vector<std::string> section_names() {
  std::vector<std::string> names;
  for (const std::string_view section : sections()) names.emplace_back(section);
  return names;
}

[[nodiscard]] inline std::vector<std::string> flag_names() {
  std::vector<std::string> names = {std::string(kConfigFlag)};
  for (const ActionFlag& flag : kActionFlags) names.emplace_back(flag.name);
  for (const Key& key : keys()) {
    if (!key.flag.empty()) names.emplace_back(key.flag);
    names.push_back("--" + std::string(key.path));
  }
  return names;
}

[[nodiscard]] inline const Key* find_flag(std::string_view flag) {
  const auto is_flag = [flag](const Key& key) { return key.flag == flag; };
  const auto found = std::ranges::find_if(keys(), is_flag);
  if (found != keys().end()) return &*found;
  return flag.starts_with("--") ? find_key(flag.substr(2)) : nullptr;
}

[[nodiscard]] inline std::optional<std::int64_t> parse_integer(std::string_view text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = error == std::errc{} && end == text.data() + text.size();
  return whole ? std::optional(number) : std::nullopt;
}

// ---------------------------------------------------------------------------------------------
// Bodies: the reader of all sources
// ---------------------------------------------------------------------------------------------

using Place = CommandLine::Place;

// One "id = address" of a list, before it is checked.
struct Entry {
  std::string key;  // "cluster.initial_members[0]" by position, "cluster.dial[2]" by id
  Place place;
  std::int64_t id = 0;
  std::string addr;
};

[[nodiscard]] inline std::string element_key(std::string_view list, std::int64_t position_or_id) {
  return std::string(list) + "[" + std::to_string(position_or_id) + "]";
}

// Collects values from the sources and problems with them; every function goes on after a problem.
class Reader {
 public:
  [[nodiscard]] CommandLine read(const Arguments& arguments, const Environment& environment);

 private:
  // A flag that names a key, kept until file and environment are read.
  struct Setting {
    const Key* key;
    std::string flag;
    std::string value;
  };

  void read_arguments(const Arguments& arguments);
  [[nodiscard]] bool read_action_flag(std::string_view name, bool has_value);
  void read_value_flag(const std::string& name, const std::string& value);
  void read_file();
  void read_document(const std::string& text);
  void read_section(std::string_view section, const toml::table& table);
  void read_environment(const Environment& environment);
  void warn_of_unknown_variable(const std::string& name);
  void read_text(const Key& key, const Place& place, std::string_view text);

  void read_node(const Key& key, const Place& place, const toml::node& node);
  void read_members(const Key& key, const Place& place, const toml::array& array);
  [[nodiscard]] std::optional<Entry> read_member(const std::string& key, const Place& place,
                                                 const toml::node& node);
  void read_dial(const Key& key, const toml::table& table);

  void assign(const Key& key, const Place& place, const Value& value);
  void assign_entries(const Key& key, const Place& place, const std::vector<Entry>& entries);
  void refuse(std::string_view key, const Place& place, std::string value, std::string what);
  void check_rules();
  [[nodiscard]] Place place_of(std::string path) const;
  [[nodiscard]] Place place_in_file(const toml::source_region& region) const {
    return {file_, region.begin.line};
  }

  CommandLine result_;
  std::string file_;  // empty: none was named
  std::vector<Setting> settings_;
  GivenKeys given_;
  std::set<std::string, std::less<>> failed_;  // keys with a problem: rules about them are moot
  bool unreadable_ = false;                    // the file's values are unknown: so are all rules
};

inline CommandLine Reader::read(const Arguments& arguments, const Environment& environment) {
  using Action = CommandLine::Action;
  read_arguments(arguments);
  if (result_.action == Action::kShowHelp || result_.action == Action::kShowVersion) {
    result_.problems.clear();
    return std::move(result_);
  }
  if (!file_.empty()) read_file();
  read_environment(environment);
  for (const Setting& setting : settings_) {
    read_text(*setting.key, {setting.flag}, setting.value);
  }
  if (!unreadable_) check_rules();
  if (result_.problems.empty()) {
    fill_derived(result_.config, host_name());
  } else {
    result_.action = Action::kRefuse;
  }
  return std::move(result_);
}

// ---- Flags -----------------------------------------------------------------------------------

inline void Reader::read_arguments(const Arguments& arguments) {
  const auto is_flag = [](const std::string& text) { return text.starts_with("--"); };
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (!is_flag(argument)) {
      refuse("", {argument}, "", "not a flag: they start with --, and --help lists them");
      continue;
    }
    const std::size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    if (read_action_flag(name, equals != std::string::npos)) continue;
    if (equals != std::string::npos) {
      read_value_flag(name, argument.substr(equals + 1));
    } else if (i + 1 < arguments.size() && !is_flag(arguments[i + 1])) {
      read_value_flag(name, arguments[++i]);
    } else if (name == kConfigFlag || find_flag(name) != nullptr) {
      refuse("", {name}, "", "needs a value: " + name + " VALUE");
    } else {
      read_value_flag(name, "");
    }
  }
}

// Is it one of kActionFlags? --help and --version stay once they were seen.
inline bool Reader::read_action_flag(std::string_view name, bool has_value) {
  using Action = CommandLine::Action;
  const auto flag = std::ranges::find(kActionFlags, name, &ActionFlag::name);
  if (flag == kActionFlags.end()) return false;
  if (has_value) refuse("", {std::string(name)}, "", "takes no value");
  const bool settled =
      result_.action == Action::kShowHelp || result_.action == Action::kShowVersion;
  if (!settled) result_.action = flag->action;
  return true;
}

inline void Reader::read_value_flag(const std::string& name, const std::string& value) {
  if (name == kConfigFlag) {
    if (value.empty()) refuse("", {name}, "", "needs the name of a file");
    file_ = value;
  } else if (const Key* key = find_flag(name)) {
    settings_.push_back({key, name, value});
  } else {
    const auto near = nearest(name, flag_names());
    refuse("", {name}, "",
           "unknown flag; " + (near ? "did you mean " + *near + "?" : "--help lists all"));
  }
}

// ---- The file --------------------------------------------------------------------------------

inline void Reader::read_file() {
  std::error_code error;
  std::ifstream stream(file_, std::ios::binary);
  if (!stream || std::filesystem::is_directory(file_, error)) {
    unreadable_ = true;
    const bool exists = std::filesystem::exists(file_, error);
    refuse("", {file_}, "",
           exists ? "can't be read: it must be a readable file"
                  : "does not exist: --config must name a TOML file");
    return;
  }
  std::string text(kMaxFileSizeBytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(stream.gcount()));
  if (text.size() > kMaxFileSizeBytes) {
    unreadable_ = true;
    refuse("", {file_}, "", "larger than 1 MiB: this is no configuration");
    return;
  }
  read_document(text);
  // Tables come sorted by key; people read from top to bottom.
  std::ranges::stable_sort(result_.problems, {}, &Problem::line);
}

// toml++ up to 3.4 answers two mistakes with a failed assertion in place of an error: a section
// without a name ("[.raft]", marzer/tomlplusplus#301) and a '}' where a list wants a value
// ("[{...}, }]"). And whether a letter from U+FB26 to U+FEFE is a blank it asks a switch that has
// no answer, which is undefined. All are found here before it sees them: outside of strings and
// comments, no letter beyond ASCII is right.

inline constexpr std::string_view kBlanks = " \t\r\v\f";
inline constexpr std::string_view kBareKeyCharacters =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";

// Past the end of the string that opens at `start`, with one quote or three.
[[nodiscard]] inline std::size_t end_of_string(std::string_view text, std::size_t start) {
  const char quote = text[start];
  const std::string three(3, quote);
  const bool long_form = text.substr(start).starts_with(three);
  const std::string_view closing = std::string_view(three).substr(0, long_form ? 3 : 1);
  for (std::size_t i = start + closing.size(); i < text.size(); ++i) {
    if (quote == '"' && text[i] == '\\') {
      ++i;
    } else if (text.substr(i).starts_with(closing)) {
      return i + closing.size();
    } else if (!long_form && text[i] == '\n') {
      return i;
    }
  }
  return text.size();
}

// Does a section's name follow the '[' or '[[' at `start`?
[[nodiscard]] inline bool is_section_named(std::string_view text, std::size_t start) {
  text.remove_prefix(start + (text.substr(start).starts_with("[[") ? 2 : 1));
  text.remove_prefix(std::min(text.find_first_not_of(kBlanks), text.size()));
  return text.starts_with('"') || text.starts_with('\'') ||
         consists_of(text.substr(0, 1), kBareKeyCharacters);
}

// The offset of the first such mistake; npos if there is none.
[[nodiscard]] inline std::size_t find_misplaced_character(std::string_view text) {
  std::size_t depth = 0;
  char previous = '\n';  // what counts before text[i]; a line's end does so outside brackets
  for (std::size_t i = text.starts_with("\xEF\xBB\xBF") ? 3 : 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '#') i = std::min(text.find('\n', i), text.size()) - 1;
    if (c == '\n' && depth == 0) previous = c;
    if (c == '#' || c == '\n' || kBlanks.find(c) != std::string_view::npos) continue;
    const bool opens_section = c == '[' && depth == 0 && previous == '\n';
    if (opens_section && !is_section_named(text, i)) return i;
    if (c == '}' && (previous == '[' || previous == ',')) return i;
    if (static_cast<unsigned char>(c) >= 0x80) return i;
    if (c == '"' || c == '\'') i = end_of_string(text, i) - 1;
    if ((c == '[' || c == '{') && !opens_section) ++depth;
    if ((c == ']' || c == '}') && depth > 0) --depth;
    previous = c;
  }
  return std::string_view::npos;
}

// toml++ throws or returns its errors, as it was built; either way they end here.
[[nodiscard]] inline std::variant<toml::table, Problem> parse_toml(const std::string& text) {
  const auto problem_of = [](const toml::parse_error& error) {
    return Problem{"", error.source().begin.line, "", "", std::string(error.description())};
  };
  if (const std::size_t at = find_misplaced_character(text); at != std::string::npos) {
    const auto lines = std::ranges::count(std::string_view(text).substr(0, at), '\n');
    const std::string what = text[at] == '['   ? "a section must be [name]"
                             : text[at] == '}' ? "misplaced '}'"
                                               : "what is not ASCII must stand in quotes";
    return Problem{"", static_cast<std::size_t>(lines) + 1, "", "", what};
  }
#if TOML_EXCEPTIONS
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    return problem_of(error);
  }
#else
  toml::parse_result parsed = toml::parse(text);
  if (!parsed) return problem_of(parsed.error());
  return std::move(parsed).table();
#endif
}

inline void Reader::read_document(const std::string& text) {
  const std::variant<toml::table, Problem> parsed = parse_toml(text);
  if (const auto* problem = std::get_if<Problem>(&parsed)) {
    unreadable_ = true;
    refuse("", {file_, problem->line}, "", "not valid TOML: " + problem->what);
    return;
  }
  const std::vector<std::string> names = section_names();
  for (const auto& [name, node] : std::get<toml::table>(parsed)) {
    const std::string section(name.str());
    const Place place = place_in_file(name.source());
    const bool known = std::ranges::find(names, section) != names.end();
    if (known && node.is_table()) {
      read_section(section, *node.as_table());
    } else if (known) {
      refuse(section, place, "", "must be a section: [" + section + "]");
    } else if (node.is_table()) {
      refuse(section, place, "", "unknown section; " + suggestion(section, names));
    } else {
      refuse(section, place, "", "stands in no section; " + key_suggestion("", section));
    }
  }
}

inline void Reader::read_section(std::string_view section, const toml::table& table) {
  for (const auto& [name, node] : table) {
    const std::string path = std::string(section) + "." + std::string(name.str());
    const Place place = place_in_file(name.source());
    if (const Key* key = find_key(path)) {
      read_node(*key, place, node);
    } else {
      refuse(path, place, "", "unknown key; " + key_suggestion(section, name.str()));
    }
  }
}

// The words for what stands there instead of what should.
[[nodiscard]] inline std::string type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::string:
      return "a text";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a number with a fraction";
    case toml::node_type::boolean:
      return "true or false";
    default:
      return "a date or time";
  }
}

[[nodiscard]] inline std::optional<Value> scalar_of(const toml::node& node) {
  if (const auto* number = node.as_integer()) return number->get();
  if (const auto* truth = node.as_boolean()) return truth->get();
  if (const auto* text = node.as_string()) return text->get();
  return std::nullopt;
}

inline void Reader::read_node(const Key& key, const Place& place, const toml::node& node) {
  if (key.type == KeyType::kMembers && node.is_array()) {
    read_members(key, place, *node.as_array());
  } else if (key.type == KeyType::kDial && node.is_table()) {
    read_dial(key, *node.as_table());
  } else if (const auto value = scalar_of(node);
             value && value->index() == key.get(Config{}).index()) {
    assign(key, place, *value);
  } else {
    refuse(key.path, place, value ? show(*value) : "",
           "must be " + expectation(key) + ", not " + type_name(node));
  }
}

inline void Reader::read_members(const Key& key, const Place& place, const toml::array& array) {
  std::vector<Entry> entries;
  for (std::size_t i = 0; i < array.size(); ++i) {
    const std::string element = element_key(key.path, static_cast<std::int64_t>(i));
    const Place element_place = place_in_file(array[i].source());
    if (auto entry = read_member(element, element_place, array[i])) {
      entries.push_back(*std::move(entry));
    } else {
      failed_.emplace(key.path);
    }
  }
  assign_entries(key, place, entries);
}

// `key` is "cluster.initial_members[0]".
inline std::optional<Entry> Reader::read_member(const std::string& key, const Place& place,
                                                const toml::node& node) {
  const toml::table* table = node.as_table();
  const auto* id = table == nullptr ? nullptr : table->get_as<std::int64_t>("id");
  const auto* addr = table == nullptr ? nullptr : table->get_as<std::string>("addr");
  if (id == nullptr || addr == nullptr) {
    refuse(key, place, "", "must be {id = 1, addr = \"host:port\"}");
    return std::nullopt;
  }
  bool known = true;
  for (const auto& [name, value] : *table) {
    if (name == "id" || name == "addr") continue;
    refuse(key + "." + std::string(name.str()), place_in_file(name.source()), "",
           "unknown key; there is id, addr");
    known = false;
  }
  if (!known) return std::nullopt;
  return Entry{key, place, id->get(), addr->get()};
}

inline void Reader::read_dial(const Key& key, const toml::table& table) {
  std::vector<Entry> entries;
  Place place = place_in_file(table.source());
  for (const auto& [name, node] : table) {
    const Place entry_place = place_in_file(name.source());
    const std::optional<std::int64_t> id = parse_integer(name.str());
    const auto* addr = node.as_string();
    if (id && addr != nullptr) {
      entries.push_back({element_key(key.path, *id), entry_place, *id, addr->get()});
    } else {
      refuse(std::string(key.path) + "[" + std::string(name.str()) + "]", entry_place, "",
             "must be an id and its address, as in {2 = \"host:port\"}");
    }
  }
  assign_entries(key, place, entries);
}

// ---- The environment -------------------------------------------------------------------------

inline void Reader::read_environment(const Environment& environment) {
  for (const Key& key : keys()) {
    const auto variable = environment.find(environment_name(key));
    if (variable == environment.end()) continue;
    read_text(key, {variable->first}, variable->second);
  }
  for (const auto& [name, value] : environment) {
    if (name.starts_with("SESHAT_")) warn_of_unknown_variable(name);
  }
}

// Only a warning, and only for what looks like a misspelled key: others have good reasons to set
// SESHAT_ variables (Kubernetes does so for a service of this name).
inline void Reader::warn_of_unknown_variable(const std::string& name) {
  std::vector<std::string> names;
  for (const Key& key : keys()) names.push_back(environment_name(key));
  if (std::ranges::find(names, name) != names.end()) return;
  for (const std::string& known : names) {
    if (edit_distance(name.substr(0, kLongestGuess), known) > 2) continue;
    result_.warnings.push_back({name, 0, "", "", "not a setting; did you mean " + known + "?"});
    return;
  }
}

// ---- Values as text: environment and flags ---------------------------------------------------

// "1=host:port,2=host:port"; an empty text is an empty list. Nothing if it is anything else.
[[nodiscard]] inline std::optional<std::vector<Entry>> parse_entries(const Key& key,
                                                                     const Place& place,
                                                                     std::string_view text) {
  std::vector<Entry> entries;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view entry = text.substr(0, comma);
    const std::size_t equals = std::min(entry.find('='), entry.size());
    const std::optional<std::int64_t> id = parse_integer(entry.substr(0, equals));
    if (!id || equals == entry.size()) return std::nullopt;
    const auto position = static_cast<std::int64_t>(entries.size());
    entries.push_back({element_key(key.path, key.type == KeyType::kDial ? *id : position), place,
                       *id, std::string(entry.substr(equals + 1))});
    if (comma + 1 == text.size()) return std::nullopt;  // nothing after the last comma
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return entries;
}

inline void Reader::read_text(const Key& key, const Place& place, std::string_view text) {
  std::optional<Value> value;
  switch (key.type) {
    case KeyType::kInteger:
      if (const auto number = parse_integer(text)) value = *number;
      break;
    case KeyType::kBoolean:
      if (text == "true" || text == "false") value = text == "true";
      break;
    case KeyType::kMembers:
    case KeyType::kDial:
      if (const auto entries = parse_entries(key, place, text)) {
        assign_entries(key, place, *entries);
      } else {
        refuse(key.path, place, show(std::string(text)), "must be 1=host:port,2=host:port");
      }
      return;
    default:
      value = std::string(text);
      break;
  }
  if (value) {
    assign(key, place, *value);
  } else {
    refuse(key.path, place, show(std::string(text)), "must be " + expectation(key));
  }
}

// ---- Values of all sources -------------------------------------------------------------------

inline void Reader::assign(const Key& key, const Place& place, const Value& value) {
  if (const auto reason = why_not(key, value)) {
    refuse(key.path, place, show(value), *reason);
    return;
  }
  key.set(result_.config, value);
  result_.places[std::string(key.path)] = place;
  given_.emplace(key.path);
}

inline void Reader::assign_entries(const Key& key, const Place& place,
                                   const std::vector<Entry>& entries) {
  const bool is_dial = key.type == KeyType::kDial;
  Members members;
  Dial dial;
  for (const auto& [element, entry_place, id, addr] : entries) {
    if (id < 1) {
      refuse(element, entry_place, std::to_string(id),
             "must have an id from 1 to " + std::to_string(kMaxNodeId));
    } else if (!is_fit_address(KeyType::kDialAddress, addr)) {
      refuse(element, entry_place, show(addr), "must be host:port that others can dial");
    } else if (is_dial && !dial.emplace(id, addr).second) {
      refuse(element, entry_place, show(addr), "must be the only address for this id");
    } else if (!is_dial) {
      members.push_back({static_cast<std::uint64_t>(id), addr});
    }
    result_.places[element] = entry_place;
  }
  assign(key, place, is_dial ? Value(dial) : Value(members));
}

// The path without the position in a list: "cluster.dial[2]" -> "cluster.dial".
[[nodiscard]] inline std::string_view key_part(std::string_view path) {
  return path.substr(0, path.find('['));
}

inline void Reader::refuse(std::string_view key, const Place& place, std::string value,
                           std::string what) {
  if (!key.empty()) failed_.emplace(key_part(key));
  const Key* of = find_key(key);
  if (of != nullptr && of->is_secret) value.clear();
  result_.problems.push_back(
      {place.source, place.line, std::string(key), std::move(value), std::move(what)});
}

// Where `path` was set, or the list that it is in; an empty place for a default.
inline Place Reader::place_of(std::string path) const {
  while (true) {
    if (const auto found = result_.places.find(path); found != result_.places.end())
      return found->second;
    const std::size_t cut = path.find_last_of(".[");
    if (cut == std::string::npos) return {};
    path.resize(cut);
  }
}

inline void Reader::check_rules() {
  for (BrokenRule& rule : broken_rules(result_.config, given_)) {
    if (failed_.contains(key_part(rule.key)) || failed_.contains(rule.partner)) continue;
    Place place = place_of(rule.key);
    // The key stands at its default, so its partner is what somebody wrote.
    if (place.source.empty()) place = place_of(rule.partner);
    auto& list = rule.severity == Severity::kError ? result_.problems : result_.warnings;
    list.push_back({place.source, place.line, std::move(rule.key), std::move(rule.value),
                    std::move(rule.what)});
  }
}

}  // namespace detail
}  // namespace config

// ---------------------------------------------------------------------------------------------
// Bodies: the API
// ---------------------------------------------------------------------------------------------

inline std::string Problem::text() const {
  std::string out;
  const auto append = [&out](std::string_view part) {  // what comes from outside stays on one line
    log_detail::append_escaped(out, part, log_detail::Quotes::kKept);
  };
  append(source);
  if (line != 0) out += ":" + std::to_string(line);
  if (!key.empty()) {
    if (!out.empty()) out += ": ";
    append(key);
    if (!value.empty()) out += " = " + value;
  }
  if (!out.empty()) out += ": ";
  append(what);
  return out;
}

inline CommandLine parse_command_line(const Arguments& arguments, const Environment& environment) {
  return config::detail::Reader().read(arguments, environment);
}

inline Environment environment_of(const char* const* variables) {
  Environment environment;
  for (; variables != nullptr && *variables != nullptr; ++variables) {
    const std::string_view variable = *variables;
    const std::size_t equals = variable.find('=');
    if (equals == std::string_view::npos) continue;
    environment.emplace(variable.substr(0, equals), variable.substr(equals + 1));
  }
  return environment;
}

inline std::string host_name() {
#if __has_include(<unistd.h>)
  std::array<char, 256> name{};  // POSIX: at most 255 and the zero
  if (::gethostname(name.data(), name.size() - 1) == 0 && name.front() != '\0') {
    return name.data();
  }
#endif
  return "localhost";
}

namespace config::detail {

inline constexpr std::size_t kHelpColumn = 24;

inline void append_flag(std::string& out, std::string_view flag, std::string_view comment) {
  const std::size_t gap = flag.size() < kHelpColumn ? kHelpColumn - flag.size() : 1;
  out.append("  ").append(flag).append(gap, ' ').append(comment) += '\n';
}

// "lease_ms = 250" and below it what it is for and what it takes.
inline void append_key_help(std::string& out, const Key& key) {
  const std::string value = show(key.get(Config{}));
  const bool is_set = !value.empty() && value != "\"\"";
  out.append("  ").append(key.name()).append(is_set ? " = " + value : " (not set)");
  if (!key.flag.empty()) out.append(", also ").append(key.flag);
  out.append("\n      ").append(key.comment).append("; ").append(expectation(key)) += '\n';
}

}  // namespace config::detail

inline std::string help_text(std::string_view program, std::string_view also) {
  using config::detail::append_flag;
  std::string out = "seshat " + std::string(kVersion);
  out += ", a distributed, Redis-compatible key-value store\n\n";
  out += "usage: " + std::string(program) + " [--config FILE] [--FLAG VALUE]...\n";
  if (!also.empty()) out.append("       ").append(program).append(" ").append(also) += '\n';
  out += '\n';
  append_flag(out, "--config FILE", "a TOML file; seshat.toml.example shows every key");
  append_flag(out, "--SECTION.KEY VALUE", "any key below, for example --raft.lease_ms 200");
  for (const config::ActionFlag& flag : config::kActionFlags) {
    append_flag(out, flag.name, flag.comment);
  }
  out +=
      "\nA later source wins over an earlier one: defaults, the file, SESHAT_<SECTION>_<KEY> in\n"
      "the environment, flags. --flag VALUE and --flag=VALUE are the same. Lists are written\n"
      "1=host:port,2=host:port in the environment and in flags.\n\n"
      "Keys with their defaults, and short flags:\n";
  for (const std::string_view section : config::sections()) {
    out += "\n[" + std::string(section) + "]\n";
    for (const config::Key& key : config::keys()) {
      if (key.section() == section) config::detail::append_key_help(out, key);
    }
  }
  return out;
}

}  // namespace seshat

#endif  // SESHAT_CONFIG_HPP
