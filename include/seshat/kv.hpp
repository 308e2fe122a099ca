// seshat/kv.hpp - the commands of Seshat: the table, and the functions of keys and values.
//
//   args ──> check(): known? arity? limits? transaction? ──> Command
//                                           local │ read │ write │ admin (command.hpp)
//
// Adding a command is one entry in kCommands and one function. What a write does when its log entry
// is applied stands in state_machine.hpp.
//
// Threads: the loop, but for read functions: those run wherever the map they get allows.
// Needs:   command.hpp, and the headers with the functions of the other commands.
#ifndef SESHAT_KV_HPP
#define SESHAT_KV_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "seshat/admin_commands.hpp"
#include "seshat/client_commands.hpp"
#include "seshat/command.hpp"
#include "seshat/connection_commands.hpp"
#include "seshat/operator_commands.hpp"
#include "seshat/server_commands.hpp"

namespace seshat::kv {

// All commands, by name.
[[nodiscard]] CommandTable commands();

// What a single request may bring, beside RESP's own bounds.
struct Limits {
  std::size_t max_key_size_bytes = 256;
  std::size_t max_value_size_bytes = 65'536;
};

// The command (or subcommand) that a request names, once all that can be checked before it runs
// fits. nullptr: the reply was written: an error, or a container's HELP.
[[nodiscard]] const Command* check(Args args, const Limits& limits, const Session& session,
                                   resp::Writer& reply);

// What a client hears of a write that was applied.
void reply_outcome(const Outcome& outcome, resp::Writer& reply);

// Of keys and values
[[nodiscard]] Lookup get(const ReadCall& call, resp::Writer& reply);
[[nodiscard]] Lookup exists(const ReadCall& call, resp::Writer& reply);
[[nodiscard]] std::optional<std::string> set(Args args, Operation& operation);
[[nodiscard]] std::optional<std::string> del(Args args, Operation& operation);

// =================================================================================================
// The table
// =================================================================================================

namespace detail {

inline void command_all(const Call& call) {
  resp::Writer reply = call.reply();
  server_commands::command_all(commands(), reply);
}
inline void command_count(const Call& call) {
  call.reply().integer(static_cast<std::int64_t>(commands().size()));
}
inline void command_docs(const Call& call) {
  resp::Writer reply = call.reply();
  server_commands::command_docs(commands(), call.args.subspan(2), reply);
}
inline void command_get_keys(const Call& call) {
  resp::Writer reply = call.reply();
  server_commands::command_get_keys(commands(), call.args.subspan(2), reply);
}
inline void command_info(const Call& call) {
  resp::Writer reply = call.reply();
  server_commands::command_info(commands(), call.args.subspan(2), reply);
}
inline void command_list(const Call& call) {
  resp::Writer reply = call.reply();
  server_commands::command_list(commands(), call.args.subspan(2), reply);
}
inline void command_get_keys_and_flags(const Call& call) {
  resp::Writer reply = call.reply();
  server_commands::command_get_keys_and_flags(commands(), call.args.subspan(2), reply);
}

inline constexpr std::uint32_t kAbout = kLoading | kStale | kAboutConnection;
inline constexpr std::uint32_t kClient = kNoScript | kAbout;
inline constexpr std::uint32_t kAlways = kClient | kFast | kNoAuth | kAllowBusy;
inline constexpr std::uint32_t kTransaction = kNoScript | kLoading | kStale;
inline constexpr std::uint32_t kOperator = kAdmin | kLoading | kStale;
inline constexpr std::uint32_t kAdminOfCluster =
    kAdmin | kDangerous | kNoScript | kLoading | kStale;

}  // namespace detail

// clang-format off
// name, arity, flags, {keys}, group, since, complexity,
//   summary, arguments, then one function: local, read, write or admin

inline constexpr std::array kClientCommands = {
    Command{"client|getname", 2, detail::kClient, {}, "connection", "2.6.9", "O(1)",
            "Gets the name of the connection", "", &connection_commands::client_get_name},
    Command{"client|getredir", 2, detail::kClient, {}, "connection", "6.0.0", "O(1)",
            "Tells that no client is told of this one's keys", "", &client_commands::get_redir},
    Command{"client|id", 2, detail::kClient, {}, "connection", "5.0.0", "O(1)",
            "Gets the id of the connection", "", &connection_commands::client_id},
    Command{"client|info", 2, detail::kClient, {}, "connection", "6.2.0", "O(1)",
            "Tells about the connection", "", &connection_commands::client_info},
    Command{"client|kill", -3, detail::kClient | kAdmin, {}, "connection", "2.4.0",
            "O(N) where N is the number of connections",
            "Closes connections of this node", "address-or-option:string value:string:optional:multiple",
            &client_commands::kill},
    Command{"client|list", -2, detail::kClient | kAdmin, {}, "connection", "2.4.0",
            "O(N) where N is the number of connections",
            "Lists the connections of this node", "option:string:optional value:string:optional:multiple",
            &client_commands::list},
    Command{"client|no-evict", 3, detail::kClient | kAdmin, {}, "connection", "7.0.0", "O(1)",
            "Is remembered: nobody is ever evicted", "on-or-off:string",
            &client_commands::no_evict},
    Command{"client|pause", -3, detail::kClient | kAdmin, {}, "connection", "3.0.0", "O(1)",
            "Holds the commands of all clients back, or those that write",
            "timeout:integer write-or-all:string:optional", &client_commands::pause},
    Command{"client|reply", 3, detail::kClient, {}, "connection", "3.2.0", "O(1)",
            "Turns replies on or off, or skips one", "on-off-or-skip:string",
            &client_commands::reply},
    Command{"client|setinfo", 4, detail::kClient, {}, "connection", "7.2.0", "O(1)",
            "Sets the name or version of the client library", "attribute:string value:string",
            &connection_commands::client_set_info},
    Command{"client|setname", 3, detail::kClient, {}, "connection", "2.6.9", "O(1)",
            "Sets the name of the connection", "connection-name:string",
            &connection_commands::client_set_name},
    Command{"client|trackinginfo", 2, detail::kClient, {}, "connection", "6.2.0", "O(1)",
            "Tells that no keys are tracked for the connection", "",
            &client_commands::tracking_info},
    Command{"client|unblock", -3, detail::kClient | kAdmin, {}, "connection", "5.0.0", "O(1)",
            "Wakes a client that waits in a command, of which there are none",
            "client-id:integer timeout-or-error:string:optional", &client_commands::unblock},
    Command{"client|unpause", 2, detail::kClient | kAdmin, {}, "connection", "6.2.0",
            "O(N) where N is the number of connections",
            "Ends a pause", "", &client_commands::unpause},
};

inline constexpr std::array kClusterCommands = {
    Command{"cluster|info", 2, kStale, {}, "cluster", "3.0.0", "O(1)",
            "Tells about the state of the cluster", "", &server_commands::cluster_info},
    Command{"cluster|keyslot", 3, kStale, {}, "cluster", "3.0.0",
            "O(N) where N is the length of the key",
            "Gets the hash slot of a key", "key:string", &server_commands::cluster_key_slot},
    Command{"cluster|links", 2, kStale, {}, "cluster", "7.0.0",
            "O(N) where N is the number of nodes",
            "Lists the nodes that this one is connected to", "", &server_commands::cluster_links},
    Command{"cluster|myid", 2, kStale, {}, "cluster", "3.0.0", "O(1)",
            "Gets the id of this node", "", &server_commands::cluster_my_id},
    Command{"cluster|nodes", 2, kStale, {}, "cluster", "3.0.0",
            "O(N) where N is the number of nodes",
            "Lists the nodes and their slots", "", &server_commands::cluster_nodes},
    Command{"cluster|shards", 2, kStale, {}, "cluster", "7.0.0",
            "O(N) where N is the number of nodes",
            "Lists the shards and their nodes", "", &server_commands::cluster_shards},
    Command{"cluster|slots", 2, kStale, {}, "cluster", "3.0.0",
            "O(N) where N is the number of nodes",
            "Maps slot ranges to nodes", "", &server_commands::cluster_slots},
};

inline constexpr std::array kCommandCommands = {
    Command{"command|count", 2, detail::kAbout, {}, "server", "2.8.13", "O(1)",
            "Counts the commands", "", &detail::command_count},
    Command{"command|docs", -2, detail::kAbout, {}, "server", "7.0.0",
            "O(N) where N is the number of commands",
            "Documents commands", "command-name:string:optional:multiple", &detail::command_docs},
    Command{"command|getkeys", -4, detail::kAbout, {}, "server", "2.8.13",
            "O(N) where N is the number of arguments",
            "Finds the keys in a command", "command:string arg:string:optional:multiple",
            &detail::command_get_keys},
    Command{"command|getkeysandflags", -4, detail::kAbout, {}, "server", "7.0.0",
            "O(N) where N is the number of arguments",
            "Finds the keys in a command and what it does with them",
            "command:string arg:string:optional:multiple", &detail::command_get_keys_and_flags},
    Command{"command|info", -2, detail::kAbout, {}, "server", "2.8.13",
            "O(N) where N is the number of commands",
            "Describes commands", "command-name:string:optional:multiple", &detail::command_info},
    Command{"command|list", -2, detail::kAbout, {}, "server", "7.0.0",
            "O(N) where N is the number of commands",
            "Lists the names of the commands",
            "filterby:string:optional kind:string:optional value:string:optional",
            &detail::command_list},
};

inline constexpr std::array kConfigCommands = {
    Command{"config|get", -3, kNoScript | kLoading | kStale | kAdmin, {}, "server", "2.0.0",
            "O(N) where N is the number of settings",
            "Gets settings by pattern", "parameter:string:multiple", &server_commands::config_get},
    Command{"config|resetstat", 2, kNoScript | detail::kOperator, {}, "server", "2.0.0", "O(1)",
            "Begins to count anew what INFO tells", "", &operator_commands::config_reset_stat},
    Command{"config|rewrite", 2, kNoScript | detail::kOperator, {}, "server", "2.8.0", "O(1)",
            "Is refused: the configuration file is yours", "",
            &operator_commands::config_rewrite},
    Command{"config|set", -4, kNoScript | detail::kOperator, {}, "server", "2.0.0",
            "O(N) where N is the number of settings",
            "Changes settings until this node ends, all that are given or none",
            "parameter:string:multiple value:string:multiple", &operator_commands::config_set},
};

inline constexpr std::array kLatencyCommands = {
    Command{"latency|doctor", 2, kNoScript | detail::kOperator, {}, "server", "2.8.13", "O(1)",
            "Tells what took long", "", &operator_commands::latency_doctor},
    Command{"latency|history", 3, kNoScript | detail::kOperator, {}, "server", "2.8.13", "O(1)",
            "Lists when an event took long", "event:string", &operator_commands::latency_history},
    Command{"latency|latest", 2, kNoScript | detail::kOperator, {}, "server", "2.8.13", "O(1)",
            "Lists what took long, and when that was last", "",
            &operator_commands::latency_latest},
    Command{"latency|reset", -2, kNoScript | detail::kOperator, {}, "server", "2.8.13", "O(1)",
            "Forgets what took long", "event:string:optional:multiple",
            &operator_commands::latency_reset},
};

inline constexpr std::array kSlowLogCommands = {
    Command{"slowlog|get", -2, detail::kOperator, {}, "server", "2.2.12",
            "O(N) where N is the number of entries",
            "Lists the last commands that took long", "count:integer:optional",
            &operator_commands::slow_log_get},
    Command{"slowlog|len", 2, detail::kOperator, {}, "server", "2.2.12", "O(1)",
            "Counts the entries of the slow log", "", &operator_commands::slow_log_len},
    Command{"slowlog|reset", 2, detail::kOperator, {}, "server", "2.2.12",
            "O(N) where N is the number of entries",
            "Empties the slow log", "", &operator_commands::slow_log_reset},
};

inline constexpr std::array kCommands = {
    Command{"asking", 1, kFast | kAboutConnection, {}, "cluster", "3.0.0", "O(1)",
            "Announces that the next command follows an ASK", "", &connection_commands::asking},
    Command{"auth", -2, detail::kAlways, {}, "connection", "1.0.0", "O(1)",
            "Says the password", "username:string:optional password:string",
            &connection_commands::auth},
    Command{"client", -2, 0, {}, "connection", "2.4.0", "Depends on subcommand.",
            "A container for connection commands", "", nullptr, nullptr, nullptr, nullptr,
            kClientCommands},
    Command{"cluster", -2, 0, {}, "cluster", "3.0.0", "Depends on subcommand.",
            "A container for cluster commands", "", nullptr, nullptr, nullptr, nullptr,
            kClusterCommands},
    Command{"command", -1, detail::kAbout, {}, "server", "2.8.13",
            "O(N) where N is the number of commands",
            "Describes all commands", "", &detail::command_all, nullptr, nullptr, nullptr,
            kCommandCommands},
    Command{"config", -2, 0, {}, "server", "2.0.0", "Depends on subcommand.",
            "A container for configuration commands", "", nullptr, nullptr, nullptr, nullptr,
            kConfigCommands},
    Command{"del", -2, kWrite, {1, -1, 1, "RM delete"}, "generic", "1.0.0",
            "O(N) where N is the number of keys",
            "Deletes keys, all of them or none, and counts those that were there",
            "key:key:multiple", nullptr, nullptr, &del},
    Command{"discard", 1, detail::kTransaction | kFast | kAllowBusy, {}, "transactions", "2.0.0",
            "O(1)",
            "Ends a refused transaction", "", &connection_commands::discard},
    Command{"echo", 2, detail::kAbout | kFast, {}, "connection", "1.0.0", "O(1)",
            "Answers with its argument", "message:string", &connection_commands::echo},
    Command{"exec", 1, detail::kTransaction | kSkipSlowlog, {}, "transactions", "1.2.0", "O(1)",
            "Ends a refused transaction", "", &connection_commands::exec},
    Command{"exists", -2, kReadOnly | kFast, {1, -1, 1, "RO"}, "generic", "1.0.0",
            "O(N) where N is the number of keys",
            "Counts the keys that exist, repeats included", "key:key:multiple", nullptr, &exists},
    Command{"get", 2, kReadOnly | kFast, {1, 1, 1, "RO access"}, "string", "1.0.0", "O(1)",
            "Gets the value of a key", "key:key", nullptr, &get},
    Command{"hello", -1, detail::kAlways, {}, "connection", "6.0.0", "O(1)",
            "Greets the server and chooses the protocol", "protover:integer:optional",
            &connection_commands::hello},
    Command{"info", -1, kLoading | kStale | kDangerous, {}, "server", "1.0.0", "O(1)",
            "Tells about the node", "section:string:optional:multiple", &server_commands::info},
    Command{"latency", -2, 0, {}, "server", "2.8.13", "Depends on subcommand.",
            "A container for commands about what took long", "", nullptr, nullptr, nullptr, nullptr,
            kLatencyCommands},
    Command{"multi", 1, detail::kTransaction | kFast | kAllowBusy, {}, "transactions", "1.2.0",
            "O(1)",
            "Is refused: transactions are not supported yet", "", &connection_commands::multi},
    Command{"ping", -1, kFast | kAboutConnection, {}, "connection", "1.0.0", "O(1)",
            "Answers PONG, or with its argument", "message:string:optional",
            &connection_commands::ping},
    Command{"quit", -1, detail::kAlways, {}, "connection", "1.0.0", "O(1)",
            "Closes the connection", "", &connection_commands::quit},
    Command{"readonly", 1, detail::kAbout | kFast, {}, "cluster", "3.0.0", "O(1)",
            "Allows reads on a replica, where follower reads are on", "",
            &connection_commands::read_only},
    Command{"readwrite", 1, detail::kAbout | kFast, {}, "cluster", "3.0.0", "O(1)",
            "Takes READONLY back", "", &connection_commands::read_write},
    Command{"reset", 1, detail::kAlways, {}, "connection", "6.2.0", "O(1)",
            "Makes the connection as new", "", &connection_commands::reset},
    Command{"select", 2, detail::kAbout | kFast, {}, "connection", "1.0.0", "O(1)",
            "Chooses a database, of which there is one", "index:integer",
            &connection_commands::select},
    Command{"seshat.leave", -2, detail::kAdminOfCluster, {}, "server", "0.2.0",
            "Waits for two changes of the configuration of each group",
            "Removes a member from the cluster", "node-id:integer force:pure-token:optional",
            nullptr, nullptr, nullptr, &admin_commands::leave},
    Command{"seshat.members", 1, detail::kAdminOfCluster, {}, "server", "0.2.0",
            "O(N) where N is the number of members",
            "Lists the members of the cluster", "", &admin_commands::members},
    Command{"seshat.promote", -2, detail::kAdminOfCluster, {}, "server", "0.2.0",
            "Waits for two changes of the configuration of each group",
            "Makes a learner a voter", "node-id:integer force:pure-token:optional",
            nullptr, nullptr, nullptr, &admin_commands::promote},
    Command{"seshat.snapshot", 1, detail::kAdminOfCluster, {}, "server", "0.2.0",
            "O(N) where N is the number of keys, beside the serving of clients",
            "Takes a snapshot of every group on this node", "",
            nullptr, nullptr, nullptr, &admin_commands::snapshot},
    Command{"seshat.status", 1, detail::kAdminOfCluster, {}, "server", "0.2.0",
            "O(N) where N is the number of members and groups",
            "Tells how every group does on every member", "", &admin_commands::status},
    Command{"seshat.transfer-leader", 2, detail::kAdminOfCluster, {}, "server", "0.2.0",
            "Waits for an election in each group",
            "Hands the leadership of all groups to a member", "node-id:integer",
            nullptr, nullptr, nullptr, &admin_commands::transfer_leader},
    Command{"set", -3, kWrite | kDenyOom, {1, 1, 1, "OW update"}, "string", "1.0.0", "O(1)",
            "Sets the value of a key", "key:key value:string", nullptr, nullptr, &set},
    Command{"shutdown", -1, kNoScript | detail::kOperator | kNoMulti | kAllowBusy, {}, "server",
            "1.0.0", "Waits for what is under way",
            "Ends this node in good order", "option:string:optional:multiple",
            &operator_commands::shutdown},
    Command{"slowlog", -2, 0, {}, "server", "2.2.12", "Depends on subcommand.",
            "A container for commands about the slow log", "", nullptr, nullptr, nullptr, nullptr,
            kSlowLogCommands},
    Command{"time", 1, kLoading | kStale | kFast, {}, "server", "2.6.0", "O(1)",
            "Tells the time of this machine", "", &operator_commands::time},
    Command{"wait", 3, kNoScript | kAboutConnection | kWaitsForReplies, {}, "generic", "3.0.0", "O(1)",
            "Counts the other voters that are known to have all that was acknowledged",
            "numreplicas:integer timeout:integer", &operator_commands::wait},
};
// clang-format on

inline constexpr CommandNames<128> kCommandNames{kCommands};
static_assert(kCommands.size() <= 64, "give the names twice as many places as there are commands");

// =================================================================================================
// Bodies
// =================================================================================================

inline CommandTable commands() { return kCommands; }

namespace detail {

// Keys have their own limit; every other argument of a write may become a value.
inline std::string_view size_error(const Command& command, Args args, const Limits& limits) {
  bool key_too_large = false;
  for_each_key(command, args, [&](std::string_view key) {
    key_too_large = key_too_large || key.size() > limits.max_key_size_bytes;
  });
  if (key_too_large) return "ERR key too large";
  if (!command.is_write()) return {};
  for (std::size_t i = 1; i < args.size(); ++i) {
    const bool large = args[i].size() > limits.max_value_size_bytes;
    if (large && !is_key(command, i, args.size())) return "ERR value too large";
  }
  return {};
}

inline bool asks_for_help(const Command& container, Args args) {
  return !container.subcommands.empty() && args.size() == 2 &&
         equals_ignoring_case(args[1], "help");
}

inline bool ends_transaction(const Command& command) {
  return command.name == "exec" || command.name == "discard" || command.name == "reset" ||
         command.name == "quit";
}

}  // namespace detail

inline const Command* check(Args args, const Limits& limits, const Session& session,
                            resp::Writer& reply) {
  const auto refuse = [&](std::string_view text) -> const Command* {
    reply.error(text);
    return nullptr;
  };
  const Command* command = kCommandNames.find(args[0]);
  if (command == nullptr) return refuse(unknown_command_text(args));
  const Command& named = *command;
  const bool asks_for_help = detail::asks_for_help(named, args);
  if (!named.subcommands.empty() && args.size() > 1 && !asks_for_help) {
    command = find_command(named.subcommands, args[1]);
    if (command == nullptr) return refuse(unknown_subcommand_text(args));
  }
  if (!arity_fits(*command, args.size())) return refuse(wrong_arity_text(*command));
  if (!session.authenticated && (command->flags & kNoAuth) == 0) return refuse(kNoAuthText);
  if (session.refusing_transaction && !detail::ends_transaction(*command)) {
    return refuse(
        "ERR refused: it came after a MULTI that was refused, and before its EXEC or DISCARD");
  }
  if (asks_for_help) {
    help(named, reply);
    return nullptr;
  }
  const std::string_view too_large = detail::size_error(*command, args, limits);
  return too_large.empty() ? command : refuse(too_large);
}

inline void reply_outcome(const Outcome& outcome, resp::Writer& reply) {
  if (outcome.kind == Outcome::Kind::kInteger) return reply.integer(outcome.integer);
  reply.simple_string("OK");
}

// ---- Keys and values ----------------------------------------------------------------------------

inline Lookup get(const ReadCall& call, resp::Writer& reply) {
  StoredValue value;
  switch (read_value(call.map, call.slot, call.args[1], call.scratch, value)) {
    case Lookup::kFound:
      reply.bulk(value.data);
      return Lookup::kFound;
    case Lookup::kAbsent:
      reply.null();
      return Lookup::kFound;
    case Lookup::kNotInMemory:
      return Lookup::kNotInMemory;
    case Lookup::kFailed:
      break;
  }
  return Lookup::kFailed;
}

inline Lookup exists(const ReadCall& call, resp::Writer& reply) {
  StoredValue value;
  std::int64_t count = 0;
  for (std::size_t i = 1; i < call.args.size(); ++i) {
    const std::string_view key = call.args[i];
    const Slot slot = i == 1 ? call.slot : slot_of(key);
    const Lookup lookup = read_value(call.map, slot, key, call.scratch, value);
    if (lookup == Lookup::kNotInMemory || lookup == Lookup::kFailed) return lookup;
    count += lookup == Lookup::kFound ? 1 : 0;
  }
  reply.integer(count);
  return Lookup::kFound;
}

// SET key value. The options (EX, NX, GET, ...) are not there yet, and never ignored in silence.
inline std::optional<std::string> set(Args args, Operation& operation) {
  if (args.size() != 3) return "ERR syntax error";
  operation.type = OperationType::kSet;
  operation.arguments.assign(args.begin() + 1, args.end());
  return std::nullopt;
}

inline std::optional<std::string> del(Args args, Operation& operation) {
  operation.type = OperationType::kDelete;
  operation.arguments.assign(args.begin() + 1, args.end());
  return std::nullopt;
}

}  // namespace seshat::kv

#endif  // SESHAT_KV_HPP
