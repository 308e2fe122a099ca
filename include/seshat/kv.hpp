// seshat/kv.hpp - the commands of Seshat: the table, and the functions of keys and values.
//
//   args ──> check(): known? arity? limits? ──> Command
//                                  local │ read │ write │ admin (command.hpp)
//   a write's log entry ──> apply_command(): the same table, on every replica
//
// Adding a command is one entry in kCommands and one function (docs/adding-a-command.md).
//
// Threads: the loop; apply_command() where entries are applied.
// Needs:   command.hpp and the *_commands.hpp.
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
#include "seshat/key_commands.hpp"
#include "seshat/operator_commands.hpp"
#include "seshat/server_commands.hpp"
#include "seshat/string_commands.hpp"

namespace seshat::kv {

// All commands, by name.
[[nodiscard]] CommandTable commands();

// What a single request may bring, beside RESP's own bounds.
struct Limits {
  std::size_t max_key_size_bytes = 256;
  std::size_t max_value_size_bytes = 65'536;
  std::size_t max_request_size_bytes = 1 << 20;  // of what a transaction queues, too
};

// The command (or subcommand) that a request names, once all that can be checked before it runs
// fits. nullptr: the reply was written: an error, or a container's HELP.
[[nodiscard]] const Command* check(Args args, const Limits& limits, const Session& session,
                                   resp::Writer& reply);

// The command (or subcommand) of a request, its arity unseen; nullptr: there is none.
[[nodiscard]] const Command* find(Args args);

// A reply in RESP3, in the protocol of `reply`.
void reply_resp3(std::string_view resp3, resp::Writer& reply);
// What a client hears of a write that was applied.
void reply_outcome(const Outcome& outcome, resp::Writer& reply);

// What is wrong with the arguments of a write, as a reply, if anything is.
[[nodiscard]] std::string check_write(const Command& command, Args args, const Limits& limits);
// What goes into the log for a write: with the lowest version that can say it.
[[nodiscard]] Operation operation_of(const Command& command, Args args, const Limits& limits);
// Whether it is an operation that a connection could have made, within these limits: for those that
// come from another node, and are to be applied by all.
[[nodiscard]] bool is_proposable(const Operation& operation, const Limits& limits);
// Whether an outcome that came from another node is one of such an operation: `replies` of a
// transaction, 1 of anything else.
[[nodiscard]] bool is_outcome(const Outcome& outcome, bool of_transaction, std::size_t replies);
// Applies a command of a log entry: see state_machine.hpp.
[[nodiscard]] bool apply_command(const CommandToApply& command);

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
    Command{"cluster|countkeysinslot", 3, kStale | kReadOnly | kScan | kNoMulti, {}, "cluster", "3.0.0",
            "O(N) where N is the number of keys in the slot",
            "Counts the keys in a slot", "slot:integer",
            nullptr, &key_commands::count_keys_in_slot},
    Command{"cluster|getkeysinslot", 4, kStale | kReadOnly | kScan | kNoMulti, {}, "cluster", "3.0.0",
            "O(N) where N is the number of keys asked for",
            "Lists keys in a slot", "slot:integer count:integer",
            nullptr, &key_commands::get_keys_in_slot},
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

inline constexpr std::array kMemoryCommands = {
    Command{"memory|usage", -3, kReadOnly, {2, 2, 1, "RO"}, "server", "4.0.0", "O(1)",
            "Tells how many bytes the rows of a key take", "key:key samples:string:optional:multiple",
            nullptr, &key_commands::memory_usage},
};

inline constexpr std::array kObjectCommands = {
    Command{"object|encoding", 3, kReadOnly, {2, 2, 1, "RO"}, "generic", "2.2.3", "O(1)",
            "Tells how Redis would store a value", "key:key",
            nullptr, &key_commands::object_encoding},
    Command{"object|refcount", 3, kReadOnly, {2, 2, 1, "RO"}, "generic", "2.2.3", "O(1)",
            "Counts the references to a value: 1", "key:key",
            nullptr, &key_commands::object_refcount},
};

inline constexpr std::array kCommands = {
    Command{"append", 3, kWrite | kDenyOom | kFast | kLarge, {1, 1, 1, "RW insert"}, "string", "2.0.0", "O(1)",
            "Appends to a value", "key:key value:string",
            nullptr, nullptr, &string_commands::append},
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
    Command{"copy", -3, kWrite | kDenyOom | kLarge, {1, 2, 1, "RW access"}, "generic", "6.2.0", "O(1)",
            "Copies a value to another key", "source:key destination:key options:string:optional:multiple",
            nullptr, nullptr, &key_commands::copy},
    Command{"dbsize", 1, kReadOnly | kFast, {}, "server", "1.0.0", "O(1)",
            "Counts the keys", "",
            nullptr, &key_commands::dbsize},
    Command{"decr", 2, kWrite | kDenyOom | kFast, {1, 1, 1, "RW access update"}, "string", "1.0.0", "O(1)",
            "Subtracts 1 from a number", "key:key",
            nullptr, nullptr, &string_commands::decr},
    Command{"decrby", 3, kWrite | kDenyOom | kFast, {1, 1, 1, "RW access update"}, "string", "1.0.0", "O(1)",
            "Subtracts from a number", "key:key decrement:integer",
            nullptr, nullptr, &string_commands::decrby},
    Command{"del", -2, kWrite, {1, -1, 1, "RM delete"}, "generic", "1.0.0", "O(N) where N is the number of keys",
            "Deletes keys, all of them or none, and counts those that were there", "key:key:multiple",
            nullptr, nullptr, &key_commands::del},
    Command{"delex", -2, kWrite | kFast, {1, 1, 1, "RW access delete"}, "string", "8.4.0", "O(1)",
            "Deletes a key if its value is, or is not, the given one", "key:key condition:string:optional value:string:optional",
            nullptr, nullptr, &string_commands::delex},
    Command{"discard", 1, detail::kTransaction | kFast | kAllowBusy, {}, "transactions", "2.0.0",
            "O(1)",
            "Forgets the queued commands", "", &connection_commands::discard},
    Command{"echo", 2, detail::kAbout | kFast, {}, "connection", "1.0.0", "O(1)",
            "Answers with its argument", "message:string", &connection_commands::echo},
    Command{"exec", 1, detail::kTransaction | kSkipSlowlog, {}, "transactions", "1.2.0", "O(1)",
            "Executes the queued commands, all of them or none", "", &connection_commands::exec},
    Command{"exists", -2, kReadOnly | kFast, {1, -1, 1, "RO"}, "generic", "1.0.0", "O(N) where N is the number of keys",
            "Counts the keys that exist, repeats included", "key:key:multiple",
            nullptr, &key_commands::exists},
    Command{"expire", -3, kWrite | kFast | kLarge, {1, 1, 1, "RW update"}, "generic", "1.0.0", "O(1)",
            "Sets when a key expires, in seconds from now", "key:key seconds:integer condition:string:optional",
            nullptr, nullptr, &key_commands::expire},
    Command{"expireat", -3, kWrite | kFast | kLarge, {1, 1, 1, "RW update"}, "generic", "1.2.0", "O(1)",
            "Sets when a key expires, in seconds since 1970", "key:key unix-time-seconds:unix-time condition:string:optional",
            nullptr, nullptr, &key_commands::expireat},
    Command{"expiretime", 2, kReadOnly | kFast, {1, 1, 1, "RO access"}, "generic", "7.0.0", "O(1)",
            "Tells when a key expires, in seconds since 1970", "key:key",
            nullptr, &key_commands::expiretime},
    Command{"flushall", -1, kWrite, {}, "server", "1.0.0", "O(1)",
            "Deletes all keys", "flush-type:string:optional",
            nullptr, nullptr, &key_commands::flush},
    Command{"flushdb", -1, kWrite, {}, "server", "1.0.0", "O(1)",
            "Deletes all keys", "flush-type:string:optional",
            nullptr, nullptr, &key_commands::flush},
    Command{"get", 2, kReadOnly | kFast | kLarge, {1, 1, 1, "RO access"}, "string", "1.0.0", "O(1)",
            "Gets the value of a key", "key:key",
            nullptr, &string_commands::get},
    Command{"getdel", 2, kWrite | kFast | kLarge, {1, 1, 1, "RW access delete"}, "string", "6.2.0", "O(1)",
            "Gets the value of a key and deletes it", "key:key",
            nullptr, nullptr, &string_commands::getdel},
    Command{"getex", -2, kWrite | kFast | kLarge, {1, 1, 1, "RW access update"}, "string", "6.2.0", "O(1)",
            "Gets the value of a key and sets when it expires", "key:key expiration:string:optional",
            nullptr, nullptr, &string_commands::getex},
    Command{"getrange", 4, kReadOnly | kLarge, {1, 1, 1, "RO access"}, "string", "2.4.0", "O(N) where N is the length of the result",
            "Gets a part of a value", "key:key start:integer end:integer",
            nullptr, &string_commands::getrange},
    Command{"getset", 3, kWrite | kDenyOom | kFast | kLarge, {1, 1, 1, "RW access update"}, "string", "1.0.0", "O(1)",
            "Gets the value of a key and sets another", "key:key value:string",
            nullptr, nullptr, &string_commands::getset},
    Command{"hello", -1, detail::kAlways, {}, "connection", "6.0.0", "O(1)",
            "Greets the server and chooses the protocol", "protover:integer:optional",
            &connection_commands::hello},
    Command{"incr", 2, kWrite | kDenyOom | kFast, {1, 1, 1, "RW access update"}, "string", "1.0.0", "O(1)",
            "Adds 1 to a number", "key:key",
            nullptr, nullptr, &string_commands::incr},
    Command{"incrby", 3, kWrite | kDenyOom | kFast, {1, 1, 1, "RW access update"}, "string", "1.0.0", "O(1)",
            "Adds to a number", "key:key increment:integer",
            nullptr, nullptr, &string_commands::incrby},
    Command{"incrbyfloat", 3, kWrite | kDenyOom | kFast, {1, 1, 1, "RW access update"}, "string", "2.6.0", "O(1)",
            "Adds to a number with a fraction", "key:key increment:double",
            nullptr, nullptr, &string_commands::incrbyfloat},
    Command{"info", -1, kLoading | kStale | kDangerous, {}, "server", "1.0.0", "O(1)",
            "Tells about the node", "section:string:optional:multiple", &server_commands::info},
    Command{"keys", 2, kReadOnly | kDangerous | kScan | kNoMulti, {}, "generic", "1.0.0", "O(N) where N is the number of keys",
            "Lists the keys that match a pattern", "pattern:pattern",
            nullptr, &key_commands::keys},
    Command{"latency", -2, 0, {}, "server", "2.8.13", "Depends on subcommand.",
            "A container for commands about what took long", "", nullptr, nullptr, nullptr, nullptr,
            kLatencyCommands},
    Command{"memory", -2, 0, {}, "server", "4.0.0", "Depends on subcommand.",
            "A container for commands about memory", "", nullptr, nullptr, nullptr, nullptr,
            kMemoryCommands},
    Command{"mget", -2, kReadOnly | kFast | kLarge, {1, -1, 1, "RO access"}, "string", "1.0.0", "O(N) where N is the number of keys",
            "Gets the values of keys", "key:key:multiple",
            nullptr, &string_commands::mget},
    Command{"mset", -3, kWrite | kDenyOom, {1, -1, 2, "OW update"}, "string", "1.0.1", "O(N) where N is the number of keys",
            "Sets the values of keys, all of them or none", "key:key value:string pairs:string:optional:multiple",
            nullptr, nullptr, &string_commands::mset},
    Command{"msetnx", -3, kWrite | kDenyOom, {1, -1, 2, "OW insert"}, "string", "1.0.1", "O(N) where N is the number of keys",
            "Sets the values of keys if none of them exists", "key:key value:string pairs:string:optional:multiple",
            nullptr, nullptr, &string_commands::msetnx},
    Command{"multi", 1, detail::kTransaction | kFast | kAllowBusy, {}, "transactions", "1.2.0",
            "O(1)",
            "Queues the commands that follow, for EXEC", "", &connection_commands::multi},
    Command{"object", -2, 0, {}, "generic", "2.2.3", "Depends on subcommand.",
            "A container for commands about what keys hold", "", nullptr, nullptr, nullptr, nullptr,
            kObjectCommands},
    Command{"persist", 2, kWrite | kFast | kLarge, {1, 1, 1, "RW update"}, "generic", "2.2.0", "O(1)",
            "Takes back when a key expires", "key:key",
            nullptr, nullptr, &key_commands::persist},
    Command{"pexpire", -3, kWrite | kFast | kLarge, {1, 1, 1, "RW update"}, "generic", "2.6.0", "O(1)",
            "Sets when a key expires, in milliseconds from now", "key:key milliseconds:integer condition:string:optional",
            nullptr, nullptr, &key_commands::pexpire},
    Command{"pexpireat", -3, kWrite | kFast | kLarge, {1, 1, 1, "RW update"}, "generic", "2.6.0", "O(1)",
            "Sets when a key expires, in milliseconds since 1970", "key:key unix-time-milliseconds:unix-time condition:string:optional",
            nullptr, nullptr, &key_commands::pexpireat},
    Command{"pexpiretime", 2, kReadOnly | kFast, {1, 1, 1, "RO access"}, "generic", "7.0.0", "O(1)",
            "Tells when a key expires, in milliseconds since 1970", "key:key",
            nullptr, &key_commands::pexpiretime},
    Command{"ping", -1, kFast | kAboutConnection, {}, "connection", "1.0.0", "O(1)",
            "Answers PONG, or with its argument", "message:string:optional",
            &connection_commands::ping},
    Command{"psetex", 4, kWrite | kDenyOom, {1, 1, 1, "OW update"}, "string", "2.6.0", "O(1)",
            "Sets the value of a key and when it expires, in milliseconds", "key:key milliseconds:integer value:string",
            nullptr, nullptr, &string_commands::psetex},
    Command{"pttl", 2, kReadOnly | kFast, {1, 1, 1, "RO access"}, "generic", "2.6.0", "O(1)",
            "Tells in how many milliseconds a key expires", "key:key",
            nullptr, &key_commands::pttl},
    Command{"quit", -1, detail::kAlways, {}, "connection", "1.0.0", "O(1)",
            "Closes the connection", "", &connection_commands::quit},
    Command{"randomkey", 1, kReadOnly | kScan | kNoMulti, {}, "generic", "1.0.0", "O(1)",
            "Names a key at random", "",
            nullptr, &key_commands::randomkey},
    Command{"readonly", 1, detail::kAbout | kFast, {}, "cluster", "3.0.0", "O(1)",
            "Allows reads on a replica, where follower reads are on", "",
            &connection_commands::read_only},
    Command{"readwrite", 1, detail::kAbout | kFast, {}, "cluster", "3.0.0", "O(1)",
            "Takes READONLY back", "", &connection_commands::read_write},
    Command{"rename", 3, kWrite | kLarge, {1, 2, 1, "RW access"}, "generic", "1.0.0", "O(1)",
            "Gives a key another name", "key:key newkey:key",
            nullptr, nullptr, &key_commands::rename},
    Command{"renamenx", 3, kWrite | kFast | kLarge, {1, 2, 1, "RW access"}, "generic", "1.0.0", "O(1)",
            "Gives a key another name if nothing has it", "key:key newkey:key",
            nullptr, nullptr, &key_commands::renamenx},
    Command{"reset", 1, detail::kAlways, {}, "connection", "6.2.0", "O(1)",
            "Makes the connection as new", "", &connection_commands::reset},
    Command{"scan", -2, kReadOnly | kScan | kNoMulti, {}, "generic", "2.8.0", "O(1) for each call",
            "Lists keys, some at a time", "cursor:integer options:string:optional:multiple",
            nullptr, &key_commands::scan},
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
    Command{"set", -3, kWrite | kDenyOom, {1, 1, 1, "RW access update variable_flags"}, "string", "1.0.0", "O(1)",
            "Sets the value of a key", "key:key value:string options:string:optional:multiple",
            nullptr, nullptr, &string_commands::set},
    Command{"setex", 4, kWrite | kDenyOom, {1, 1, 1, "OW update"}, "string", "2.0.0", "O(1)",
            "Sets the value of a key and when it expires, in seconds", "key:key seconds:integer value:string",
            nullptr, nullptr, &string_commands::setex},
    Command{"setnx", 3, kWrite | kDenyOom | kFast, {1, 1, 1, "OW insert"}, "string", "1.0.0", "O(1)",
            "Sets the value of a key that does not exist", "key:key value:string",
            nullptr, nullptr, &string_commands::setnx},
    Command{"setrange", 4, kWrite | kDenyOom | kLarge, {1, 1, 1, "RW update"}, "string", "2.2.0", "O(1)",
            "Writes over a part of a value", "key:key offset:integer value:string",
            nullptr, nullptr, &string_commands::setrange},
    Command{"shutdown", -1, kNoScript | detail::kOperator | kNoMulti | kAllowBusy, {}, "server",
            "1.0.0", "Waits for what is under way",
            "Ends this node in good order", "option:string:optional:multiple",
            &operator_commands::shutdown},
    Command{"slowlog", -2, 0, {}, "server", "2.2.12", "Depends on subcommand.",
            "A container for commands about the slow log", "", nullptr, nullptr, nullptr, nullptr,
            kSlowLogCommands},
    Command{"strlen", 2, kReadOnly | kFast, {1, 1, 1, "RO"}, "string", "2.2.0", "O(1)",
            "Tells the length of a value", "key:key",
            nullptr, &string_commands::strlen},
    Command{"substr", 4, kReadOnly | kLarge, {1, 1, 1, "RO access"}, "string", "1.0.0", "O(N) where N is the length of the result",
            "Gets a part of a value", "key:key start:integer end:integer",
            nullptr, &string_commands::getrange},
    Command{"time", 1, kLoading | kStale | kFast, {}, "server", "2.6.0", "O(1)",
            "Tells the time of this machine", "", &operator_commands::time},
    Command{"touch", -2, kReadOnly | kFast, {1, -1, 1, "RO"}, "generic", "3.2.1", "O(N) where N is the number of keys",
            "Counts the keys that exist", "key:key:multiple",
            nullptr, &key_commands::exists},
    Command{"ttl", 2, kReadOnly | kFast, {1, 1, 1, "RO access"}, "generic", "1.0.0", "O(1)",
            "Tells in how many seconds a key expires", "key:key",
            nullptr, &key_commands::ttl},
    Command{"type", 2, kReadOnly | kFast, {1, 1, 1, "RO"}, "generic", "1.0.0", "O(1)",
            "Tells what a key holds", "key:key",
            nullptr, &key_commands::type},
    Command{"unlink", -2, kWrite | kFast, {1, -1, 1, "RM delete"}, "generic", "4.0.0", "O(N) where N is the number of keys",
            "Deletes keys, as DEL", "key:key:multiple",
            nullptr, nullptr, &key_commands::del},
    Command{"unwatch", 1, detail::kTransaction | kFast | kAllowBusy, {}, "transactions", "2.2.0", "O(1)",
            "Forgets the watched keys", "",
            &connection_commands::unwatch},
    Command{"wait", 3, kNoScript | kAboutConnection | kWaitsForReplies, {}, "generic", "3.0.0", "O(1)",
            "Counts the other voters that are known to have all that was acknowledged",
            "numreplicas:integer timeout:integer", &operator_commands::wait},
    Command{"watch", -2, kReadOnly | detail::kTransaction | kFast | kAllowBusy, {1, -1, 1, "RO"}, "transactions", "2.2.0", "O(N) where N is the number of keys",
            "Has EXEC do nothing if one of these keys changes", "key:key:multiple",
            nullptr, &key_commands::watch},
};
// clang-format on

inline constexpr CommandNames<256> kCommandNames{kCommands};
static_assert(kCommands.size() <= 128, "give the names twice as many places as there are commands");

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
  if (!arity_fits(*command, args.size())) return refuse(wrong_arity_text(command->name));
  if (!session.authenticated && (command->flags & kNoAuth) == 0) return refuse(kNoAuthText);
  if (asks_for_help) {
    help(named, reply);
    return nullptr;
  }
  const std::string_view too_large = detail::size_error(*command, args, limits);
  return too_large.empty() ? command : refuse(too_large);
}

