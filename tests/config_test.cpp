// The configuration: its sources and their order, every range, every rule, every message.
#include "seshat/config.hpp"

#include <stdlib.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "catch.hpp"

using seshat::Arguments;
using seshat::CommandLine;
using seshat::Config;
using seshat::Environment;
using seshat::HostPort;
using seshat::Problem;
using seshat::config::Key;
using seshat::config::KeyType;
using seshat::config::Value;
using Action = seshat::CommandLine::Action;

namespace {

constexpr std::string_view kThreeMembers = "1=a:7379,2=b:7379,3=c:7379";

// A directory of its own, gone with the object.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "seshat-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] std::string file(const std::string& name, const std::string& text) const {
    const std::filesystem::path path = path_ / name;
    std::ofstream(path, std::ios::binary) << text;
    return path.string();
  }
  [[nodiscard]] std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

// Reads `toml` as the file seshat.toml; messages name it without its directory.
CommandLine load(const std::string& toml, Arguments flags = {}, const Environment& variables = {}) {
  const TemporaryDirectory directory;
  const std::string file = directory.file("seshat.toml", toml);
  flags.insert(flags.begin(), {"--config", file});
  CommandLine line = seshat::parse_command_line(flags, variables);
  for (auto* list : {&line.problems, &line.warnings}) {
    for (Problem& problem : *list) {
      if (problem.source == file) problem.source = "seshat.toml";
    }
  }
  return line;
}

std::string lines_of(const std::vector<Problem>& problems) {
  std::string text;
  for (const Problem& problem : problems) text += problem.text() + "\n";
  return text;
}

// The messages of a refused file, one a line.
std::string refusal(const std::string& toml) {
  const CommandLine line = load(toml);
  CHECK(line.action == (line.problems.empty() ? Action::kRun : Action::kRefuse));
  return lines_of(line.problems);
}

std::string refusal_of_flags(const Arguments& flags, const Environment& variables = {}) {
  return lines_of(seshat::parse_command_line(flags, variables).problems);
}

std::string warnings_of_flags(const Arguments& flags, const Environment& variables = {}) {
  const CommandLine line = seshat::parse_command_line(flags, variables);
  CHECK(lines_of(line.problems).empty());
  return lines_of(line.warnings);
}

Arguments three_members(const std::string& id = "1") {
  return {"--id", id, "--internal-addr", "127.0.0.1:7379",
          "--cluster.initial_members=" + std::string(kThreeMembers)};
}

std::string read_example() {
  const auto path = std::filesystem::path(__FILE__).parent_path().parent_path();
  std::ifstream stream(path / "seshat.toml.example");
  REQUIRE(stream);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::string as_text(const Value& value) {
  const auto* text = std::get_if<std::string>(&value);
  return text != nullptr ? *text : seshat::config::show(value);
}

// A valid value of the key's type that is not its default.
std::string another_value(const Key& key) {
  switch (key.type) {
    case KeyType::kInteger:
      return key.path == "cluster.replication_factor" ? "5" : "";
    case KeyType::kBoolean:
      return "";
    case KeyType::kText:
      return "./elsewhere/than/here";
    case KeyType::kChoice:
      return as_text(key.get(Config{})) == key.choices.front().name
                 ? std::string(key.choices.back().name)
                 : std::string(key.choices.front().name);
    case KeyType::kListenAddress:
      return "127.0.0.1:7000";
    case KeyType::kDialAddress:
      return "example.org:7000";
    case KeyType::kMembers:
      return std::string(kThreeMembers);
    case KeyType::kDial:
      return "2=example.org:7000";
  }
  return "";
}

}  // namespace

// ---- Without a file --------------------------------------------------------------------------

TEST_CASE("no file and no flags: one node alone, for clients on this machine") {
  const CommandLine line = seshat::parse_command_line({}, {});
  REQUIRE(line.action == Action::kRun);
  CHECK(line.warnings.empty());
  CHECK(line.config.node.id == 1);
  CHECK(line.config.node.client_addr == "127.0.0.1:6379");
  CHECK(line.config.node.advertise_client_addr == "127.0.0.1:6379");
  CHECK(line.config.node.internal_addr.empty());
  CHECK(line.config.node.advertise_addr.empty());
  CHECK(line.config.node.data_dir == "./seshat-data");
  CHECK(line.config.cluster.bootstrap);
  CHECK(line.config.cluster.initial_members == std::vector<Config::Member>{{1, ""}});
}

TEST_CASE("a node that alone opens its peer port stays the only member, under that address") {
  const auto line = seshat::parse_command_line({"--internal-addr", "127.0.0.1:7379"}, {});
  REQUIRE(line.action == Action::kRun);
  CHECK(line.warnings.empty());
  CHECK(line.config.cluster.initial_members == std::vector<Config::Member>{{1, "127.0.0.1:7379"}});
}

// ---- The key table ---------------------------------------------------------------------------

TEST_CASE("every default is within its own range and breaks no rule") {
  for (const Key& key : seshat::config::keys()) {
    CAPTURE(key.path);
    CHECK_FALSE(seshat::config::why_not(key, key.get(Config{})));
  }
  CHECK(seshat::config::broken_rules(Config{}, {}).empty());
}

TEST_CASE("setting a key to its own value changes nothing") {
  for (const Key& key : seshat::config::keys()) {
    CAPTURE(key.path);
    Config config;
    key.set(config, key.get(config));
    CHECK(config == Config{});
  }
}

TEST_CASE("every key has a section, a comment, and names that no other key has") {
  std::set<std::string> names;
  for (const Key& key : seshat::config::keys()) {
    CAPTURE(key.path);
    CHECK(seshat::config::find_key(key.path) == &key);
    CHECK(std::string(key.section()) + "." + std::string(key.name()) == key.path);
    CHECK_FALSE(key.comment.empty());
    CHECK(names.insert(seshat::config::environment_name(key)).second);
    if (!key.flag.empty()) CHECK(names.insert(std::string(key.flag)).second);
  }
}

