// seshat/client_commands.hpp - CLIENT LIST, KILL, PAUSE, REPLY, ...: the clients of this node.
//
// What a client says and asks of itself alone (ID, INFO, GETNAME, SETNAME, SETINFO) stands in
// connection_commands.hpp. Replies and error texts are those of Redis 7.0; what it has for tracking
// and for blocking commands is answered as a Redis whose client uses neither.
//
// Threads: the loop. Needs: command.hpp, connection_commands.hpp (the line of a client).
#ifndef SESHAT_CLIENT_COMMANDS_HPP
#define SESHAT_CLIENT_COMMANDS_HPP

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "seshat/command.hpp"
#include "seshat/connection_commands.hpp"

namespace seshat::client_commands {

void list(const Call& call);
void kill(const Call& call);
void reply(const Call& call);
void no_evict(const Call& call);
void pause(const Call& call);
void unpause(const Call& call);
void unblock(const Call& call);
void get_redir(const Call& call);
void tracking_info(const Call& call);

// =================================================================================================
// Bodies
// =================================================================================================

// ---- LIST ---------------------------------------------------------------------------------------

namespace detail {

inline std::string wrong_in_container(const Call& call) {
  return "ERR unknown subcommand or wrong number of arguments for '" +
         std::string(call.args[1].substr(0, 128)) + "'. Try CLIENT HELP.";
}

// Every client here is a normal one: replicas and other masters come in by another port, and there
// is no publish and subscribe. nullopt: no such type.
inline std::optional<bool> is_normal_type(std::string_view type) {
  if (equals_ignoring_case(type, "normal")) return true;
  constexpr std::array<std::string_view, 4> kOthers = {"slave", "replica", "master", "pubsub"};
  const bool known = std::any_of(kOthers.begin(), kOthers.end(), [&](std::string_view other) {
    return equals_ignoring_case(type, other);
  });
  return known ? std::optional<bool>(false) : std::nullopt;
}

inline std::string unknown_type_text(std::string_view type) {
  return "ERR Unknown client type '" + std::string(type.substr(0, 128)) + "'";
}

}  // namespace detail

// CLIENT LIST [TYPE type | ID id [id ...]]
inline void list(const Call& call) {
  const Args options = call.args.subspan(2);
  std::optional<std::set<std::uint64_t>> ids;
  if (options.size() == 2 && equals_ignoring_case(options[0], "type")) {
    const auto normal = detail::is_normal_type(options[1]);
    if (!normal) return call.reply().error(detail::unknown_type_text(options[1]));
    if (!*normal) ids.emplace();
  } else if (options.size() > 1 && equals_ignoring_case(options[0], "id")) {
    ids.emplace();
    for (const std::string_view text : options.subspan(1)) {
      const auto id = resp::parse_integer(text);
      if (!id) return call.reply().error("ERR Invalid client ID");
      if (*id > 0) ids->insert(static_cast<std::uint64_t>(*id));
    }
  } else if (!options.empty()) {
    return call.reply().error("ERR syntax error");
  }
  std::string lines;
  const std::uint64_t now_ms = call.site.now_ms();
  call.site.for_each_session([&](const Session& session) {
    if (ids && !ids->contains(session.id)) return;
    lines += connection_commands::detail::client_line(session, now_ms);
  });
  call.reply().verbatim("txt", lines);
}

// ---- KILL ---------------------------------------------------------------------------------------

namespace detail {

struct KillFilter {
  std::optional<std::uint64_t> id;
  std::optional<std::string_view> address;
  std::optional<std::string_view> local_address;
  std::optional<bool> normal_type;
  bool skip_me = true;

