// seshat/key_commands.hpp - DEL, EXPIRE, RENAME, SCAN and the like: what concerns keys, whatever they hold.
//
// Semantics, replies and error texts are those of Redis 7.0.
//
// Threads: functions that read run wherever their map allows, those that write where entries are
//          applied. Needs: command.hpp, string_commands.hpp, glob.hpp.
#ifndef SESHAT_KEY_COMMANDS_HPP
#define SESHAT_KEY_COMMANDS_HPP

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "seshat/command.hpp"
#include "seshat/glob.hpp"
#include "seshat/string_commands.hpp"

namespace seshat::key_commands {

// Reading
[[nodiscard]] Lookup exists(const ReadCall& call, resp::Writer& reply);  // and TOUCH
[[nodiscard]] Lookup type(const ReadCall& call, resp::Writer& reply);
[[nodiscard]] Lookup ttl(const ReadCall& call, resp::Writer& reply);
[[nodiscard]] Lookup pttl(const ReadCall& call, resp::Writer& reply);
[[nodiscard]] Lookup expiretime(const ReadCall& call, resp::Writer& reply);
[[nodiscard]] Lookup pexpiretime(const ReadCall& call, resp::Writer& reply);
[[nodiscard]] Lookup dbsize(const ReadCall& call, resp::Writer& reply);
[[nodiscard]] Lookup object_encoding(const ReadCall& call, resp::Writer& reply);
[[nodiscard]] Lookup object_refcount(const ReadCall& call, resp::Writer& reply);
[[nodiscard]] Lookup memory_usage(const ReadCall& call, resp::Writer& reply);
// A watch token a key, as integers: mod_index, there, last_removal.
[[nodiscard]] Lookup watch(const ReadCall& call, resp::Writer& reply);

// Reading all keys: on the pool
[[nodiscard]] Lookup keys(const ReadCall& call, resp::Writer& reply);
[[nodiscard]] Lookup scan(const ReadCall& call, resp::Writer& reply);
[[nodiscard]] Lookup randomkey(const ReadCall& call, resp::Writer& reply);
[[nodiscard]] Lookup count_keys_in_slot(const ReadCall& call, resp::Writer& reply);
[[nodiscard]] Lookup get_keys_in_slot(const ReadCall& call, resp::Writer& reply);

// Writing
void del(WriteCall& call);  // and UNLINK
void expire(WriteCall& call);
void pexpire(WriteCall& call);
void expireat(WriteCall& call);
void pexpireat(WriteCall& call);
void persist(WriteCall& call);
void rename(WriteCall& call);
void renamenx(WriteCall& call);
void copy(WriteCall& call);
void flush(WriteCall& call);

// =================================================================================================
// Bodies
// =================================================================================================

namespace detail {

using string_commands::detail::kNotAnInteger;
using string_commands::detail::kSyntaxError;

enum class Unit : std::uint8_t { kSeconds, kMilliseconds };

// TTL and its kin: -2 of an absent key, -1 of one that does not expire.
template <class Time>
Lookup reply_time(const ReadCall& call, resp::Writer& reply, Unit unit, Time time) {
  StoredValue value;
  const Lookup lookup = call.get(call.args[1], value);
  if (lookup == Lookup::kAbsent) reply.integer(-2);
  if (lookup != Lookup::kFound) return call.answered(lookup);
  if (!value.expires_at_ms) {
    reply.integer(-1);
  } else {
    const std::uint64_t ms = time(*value.expires_at_ms);
    reply.integer(static_cast<std::int64_t>(unit == Unit::kSeconds ? (ms + 500) / 1000 : ms));
  }
  return Lookup::kFound;
}

inline Lookup reply_ttl(const ReadCall& call, resp::Writer& reply, Unit unit) {
  const std::uint64_t now_ms = call.times().latest_ms();
  return reply_time(call, reply, unit, [&](std::uint64_t expires_at_ms) {
    return expires_at_ms - std::min(expires_at_ms, now_ms);
  });
}

struct ExpireFlags {
  bool nx = false;
  bool xx = false;
  bool gt = false;
  bool lt = false;
};

// False: the error was written.
inline bool parse_flags(const WriteCall& call, ExpireFlags& flags) {
  for (const std::string_view name : call.args.subspan(3)) {
    if (equals_ignoring_case(name, "nx")) {
      flags.nx = true;
    } else if (equals_ignoring_case(name, "xx")) {
      flags.xx = true;
    } else if (equals_ignoring_case(name, "gt")) {
      flags.gt = true;
    } else if (equals_ignoring_case(name, "lt")) {
      flags.lt = true;
    } else {
      call.reply.error("ERR Unsupported option " + std::string(name.substr(0, 128)));
      return false;
    }
  }
  if (flags.nx && (flags.xx || flags.gt || flags.lt)) {
    call.reply.error("ERR NX and XX, GT or LT options at the same time are not compatible");
    return false;
  }
  if (flags.gt && flags.lt) {
    call.reply.error("ERR GT and LT options at the same time are not compatible");
    return false;
  }
  return true;
}

// No time to live counts as one without end.
inline bool flags_allow(const ExpireFlags& flags, const std::optional<std::uint64_t>& now_ms,
                        std::int64_t next_ms) {
  if (flags.nx && now_ms) return false;
  if (flags.xx && !now_ms) return false;
  if (flags.gt && (!now_ms || next_ms <= static_cast<std::int64_t>(*now_ms))) return false;
  return !(flags.lt && now_ms && next_ms >= static_cast<std::int64_t>(*now_ms));
}

inline void set_time_to_live(WriteCall& call, ExpireTime::Kind kind) {
  ExpireFlags flags;
  if (!parse_flags(call, flags)) return;
  const auto at_ms = any_expire_time(call, ExpireTime{kind, call.args[2]});
  if (!at_ms || call.checking()) return;
  const StoredValue* value = call.keys->get(call.args[1]);
  if (value == nullptr || !flags_allow(flags, value->expires_at_ms, *at_ms)) {
    return call.reply.integer(0);
  }
  call.reply.integer(1);
  if (*at_ms <= 0) {
    (void)call.keys->erase(call.args[1]);
    return;
  }
  const std::string data(value->data);
  call.keys->put(call.args[1], data, static_cast<std::uint64_t>(*at_ms));
}

// The key's value and time to live get another name. False: there is no such key.
inline bool copy_value(Keyspace& keys, std::string_view from, std::string_view to) {
  const StoredValue* value = keys.get(from);
  if (value == nullptr) return false;
  const std::string data(value->data);
  const std::optional<std::uint64_t> expires_at_ms = value->expires_at_ms;
  keys.put(to, data, expires_at_ms);
  return true;
}

// ---- All keys

inline constexpr std::uint64_t kHashMask = (1ULL << 48) - 1;

// Slot and hash of a key, which order the rows of values: what SCAN counts by.
inline std::uint64_t position_of(std::string_view map_key) {
  std::uint64_t position = 0;
  for (std::size_t i = 1; i < kValueKeyHeadBytes; ++i) {
    position = position << 8 | static_cast<unsigned char>(map_key[i]);
  }
  return position;
}

inline std::string row_at(std::uint64_t position) {
  std::string key(1, kValuePrefix);
  for (int shift = 56; shift >= 0; shift -= 8) key += static_cast<char>(position >> shift);
  return key;
}

inline std::string values_end() { return std::string(1, kValuePrefix + 1); }

// Visits the keys that are there, from one row on up to another. A damaged row fails the scan.
template <class Visit>
Lookup for_each_key_from(const ReadCall& call, const std::string& from, const std::string& to,
                         Visit visit) {
  bool damaged = false;
  const std::uint64_t now_ms = call.times().latest_ms();
  const ReadTimes times{now_ms, now_ms};
  const Lookup lookup = call.map.scan(from, to, [&](std::string_view row, std::string_view record) {
    const auto value = codec::decode_stored_value(record);
    damaged = !value || row.size() < kValueKeyHeadBytes;
    if (damaged) return false;
    const bool there = at_times(*value, times) == Lookup::kFound;
    return visit(position_of(row), row.substr(kValueKeyHeadBytes), there);
  });
  return damaged ? Lookup::kFailed : lookup;
}

inline void reply_keys(const std::vector<std::string>& keys, resp::Writer& reply) {
  reply.array(keys.size());
  for (const std::string& key : keys) reply.bulk(key);
}

struct ScanOptions {
  std::uint64_t position = 0;
  std::uint64_t count = 10;
  std::string_view pattern = "*";
  bool only_other_types = false;  // TYPE of something that is never here
};

// False: the error was written.
inline bool parse_scan(const ReadCall& call, resp::Writer& reply, ScanOptions& options) {
  // As Redis reads it, by strtoul(): "" is 0.
  std::string_view digits = call.args[1];
  const bool negative = digits.starts_with('-');
  if (negative || digits.starts_with('+')) digits.remove_prefix(1);
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), options.position);
  if (!call.args[1].empty() && (error != std::errc() || end != digits.data() + digits.size())) {
    reply.error("ERR invalid cursor");
    return false;
  }
  if (negative) options.position = 0 - options.position;
  for (std::size_t i = 2; i < call.args.size(); i += 2) {
    const bool has_next = i + 1 < call.args.size();
    if (has_next && equals_ignoring_case(call.args[i], "count")) {
      const auto count = resp::parse_integer(call.args[i + 1]);
      if (!count || *count < 1) {
        reply.error(count ? kSyntaxError : kNotAnInteger);
        return false;
      }
      options.count = static_cast<std::uint64_t>(*count);
    } else if (has_next && equals_ignoring_case(call.args[i], "match")) {
      options.pattern = call.args[i + 1];
    } else if (has_next && equals_ignoring_case(call.args[i], "type")) {
      options.only_other_types = !equals_ignoring_case(call.args[i + 1], "string");
    } else {
      reply.error(kSyntaxError);
      return false;
    }
  }
  return true;
}