TEST_CASE("each integer takes both ends of its range and nothing beyond, from every source") {
  for (const Key& key : seshat::config::keys()) {
    if (key.type != KeyType::kInteger) continue;
    const std::string path(key.path);
    const std::string wanted = "must be " + seshat::config::expectation(key);
    const auto complaints = [&](std::int64_t number) {
      const std::string text = std::to_string(number);
      const std::string name(key.name());
      return std::array{
          refusal("[" + std::string(key.section()) + "]\n" + name + " = " + text + "\n"),
          refusal_of_flags({"--" + path, text}),
          refusal_of_flags({}, {{seshat::config::environment_name(key), text}})};
    };
    CAPTURE(path);
    for (const std::int64_t inside : {key.min, key.max}) {
      for (const auto& text : complaints(inside)) CHECK(text.find(wanted) == std::string::npos);
    }
    std::vector<std::int64_t> outside = {key.min - 1, std::min<std::int64_t>(key.min - 1, -1)};
    if (key.max != std::numeric_limits<std::int64_t>::max()) outside.push_back(key.max + 1);
    for (const std::int64_t number : outside) {
      const std::string start = path + " = " + std::to_string(number) + ": " + wanted + "\n";
      const auto texts = complaints(number);
      CHECK(texts[0] == "seshat.toml:2: " + start);
      CHECK(texts[1] == "--" + path + ": " + start);
      CHECK(texts[2] == seshat::config::environment_name(key) + ": " + start);
    }
  }
}

TEST_CASE("each choice takes its names") {
  for (const Key& key : seshat::config::keys()) {
    for (const auto& choice : key.choices) {
      CAPTURE(key.path, choice.name);
      const Value value = std::string(choice.name);
      CHECK_FALSE(seshat::config::why_not(key, value));
      Config config;
      key.set(config, value);
      CHECK(key.get(config) == value);
    }
  }
}

// ---- The sources and their order -------------------------------------------------------------

TEST_CASE("the file wins over defaults, the environment over the file, flags over both") {
  const std::string toml = "[raft]\nlease_ms = 201\n";
  const Environment variables = {{"SESHAT_RAFT_LEASE_MS", "202"}};
  CHECK(load("").config.raft.lease_ms == 250);
  CHECK(load(toml).config.raft.lease_ms == 201);
  CHECK(load(toml, {}, variables).config.raft.lease_ms == 202);
  CHECK(load(toml, {"--raft.lease_ms", "203"}, variables).config.raft.lease_ms == 203);
}

TEST_CASE("a key of any type is the same from the file, the environment and a flag") {
  for (const Key& key : seshat::config::keys()) {
    const std::string text = another_value(key);
    if (text.empty() || key.path == "cluster.join_addr") continue;
    if (key.path.starts_with("client.") && key.path != "client.moved") continue;
    if (key.section() == "peer_tls") continue;  // all of it, or none
    CAPTURE(key.path, text);
    Arguments flags = {"--internal-addr", "127.0.0.1:7379", "--" + std::string(key.path), text};
    const auto by_flag = seshat::parse_command_line(flags, {});
    flags.resize(2);
    if (key.path == "node.internal_addr") flags.clear();
    const auto by_environment =
        seshat::parse_command_line(flags, {{seshat::config::environment_name(key), text}});
    REQUIRE(lines_of(by_flag.problems).empty());
    REQUIRE(lines_of(by_environment.problems).empty());
    CHECK(by_flag.config == by_environment.config);
    CHECK(as_text(key.get(by_flag.config)) == text);
  }
}

TEST_CASE("short flags set their keys; --flag value and --flag=value are the same") {
  const Arguments apart = {"--id",
                           "2",
                           "--client-addr",
                           "h:1",
                           "--internal-addr",
                           "127.0.0.1:2",
                           "--advertise-addr",
                           "h:3",
                           "--advertise-client-addr",
                           "h:4",
                           "--data-dir",
                           "/d",
                           "--log-level",
                           "debug"};
  Arguments joined;
  for (std::size_t i = 0; i < apart.size(); i += 2) joined.push_back(apart[i] + "=" + apart[i + 1]);
  const auto line = seshat::parse_command_line(apart, {});
  REQUIRE(line.action == Action::kRun);
  CHECK(line.config == seshat::parse_command_line(joined, {}).config);
  const Config::Node expected = {2, "h:1", "127.0.0.1:2", "/d", "h:3", "h:4"};
  CHECK(line.config.node == expected);
  CHECK(line.config.log.level == seshat::LogLevel::kDebug);
}

TEST_CASE("a flag given twice: the last one counts") {
  CHECK(seshat::parse_command_line({"--id", "2", "--id=3"}, {}).config.node.id == 3);
}

TEST_CASE("lists read the same as TOML and as text") {
  const CommandLine file = load(R"([node]
internal_addr = "127.0.0.1:7379"
[cluster]
initial_members = [{id = 1, addr = "a:7379"}, {id = 2, addr = "b:7379"}, {id = 3, addr = "c:7379"}]
dial = {2 = "10.1.0.7:7379", 3 = "[fe80::1%eth0]:7379"}
)");
  Arguments flags = three_members();
  flags.emplace_back("--cluster.dial=2=10.1.0.7:7379,3=[fe80::1%eth0]:7379");
  REQUIRE(lines_of(file.problems).empty());
  CHECK(file.config == seshat::parse_command_line(flags, {}).config);
  CHECK(file.config.cluster.initial_members.at(2) == Config::Member{3, "c:7379"});
  CHECK(file.config.cluster.dial.at(2) == "10.1.0.7:7379");
}

TEST_CASE("other programs' variables are left alone; a misspelled key of ours warns") {
  CHECK(warnings_of_flags({}, {{"SESHAT_SERVICE_HOST", "10.0.0.1"}, {"PATH", "/bin"}}).empty());
  CHECK(warnings_of_flags({}, {{"SESHAT_RAFT_LEASEMS", "200"}}) ==
        "SESHAT_RAFT_LEASEMS: not a setting; did you mean SESHAT_RAFT_LEASE_MS?\n");
}

TEST_CASE("environ becomes a map; what has no '=' is skipped, the first '=' divides") {
  const std::array<const char*, 4> variables = {"A=1", "B=2=3", "nonsense", nullptr};
  CHECK(seshat::environment_of(variables.data()) == Environment{{"A", "1"}, {"B", "2=3"}});
  CHECK(seshat::environment_of(nullptr).empty());
}

// ---- What the command line asks for ----------------------------------------------------------

