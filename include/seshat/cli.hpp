// seshat/cli.hpp - `seshat members`, `seshat leave 3` and the like: administration from a shell.
//
//   $ seshat status
//   NODE  ADDRESS         ROLE      TERM  COMMIT  APPLIED  LAG  LOG  LOG-SIZE  SNAPSHOT  STATE
//      1  127.0.0.1:6379  leader       3     100      100    0   90     4.1kB         -  active
//      2  127.0.0.1:6380  follower     3      99       98    2   89     4.1kB         -  active
//
//   arguments ──> parse() ──> SESHAT.* over RESP, to any node ──> a table, JSON, or what is wrong
//
// While the cluster is not ready (an election, a node that starts), it is asked again for a while.
// `seshat join` is the daemon with --join.
//
// Exit codes: ExitCode below.
// Threads: blocks the one that calls. Needs: cli_table, cli_client, config, tls.
#ifndef SESHAT_CLI_HPP
#define SESHAT_CLI_HPP

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <ostream>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "seshat/cli_client.hpp"
#include "seshat/cli_table.hpp"
#include "seshat/config.hpp"
#include "seshat/resp.hpp"
#include "seshat/result.hpp"
#include "seshat/tls.hpp"

namespace seshat::cli {

enum ExitCode : int {
  kDone = 0,
  kRefused = 1,       // by the cluster, or it did not get ready in time
  kBadUsage = 2,      // nothing was asked
  kNotReachable = 3,  // or the answer did not come: a change may have been made or not
};

// Runs the subcommand that `arguments` (without the program's name) begin with, and gives the exit
// code. nullopt: there is none, or it is `join`, and the daemon is to be started with `arguments`,
// which are then its flags alone.
[[nodiscard]] std::optional<int> run(Arguments& arguments, const Environment& environment,
                                     std::ostream& out, std::ostream& err);

// What --help of the daemon adds: how it is called, and a line for each subcommand.
inline constexpr std::string_view kSubcommandUsage =
    "SUBCOMMAND [ARGUMENT] [--FLAG VALUE]...   administers a cluster: see the end";
[[nodiscard]] std::string subcommands_text();

// ---- The parts, for tests -----------------------------------------------------------------------

struct Subcommand {
  std::string_view name;
  std::string_view command;  // of RESP; empty: join
  std::string_view argument = {};
  bool takes_force = false;
  bool takes_all = false;
  std::string_view summary;
  std::string_view details;
  std::string_view done = {};  // what is printed, with %s for the argument; empty: a table
};

struct Options {
  const Subcommand* subcommand = nullptr;
  std::string argument;
  HostPort address = {"127.0.0.1", 6379};
  std::string password;  // of the node; empty: none
  // By TLS: what this side shows, and whom it believes; nullopt: plain.
  std::optional<tls::Files> tls = std::nullopt;
  bool checks_host = false;  // the node's certificate has to name address.host
  bool force = false;
  bool all = false;
  bool json = false;
  bool help = false;
  std::uint64_t timeout_ms = 10'000;         // while the cluster is not ready
  std::uint64_t answer_timeout_ms = 60'000;  // for one answer: changes wait for the cluster
};

// `arguments` behind the subcommand's name. An error: what is wrong with them.
[[nodiscard]] Result<Options> parse(const Subcommand& subcommand,
                                    std::span<const std::string> words,
                                    const Environment& environment);
[[nodiscard]] int execute(const Options& options, std::ostream& out, std::ostream& err);
[[nodiscard]] std::string help_of(const Subcommand& subcommand);
[[nodiscard]] std::string members_table(const resp::Value& members);
// Without `all`: the data groups only.
[[nodiscard]] std::string status_table(const resp::Value& rows, bool all);

inline constexpr auto kSubcommands = std::to_array<Subcommand>({
    {.name = "members",
     .command = "SESHAT.MEMBERS",
     .summary = "list the members of the cluster",
     .details = "NODE is the id that the other subcommands take. CONNECTED is as the node that is "
                "asked\nsees it. A node in state joining learns and has no vote yet."},
    {.name = "status",
     .command = "SESHAT.STATUS",
     .takes_all = true,
     .summary = "show how every node does",
     .details = "LAG is how many entries a node is behind what the leader has committed. LOG and "
                "LOG-SIZE\nare what is kept of the log, SNAPSHOT is the index of the newest "
                "snapshot that is kept.\nOf a node that is down, the numbers are the last that "
                "were heard."},
    {.name = "join",
     .command = "",
     .argument = "HOST:PORT",
     .summary = "start a node that joins the cluster of the node whose peers' port that is",
     .details =
         "The same as starting the daemon with --join HOST:PORT; takes all flags of the "
         "daemon. At\nleast these are needed:\n\n  seshat join HOST:PORT --id 4 "
         "--internal-addr HOST:PORT --data-dir DIR\n\nThe new node learns first, and becomes "
         "a voter when it has caught up (cluster.auto_promote).\nStarted again, it is a "
         "member already and does not join again."},
    {.name = "leave",
     .command = "SESHAT.LEAVE",
     .argument = "ID",
     .takes_force = true,
     .summary = "remove a member from the cluster",
     .details = "The node may be up or down. Its id can be used again only for a node with a new "
                "data\ndirectory. --force: also when less than a majority of those that would be "
                "left is up.",
     .done = "node %s has left the cluster"},
    {.name = "promote",
     .command = "SESHAT.PROMOTE",
     .argument = "ID",
     .takes_force = true,
     .summary = "make a node that has joined a voter",
     .details = "Needed where cluster.auto_promote is false. --force: also when it lags behind, or "
                "when less\nthan a majority of the voters there would be then is up.",
     .done = "node %s is a voter"},
    {.name = "transfer-leader",
     .command = "SESHAT.TRANSFER-LEADER",
     .argument = "ID",
     .summary = "hand the leadership to a member",
     .details = "Of all groups. Clients are redirected to the new leader.",
     .done = "node %s leads"},
    {.name = "snapshot",
     .command = "SESHAT.SNAPSHOT",
     .summary = "take a snapshot of all data on the node that is asked",
     .details = "It is taken while clients are served. Needs the disk only for what changes "
                "afterwards.",
     .done = "a snapshot of every group was taken"},
});

[[nodiscard]] const Subcommand* find_subcommand(std::string_view name);

// =================================================================================================
// Bodies
// =================================================================================================

inline const Subcommand* find_subcommand(std::string_view name) {
  const auto found = std::ranges::find(kSubcommands, name, &Subcommand::name);
  return found == kSubcommands.end() ? nullptr : &*found;
}

// ---- Help ---------------------------------------------------------------------------------------

namespace detail {

inline void append_option(std::string& out, std::string_view option, std::string_view comment) {
  constexpr std::size_t kWidth = 22;
  out.append("  ").append(option).append(kWidth - std::min(option.size(), kWidth - 1), ' ');
  out.append(comment) += '\n';
}

inline std::string usage_of(const Subcommand& subcommand) {
  std::string usage = "seshat " + std::string(subcommand.name);
  if (!subcommand.argument.empty()) usage += " " + std::string(subcommand.argument);
  if (subcommand.takes_force) usage += " [--force]";
  if (subcommand.takes_all) usage += " [--all]";
  return usage + (subcommand.command.empty() ? " [--FLAG VALUE]..." : " [--addr HOST:PORT]");
}

}  // namespace detail

inline std::string subcommands_text() {
  std::string out = "\nSubcommands; seshat SUBCOMMAND --help tells more:\n";
  for (const Subcommand& subcommand : kSubcommands) {
    const std::string name = std::string(subcommand.name) + " " + std::string(subcommand.argument);
    detail::append_option(out, name, subcommand.summary);
  }
  return out;
}

inline std::string help_of(const Subcommand& subcommand) {
  using detail::append_option;
  std::string out = "usage: " + detail::usage_of(subcommand) + "\n\n";
  std::string summary(subcommand.summary);
  summary[0] = static_cast<char>(summary[0] - 'a' + 'A');
  out += summary + ".\n" + std::string(subcommand.details) + "\n";
  if (subcommand.command.empty()) return out;
  out += "\n";
  append_option(out, "--addr HOST:PORT", "any node's address for clients; 127.0.0.1:6379 or what");
  append_option(out, "", "SESHAT_ADDR in the environment says");
  append_option(out, "--config FILE", "take address and password from a node's configuration;");
  append_option(out, "", "SESHAT_CLIENT_REQUIREPASS in the environment is a password");
  append_option(out, "--tls",
                "connect by TLS; with --config, to client.tls_port. Whom to believe and");
  append_option(out, "", "what to show say client.tls_ca_file, tls_cert_file and tls_key_file,");
  append_option(out, "", "there or as SESHAT_CLIENT_TLS_CA_FILE and so on in the environment");
  if (subcommand.takes_force)
    append_option(out, "--force", "even where it is dangerous, see above");
  if (subcommand.takes_all) append_option(out, "--all", "show the system group too");
  append_option(out, "--json", "print one JSON document");
  append_option(out, "--timeout SECONDS",
                "how long to try again while the cluster isn't ready; 10");
  append_option(out, "--help", "print this and exit");
  return out +
         "\nExit codes: 0 done; 1 refused by the cluster, or not ready in time; 2 bad usage; 3 "
         "not\n"
         "reachable, or no answer.\n";
}

// ---- Arguments ----------------------------------------------------------------------------------

namespace detail {

// Reads the words behind a subcommand's name, each once.
class Parser {
 public:
  Parser(const Subcommand& subcommand, std::span<const std::string> words,
         const Environment& environment)
      : words_(words), environment_(environment) {
    options_.subcommand = &subcommand;
  }
  [[nodiscard]] Result<Options> parse();