// Of CLUSTER COUNTKEYSINSLOT and GETKEYSINSLOT. nullopt: the error was written.
inline std::optional<std::uint64_t> parse_slot(std::string_view text, resp::Writer& reply) {
  const auto slot = resp::parse_integer(text);
  if (slot && *slot >= 0 && *slot < kSlotCount) return static_cast<std::uint64_t>(*slot);
  reply.error(slot ? "ERR Invalid slot" : kNotAnInteger);
  return std::nullopt;
}

}  // namespace detail

// ---- Reading ------------------------------------------------------------------------------------

inline Lookup exists(const ReadCall& call, resp::Writer& reply) {
  std::int64_t count = 0;
  const Lookup lookup = call.get_all(call.args.subspan(1), [&](const StoredValue* value) {
    count += value != nullptr ? 1 : 0;
    return true;
  });
  if (lookup == Lookup::kFound) reply.integer(count);
  return lookup;
}

inline Lookup type(const ReadCall& call, resp::Writer& reply) {
  StoredValue value;
  const Lookup lookup = call.get(call.args[1], value);
  if (lookup == Lookup::kFound) reply.simple_string("string");
  if (lookup == Lookup::kAbsent) reply.simple_string("none");
  return call.answered(lookup);
}

inline Lookup ttl(const ReadCall& call, resp::Writer& reply) {
  return detail::reply_ttl(call, reply, detail::Unit::kSeconds);
}