TEST_CASE("--help and --version win over everything, also over problems") {
  CHECK(seshat::parse_command_line({"--id", "x", "--help"}, {}).action == Action::kShowHelp);
  CHECK(seshat::parse_command_line({"--version", "--help"}, {}).action == Action::kShowVersion);
  CHECK(seshat::parse_command_line({"--help", "nonsense"}, {}).problems.empty());
  CHECK(seshat::parse_command_line({"--help", "--check-config"}, {}).action == Action::kShowHelp);
}

TEST_CASE("--check-config validates all sources") {
  CHECK(seshat::parse_command_line({"--check-config"}, {}).action == Action::kCheckConfig);
  CHECK(seshat::parse_command_line({"--check-config", "--id=0"}, {}).action == Action::kRefuse);
}

TEST_CASE("what is no flag is refused, with the flag that was probably meant") {
  CHECK(refusal_of_flags({"--cnofig", "x"}) == "--cnofig: unknown flag; did you mean --config?\n");
  CHECK(refusal_of_flags({"--raft.lease", "1"}) ==
        "--raft.lease: unknown flag; did you mean --raft.lease_ms?\n");
  CHECK(refusal_of_flags({"--zzzzzzzzzz=1"}) == "--zzzzzzzzzz: unknown flag; --help lists all\n");
  CHECK(refusal_of_flags({"--" + std::string(100000, 'x')}).size() > 100000);
  CHECK(refusal_of_flags({"serve"}) ==
        "serve: not a flag: they start with --, and --help lists them\n");
}

TEST_CASE("a flag without its value, or with one too many, is refused") {
  CHECK(refusal_of_flags({"--id"}) == "--id: needs a value: --id VALUE\n");
  CHECK(refusal_of_flags({"--id", "--check-config=1"}) ==
        "--id: needs a value: --id VALUE\n--check-config: takes no value\n");
  CHECK(refusal_of_flags({"--config="}) == "--config: needs the name of a file\n");
}

TEST_CASE("--help names every key, its environment's rule and every flag, in 100 columns") {
  const std::string help = seshat::help_text("./seshat");
  for (const Key& key : seshat::config::keys()) {
    CHECK_THAT(help, ContainsSubstring("\n  " + std::string(key.name()) + " "));
    CHECK_THAT(help, ContainsSubstring(std::string(key.comment)));
    CHECK_THAT(help, ContainsSubstring(std::string(key.flag)));
  }
  CHECK_THAT(help, ContainsSubstring("lease_ms = 250\n"));
  CHECK_THAT(help, ContainsSubstring("SESHAT_<SECTION>_<KEY>"));
  CHECK_THAT(help, StartsWith("seshat " + std::string(seshat::kVersion)));
  CHECK_THAT(help, ContainsSubstring("usage: ./seshat [--config FILE] [--FLAG VALUE]...\n\n"));
  CHECK_THAT(seshat::help_text("./seshat", "SUBCOMMAND"),
             ContainsSubstring("[--FLAG VALUE]...\n       ./seshat SUBCOMMAND\n\n"));
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) CHECK(line.size() <= 100);
}

TEST_CASE("the version's text and its numbers agree") {
  CHECK(seshat::kVersion == std::to_string(SESHAT_VERSION_MAJOR) + "." +
                                std::to_string(SESHAT_VERSION_MINOR) + "." +
                                std::to_string(SESHAT_VERSION_PATCH));
}

// ---- The file --------------------------------------------------------------------------------

TEST_CASE("a file that can't be read is refused by its name") {
  const TemporaryDirectory directory;
  const std::string missing = directory.path() + "/missing.toml";
  CHECK(refusal_of_flags({"--config", missing}) ==
        missing + ": does not exist: --config must name a TOML file\n");
  CHECK(refusal_of_flags({"--config", directory.path()}) ==
        directory.path() + ": can't be read: it must be a readable file\n");
  const std::string huge = directory.file("huge.toml", std::string(1'048'577, '\n'));
  CHECK(refusal_of_flags({"--config", huge}) ==
        huge + ": larger than 1 MiB: this is no configuration\n");
}

TEST_CASE("a file that is not TOML is refused with the line") {
  CHECK_THAT(refusal("[node]\nid = 1\nid = 2\n"), StartsWith("seshat.toml:3: not valid TOML: "));
  CHECK_THAT(refusal("[node]\nid =\n"), StartsWith("seshat.toml:2: not valid TOML: "));
  CHECK_THAT(refusal(std::string("\0\xFF[", 3)), StartsWith("seshat.toml:1: not valid TOML: "));
}

TEST_CASE("a section without a name is refused with its line and ends no process") {
  for (const std::string header : {"[.raft]", "[ =", "[[[raft]]]", "[", "[]", "\t[ \xFF]", "[\r"}) {
    CAPTURE(header);
    CHECK(refusal("\n" + header + "\nlease_ms = 200\n") ==
          "seshat.toml:2: not valid TOML: a section must be [name]\n");
  }
  CHECK(refusal("\xEF\xBB\xBF[=]\n") ==
        "seshat.toml:1: not valid TOML: a section must be [name]\n");
  CHECK(refusal("\xEF\xBB\xBF[ raft ]\r\nlease_ms = 200\r\n[\"log\"]\r\n").empty());
}

TEST_CASE("a '}' in place of a value is refused with its line and ends no process") {
  for (const std::string list : {"[}]", "[{id = 1, addr = \"a:1\"},\n# } [\n}]", "[1,}"}) {
    CAPTURE(list);
    const auto line = std::to_string(2 + std::ranges::count(list, '\n'));
    CHECK(refusal("[cluster]\ninitial_members = " + list + "\n") ==
          "seshat.toml:" + line + ": not valid TOML: misplaced '}'\n");
  }
}

TEST_CASE("brackets in texts and comments mean nothing") {
  const CommandLine line = load(R"([node] # [ ,}
data_dir = "[,} \" # ["  # [}
[cluster]
dial = {}
[[raft]]
)");
  CHECK(lines_of(line.problems) == "seshat.toml:5: raft: must be a section: [raft]\n");
  for (const std::string quotes : {"\"\"\"", "'''"}) {
    const std::string text = quotes + "\n[.x]\n[,} ' \" #" + quotes;
    CHECK(load("[node]\ndata_dir = " + text + "\n").config.node.data_dir == "[.x]\n[,} ' \" #");
  }
}