inline const Command* find(Args args) {
  return args.empty() ? nullptr : named_by(kCommandNames.find(args[0]), args);
}

// RESP3 and RESP2 write nulls in different ways, and what holds them; all else is the same here.
inline void reply_resp3(std::string_view resp3, resp::Writer& reply) {
  if (reply.protocol() == resp::Protocol::kResp3 || (resp3[0] != '_' && resp3[0] != '*')) {
    return reply.raw(resp3);
  }
  resp::ReplyParser parser(resp::Limits::none());
  const resp::Status status = parser.parse(resp3);
  raft::require(status == resp::Status::kComplete, "what was applied has no whole reply");
  resp::write(reply, parser.value());
}

inline void reply_outcome(const Outcome& outcome, resp::Writer& reply) {
  switch (outcome.kind) {
    case Outcome::Kind::kInteger:
      return reply.integer(outcome.integer);
    case Outcome::Kind::kReply:
      return reply_resp3(outcome.reply, reply);
    case Outcome::Kind::kNone:
      return reply.null_array();
    case Outcome::Kind::kOk:
      break;
  }
  reply.simple_string("OK");
}

// ---- Writes -------------------------------------------------------------------------------------

inline std::string check_write(const Command& command, Args args, const Limits& limits) {
  std::string problem;
  resp::Writer reply(problem, resp::Protocol::kResp2);
  WriteCall call{nullptr, command.name, args, limits.max_value_size_bytes, reply};
  command.write(call);
  return problem;
}