inline Lookup pttl(const ReadCall& call, resp::Writer& reply) {
  return detail::reply_ttl(call, reply, detail::Unit::kMilliseconds);
}

inline Lookup expiretime(const ReadCall& call, resp::Writer& reply) {
  return detail::reply_time(call, reply, detail::Unit::kSeconds,
                            [](std::uint64_t expires_at_ms) { return expires_at_ms; });
}

inline Lookup pexpiretime(const ReadCall& call, resp::Writer& reply) {
  return detail::reply_time(call, reply, detail::Unit::kMilliseconds,
                            [](std::uint64_t expires_at_ms) { return expires_at_ms; });
}

// As in Redis, keys whose time is over count until they are removed.
inline Lookup dbsize(const ReadCall& call, resp::Writer& reply) {
  std::uint64_t count = 0;
  if (call.key_count) {
    count = *call.key_count;
  } else {
    const Lookup lookup = call.map.get(kDataStateKey, call.scratch.record);
    if (lookup != Lookup::kFound && lookup != Lookup::kAbsent) return lookup;
    if (lookup == Lookup::kFound) {
      const Result<MachineState> state = codec::decode_machine_state(call.scratch.record);
      if (!state) return Lookup::kFailed;
      count = state->key_count;
    }
  }
  reply.integer(static_cast<std::int64_t>(count));
  return Lookup::kFound;
}