TEST_CASE("an unknown section is refused, with the one that was probably meant") {
  CHECK(refusal("\n[rafft]\nlease_ms = 1\n") ==
        "seshat.toml:2: rafft: unknown section; did you mean raft?\n");
  CHECK(refusal("[replication]\n") ==
        "seshat.toml:1: replication: unknown section; there is node, cluster, peer_tls, raft, "
        "client, log, "
        "limits, storage\n");
  CHECK(refusal("raft = 5\n") == "seshat.toml:1: raft: must be a section: [raft]\n");
}

TEST_CASE("an unknown key is refused, with the one that was probably meant") {
  CHECK(refusal("[raft]\nlease = 1\n") ==
        "seshat.toml:2: raft.lease: unknown key; did you mean lease_ms?\n");
  CHECK(refusal("[raft]\nrequest_timeout_secs = 1\n") ==
        "seshat.toml:2: raft.request_timeout_secs: unknown key; did you mean "
        "limits.request_timeout_secs?\n");
  CHECK(refusal("[log]\ncolour = true\n") ==
        "seshat.toml:2: log.colour: unknown key; there is level, format\n");
  CHECK(refusal("client_addr = \"h:1\"\n") ==
        "seshat.toml:1: client_addr: stands in no section; did you mean node.client_addr?\n");
}

TEST_CASE("a value of the wrong type is refused with the right one") {
  CHECK(refusal("[node]\nid = \"1\"\n") ==
        "seshat.toml:2: node.id = \"1\": must be an integer from 1 to 9223372036854775807, not a "
        "text\n");
  CHECK(refusal("[raft]\nlease_ms = 250.5\n") ==
        "seshat.toml:2: raft.lease_ms: must be an integer from 1 to 600000 (ms), not a number with "
        "a fraction\n");
  CHECK(refusal("[cluster]\nbootstrap = 1\n") ==
        "seshat.toml:2: cluster.bootstrap = 1: must be true or false, not an integer\n");
  CHECK(refusal("[node]\nclient_addr = [\"h:1\"]\n") ==
        "seshat.toml:2: node.client_addr: must be host:port, such as 127.0.0.1:6379 or "
        "[::1]:6379, not a list\n");
  CHECK(refusal("[cluster]\ninitial_members = \"1=h:1\"\n") ==
        "seshat.toml:2: cluster.initial_members = \"1=h:1\": must be a list such as "
        "[{id = 1, addr = \"host:port\"}], not a text\n");
  CHECK(refusal("[cluster]\ndial = 1979-05-27\n") ==
        "seshat.toml:2: cluster.dial: must be a table such as {2 = \"host:port\"}, not a date or "
        "time\n");
}

TEST_CASE("text that is no value of its key is refused by variable or flag") {
  CHECK(refusal_of_flags({"--raft.lease_ms=1x"}) ==
        "--raft.lease_ms: raft.lease_ms = \"1x\": must be an integer from 1 to 600000 (ms)\n");
  CHECK(refusal_of_flags({"--id=99999999999999999999"}) ==
        "--id: node.id = \"99999999999999999999\": must be an integer from 1 to "
        "9223372036854775807\n");
  CHECK(refusal_of_flags({}, {{"SESHAT_CLUSTER_BOOTSTRAP", "yes"}}) ==
        "SESHAT_CLUSTER_BOOTSTRAP: cluster.bootstrap = \"yes\": must be true or false\n");
  CHECK(refusal_of_flags({"--log-level="}) ==
        "--log-level: log.level = \"\": must be \"debug\" or \"info\" or \"warn\" or \"error\"\n");
  for (const std::string text : {"1", "1=", "x=h:1", "1=h:1,", ",1=h:1", "=h:1"}) {
    CAPTURE(text);
    CHECK_THAT(refusal_of_flags({"--cluster.dial", text}), StartsWith("--cluster.dial: "));
  }
}

TEST_CASE("all problems are told at once, those of the file from top to bottom") {
  const CommandLine line = load("[storage]\nblock_cache_mb = 0\n[log]\nlevel = \"loud\"\n",
                                {"--id=0"}, {{"SESHAT_LIMITS_MAX_KEY_SIZE_BYTES", "0"}});
  CHECK(lines_of(line.problems) ==
        "seshat.toml:2: storage.block_cache_mb = 0: must be an integer from 1 to 1048576 (MB)\n"
        "seshat.toml:4: log.level = \"loud\": must be \"debug\" or \"info\" or \"warn\" or "
        "\"error\"\n"
        "SESHAT_LIMITS_MAX_KEY_SIZE_BYTES: limits.max_key_size_bytes = 0: must be an integer from "
        "1 to 65535 (bytes)\n"
        "--id: node.id = 0: must be an integer from 1 to 9223372036854775807\n");
}

TEST_CASE("a mistyped flag hides no broken rule") {
  CHECK(refusal_of_flags({"--idd=1", "--cluster.replication_factor=2"}) ==
        "--idd: unknown flag; did you mean --id?\n"
        "--cluster.replication_factor: cluster.replication_factor = 2: must be odd: 1 or 3\n");
}

TEST_CASE("a value that was refused causes no second complaint by way of a rule") {
  CHECK(refusal("[raft]\nvote_withhold_ms = 0\nlease_ms = 400\n") ==
        "seshat.toml:2: raft.vote_withhold_ms = 0: must be an integer from 1 to 600000 (ms)\n");
}

TEST_CASE("a message shows what came from outside on one line") {
  CHECK(refusal("[raft]\n\"a\\nb\" = 1\n").find("a\\nb") != std::string::npos);
  CHECK(refusal_of_flags({"--a\nb=1"}) == "--a\\nb: unknown flag; --help lists all\n");
  CHECK_THAT(refusal("[cluster]\nbootstrap = t\n"), EndsWith("saw 't\\n'\n"));
  CHECK(refusal("[node]\nclient_addr = \"a\\nb\"\n").find("\"a\\nb\"") != std::string::npos);
}

// ---- Addresses -------------------------------------------------------------------------------

