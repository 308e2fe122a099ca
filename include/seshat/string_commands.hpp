// seshat/string_commands.hpp - GET, SET, INCR and the like: what reads and changes values.
//
// Semantics, replies and error texts are those of Redis 7.0; IFEQ, IFNE and DELEX those of Redis 8.4.
// A function that writes runs twice: before the command is proposed, without a Keyspace, to find what
// is wrong with its arguments; and when its log entry is applied, on every replica.
//
// Threads: functions that read run wherever their map allows, those that write where entries are
//          applied. Needs: command.hpp, decimal.hpp.
#ifndef SESHAT_STRING_COMMANDS_HPP
#define SESHAT_STRING_COMMANDS_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "seshat/command.hpp"
#include "seshat/decimal.hpp"

namespace seshat::string_commands {

// Reading
[[nodiscard]] Lookup get(const ReadCall& call, resp::Writer& reply);
[[nodiscard]] Lookup mget(const ReadCall& call, resp::Writer& reply);
[[nodiscard]] Lookup strlen(const ReadCall& call, resp::Writer& reply);
[[nodiscard]] Lookup getrange(const ReadCall& call, resp::Writer& reply);

// Writing
void set(WriteCall& call);
void setnx(WriteCall& call);
void setex(WriteCall& call);
void psetex(WriteCall& call);
void getset(WriteCall& call);
void getdel(WriteCall& call);
void getex(WriteCall& call);
void delex(WriteCall& call);
void mset(WriteCall& call);
void msetnx(WriteCall& call);
void append(WriteCall& call);
void setrange(WriteCall& call);
void incr(WriteCall& call);
void decr(WriteCall& call);
void incrby(WriteCall& call);
void decrby(WriteCall& call);
void incrbyfloat(WriteCall& call);

// =================================================================================================
// Bodies
// =================================================================================================

namespace detail {

inline constexpr std::string_view kSyntaxError = "ERR syntax error";
inline constexpr std::string_view kNotAnInteger = "ERR value is not an integer or out of range";
inline constexpr std::string_view kNotAFloat = "ERR value is not a valid float";
inline constexpr std::string_view kValueTooLarge = "ERR value too large";
// Redis' proto-max-bulk-len: beyond it, its own text.
inline constexpr std::uint64_t kRedisMaxValueBytes = 512ULL << 20;

// Of one MGET: more is asked for in several.
inline constexpr std::size_t kMaxReplyBytes = 256U << 20;

// True: a value may have this size; else the error was written.
inline bool fits(const WriteCall& call, std::uint64_t size_bytes) {
  if (size_bytes <= call.max_value_size_bytes) return true;
  call.reply.error(size_bytes > kRedisMaxValueBytes
                       ? "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
                       : kValueTooLarge);
  return false;
}

inline std::optional<std::int64_t> integer(const WriteCall& call, std::string_view text) {
  const auto number = resp::parse_integer(text);
  if (!number) call.reply.error(kNotAnInteger);
  return number;
}

// ---- Options of SET and GETEX

struct SetOptions {
  bool nx = false;
  bool xx = false;
  bool get = false;
  bool keep_ttl = false;
  bool persist = false;
  std::optional<std::string_view> if_equal;
  std::optional<std::string_view> if_not_equal;
  std::optional<ExpireTime> expire;
};

enum class OptionsOf : std::uint8_t { kSet, kGetex };

// Redis' rules of what goes with what: one time or KEEPTTL or PERSIST, one condition.
inline bool parse_options(Args args, std::size_t from, OptionsOf of, SetOptions& options) {
  const bool is_set = of == OptionsOf::kSet;
  for (std::size_t i = from; i < args.size(); ++i) {
    const std::string_view name = args[i];
    const bool has_next = i + 1 < args.size();
    const bool no_condition =
        !options.nx && !options.xx && !options.if_equal && !options.if_not_equal;
    const bool no_other_ttl = !options.keep_ttl && !options.persist;
    const std::optional<ExpireTime::Kind> kind = expire_kind_of(name);
    if (is_set && equals_ignoring_case(name, "nx") && (options.nx || no_condition)) {
      options.nx = true;
    } else if (is_set && equals_ignoring_case(name, "xx") && (options.xx || no_condition)) {
      options.xx = true;
    } else if (is_set && equals_ignoring_case(name, "ifeq") && no_condition && has_next) {
      options.if_equal = args[++i];
    } else if (is_set && equals_ignoring_case(name, "ifne") && no_condition && has_next) {
      options.if_not_equal = args[++i];
    } else if (is_set && equals_ignoring_case(name, "get")) {
      options.get = true;
    } else if (is_set && equals_ignoring_case(name, "keepttl") && !options.expire) {
      options.keep_ttl = true;
    } else if (!is_set && equals_ignoring_case(name, "persist") && !options.expire) {
      options.persist = true;
    } else if (kind && has_next && no_other_ttl &&
               (!options.expire || options.expire->kind == *kind)) {
      options.expire = ExpireTime{*kind, args[++i]};
    } else {
      return false;
    }
  }
  return true;
}

// Whether the conditions hold for what is there; `value` is null where nothing is.
inline bool conditions_hold(const SetOptions& options, const StoredValue* value) {
  if (options.nx) return value == nullptr;
  if (options.xx) return value != nullptr;
  if (options.if_equal) return value != nullptr && value->data == *options.if_equal;
  if (options.if_not_equal) return value == nullptr || value->data != *options.if_not_equal;
  return true;
}

inline void reply_value(resp::Writer& reply, const StoredValue* value) {
  if (value == nullptr) return reply.null();
  reply.bulk(value->data);
}

// SETEX and PSETEX.
inline void set_with_time(WriteCall& call, ExpireTime::Kind kind) {
  const auto expires_at_ms = expire_time(call, ExpireTime{kind, call.args[2]});
  if (!expires_at_ms || call.checking()) return;
  call.keys->put(call.args[1], call.args[3], *expires_at_ms);
  call.reply.simple_string("OK");
}

inline void add(WriteCall& call, std::int64_t increment) {
  if (call.checking()) return;
  std::int64_t number = 0;
  std::optional<std::uint64_t> expires_at_ms;
  if (const StoredValue* value = call.keys->get(call.args[1])) {
    const auto parsed = resp::parse_integer(value->data);
    if (!parsed) return call.reply.error(kNotAnInteger);
    number = *parsed;
    expires_at_ms = value->expires_at_ms;
  }
  std::int64_t total = 0;
  if (__builtin_add_overflow(number, increment, &total)) {
    return call.reply.error("ERR increment or decrement would overflow");
  }
  call.keys->put(call.args[1], std::to_string(total), expires_at_ms);
  call.reply.integer(total);
}

}  // namespace detail

// ---- Reading ------------------------------------------------------------------------------------

inline Lookup get(const ReadCall& call, resp::Writer& reply) {
  StoredValue value;
  const Lookup lookup = call.get(call.args[1], value);
  if (lookup == Lookup::kFound) reply.bulk(value.data);
  if (lookup == Lookup::kAbsent) reply.null();
  return call.answered(lookup);
}

// All or nothing: what was written of the reply is taken back where a value is not in memory.
inline Lookup mget(const ReadCall& call, resp::Writer& reply) {
  const std::size_t begin = reply.size();
  bool fits = true;
  reply.array(call.args.size() - 1);
  const Lookup lookup = call.get_all(call.args.subspan(1), [&](const StoredValue* value) {
    fits = reply.size() - begin <= detail::kMaxReplyBytes;
    if (fits) value != nullptr ? reply.bulk(value->data) : reply.null();
    return fits;
  });
  if (lookup == Lookup::kFound && fits) return lookup;
  reply.cut_back(begin);
  if (!fits) reply.error("ERR reply too large: ask for fewer keys at once");
  return lookup;
}

inline Lookup strlen(const ReadCall& call, resp::Writer& reply) {
  StoredValue value;
  const Lookup lookup = call.get(call.args[1], value);
  if (lookup == Lookup::kFound) reply.integer(static_cast<std::int64_t>(value.data.size()));
  if (lookup == Lookup::kAbsent) reply.integer(0);
  return call.answered(lookup);
}

inline Lookup getrange(const ReadCall& call, resp::Writer& reply) {
  const auto first = resp::parse_integer(call.args[2]);
  const auto last = resp::parse_integer(call.args[3]);
  if (!first || !last) {
    reply.error(detail::kNotAnInteger);
    return Lookup::kFound;
  }
  StoredValue value;
  const Lookup lookup = call.get(call.args[1], value);
  if (lookup == Lookup::kAbsent) reply.bulk("");
  if (lookup != Lookup::kFound) return call.answered(lookup);
  const auto size = static_cast<std::int64_t>(value.data.size());
  std::int64_t begin = *first;
  std::int64_t end = *last;
  const bool backwards = begin < 0 && end < 0 && begin > end;
  if (begin < 0) begin = std::max<std::int64_t>(0, begin + size);
  if (end < 0) end = std::max<std::int64_t>(0, end + size);
  end = std::min(end, size - 1);
  if (backwards || begin > end || size == 0) {
    reply.bulk("");
  } else {
    reply.bulk(value.data.substr(static_cast<std::size_t>(begin),
                                 static_cast<std::size_t>(end - begin + 1)));
  }
  return Lookup::kFound;
}

// ---- Setting ------------------------------------------------------------------------------------

inline void set(WriteCall& call) {
  detail::SetOptions options;
  if (!detail::parse_options(call.args, 3, detail::OptionsOf::kSet, options)) {
    return call.reply.error(detail::kSyntaxError);
  }
  std::optional<std::uint64_t> expires_at_ms;
  if (options.expire) {
    expires_at_ms = expire_time(call, *options.expire);
    if (!expires_at_ms) return;
  }
  if (call.checking()) return;
  const StoredValue* before = call.keys->get(call.args[1]);
  if (options.get) detail::reply_value(call.reply, before);
  if (!detail::conditions_hold(options, before)) {
    if (!options.get) call.reply.null();
    return;
  }
  if (options.keep_ttl && before != nullptr) expires_at_ms = before->expires_at_ms;
  call.keys->put(call.args[1], call.args[2], expires_at_ms);
  if (!options.get) call.reply.simple_string("OK");
}

inline void setnx(WriteCall& call) {
  if (call.checking()) return;
  const bool absent = call.keys->get(call.args[1]) == nullptr;
  if (absent) call.keys->put(call.args[1], call.args[2], std::nullopt);
  call.reply.integer(absent ? 1 : 0);
}

inline void setex(WriteCall& call) { detail::set_with_time(call, ExpireTime::Kind::kSeconds); }
inline void psetex(WriteCall& call) {
  detail::set_with_time(call, ExpireTime::Kind::kMilliseconds);
}

inline void getset(WriteCall& call) {
  if (call.checking()) return;
  detail::reply_value(call.reply, call.keys->get(call.args[1]));
  call.keys->put(call.args[1], call.args[2], std::nullopt);
}

inline void getdel(WriteCall& call) {
  if (call.checking()) return;
  const StoredValue* value = call.keys->get(call.args[1]);
  detail::reply_value(call.reply, value);
  if (value != nullptr) (void)call.keys->erase(call.args[1]);
}

// As in Redis, what is wrong with a time is only said of a key that is there.
inline void getex(WriteCall& call) {
  detail::SetOptions options;
  if (!detail::parse_options(call.args, 2, detail::OptionsOf::kGetex, options)) {
    return call.reply.error(detail::kSyntaxError);
  }
  if (call.checking()) return;
  const StoredValue* value = call.keys->get(call.args[1]);
  if (value == nullptr) return call.reply.null();
  std::optional<std::uint64_t> expires_at_ms = value->expires_at_ms;
  if (options.expire) {
    expires_at_ms = expire_time(call, *options.expire);
    if (!expires_at_ms) return;
  }
  if (options.persist) expires_at_ms.reset();
  call.reply.bulk(value->data);
  if (!options.expire && expires_at_ms == value->expires_at_ms) return;
  const std::string data(value->data);
  call.keys->put(call.args[1], data, expires_at_ms);
}

inline void delex(WriteCall& call) {
  detail::SetOptions options;
  if (call.args.size() == 4 && equals_ignoring_case(call.args[2], "ifeq")) {
    options.if_equal = call.args[3];
  } else if (call.args.size() == 4 && equals_ignoring_case(call.args[2], "ifne")) {
    options.if_not_equal = call.args[3];
  } else if (call.args.size() != 2) {
    return call.reply.error(detail::kSyntaxError);
  }
  if (call.checking()) return;
  const StoredValue* value = call.keys->get(call.args[1]);
  const bool goes = value != nullptr && detail::conditions_hold(options, value);
  if (goes) (void)call.keys->erase(call.args[1]);
  call.reply.integer(goes ? 1 : 0);
}

inline void mset(WriteCall& call) {
  if (call.args.size() % 2 == 0) return call.reply.error(wrong_arity_text("mset"));
  if (call.checking()) return;
  for (std::size_t i = 1; i < call.args.size(); i += 2) {
    call.keys->put(call.args[i], call.args[i + 1], std::nullopt);
  }
  call.reply.simple_string("OK");
}

inline void msetnx(WriteCall& call) {
  if (call.args.size() % 2 == 0) return call.reply.error(wrong_arity_text("msetnx"));
  if (call.checking()) return;
  for (std::size_t i = 1; i < call.args.size(); i += 2) {
    if (call.keys->get(call.args[i]) != nullptr) return call.reply.integer(0);
  }
  for (std::size_t i = 1; i < call.args.size(); i += 2) {
    call.keys->put(call.args[i], call.args[i + 1], std::nullopt);
  }
  call.reply.integer(1);
}

// ---- Changing a part ----------------------------------------------------------------------------

inline void append(WriteCall& call) {
  if (call.checking()) return;
  const StoredValue* value = call.keys->get(call.args[1]);
  std::string data(value != nullptr ? value->data : std::string_view());
  const auto expires_at_ms = value != nullptr ? value->expires_at_ms : std::nullopt;
  if (!detail::fits(call, data.size() + call.args[2].size())) return;
  data += call.args[2];
  call.keys->put(call.args[1], data, expires_at_ms);
  call.reply.integer(static_cast<std::int64_t>(data.size()));
}

inline void setrange(WriteCall& call) {
  const auto offset = detail::integer(call, call.args[2]);
  if (!offset) return;
  if (*offset < 0) return call.reply.error("ERR offset is out of range");
  if (call.checking()) return;
  const std::string_view part = call.args[3];
  const StoredValue* value = call.keys->get(call.args[1]);
  std::string data(value != nullptr ? value->data : std::string_view());
  if (part.empty()) return call.reply.integer(static_cast<std::int64_t>(data.size()));
  const auto expires_at_ms = value != nullptr ? value->expires_at_ms : std::nullopt;
  const auto begin = static_cast<std::uint64_t>(*offset);
  if (!detail::fits(call, begin + part.size())) return;
  if (data.size() < begin + part.size()) data.resize(begin + part.size(), '\0');
  data.replace(begin, part.size(), part);
  call.keys->put(call.args[1], data, expires_at_ms);
  call.reply.integer(static_cast<std::int64_t>(data.size()));
}

// ---- Counting -----------------------------------------------------------------------------------

inline void incr(WriteCall& call) { detail::add(call, 1); }
inline void decr(WriteCall& call) { detail::add(call, -1); }

inline void incrby(WriteCall& call) {
  if (const auto increment = detail::integer(call, call.args[2])) detail::add(call, *increment);
}

inline void decrby(WriteCall& call) {
  const auto decrement = detail::integer(call, call.args[2]);
  if (!decrement) return;
  if (*decrement == std::numeric_limits<std::int64_t>::min()) {
    return call.reply.error("ERR decrement would overflow");
  }
  detail::add(call, -*decrement);
}

inline void incrbyfloat(WriteCall& call) {
  const std::optional<Decimal> increment = Decimal::parse(call.args[2]);
  if (!increment) return call.reply.error(detail::kNotAFloat);
  if (call.checking()) return;
  const StoredValue* value = call.keys->get(call.args[1]);
  const std::optional<Decimal> before = Decimal::parse(value != nullptr ? value->data : "0");
  if (!before) return call.reply.error(detail::kNotAFloat);
  const std::optional<Decimal> total = sum(*before, *increment);
  if (!total) return call.reply.error("ERR increment would produce NaN or Infinity");
  const auto expires_at_ms = value != nullptr ? value->expires_at_ms : std::nullopt;
  const std::string text = total->text();
  call.keys->put(call.args[1], text, expires_at_ms);
  call.reply.bulk(text);
}

}  // namespace seshat::string_commands

#endif  // SESHAT_STRING_COMMANDS_HPP