// Redis' rule of size and content; that APPEND makes a string "raw" for good is not kept here.
inline Lookup object_encoding(const ReadCall& call, resp::Writer& reply) {
  constexpr std::size_t kEmbeddedSizeBytes = 44;
  StoredValue value;
  const Lookup lookup = call.get(call.args[2], value);
  if (lookup == Lookup::kAbsent) reply.null();
  if (lookup == Lookup::kFound) {
    const bool is_int = value.data.size() <= 20 && resp::parse_integer(value.data).has_value();
    const bool is_small = value.data.size() <= kEmbeddedSizeBytes;
    reply.bulk(is_int ? "int" : is_small ? "embstr" : "raw");
  }
  return call.answered(lookup);
}

inline Lookup object_refcount(const ReadCall& call, resp::Writer& reply) {
  StoredValue value;
  const Lookup lookup = call.get(call.args[2], value);
  if (lookup == Lookup::kAbsent) reply.null();
  if (lookup == Lookup::kFound) reply.integer(1);
  return call.answered(lookup);
}

// What its rows take before they are compressed.
inline Lookup memory_usage(const ReadCall& call, resp::Writer& reply) {
  if (call.args.size() != 3) {
    const bool samples = call.args.size() == 5 && equals_ignoring_case(call.args[3], "samples");
    const auto count = samples ? resp::parse_integer(call.args[4]) : std::nullopt;
    if (!samples || !count || *count < 0) {
      reply.error(samples && !count ? detail::kNotAnInteger : detail::kSyntaxError);
      return Lookup::kFound;
    }
  }
  StoredValue value;
  const Lookup lookup = call.get(call.args[2], value);
  if (lookup == Lookup::kAbsent) reply.null();
  if (lookup == Lookup::kFound) {
    const std::size_t map_key_bytes = call.args[2].size() + kValueKeyHeadBytes;
    const std::size_t index_bytes =
        value.expires_at_ms ? call.args[2].size() + kExpiryKeyHeadBytes : 0;
    reply.integer(
        static_cast<std::int64_t>(map_key_bytes + call.scratch.record.size() + index_bytes));
  }
  return call.answered(lookup);
}

inline Lookup watch(const ReadCall& call, resp::Writer& reply) {
  const ReadTimes times = call.times();
  const std::size_t begin = reply.size();
  reply.array(3 * (call.args.size() - 1));
  for (const std::string_view key : call.args.subspan(1)) {
    WatchToken token;
    const Lookup lookup = read_watch_token(call.map, key, times, token);
    if (lookup != Lookup::kFound) {
      reply.cut_back(begin);
      return lookup;
    }
    reply.integer(static_cast<std::int64_t>(token.mod_index.value));
    reply.integer(token.there ? 1 : 0);
    reply.integer(static_cast<std::int64_t>(token.last_removal.value));
  }
  return Lookup::kFound;
}

// ---- All keys -----------------------------------------------------------------------------------