TEST_CASE("an address is host:port, and IPv6 stands in brackets") {
  using seshat::split_address;
  CHECK(split_address("127.0.0.1:6379") == HostPort{"127.0.0.1", 6379});
  CHECK(split_address("kv-store_1.example.org:1") == HostPort{"kv-store_1.example.org", 1});
  CHECK(split_address("[::1]:65535") == HostPort{"::1", 65535});
  CHECK(split_address("[fe80::1%eth0]:7379") == HostPort{"fe80::1%eth0", 7379});
  for (const std::string address : {"127.0.0.1:6379", "h:1", "[::1]:65535"}) {
    const auto parts = split_address(address);
    REQUIRE(parts);
    CHECK(seshat::join_address(parts->host, parts->port) == address);
  }
}

TEST_CASE("what is no address is refused") {
  const auto address = GENERATE(
      as<std::string>{}, "", ":", "h", "h:", ":6379", "h:0", "h:65536", "h:+1", "h:-1", "h: 1",
      "h:1 ", "h:0x10", "::1:6379", "[::1]", "[::1]6379", "[]:1", "[h]:1", "[::1%]:1", "[::1%\n]:1",
      "a b:1", "a/b:1", "http://h:1", "1.2.3:1", "1.2.3.256:1", "1.2.3.4.5:1", "1..2.3:1", "a\n:1");
  CAPTURE(address);
  CHECK_FALSE(seshat::split_address(address));
  CHECK_FALSE(seshat::split_address(std::string(300, 'a') + ":1"));
}

TEST_CASE("wildcard and loopback hosts are known in their longer spellings") {
  for (const auto* host : {"0.0.0.0", "::", "0:0:0:0:0:0:0:0", "::0", "::0.0.0.0"}) {
    CHECK(seshat::is_wildcard_host(host));
  }
  for (const auto* host : {"127.0.0.1", "127.1.2.3", "localhost", "::1", "0:0:0:0:0:0:0:1"}) {
    CHECK(seshat::is_loopback_host(host));
    CHECK_FALSE(seshat::is_wildcard_host(host));
  }
  for (const auto* host : {"10.0.0.1", "example.org", "::2", "1::", "127.example.org", "01"}) {
    CHECK_FALSE(seshat::is_loopback_host(host));
    CHECK_FALSE(seshat::is_wildcard_host(host));
  }
}

TEST_CASE("what peers or clients dial must not be a wildcard") {
  CHECK(refusal("[node]\nadvertise_client_addr = \"0.0.0.0:6379\"\n") ==
        "seshat.toml:2: node.advertise_client_addr = \"0.0.0.0:6379\": must be host:port that "
        "others can dial, not 0.0.0.0 or [::]\n");
  CHECK(refusal_of_flags({"--internal-addr=h:1", "--advertise-addr=[::]:7379"}) ==
        "--advertise-addr: node.advertise_addr = \"[::]:7379\": must be host:port that others can "
        "dial, not 0.0.0.0 or [::]\n");
  CHECK(refusal_of_flags({"--cluster.dial=2=0.0.0.0:1"}) ==
        "--cluster.dial: cluster.dial[2] = \"0.0.0.0:1\": must be host:port that others can "
        "dial\n");
}

TEST_CASE("what is advertised follows from what is listened on") {
  const auto derived = [](std::string client, std::string internal) {
    Config config;
    config.node.client_addr = std::move(client);
    config.node.internal_addr = std::move(internal);
    seshat::config::fill_derived(config, "machine");
    return std::pair(config.node.advertise_client_addr, config.node.advertise_addr);
  };
  using Pair = std::pair<std::string, std::string>;
  CHECK(derived("127.0.0.1:1", "127.0.0.1:2") == Pair("127.0.0.1:1", "127.0.0.1:2"));
  CHECK(derived("0.0.0.0:1", "[::]:2") == Pair("machine:1", "machine:2"));
  CHECK(derived("a:1", "b:2") == Pair("a:1", "b:2"));
  CHECK(derived("a:1", "") == Pair("a:1", ""));
}

TEST_CASE("a node advertises the address that the members know it by, unless told otherwise") {
  Arguments flags = three_members("2");
  CHECK(seshat::parse_command_line(flags, {}).config.node.advertise_addr == "b:7379");
  flags.emplace_back("--advertise-addr=proxy:7379");
  CHECK(seshat::parse_command_line(flags, {}).config.node.advertise_addr == "proxy:7379");
}

TEST_CASE("the peer port can't be the clients' port") {
  CHECK(refusal_of_flags({"--internal-addr=0.0.0.0:6379"}) ==
        "--internal-addr: node.internal_addr = \"0.0.0.0:6379\": must have another port than "
        "node.client_addr (127.0.0.1:6379)\n");
  CHECK(refusal_of_flags({"--internal-addr=127.0.0.2:6379"}).empty());
}

TEST_CASE("an address for peers without a peer port is refused") {
  CHECK(refusal_of_flags({"--advertise-addr=h:7379"}) ==
        "--advertise-addr: node.advertise_addr = \"h:7379\": peers can't reach a node that doesn't "
        "listen for them; set node.internal_addr\n");
}

TEST_CASE("a peer port beyond loopback warns, unless nodes know each other by something") {
  const std::string wide = "--internal-addr=0.0.0.0:7379";
  CHECK_THAT(warnings_of_flags({wide}),
             StartsWith("--internal-addr: node.internal_addr = \"0.0.0.0:7379\": whoever reaches "
                        "this port can take part in the cluster"));
  CHECK(warnings_of_flags({"--internal-addr=[::1]:7379"}).empty());
  CHECK(warnings_of_flags({wide, "--cluster.secret=0123456789abcdef"}).empty());
  CHECK(warnings_of_flags({wide, "--cluster.secret_file=f"}).empty());
  CHECK(warnings_of_flags(
            {wide, "--peer_tls.cert_file=c", "--peer_tls.key_file=k", "--peer_tls.ca_file=a"})
            .empty());
}

// ---- TLS and secrets ---------------------------------------------------------------------------