 private:
  [[nodiscard]] std::optional<std::string> read_flag(const std::string& word);
  [[nodiscard]] bool read_switch(std::string_view name);
  [[nodiscard]] std::optional<std::string> read_value(const std::string& name,
                                                      const std::string& value);
  [[nodiscard]] std::optional<std::string> choose_address();
  [[nodiscard]] std::optional<std::string> choose_password();
  [[nodiscard]] std::optional<std::string> choose_tls();
  [[nodiscard]] std::optional<std::string> read_address(const std::string& source,
                                                        const std::string& text);

  std::span<const std::string> words_;
  const Environment& environment_;
  Options options_;
  std::string addr_;
  std::string config_file_;
  bool by_tls_ = false;
};

inline Result<Options> Parser::parse() {
  const Subcommand& subcommand = *options_.subcommand;
  std::optional<std::string> problem;
  while (!words_.empty() && !problem) {
    const std::string word = words_.front();
    words_ = words_.subspan(1);
    if (word.starts_with("-")) {
      problem = read_flag(word);
    } else if (subcommand.argument.empty() || !options_.argument.empty()) {
      problem = "'" + word + "' is one word too many";
    } else {
      options_.argument = word;
    }
  }
  if (problem) return Error{*problem};
  if (options_.help) return options_;
  if (!subcommand.argument.empty() && options_.argument.empty()) {
    return Error{"the " + std::string(subcommand.argument) + " is missing"};
  }
  if (subcommand.argument == "ID" && resp::parse_integer(options_.argument).value_or(0) < 1) {
    return Error{"'" + options_.argument +
                 "' is no node id: ids are numbers from 1, and `seshat members` lists them"};
  }
  if (problem = choose_address(); problem) return Error{*problem};
  if (problem = choose_password(); problem) return Error{*problem};
  if (problem = choose_tls(); problem) return Error{*problem};
  return options_;
}

inline std::optional<std::string> Parser::read_flag(const std::string& word) {
  const std::size_t equals = word.find('=');
  const std::string name = word.substr(0, equals);
  if (equals == std::string::npos && read_switch(name)) return std::nullopt;
  if (name != "--addr" && name != "--config" && name != "--timeout") {
    return "unknown flag, or one that takes no value here: " + word;
  }
  if (equals != std::string::npos) return read_value(name, word.substr(equals + 1));
  if (words_.empty()) return name + " needs a value";
  const std::string value = words_.front();
  words_ = words_.subspan(1);
  return read_value(name, value);
}

inline bool Parser::read_switch(std::string_view name) {
  bool* flag = nullptr;
  if (name == "--json") flag = &options_.json;
  if (name == "--tls") flag = &by_tls_;
  if (name == "--help" || name == "-h") flag = &options_.help;
  if (name == "--force" && options_.subcommand->takes_force) flag = &options_.force;
  if (name == "--all" && options_.subcommand->takes_all) flag = &options_.all;
  if (flag != nullptr) *flag = true;
  return flag != nullptr;
}

inline std::optional<std::string> Parser::read_value(const std::string& name,
                                                     const std::string& value) {
  if (name == "--addr") {
    addr_ = value;
    return read_address(name, value);
  }
  if (name == "--config") {
    config_file_ = value;
    return value.empty() ? std::optional<std::string>("--config needs a file") : std::nullopt;
  }
  const auto seconds = resp::parse_integer(value);
  if (!seconds || *seconds < 0 || *seconds > 3600) {
    return "--timeout " + value + ": must be a number of seconds from 0 to 3600";
  }
  options_.timeout_ms = static_cast<std::uint64_t>(*seconds) * 1000;
  return std::nullopt;
}

inline std::optional<std::string> Parser::read_address(const std::string& source,
                                                       const std::string& text) {
  const std::optional<HostPort> address = split_address(text);
  if (!address) return source + " " + text + ": must be HOST:PORT, such as 127.0.0.1:6379";
  options_.address = *address;
  // What a node listens on is not always what can be dialed.
  if (is_wildcard_host(address->host)) {
    options_.address.host = address->host.find(':') == std::string::npos ? "127.0.0.1" : "::1";
  }
  return std::nullopt;
}

// --addr, else the configuration that --config names, else the environment.
inline std::optional<std::string> Parser::choose_address() {
  if (!addr_.empty()) return std::nullopt;
  if (config_file_.empty()) {
    const auto variable = environment_.find("SESHAT_ADDR");
    if (variable == environment_.end() || variable->second.empty()) return std::nullopt;
    return read_address("SESHAT_ADDR", variable->second);
  }
  const CommandLine line = parse_command_line({"--config", config_file_}, environment_);
  if (!line.problems.empty()) return line.problems.front().text();
  return read_address("node.client_addr", line.config.node.client_addr);
}

// What a node would take for its own. No flag: others could read it.
inline std::optional<std::string> Parser::choose_password() {
  if (config_file_.empty()) {
    const auto variable = environment_.find("SESHAT_CLIENT_REQUIREPASS");
    if (variable != environment_.end()) options_.password = variable->second;
    return std::nullopt;
  }
  const CommandLine line = parse_command_line({"--config", config_file_}, environment_);
  if (!line.problems.empty()) return line.problems.front().text();
  options_.password = line.config.client.requirepass;
  return std::nullopt;
}

// Where it was asked for, or a configuration that says where to go leaves no other way in. The name in
// a certificate counts when somebody else than this machine answers.
inline std::optional<std::string> Parser::choose_tls() {
  const Arguments from = config_file_.empty() ? Arguments{} : Arguments{"--config", config_file_};
  const CommandLine line = parse_command_line(from, environment_);
  const Config::Client& client = line.config.client;
  const bool has_address = config_file_.empty() || !addr_.empty();
  if (client.tls_only) by_tls_ = true;
  if (!by_tls_) return std::nullopt;
  if (!line.problems.empty()) return line.problems.front().text();
  if (!tls::kIsAvailable) return "--tls: " + std::string(tls::kNotAvailable);
  if (!has_address && client.tls_port == 0) {
    return "--tls: " + config_file_ + " has no client.tls_port; --addr HOST:PORT names one";
  }
  if (!has_address) options_.address.port = static_cast<std::uint16_t>(client.tls_port);
  // A node whose clients need no certificate may know no authority: then its own is what counts.
  const bool knows_authority = !client.tls_ca_file.empty();
  options_.tls = tls::Files{
      {"client.tls_cert_file", client.tls_cert_file},
      {"client.tls_key_file", client.tls_key_file},
      {"client.tls_ca_file", knows_authority ? client.tls_ca_file : client.tls_cert_file}};
  options_.checks_host = has_address && !is_loopback_host(options_.address.host);
  return std::nullopt;
}

}  // namespace detail

inline Result<Options> parse(const Subcommand& subcommand, std::span<const std::string> words,
                             const Environment& environment) {
  return detail::Parser(subcommand, words, environment).parse();
}

// ---- Asking -------------------------------------------------------------------------------------

namespace detail {

struct Answer {
  ExitCode code = kNotReachable;
  std::string problem;  // for people; empty for kDone
  resp::Value reply;
};

using SteadyClock = std::chrono::steady_clock;

inline constexpr std::chrono::milliseconds kFirstWait{100};
inline constexpr std::chrono::milliseconds kLongestWait{1000};

// The cluster will be able to answer by itself, usually soon.
inline bool is_temporary(const resp::Value& reply) {
  if (reply.kind != resp::Kind::kError) return false;
  constexpr std::array<std::string_view, 4> kCodes = {"LOADING", "MOVED", "CLUSTERDOWN",
                                                      "TRYAGAIN"};
  const std::string_view code = std::string_view(reply.text).substr(0, reply.text.find(' '));
  return std::ranges::find(kCodes, code) != kCodes.end();
}

inline std::vector<std::string> words_of(const Options& options) {
  std::vector<std::string> words = {std::string(options.subcommand->command)};
  if (!options.argument.empty()) words.push_back(options.argument);
  if (options.force) words.emplace_back("FORCE");
  return words;
}

// The error without the codes that mean nothing to people.
inline std::string text_for_people(const std::string& error, const std::string& address) {
  if (error.starts_with("ERR unknown command")) {
    return "the server at " + address + " does not know it: it is no Seshat, or an older one";
  }
  for (const std::string_view code : {"ERR ", "DENIED ", "CLUSTERDOWN ", "LOADING ", "TRYAGAIN "}) {
    if (error.starts_with(code)) return error.substr(code.size());
  }
  return error;
}

inline Answer ask_once(const Options& options) {
  const std::string address = join_address(options.address.host, options.address.port);
  const auto in = [](std::uint64_t ms) {
    return SteadyClock::now() + std::chrono::milliseconds(ms);
  };
  Answer answer;
  Client client;
  if (options.tls) {
    const Result<void> ready =
        client.use_tls(*options.tls, options.checks_host ? options.address.host : "");
    if (!ready) {
      answer.code = kBadUsage;
      answer.problem = ready.error().text;
      return answer;
    }
  }
  const Result<void> reached = client.connect(
      options.address, in(std::max<std::uint64_t>(options.timeout_ms, 1000)), options.password);
  if (!reached) {
    answer.problem = "can't reach a node at " + address + ": " + reached.error().text +
                     "; --addr HOST:PORT names another";
    return answer;
  }
  Result<resp::Value> reply = client.ask(words_of(options), in(options.answer_timeout_ms));
  if (!reply) {
    answer.problem = "no answer from " + address + ": " + reply.error().text;
    if (!options.subcommand->done.empty()) {
      answer.problem += "; it may have been done or not: see `seshat status` and `seshat members`";
    }
    return answer;
  }
  const bool refused = reply->kind == resp::Kind::kError;
  answer.code = refused ? kRefused : kDone;
  if (refused) answer.problem = text_for_people(reply->text, address);
  answer.reply = *std::move(reply);
  return answer;
}

inline Answer ask(const Options& options, std::ostream& err) {
  const auto give_up = SteadyClock::now() + std::chrono::milliseconds(options.timeout_ms);
  const std::string patience = std::to_string(options.timeout_ms / 1000) + " s";
  auto wait = kFirstWait;
  bool told = false;
  for (;;) {
    Answer answer = ask_once(options);
    if (!is_temporary(answer.reply)) return answer;
    if (SteadyClock::now() + wait > give_up) {
      answer.problem += "; gave up after " + patience +
                        ": `seshat status` tells more, --timeout SECONDS waits longer";
      return answer;
    }
    if (!told)
      err << "seshat: " << answer.problem << "; trying again for up to " << patience << "\n";
    told = true;
    std::this_thread::sleep_for(wait);
    wait = std::min(2 * wait, kLongestWait);
  }
}

}  // namespace detail

// ---- Printing -----------------------------------------------------------------------------------

namespace detail {

inline const resp::Value* field(const resp::Value& map, std::string_view name) {
  for (std::size_t i = 0; i + 1 < map.elements.size(); i += 2) {
    if (map.elements[i].text == name) return &map.elements[i + 1];
  }
  return nullptr;
}

// As a cell; empty for null and for what an older node does not tell.
inline std::string cell(const resp::Value& map, std::string_view name) {
  const resp::Value* value = field(map, name);
  if (value == nullptr || value->kind == resp::Kind::kNull) return {};
  if (value->kind == resp::Kind::kInteger) return std::to_string(value->integer);
  if (value->kind == resp::Kind::kBoolean) return value->integer != 0 ? "yes" : "no";
  return value->text;
}

inline std::optional<std::uint64_t> number(const resp::Value& map, std::string_view name) {
  const resp::Value* value = field(map, name);
  if (value == nullptr || value->kind != resp::Kind::kInteger || value->integer < 0) {
    return std::nullopt;
  }
  return static_cast<std::uint64_t>(value->integer);
}

inline bool is_system_group(const resp::Value& row) { return number(row, "group") == 0U; }

inline std::string group_cell(const resp::Value& row) {
  return is_system_group(row) ? "system" : cell(row, "group");
}

inline std::string size_cell(const resp::Value& row, std::string_view name) {
  const auto size_bytes = number(row, name);
  return size_bytes ? size_text(*size_bytes) : std::string();
}

// 0 stands for "none".
inline std::string snapshot_cell(const resp::Value& row) {
  return number(row, "snapshot").value_or(0) == 0 ? std::string() : cell(row, "snapshot");
}

inline constexpr std::string_view kNobody =
    "no members are known yet: the cluster has just started, or has no leader\n";

}  // namespace detail

inline std::string members_table(const resp::Value& members) {
  using detail::cell;
  if (members.elements.empty()) return std::string(detail::kNobody);
  Table table({{"NODE", Align::kRight},
               {"ADDRESS"},
               {"PEER-ADDRESS"},
               {"STATE"},
               {"CONNECTED"},
               {"JOINED"},
               {"INCARNATION"}});
  for (const resp::Value& member : members.elements) {
    const bool is_self = cell(member, "self") == "yes";
    table.add({cell(member, "id"), cell(member, "client-addr"), cell(member, "addr"),
               cell(member, "state"), is_self ? "asked" : cell(member, "connected"),
               time_text(detail::number(member, "joined-at-ms").value_or(0)),
               cell(member, "incarnation")});
  }
  return table.text();
}

inline std::string status_table(const resp::Value& rows, bool all) {
  using detail::cell;
  if (rows.elements.empty()) return std::string(detail::kNobody);
  std::set<std::string> groups;
  for (const resp::Value& row : rows.elements) {
    if (all || !detail::is_system_group(row)) groups.insert(detail::group_cell(row));
  }
  const bool shows_group = groups.size() > 1;
  std::vector<Table::Column> columns = {{"NODE", Align::kRight}, {"ADDRESS"}};
  if (shows_group) columns.push_back({"GROUP"});
  columns.push_back({"ROLE"});
  for (const std::string_view title :
       {"TERM", "COMMIT", "APPLIED", "LAG", "LOG", "LOG-SIZE", "SNAPSHOT"}) {
    columns.push_back({title, Align::kRight});
  }
  columns.push_back({"STATE"});
  Table table(std::move(columns));
  for (const resp::Value& row : rows.elements) {
    if (!groups.contains(detail::group_cell(row))) continue;
    std::vector<std::string> cells = {cell(row, "node"), cell(row, "address")};
    if (shows_group) cells.push_back(detail::group_cell(row));
    for (const std::string_view name :
         {"role", "term", "commit", "applied", "lag", "log-entries"}) {
      cells.push_back(cell(row, name));
    }
    cells.push_back(detail::size_cell(row, "log-bytes"));
    cells.push_back(detail::snapshot_cell(row));
    cells.push_back(cell(row, "state"));
    table.add(std::move(cells));
  }
  return table.text();
}

namespace detail {

// What a change says when it is done: the cluster's own words, if it has any.
inline std::string done_text(const Options& options, const resp::Value& reply) {
  if (reply.text != "OK") return reply.text;
  std::string text(options.subcommand->done);
  const std::size_t place = text.find("%s");
  return place == std::string::npos ? text : text.replace(place, 2, options.argument);
}

// {"members": [...]}, {"status": [...]}, or {"ok": true, "message": "..."}.
inline std::string json_text(const Options& options, const resp::Value& reply) {
  std::string out = "{";
  if (options.subcommand->done.empty()) {
    append_quoted(out, options.subcommand->name);
    out += ": ";
    append_json(out, reply);
  } else {
    out += "\"ok\": true, \"message\": ";
    append_quoted(out, done_text(options, reply));
  }
  return out + "}\n";
}

inline std::string json_of_problem(const Answer& answer) {
  std::string out =
      "{\"ok\": false, \"exit_code\": " + std::to_string(answer.code) + ", \"error\": ";
  append_quoted(out, answer.problem);
  return out + "}\n";
}

inline std::string text_of(const Options& options, const resp::Value& reply) {
  if (options.json) return json_text(options, reply);
  if (!options.subcommand->done.empty()) return done_text(options, reply) + "\n";
  const bool is_status = options.subcommand->takes_all;
  return is_status ? status_table(reply, options.all) : members_table(reply);
}

}  // namespace detail

inline int execute(const Options& options, std::ostream& out, std::ostream& err) {
  const detail::Answer answer = detail::ask(options, err);
  if (answer.code == kDone) {
    out << detail::text_of(options, answer.reply);
    return kDone;
  }
  if (options.json) out << detail::json_of_problem(answer);
  err << "seshat: " << answer.problem << "\n";
  return answer.code;
}

// ---- The way in ---------------------------------------------------------------------------------

namespace detail {

inline int refuse(std::ostream& err, std::string_view what, const Subcommand& subcommand) {
  err << "seshat " << subcommand.name << ": " << what << "\nusage: " << usage_of(subcommand)
      << "; --help tells more\n";
  return kBadUsage;
}

// Leaves the flags of the daemon in `arguments`.
inline std::optional<int> prepare_join(Arguments& arguments, std::ostream& out, std::ostream& err) {
  const Subcommand& join = *find_subcommand("join");
  if (arguments.size() > 1 && (arguments[1] == "--help" || arguments[1] == "-h")) {
    out << help_of(join);
    return kDone;
  }
  if (arguments.size() < 2 || arguments[1].starts_with("-")) {
    return refuse(err, "the HOST:PORT of a member comes first", join);
  }
  if (!split_address(arguments[1])) {
    return refuse(err, "'" + arguments[1] + "' must be HOST:PORT, such as 10.0.0.1:7379", join);
  }
  arguments[0] = "--join";
  return std::nullopt;
}

inline int refuse_unknown(std::ostream& err, std::string_view name) {
  std::vector<std::string> names;
  names.reserve(kSubcommands.size());
  for (const Subcommand& subcommand : kSubcommands) names.emplace_back(subcommand.name);
  err << "seshat: unknown subcommand '" << name << "'; " << config::detail::suggestion(name, names)
      << "\n";
  return kBadUsage;
}

}  // namespace detail

inline std::optional<int> run(Arguments& arguments, const Environment& environment,
                              std::ostream& out, std::ostream& err) {
  if (arguments.empty() || arguments[0].starts_with("-")) return std::nullopt;
  const Subcommand* subcommand = find_subcommand(arguments[0]);
  if (subcommand == nullptr) return detail::refuse_unknown(err, arguments[0]);
  if (subcommand->command.empty()) return detail::prepare_join(arguments, out, err);
  const Result<Options> options = parse(*subcommand, std::span(arguments).subspan(1), environment);
  if (!options) return detail::refuse(err, options.error().text, *subcommand);
  if (options->help) {
    out << help_of(*subcommand);
    return kDone;
  }
  return execute(*options, out, err);
}

}  // namespace seshat::cli

#endif  // SESHAT_CLI_HPP