namespace detail {

// The command that may stand in an entry; nullptr: it may not, or does not fit the limits.
inline const Command* applicable(Args args, const Limits& limits) {
  if (args.empty()) return nullptr;
  Session session;
  session.authenticated = true;
  std::string problem;
  resp::Writer reply(problem, resp::Protocol::kResp2);
  const Command* command = check(args, limits, session, reply);
  return command != nullptr && command->local == nullptr && command->admin == nullptr ? command
                                                                                      : nullptr;
}

inline bool is_proposable_transaction(const Operation& operation, const Limits& limits) {
  const auto transaction = read_transaction(operation.arguments);
  if (!transaction || transaction->watched.size() > TransactionQueue::kMaxWatched) return false;
  const auto watchable = [&](const auto& watched) {
    return watched.first.size() <= limits.max_key_size_bytes;
  };
  const auto runnable = [&](const auto& args) {
    const Command* command = applicable(args, limits);
    return command != nullptr && (command->flags & kNoMulti) == 0 &&
           command->read != &key_commands::watch;
  };
  return std::ranges::all_of(transaction->watched, watchable) &&
         std::ranges::all_of(transaction->commands, runnable);
}

}  // namespace detail

inline bool is_proposable(const Operation& operation, const Limits& limits) {
  const std::vector<std::string_view>& arguments = operation.arguments;
  if (operation.max_value_size_bytes > limits.max_value_size_bytes) return false;
  const auto as_command = [&](std::string_view name) {
    std::vector<std::string_view> args = {name};
    args.insert(args.end(), arguments.begin(), arguments.end());
    return detail::applicable(args, limits) != nullptr;
  };
  switch (operation.type) {
    case OperationType::kSet:
      return arguments.size() == 2 && as_command("set");
    case OperationType::kDelete:
      return as_command("del");
    case OperationType::kCommand: {
      const Command* command = detail::applicable(arguments, limits);
      return command != nullptr && command->write != nullptr;
    }
    case OperationType::kTransaction:
      return detail::is_proposable_transaction(operation, limits);
    case OperationType::kTime:
      return arguments.empty();
    default:
      return false;
  }
}

