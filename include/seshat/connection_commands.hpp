// seshat/connection_commands.hpp - PING, AUTH, HELLO and the like: what concerns one connection.
//
// All answer at once, from the Session, and never touch Raft. Replies and error texts are those of
// Redis 7.0.
//
// Threads: the loop. Needs: command.hpp, version.hpp.
#ifndef SESHAT_CONNECTION_COMMANDS_HPP
#define SESHAT_CONNECTION_COMMANDS_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "seshat/command.hpp"
#include "seshat/version.hpp"

namespace seshat::connection_commands {

// The Redis whose commands and replies we follow; clients choose what they send by it.
inline constexpr std::string_view kRedisVersion = "7.0.15";

void ping(const Call& call);
void echo(const Call& call);
void quit(const Call& call);
void select(const Call& call);
void auth(const Call& call);
void hello(const Call& call);
void reset(const Call& call);
void read_only(const Call& call);
void read_write(const Call& call);
void asking(const Call& call);

void client_id(const Call& call);
void client_info(const Call& call);
void client_get_name(const Call& call);
void client_set_name(const Call& call);
void client_set_info(const Call& call);

// EXEC of a transaction that touches keys, and WATCH, are connection.hpp's.
void multi(const Call& call);
void exec(const Call& call);
void discard(const Call& call);
void unwatch(const Call& call);

// =================================================================================================
// Bodies
// =================================================================================================

inline void ping(const Call& call) {
  if (call.args.size() > 2) return call.reply().error(wrong_arity_text(call.command.name));
  if (call.args.size() == 2) return call.reply().bulk(call.args[1]);
  call.reply().simple_string("PONG");
}

inline void echo(const Call& call) { call.reply().bulk(call.args[1]); }

inline void quit(const Call& call) {
  call.session.close_after_reply = true;
  call.reply().simple_string("OK");
}

inline void select(const Call& call) {
  const auto database = resp::parse_integer(call.args[1]);
  if (!database) return call.reply().error("ERR value is not an integer or out of range");
  constexpr std::int64_t kMin = std::numeric_limits<std::int32_t>::min();
  constexpr std::int64_t kMax = std::numeric_limits<std::int32_t>::max();
  if (*database < kMin || *database > kMax) {
    return call.reply().error("ERR value is out of range, value must between " +
                              std::to_string(kMin) + " and " + std::to_string(kMax));
  }
  if (*database != 0) return call.reply().error("ERR SELECT is not allowed in cluster mode");
  call.reply().simple_string("OK");
}

inline void read_only(const Call& call) {
  call.session.read_only = true;
  call.reply().simple_string("OK");
}

inline void read_write(const Call& call) {
  call.session.read_only = false;
  call.reply().simple_string("OK");
}

// No slot is ever on its way between nodes yet: there is nothing to remember.
inline void asking(const Call& call) { call.reply().simple_string("OK"); }

inline void reset(const Call& call) {
  call.session.protocol = resp::Protocol::kResp2;
  call.session.name.clear();
  call.session.authenticated = !call.site.door().needs_password();
  call.session.gave_password = call.session.no_evict = call.session.replies_off = false;
  call.session.read_only = false;
  call.session.transaction.end();
  call.reply().simple_string("RESET");
}

// ---- AUTH, HELLO --------------------------------------------------------------------------------

namespace detail {

// A password that was right, or that nobody asks for.
inline void let_in(Session& session, const Door& door) {
  session.authenticated = true;
  session.gave_password = session.gave_password || door.needs_password();
}

}  // namespace detail

// AUTH password, AUTH user password. Who was let in stays so after a wrong password, as in Redis.
inline void auth(const Call& call) {
  const Door& door = call.site.door();
  if (call.args.size() > 3) return call.reply().error("ERR syntax error");
  if (call.args.size() == 2 && !door.needs_password()) {
    return call.reply().error(
        "ERR AUTH <password> called without any password configured for the default user. Are you "
        "sure your configuration is correct?");
  }
  const std::string_view user = call.args.size() == 3 ? call.args[1] : kDefaultUser;
  if (!door.admits(user, call.args.back())) return call.reply().error(kWrongPassText);
  detail::let_in(call.session, door);
  call.reply().simple_string("OK");
}

namespace detail {

// Names are kept as long as the connection: Redis lets them grow, we don't.
inline constexpr std::size_t kMaxNameSizeBytes = 1024;

// Redis: printable, no spaces. Empty: it is fine; else the error text, about what is called `what`.
inline std::string name_error(std::string_view what, std::string_view name) {
  const auto fits = [](char c) { return c >= '!' && c <= '~'; };
  if (!std::all_of(name.begin(), name.end(), fits)) {
    return "ERR " + std::string(what) + " cannot contain spaces, newlines or special characters.";
  }
  if (name.size() <= kMaxNameSizeBytes) return {};
  return "ERR " + std::string(what) + " cannot be longer than " +
         std::to_string(kMaxNameSizeBytes) + " bytes";
}

struct HelloOptions {
  resp::Protocol protocol = resp::Protocol::kResp2;
  std::optional<std::string_view> name;
  bool let_in = false;  // by user and password
};

// An error text, or the options in `options`.
inline std::string parse_hello(Args args, const Door& door, HelloOptions& options) {
  if (args.size() < 2) return {};
  const auto version = resp::parse_integer(args[1]);
  if (!version) return "ERR Protocol version is not an integer or out of range";
  if (*version != 2 && *version != 3) return "NOPROTO unsupported protocol version";
  options.protocol = *version == 3 ? resp::Protocol::kResp3 : resp::Protocol::kResp2;
  for (std::size_t i = 2; i < args.size(); ++i) {
    if (equals_ignoring_case(args[i], "setname") && i + 1 < args.size()) {
      options.name = args[++i];
      if (auto error = name_error("Client names", *options.name); !error.empty()) return error;
    } else if (equals_ignoring_case(args[i], "auth") && i + 2 < args.size()) {
      if (!door.admits(args[i + 1], args[i + 2])) return std::string(kWrongPassText);
      options.let_in = true;
      i += 2;
    } else {
      return "ERR Syntax error in HELLO option '" + std::string(args[i].substr(0, 128)) + "'";
    }
  }
  return {};
}

inline bool leads_a_shard(const Topology& topology) {
  for (const ClusterShard& shard : topology.shards) {
    if (shard.is_led && shard.leader == topology.self) return true;
  }
  return false;
}

}  // namespace detail

inline void hello(const Call& call) {
  detail::HelloOptions options;
  options.protocol = call.session.protocol;
  const Door& door = call.site.door();
  if (const auto error = detail::parse_hello(call.args, door, options); !error.empty()) {
    return call.reply().error(error);
  }
  if (!call.session.authenticated && !options.let_in) {
    return call.reply().error(
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO "
        "AUTH <user> <pass> option can be used to authenticate the client and select the RESP "
        "protocol version at the same time");
  }
  if (options.let_in) detail::let_in(call.session, door);
  call.session.protocol = options.protocol;
  if (options.name) call.session.name = *options.name;
  resp::Writer reply = call.reply();
  reply.map(7);
  reply.bulk("server");
  reply.bulk("redis");
  reply.bulk("version");
  reply.bulk(kRedisVersion);
  reply.bulk("proto");
  reply.integer(options.protocol == resp::Protocol::kResp3 ? 3 : 2);
  reply.bulk("id");
  reply.integer(static_cast<std::int64_t>(call.session.id));
  reply.bulk("mode");
  reply.bulk("cluster");
  reply.bulk("role");
  reply.bulk(detail::leads_a_shard(call.site.topology()) ? "master" : "replica");
  reply.bulk("modules");
  reply.array(0);
}

// ---- CLIENT -------------------------------------------------------------------------------------

namespace detail {

inline std::string client_flags(const Session& session) {
  const std::string flags = std::string(session.read_only ? "r" : "") +
                            (session.close_after_reply ? "c" : "") + (session.no_evict ? "e" : "");
  return flags.empty() ? "N" : flags;
}

// One line of CLIENT LIST, with the fields of Redis that mean something here.
inline std::string client_line(const Session& session, std::uint64_t now_ms) {
  const auto seconds = [&](std::uint64_t since_ms) {
    return std::to_string((now_ms - std::min(since_ms, now_ms)) / 1000);
  };
  return "id=" + std::to_string(session.id) + " addr=" + session.address +
         " laddr=" + session.local_address + " name=" + session.name +
         " age=" + seconds(session.connected_at_ms) + " idle=" + seconds(session.last_active_ms) +
         " flags=" + client_flags(session) + " db=0 sub=0 psub=0 ssub=0 multi=-1" +
         " qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0" +
         " events=r cmd=" + std::string(session.last_command) +
         " user=default redir=-1 resp=" + (session.protocol == resp::Protocol::kResp3 ? "3" : "2") +
         " lib-name=" + session.lib_name + " lib-ver=" + session.lib_version + "\n";
}

}  // namespace detail

inline void client_id(const Call& call) {
  call.reply().integer(static_cast<std::int64_t>(call.session.id));
}

inline void client_info(const Call& call) {
  call.reply().verbatim("txt", detail::client_line(call.session, call.site.now_ms()));
}

inline void client_get_name(const Call& call) {
  if (call.session.name.empty()) return call.reply().null();
  call.reply().bulk(call.session.name);
}

inline void client_set_name(const Call& call) {
  if (const auto error = detail::name_error("Client names", call.args[2]); !error.empty()) {
    return call.reply().error(error);
  }
  call.session.name = call.args[2];
  call.reply().simple_string("OK");
}

// Redis 7.2; the libraries send it when they connect.
inline void client_set_info(const Call& call) {
  const std::string_view attribute = call.args[2];
  const bool is_name = equals_ignoring_case(attribute, "lib-name");
  if (!is_name && !equals_ignoring_case(attribute, "lib-ver")) {
    return call.reply().error("ERR Unrecognized option '" + std::string(attribute.substr(0, 128)) +
                              "'");
  }
  const std::string_view what = is_name ? "lib-name" : "lib-ver";
  if (const auto error = detail::name_error(what, call.args[3]); !error.empty()) {
    return call.reply().error(error);
  }
  (is_name ? call.session.lib_name : call.session.lib_version) = call.args[3];
  call.reply().simple_string("OK");
}

// ---- MULTI --------------------------------------------------------------------------------------

inline void multi(const Call& call) {
  if (call.session.transaction.active()) {
    return call.reply().error("ERR MULTI calls can not be nested");
  }
  call.session.transaction.begin();
  call.reply().simple_string("OK");
}

inline void exec(const Call& call) {
  const TransactionQueue& transaction = call.session.transaction;
  if (!transaction.active()) return call.reply().error("ERR EXEC without MULTI");
  const bool broken = transaction.broken();
  call.session.transaction.end();
  if (broken) {
    return call.reply().error("EXECABORT Transaction discarded because of previous errors.");
  }
  call.reply().array(0);
}

inline void discard(const Call& call) {
  if (!call.session.transaction.active()) return call.reply().error("ERR DISCARD without MULTI");
  call.session.transaction.end();
  call.reply().simple_string("OK");
}

inline void unwatch(const Call& call) {
  call.session.transaction.unwatch();
  call.reply().simple_string("OK");
}

}  // namespace seshat::connection_commands

#endif  // SESHAT_CONNECTION_COMMANDS_HPP