  [[nodiscard]] bool matches(const Session& session, const Session& self) const {
    if (id && session.id != *id) return false;
    if (address && session.address != *address) return false;
    if (local_address && session.local_address != *local_address) return false;
    if (normal_type && !*normal_type) return false;
    return !skip_me || &session != &self;
  }
};

// One option and its value. Empty: it was understood; else the error text.
inline std::string parse_kill_option(std::string_view option, std::string_view value,
                                     KillFilter& filter) {
  const auto is = [&](std::string_view name) { return equals_ignoring_case(option, name); };
  if (is("id")) {
    const auto id = resp::parse_integer(value);
    if (!id || *id < 1) return "ERR client-id should be greater than 0";
    filter.id = static_cast<std::uint64_t>(*id);
  } else if (is("type")) {
    filter.normal_type = is_normal_type(value);
    if (!filter.normal_type) return unknown_type_text(value);
  } else if (is("addr")) {
    filter.address = value;
  } else if (is("laddr")) {
    filter.local_address = value;
  } else if (is("user")) {
    if (value != kDefaultUser) {
      return "ERR No such user '" + std::string(value.substr(0, 128)) + "'";
    }
  } else if (is("skipme") && equals_ignoring_case(value, "yes")) {
    filter.skip_me = true;
  } else if (is("skipme") && equals_ignoring_case(value, "no")) {
    filter.skip_me = false;
  } else {
    return "ERR syntax error";
  }
  return {};
}

inline std::size_t kill_matching(const Call& call, const KillFilter& filter) {
  return call.site.kill_sessions(
      [&](const Session& session) { return filter.matches(session, call.session); }, call.session);
}

}  // namespace detail

// CLIENT KILL ip:port, or CLIENT KILL option value [option value ...]
inline void kill(const Call& call) {
  const Args options = call.args.subspan(2);
  detail::KillFilter filter;
  if (options.size() == 1) {  // the old form spares nobody
    filter.address = options[0];
    filter.skip_me = false;
    if (detail::kill_matching(call, filter) == 0) return call.reply().error("ERR No such client");
    return call.reply().simple_string("OK");
  }
  if (options.size() % 2 != 0) return call.reply().error("ERR syntax error");
  for (std::size_t i = 0; i < options.size(); i += 2) {
    const std::string error = detail::parse_kill_option(options[i], options[i + 1], filter);
    if (!error.empty()) return call.reply().error(error);
  }
  call.reply().integer(static_cast<std::int64_t>(detail::kill_matching(call, filter)));
}

// ---- REPLY, NO-EVICT ----------------------------------------------------------------------------

// ON is answered; OFF and SKIP are not, and the connection drops what comes behind them.
inline void reply(const Call& call) {
  Session& session = call.session;
  if (equals_ignoring_case(call.args[2], "on")) {
    session.replies_off = session.skips_reply = false;
    return call.reply().simple_string("OK");
  }
  if (equals_ignoring_case(call.args[2], "off")) {
    session.replies_off = true;
  } else if (equals_ignoring_case(call.args[2], "skip")) {
    session.skips_next_reply = !session.replies_off;
  } else {
    call.reply().error("ERR syntax error");
  }
}

inline void no_evict(const Call& call) {
  const bool on = equals_ignoring_case(call.args[2], "on");
  if (!on && !equals_ignoring_case(call.args[2], "off")) {
    return call.reply().error("ERR syntax error");
  }
  call.session.no_evict = on;
  call.reply().simple_string("OK");
}

// ---- PAUSE --------------------------------------------------------------------------------------

// CLIENT PAUSE ms [WRITE | ALL]
inline void pause(const Call& call) {
  if (call.args.size() > 4) return call.reply().error(detail::wrong_in_container(call));
  Door::Pause what = Door::Pause::kAll;
  if (call.args.size() == 4 && equals_ignoring_case(call.args[3], "write")) {
    what = Door::Pause::kWrites;
  } else if (call.args.size() == 4 && !equals_ignoring_case(call.args[3], "all")) {
    return call.reply().error("ERR CLIENT PAUSE mode must be WRITE or ALL");
  }
  const auto length_ms = resp::parse_integer(call.args[2]);
  // Longer than any node has run: no sum of times overflows.
  constexpr std::int64_t kMaxMs = std::int64_t{1} << 52;
  if (!length_ms || *length_ms > kMaxMs) {
    return call.reply().error("ERR timeout is not an integer or out of range");
  }
  if (*length_ms < 0) return call.reply().error("ERR timeout is negative");
  const std::uint64_t now_ms = call.site.now_ms();
  call.site.door().pause(what, now_ms + static_cast<std::uint64_t>(*length_ms), now_ms);
  call.site.pause_changed();
  call.reply().simple_string("OK");
}

inline void unpause(const Call& call) {
  call.site.door().unpause();
  call.site.pause_changed();
  call.reply().simple_string("OK");
}

// ---- What no client here ever does --------------------------------------------------------------

// CLIENT UNBLOCK id [TIMEOUT | ERROR]: no command blocks, and nobody can be woken.
inline void unblock(const Call& call) {
  if (call.args.size() > 4) return call.reply().error(detail::wrong_in_container(call));
  if (call.args.size() == 4 && !equals_ignoring_case(call.args[3], "timeout") &&
      !equals_ignoring_case(call.args[3], "error")) {
    return call.reply().error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
  }
  if (!resp::parse_integer(call.args[2])) {
    return call.reply().error("ERR value is not an integer or out of range");
  }
  call.reply().integer(0);
}

// Nobody tracks keys.
inline void get_redir(const Call& call) { call.reply().integer(-1); }

inline void tracking_info(const Call& call) {
  resp::Writer reply = call.reply();
  reply.map(3);
  reply.bulk("flags");
  reply.set(1);
  reply.bulk("off");
  reply.bulk("redirect");
  reply.integer(-1);
  reply.bulk("prefixes");
  reply.array(0);
}

}  // namespace seshat::client_commands

#endif  // SESHAT_CLIENT_COMMANDS_HPP