inline Lookup keys(const ReadCall& call, resp::Writer& reply) {
  std::vector<std::string> found;
  const Lookup lookup =
      detail::for_each_key_from(call, detail::row_at(0), detail::values_end(),
                                [&](std::uint64_t, std::string_view key, bool there) {
                                  if (there && glob_matches(call.args[1], key))
                                    found.emplace_back(key);
                                  return true;
                                });
  if (lookup == Lookup::kFound) detail::reply_keys(found, reply);
  return lookup;
}

// The cursor is the place of the next row: it means the same on every replica and whatever comes and
// goes. Rows of the same place, whose hashes collide, are answered together.
inline Lookup scan(const ReadCall& call, resp::Writer& reply) {
  detail::ScanOptions options;
  if (!detail::parse_scan(call, reply, options)) return Lookup::kFound;
  std::vector<std::string> found;
  std::uint64_t next = 0;
  std::uint64_t seen = 0;
  std::uint64_t last = 0;
  const Lookup lookup = detail::for_each_key_from(
      call, detail::row_at(options.position), detail::values_end(),
      [&](std::uint64_t position, std::string_view key, bool there) {
        if (seen >= options.count && position != last) {
          next = position;
          return false;
        }
        ++seen;
        last = position;
        if (there && !options.only_other_types && glob_matches(options.pattern, key)) {
          found.emplace_back(key);
        }
        return true;
      });
  if (lookup != Lookup::kFound) return lookup;
  reply.array(2);
  reply.bulk(std::to_string(next));
  detail::reply_keys(found, reply);
  return lookup;
}

// From a random place on, and round once.
inline Lookup randomkey(const ReadCall& call, resp::Writer& reply) {
  thread_local std::mt19937_64 random{std::random_device{}()};
  const std::uint64_t middle = random() % (std::uint64_t{kSlotCount} << 48);
  std::optional<std::string> found;
  const auto take = [&](std::uint64_t, std::string_view key, bool there) {
    if (there) found = std::string(key);
    return !there;
  };
  const std::string from = detail::row_at(middle);
  Lookup lookup = detail::for_each_key_from(call, from, detail::values_end(), take);
  if (lookup == Lookup::kFound && !found) {
    lookup = detail::for_each_key_from(call, detail::row_at(0), from, take);
  }
  if (lookup != Lookup::kFound) return lookup;
  if (found) {
    reply.bulk(*found);
  } else {
    reply.null();
  }
  return lookup;
}

inline Lookup count_keys_in_slot(const ReadCall& call, resp::Writer& reply) {
  const auto slot = detail::parse_slot(call.args[2], reply);
  if (!slot) return Lookup::kFound;
  std::int64_t count = 0;
  const Lookup lookup = detail::for_each_key_from(call, detail::row_at(*slot << 48),
                                                  detail::row_at((*slot + 1) << 48),
                                                  [&](std::uint64_t, std::string_view, bool there) {
                                                    count += there ? 1 : 0;
                                                    return true;
                                                  });
  if (lookup == Lookup::kFound) reply.integer(count);
  return lookup;
}

inline Lookup get_keys_in_slot(const ReadCall& call, resp::Writer& reply) {
  const auto slot = detail::parse_slot(call.args[2], reply);
  if (!slot) return Lookup::kFound;
  const auto most = resp::parse_integer(call.args[3]);
  if (!most || *most < 0) {
    reply.error(most ? "ERR Invalid number of keys" : detail::kNotAnInteger);
    return Lookup::kFound;
  }
  std::vector<std::string> found;
  const Lookup lookup = detail::for_each_key_from(
      call, detail::row_at(*slot << 48), detail::row_at((*slot + 1) << 48),
      [&](std::uint64_t, std::string_view key, bool there) {
        if (found.size() >= static_cast<std::uint64_t>(*most)) return false;
        if (there) found.emplace_back(key);
        return true;
      });
  if (lookup == Lookup::kFound) detail::reply_keys(found, reply);
  return lookup;
}