TEST_CASE("a port for TLS needs its files, and a port of its own") {
  const Arguments files = {"--client.tls_port=6380", "--client.tls_cert_file=c",
                           "--client.tls_key_file=k", "--client.tls_ca_file=a"};
  const auto with = [&](const std::string& flag) {
    Arguments arguments = files;
    arguments.push_back(flag);
    return refusal_of_flags(arguments);
  };
  CHECK(with("--log-level=info").empty());
  CHECK_THAT(with("--client.tls_cert_file="),
             StartsWith("--client.tls_cert_file: client.tls_cert_file = \"\": must name the "
                        "certificate of this node, for a port for TLS is set"));
  CHECK_THAT(with("--client.tls_key_file="), StartsWith("--client.tls_key_file: "));
  CHECK_THAT(
      with("--client.tls_ca_file="),
      StartsWith("--client.tls_ca_file: client.tls_ca_file = \"\": must name the authority"));
  Arguments without_authority = files;
  without_authority.back() = "--client.tls_auth_clients=no";
  CHECK(refusal_of_flags(without_authority).empty());
  CHECK(with("--client.tls_auth_clients=maybe") ==
        "--client.tls_auth_clients: client.tls_auth_clients = \"maybe\": must be \"no\" or "
        "\"optional\" or \"yes\"\n");
  CHECK(with("--client-addr=127.0.0.1:6380") ==
        "--client.tls_port: client.tls_port = 6380: must be another port than that of "
        "node.client_addr (127.0.0.1:6380)\n");
  CHECK_THAT(with("--internal-addr=127.0.0.1:6380"),
             StartsWith("--client.tls_port: client.tls_port = 6380: must be another port than that "
                        "of node.internal_addr"));
  CHECK(refusal_of_flags({"--client.tls_only=true"}) ==
        "--client.tls_only: client.tls_only = true: must be false while there is no port for TLS: "
        "set client.tls_port\n");
  CHECK_THAT(
      warnings_of_flags({"--client.tls_cert_file=c"}),
      StartsWith("--client.tls_cert_file: client.tls_cert_file = \"c\": is of no use while"));
}

TEST_CASE("clients with TLS are sent to the port for it, and all are where there is no other") {
  const Arguments files = {"--client.tls_port=6380", "--client.tls_cert_file=c",
                           "--client.tls_key_file=k", "--client.tls_auth_clients=no"};
  Arguments only = files;
  only.push_back("--client.tls_only=true");
  Arguments mapped = only;
  mapped.push_back("--client.tls_advertise_port=16380");
  const auto config = [](const Arguments& arguments) {
    return seshat::parse_command_line(arguments, {}).config;
  };
  CHECK(config({}).client.tls_advertise_port == 0);
  CHECK(config(files).client.tls_advertise_port == 6380);
  CHECK(config(files).node.advertise_client_addr == "127.0.0.1:6379");
  CHECK(config(only).node.advertise_client_addr == "127.0.0.1:6380");
  CHECK(config(mapped).client.tls_advertise_port == 16380);
  CHECK(config(mapped).node.advertise_client_addr == "127.0.0.1:16380");
}

TEST_CASE("TLS between nodes is all three files, or none") {
  CHECK(refusal_of_flags({"--peer_tls.cert_file=c", "--peer_tls.ca_file=a"}) ==
        "--peer_tls.ca_file: peer_tls.key_file = \"\": must be set, as TLS between nodes needs "
        "all three: cert_file, key_file and ca_file\n");
  CHECK(!refusal_of_flags({"--peer_tls.server_name=n"}).empty());
  CHECK(
      refusal_of_flags({"--peer_tls.cert_file=c", "--peer_tls.ca_file=a", "--peer_tls.key_file=k"})
          .empty());
}

TEST_CASE("a cluster's secret is long enough, stands in one place, and is never shown") {
  const std::string secret = "0123456789abcdef";
  CHECK(refusal_of_flags({"--cluster.secret=" + secret}).empty());
  const std::string twice =
      refusal_of_flags({"--cluster.secret=" + secret, "--cluster.secret_file=f"});
  CHECK_THAT(twice, StartsWith("--cluster.secret: cluster.secret: must not be set beside"));
  CHECK(twice.find(secret) == std::string::npos);
  const std::string is_short = refusal_of_flags({"--cluster.secret=0123456789abcde"});
  CHECK_THAT(is_short,
             StartsWith("--cluster.secret: cluster.secret: must have 16 to 512 characters "
                        "(15 here)"));
  CHECK(is_short.find("0123") == std::string::npos);
  CHECK_THAT(refusal_of_flags({"--cluster.secret=not a good one at all"}),
             StartsWith("--cluster.secret: cluster.secret: must have no blanks"));
  const TemporaryDirectory dir;
  const std::string file = dir.file("seshat.toml", "[cluster]\nsecret = 12345678901234567\n");
  const CommandLine line = seshat::parse_command_line({"--config", file}, {});
  REQUIRE(line.problems.size() == 1);
  CHECK_THAT(line.problems.front().text(), StartsWith(file + ":2: cluster.secret: must be"));
}

TEST_CASE("a line knows where each key was set, for what is found wrong later") {
  const TemporaryDirectory dir;
  const std::string file = dir.file("seshat.toml", "[client]\n\ntls_port = 0\n");
  const CommandLine line =
      seshat::parse_command_line({"--config", file}, {{"SESHAT_PEER_TLS_CERT_FILE", ""}});
  CHECK(line.places.at("client.tls_port").source == file);
  CHECK(line.places.at("client.tls_port").line == 3);
  CHECK(line.places.at("peer_tls.cert_file").source == "SESHAT_PEER_TLS_CERT_FILE");
}

// ---- Members ---------------------------------------------------------------------------------

TEST_CASE("three members start without a warning, each under its own id") {
  for (const std::string id : {"1", "2", "3"}) CHECK(warnings_of_flags(three_members(id)).empty());
}

TEST_CASE("this node must be one of the members") {
  CHECK(refusal_of_flags(three_members("4")) ==
        "--id: node.id = 4: must be the id of one of initial_members (1, 2, 3)\n");
  CHECK(refusal_of_flags({"--internal-addr=127.0.0.1:1", "--cluster.initial_members=2=b:1"}) ==
        "--cluster.initial_members: node.id = 1: must be the id of one of initial_members (2)\n");
}