inline bool is_outcome(const Outcome& outcome, bool of_transaction, std::size_t replies) {
  if (outcome.kind == Outcome::Kind::kNone) return of_transaction;
  if (outcome.kind != Outcome::Kind::kReply) return !of_transaction;
  std::string_view rest = outcome.reply;
  for (std::size_t i = 0; i < replies; ++i) {
    resp::ReplyParser parser(resp::Limits::none());
    if (parser.parse(rest) != resp::Status::kComplete) return false;
    rest.remove_prefix(parser.consumed());
  }
  return rest.empty();
}

// SET and DEL without options are what version 1 of operations has.
inline Operation operation_of(const Command& command, Args args, const Limits& limits) {
  Operation operation;
  const bool is_delete = command.write == &key_commands::del;
  if (is_delete || (command.write == &string_commands::set && args.size() == 3)) {
    operation.type = is_delete ? OperationType::kDelete : OperationType::kSet;
    operation.arguments.assign(args.begin() + 1, args.end());
    return operation;
  }
  operation.type = OperationType::kCommand;
  operation.max_value_size_bytes = limits.max_value_size_bytes;
  operation.arguments.assign(args.begin(), args.end());
  return operation;
}

inline bool apply_command(const CommandToApply& to_apply) {
  const Args args = to_apply.args;
  const Command* command = find(args);
  if (command == nullptr || !arity_fits(*command, args.size())) return false;
  resp::Writer reply(to_apply.reply, resp::Protocol::kResp3);
  if (command->write != nullptr) {
    WriteCall call{&to_apply.keys, command->name, args, to_apply.max_value_size_bytes, reply};
    command->write(call);
    return true;
  }
  if (command->read == nullptr) return false;
  ReadScratch scratch;
  const ReadTimes times{to_apply.keys.now_ms(), to_apply.keys.now_ms()};
  ReadCall call{to_apply.keys.batch(), args, 0, scratch, times};
  call.first_key = kNoKey;
  call.key_count = to_apply.keys.key_count();
  if (command->read(call, reply) != Lookup::kFound) to_apply.keys.fail();
  return true;
}

}  // namespace seshat::kv

#endif  // SESHAT_KV_HPP