// ---- Writing ------------------------------------------------------------------------------------

inline void del(WriteCall& call) {
  if (call.checking()) return;
  std::int64_t count = 0;
  for (const std::string_view key : call.args.subspan(1)) count += call.keys->erase(key) ? 1 : 0;
  call.reply.integer(count);
}

inline void expire(WriteCall& call) { detail::set_time_to_live(call, ExpireTime::Kind::kSeconds); }
inline void pexpire(WriteCall& call) {
  detail::set_time_to_live(call, ExpireTime::Kind::kMilliseconds);
}
inline void expireat(WriteCall& call) {
  detail::set_time_to_live(call, ExpireTime::Kind::kAtSeconds);
}
inline void pexpireat(WriteCall& call) {
  detail::set_time_to_live(call, ExpireTime::Kind::kAtMilliseconds);
}

inline void persist(WriteCall& call) {
  if (call.checking()) return;
  const StoredValue* value = call.keys->get(call.args[1]);
  if (value == nullptr || !value->expires_at_ms) return call.reply.integer(0);
  const std::string data(value->data);
  call.keys->put(call.args[1], data, std::nullopt);
  call.reply.integer(1);
}

inline void rename(WriteCall& call) {
  if (call.checking()) return;
  const bool same = call.args[1] == call.args[2];
  const bool there = same ? call.keys->get(call.args[1]) != nullptr
                          : detail::copy_value(*call.keys, call.args[1], call.args[2]);
  if (!there) return call.reply.error("ERR no such key");
  if (!same) (void)call.keys->erase(call.args[1]);
  call.reply.simple_string("OK");
}

inline void renamenx(WriteCall& call) {
  if (call.checking()) return;
  if (call.keys->get(call.args[1]) == nullptr) return call.reply.error("ERR no such key");
  if (call.keys->get(call.args[2]) != nullptr) return call.reply.integer(0);
  (void)detail::copy_value(*call.keys, call.args[1], call.args[2]);
  (void)call.keys->erase(call.args[1]);
  call.reply.integer(1);
}

inline void copy(WriteCall& call) {
  bool replace = false;
  for (std::size_t i = 3; i < call.args.size(); ++i) {
    if (equals_ignoring_case(call.args[i], "replace")) {
      replace = true;
    } else if (equals_ignoring_case(call.args[i], "db") && i + 1 < call.args.size()) {
      const auto database = resp::parse_integer(call.args[++i]);
      if (!database || *database < std::numeric_limits<std::int32_t>::min() ||
          *database > std::numeric_limits<std::int32_t>::max()) {
        return call.reply.error(detail::kNotAnInteger);
      }
      constexpr std::int64_t kRedisDatabases = 16;
      if (*database < 0 || *database >= kRedisDatabases) {
        return call.reply.error("ERR DB index is out of range");
      }
      if (*database != 0) {
        return call.reply.error("ERR Copying to another database is not allowed in cluster mode");
      }
    } else {
      return call.reply.error(detail::kSyntaxError);
    }
  }
  if (call.args[1] == call.args[2]) {
    return call.reply.error("ERR source and destination objects are the same");
  }
  if (call.checking()) return;
  if (call.keys->get(call.args[1]) == nullptr) return call.reply.integer(0);
  if (!replace && call.keys->get(call.args[2]) != nullptr) return call.reply.integer(0);
  call.reply.integer(detail::copy_value(*call.keys, call.args[1], call.args[2]) ? 1 : 0);
}

inline void flush(WriteCall& call) {
  const bool is_option = call.args.size() == 2 && (equals_ignoring_case(call.args[1], "async") ||
                                                   equals_ignoring_case(call.args[1], "sync"));
  if (call.args.size() > 1 && !is_option) return call.reply.error(detail::kSyntaxError);
  if (call.checking()) return;
  call.keys->erase_all();
  call.reply.simple_string("OK");
}

}  // namespace seshat::key_commands

#endif  // SESHAT_KEY_COMMANDS_HPP