TEST_CASE("two members with one id or one address are refused at the later one's line") {
  CHECK(refusal(R"([node]
internal_addr = "127.0.0.1:7379"
[cluster]
initial_members = [
  {id = 1, addr = "a:1"},
  {id = 1, addr = "b:1"},
  {id = 3, addr = "a:1"},
]
)") == "seshat.toml:6: cluster.initial_members[1].id = 1: must be a number that no other member "
       "has\n"
       "seshat.toml:7: cluster.initial_members[2].addr = \"a:1\": must be an address that no other "
       "member has\n");
}

TEST_CASE("a member that is not an id and an address is refused at its line") {
  CHECK(refusal(R"([cluster]
initial_members = [
  {id = 1, addr = "a:1", weight = 2},
  {id = 2, address = "b:1"},
  {id = 0, addr = "c:1"},
  {id = 4, addr = "[::]:1"},
  "5=d:1",
]
)") == "seshat.toml:3: cluster.initial_members[0].weight: unknown key; there is id, addr\n"
       "seshat.toml:4: cluster.initial_members[1]: must be {id = 1, addr = \"host:port\"}\n"
       "seshat.toml:5: cluster.initial_members[2] = 0: must have an id from 1 to "
       "9223372036854775807\n"
       "seshat.toml:6: cluster.initial_members[3] = \"[::]:1\": must be host:port that others can "
       "dial\n"
       "seshat.toml:7: cluster.initial_members[4]: must be {id = 1, addr = \"host:port\"}\n");
}

TEST_CASE("one member is for development, two are refused, an even number warns") {
  const auto members = [](const std::string& list) {
    return Arguments{"--internal-addr=127.0.0.1:1", "--cluster.initial_members=" + list};
  };
  CHECK(warnings_of_flags(members("1=a:1")) ==
        "--cluster.initial_members: cluster.initial_members: 1 member is for development only: "
        "nothing survives its loss; use 3 or 5\n");
  CHECK(refusal_of_flags(members("1=a:1,2=b:1")) ==
        "--cluster.initial_members: cluster.initial_members: 2 members can't lose one and go on; "
        "must be 3 or more, or 1 for development\n");
  CHECK(warnings_of_flags(members("1=a:1,2=b:1,3=c:1,4=d:1")) ==
        "--cluster.initial_members: cluster.initial_members: 4 members tolerate no more failures "
        "than 3; an odd number is better\n");
}

TEST_CASE("more than one member needs a peer port") {
  CHECK(refusal_of_flags({"--cluster.initial_members=" + std::string(kThreeMembers)}) ==
        "--cluster.initial_members: node.internal_addr = \"\": must be set to the host:port where "
        "the other members reach this node\n");
}

TEST_CASE("the replication factor is odd; more than there are members is for later") {
  CHECK(refusal("[cluster]\nreplication_factor = 4\n") ==
        "seshat.toml:2: cluster.replication_factor = 4: must be odd: 3 or 5\n");
  Arguments flags = three_members();
  flags.emplace_back("--cluster.replication_factor=5");
  CHECK(warnings_of_flags(flags) ==
        "--cluster.replication_factor: cluster.replication_factor = 5: more than the number of "
        "initial_members (3 here): each holds a copy, and there are no more until the cluster has "
        "grown\n");
  CHECK(refusal("[cluster]\nreplication_factor = 5\n").empty());
}

TEST_CASE("dial names other members, each once") {
  CHECK(refusal("[cluster]\ndial = {1 = \"h:1\"}\n") ==
        "seshat.toml:2: cluster.dial[1] = \"h:1\": must name another member: a node doesn't dial "
        "itself\n");
  CHECK(refusal_of_flags({"--cluster.dial=2=h:1,2=i:1"}) ==
        "--cluster.dial: cluster.dial[2] = \"i:1\": must be the only address for this id\n");
  CHECK(refusal("[cluster]\ndial = {two = \"h:1\"}\n") ==
        "seshat.toml:2: cluster.dial[two]: must be an id and its address, as in "
        "{2 = \"host:port\"}\n");
  CHECK(warnings_of_flags({"--cluster.dial=2=h:1"}) ==
        "--cluster.dial: cluster.dial[2] = \"h:1\": initial_members names no member with this "
        "id: it is for one that joins later\n");
}

// ---- Rules between keys ----------------------------------------------------------------------

TEST_CASE("a rule between two keys names the line, both values and what would be right") {
  CHECK(
      refusal("[raft]\n\nlease_ms = 290\n") ==
      "seshat.toml:3: raft.lease_ms = 290: must be at most 0.85 of vote_withhold_ms (255 here)\n");
}

TEST_CASE("a default that a changed key puts out of bounds is told where that key stands") {
  CHECK(
      refusal("[raft]\nvote_withhold_ms = 200\n") ==
      "seshat.toml:2: raft.lease_ms = 250: must be at most 0.85 of vote_withhold_ms (170 here)\n");
}

TEST_CASE("each rule between two integers holds at its edge and breaks one beyond it") {
  for (const auto& limit : seshat::config::kLimits) {
    CAPTURE(limit.left, limit.right);
    const Key& left = *seshat::config::find_key(limit.left);
    const Key& right = *seshat::config::find_key(limit.right);
    Config config;
    const auto bound = std::get<std::int64_t>(right.get(config)) * limit.percent / 100;
    const std::int64_t most = limit.strictly ? bound - 1 : bound;
    const auto breaks = [&](std::int64_t number) {
      left.set(config, number);
      const auto broken = seshat::config::broken_rules(config, {});
      return std::ranges::any_of(broken, [&](const auto& rule) {
        return rule.key == limit.left && rule.partner == limit.right &&
               rule.severity == seshat::config::BrokenRule::Severity::kError;
      });
    };
    CHECK_FALSE(breaks(most));
    CHECK(breaks(most + 1));
  }
}

TEST_CASE("the rules between integers are these") {
  const auto refused = [](const char* key, const char* value) {
    return refusal_of_flags({std::string("--") + key, value});
  };
  CHECK_THAT(refused("raft.heartbeat_interval_ms", "251"),
             ContainsSubstring("must be at most 0.50 of election_timeout_min_ms (250 here)") &&
                 ContainsSubstring("must be less than lease_ms (250 here)"));
  CHECK_THAT(refused("raft.election_timeout_min_ms", "1001"),
             ContainsSubstring("must be at most election_timeout_max_ms (1000 here)"));
  CHECK_THAT(refused("raft.vote_withhold_ms", "501"),
             ContainsSubstring("must be at most election_timeout_min_ms (500 here)"));
  CHECK_THAT(refused("raft.snapshot_interval_bytes", "500000001"),
             ContainsSubstring("must be at most max_log_size_bytes (500000000 here)"));
  CHECK_THAT(refused("limits.max_value_size_bytes", "8388609"),
             ContainsSubstring("must be at most max_request_size_bytes (8388608 here)"));
}

