// A configuration file.
//
// Claims: it is valid as a whole, or every problem names the file, a line of it and what is wrong, on
// one line of text; what is valid stays so when every value is given again by a flag.
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>
#include <variant>

#include "fuzz/target.hpp"
#include "seshat/config.hpp"

namespace seshat::fuzz {

namespace {

using Action = CommandLine::Action;
using config::Key;
using config::KeyType;

// One file for all runs of this process.
class ConfigFile {
 public:
  ConfigFile() {
    path_ = (std::filesystem::temp_directory_path() / "seshat-fuzz-XXXXXX").string();
    const int file = ::mkstemp(path_.data());
    check(file >= 0, "no temporary file");
    ::close(file);
  }
  ConfigFile(const ConfigFile&) = delete;
  ConfigFile& operator=(const ConfigFile&) = delete;
  ~ConfigFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }
  void write(std::string_view text) const {
    std::ofstream stream(path_, std::ios::binary | std::ios::trunc);
    stream << text;
    check(stream.flush().good(), "the temporary file can't be written");
  }

 private:
  std::string path_;
};

void check_text(const Problem& problem) {
  const std::string text = problem.text();
  const auto breaks_line = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  check(!problem.what.empty() && std::ranges::none_of(text, breaks_line),
        "a problem is told on one line");
}

void check_problem(const Problem& problem, const std::string& path, std::size_t lines) {
  check(problem.source == path, "a problem that names another file");
  check(problem.line >= 1 && problem.line <= lines, "a problem that names no line");
  check(!problem.key.empty() || problem.what.starts_with("not valid TOML"),
        "a problem that names no key");
  check_text(problem);
}

// A value that a flag can't give: a list that fill_derived() made of nothing.
bool is_derived_list(const Key& key, const Config& config) {
  return key.type == KeyType::kMembers && config.cluster.initial_members.size() <= 1;
}

void give_again_by_flags(const Config& config) {
  Arguments flags = {"--check-config"};
  for (const Key& key : config::keys()) {
    const config::Value value = key.get(config);
    if (value == key.get(Config{}) || is_derived_list(key, config)) continue;
    const auto* text = std::get_if<std::string>(&value);
    flags.push_back("--" + std::string(key.path) + "=" +
                    (text != nullptr ? *text : config::show(value)));
  }
  const CommandLine again = parse_command_line(flags, {});
  check(again.problems.empty(), "what was valid is not when flags give it");
  for (const Key& key : config::keys()) {
    if (is_derived_list(key, config)) continue;
    check(key.get(again.config) == key.get(config), "a flag gives another value");
  }
}

}  // namespace

void toml(std::string_view input) {
  static const ConfigFile file;
  file.write(input);
  const CommandLine line = parse_command_line({"--config", file.path(), "--check-config"}, {});
  const auto lines = static_cast<std::size_t>(std::ranges::count(input, '\n')) + 1;
  for (const Problem& problem : line.problems) check_problem(problem, file.path(), lines);
  for (const Problem& warning : line.warnings) check_text(warning);
  check(line.problems.empty() == (line.action == Action::kCheckConfig), "refused without a word");
  if (line.problems.empty()) give_again_by_flags(line.config);
}

}  // namespace seshat::fuzz