// ---- Joining -----------------------------------------------------------------------------------

TEST_CASE("a node that joins starts no cluster and knows no members yet") {
  const Arguments flags = {"--join", "h:7379", "--id", "4", "--internal-addr", "127.0.0.1:7379"};
  for (const bool says_so : {false, true}) {
    Arguments all = flags;
    if (says_so) all.insert(all.end(), {"--cluster.bootstrap", "false"});
    const CommandLine line = seshat::parse_command_line(all, {});
    CHECK(lines_of(line.problems).empty());
    CHECK(lines_of(line.warnings).empty());
    CHECK(line.config.joins());
    CHECK_FALSE(line.config.cluster.bootstrap);
    CHECK(line.config.cluster.initial_members.empty());
    CHECK(line.config.node.advertise_addr == "127.0.0.1:7379");
  }
}

TEST_CASE("a node that joins needs an id of its own and a peer port") {
  CHECK(refusal_of_flags({"--join", "h:7379"}) ==
        "--join: node.internal_addr = \"\": must be set for a node that joins a cluster: the "
        "members connect to it there\n");
  CHECK(warnings_of_flags({"--join", "h:7379", "--internal-addr", "127.0.0.1:7379"}) ==
        "--join: node.id = 1: the default, which some member most likely has: a node that joins "
        "needs a number of its own\n");
}

TEST_CASE("a node founds a cluster or joins one, not both") {
  const std::string rest = "\n[node]\nid = 4\ninternal_addr = \"127.0.0.1:7379\"\n";
  CHECK(refusal("[cluster]\njoin_addr = \"h:1\"\nbootstrap = true" + rest) ==
        "seshat.toml:3: cluster.bootstrap = true: must be false, or not set, for a node that joins "
        "a cluster (join_addr is set)\n");
  CHECK(refusal("[cluster]\njoin_addr = \"h:1\"\ninitial_members = [{id = 1, addr = \"a:1\"}]" +
                rest) ==
        "seshat.toml:3: cluster.initial_members: must be empty, or not set, for a node that joins "
        "a cluster: the members tell it who they are (join_addr is set)\n");
  CHECK(refusal("[cluster]\nbootstrap = false\n") ==
        "seshat.toml:2: cluster.bootstrap = false: must be true for a node that starts a cluster; "
        "one that joins a cluster needs cluster.join_addr, the address of a member\n");
  CHECK(refusal("[cluster]\njoin_addr = \"127.0.0.1:7379\"" + rest) ==
        "seshat.toml:2: cluster.join_addr = \"127.0.0.1:7379\": must be the address of another "
        "node\n");
}

TEST_CASE("peers are listened for exactly where internal_addr says so") {
  const auto listens = [](const Arguments& flags) {
    return seshat::parse_command_line(flags, {}).config.listens_for_peers();
  };
  CHECK_FALSE(listens({}));
  CHECK(listens({"--internal-addr", "127.0.0.1:7379"}));
  CHECK(listens(three_members()));
}

// ---- seshat.toml.example ---------------------------------------------------------------------

TEST_CASE("seshat.toml.example loads without a word and equals the defaults") {
  const CommandLine example = load(read_example());
  CHECK(lines_of(example.problems).empty());
  CHECK(lines_of(example.warnings).empty());
  CHECK(example.config == seshat::parse_command_line({}, {}).config);
}

TEST_CASE("seshat.toml.example has every key in the order of the table, with a comment before it") {
  std::istringstream lines(read_example());
  std::string previous;
  const auto keys = seshat::config::keys();
  auto next = keys.begin();
  for (std::string line; std::getline(lines, line); previous = line) {
    const std::size_t start = line.starts_with("# ") ? 2 : 0;
    const std::size_t end = line.find(" = ", start);
    if (next == keys.end() || end == std::string::npos) continue;
    if (line.substr(start, end - start) != next->name()) continue;
    CAPTURE(line);
    CHECK_THAT(previous, StartsWith("# "));
    ++next;
  }
  const std::string missing = next == keys.end() ? "" : std::string(next->path);
  CHECK(missing.empty());
}

TEST_CASE("seshat.toml.example states the range of every integer") {
  const std::string example = read_example();
  for (const Key& key : seshat::config::keys()) {
    if (key.type != KeyType::kInteger) continue;
    const std::string range = std::to_string(key.min) + " to " + std::to_string(key.max);
    CAPTURE(key.path, range);
    CHECK_THAT(example.substr(0, example.find("\n" + std::string(key.name()) + " = ")),
               ContainsSubstring(range));
  }
}

TEST_CASE("what seshat.toml.example has commented out is right too, but for joining") {
  std::istringstream lines(read_example());
  std::string uncommented;
  for (std::string line; std::getline(lines, line);) {
    const std::string rest = line.starts_with("# ") ? line.substr(2) : "";
    const std::string name = rest.substr(0, rest.find(" = "));
    const bool is_key = std::ranges::any_of(seshat::config::keys(),
                                            [&](const Key& key) { return key.name() == name; });
    const bool goes_on = rest.starts_with("  {") || rest == "]";
    uncommented += (is_key || goes_on ? rest : line) + "\n";
  }
  const CommandLine all = load(uncommented);
  // The file shows both ways to begin, and both places for a secret: no node can have both. And the
  // secret that it shows is none.
  REQUIRE(all.problems.size() == 4);
  CHECK(all.problems[0].key == "cluster.bootstrap");
  CHECK(all.problems[1].key == "cluster.initial_members");
  CHECK(all.problems[2].key == "cluster.secret");
  CHECK(all.problems[3].key == "cluster.secret");
  CHECK(all.config.cluster.initial_members.size() == 3);
  CHECK(all.config.cluster.dial.size() == 1);
}
