// seshat/door.hpp - who may come in, who has to wait, and what is remembered of what they did.
//
//   accept ──> refuses(peer)?  -DENIED, closed      (protected mode)
//   request ─> authenticated?  -NOAUTH              (requirepass; command.hpp's Session)
//           ─> holds(write)?   it stays in the input until the pause ends   (CLIENT PAUSE)
//   reply ───> served()        counts, the slow log, latency samples
//
// There is one user, "default", with one password or none. That all commands but a few need it is
// kv::check()'s; this says whether a password is right, and compares in constant time.
//
// Threads: none inside; the loop. No clock: the caller says what time it is.
// Needs:   slow_log.hpp.
#ifndef SESHAT_DOOR_HPP
#define SESHAT_DOOR_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "seshat/slow_log.hpp"

namespace seshat {

// Whether `given` is `wanted`. How long it takes tells of the length of `given` and of nothing else.
[[nodiscard]] bool same_secret(std::string_view given, std::string_view wanted);

// Of "host:port", without an IPv6 host's brackets, zone, and wrapping of an IPv4 address.
[[nodiscard]] std::string_view peer_host(std::string_view address);

// Both as the kernel tells them of an established connection, so they can't be made up: what comes
// over loopback, or from an address of this machine to itself, which the kernel sends over loopback
// and takes from nowhere else.
[[nodiscard]] bool comes_from_here(std::string_view address, std::string_view local_address);

inline constexpr std::string_view kDefaultUser = "default";

// Redis' texts.
inline constexpr std::string_view kNoAuthText = "NOAUTH Authentication required.";
inline constexpr std::string_view kWrongPassText =
    "WRONGPASS invalid username-password pair or user is disabled.";
// Redis' explanation, with the names that things have here.
inline constexpr std::string_view kDeniedText =
    "DENIED Seshat is running in protected mode because protected mode is enabled and no password "
    "is set for the default user. In this mode connections are only accepted from the machine that "
    "the node runs on. If you want to connect from other machines you may adopt one of the "
    "following solutions: 1) Set a password: client.requirepass in the configuration of every "
    "node, or 'CONFIG SET requirepass' from the node's own machine, which lasts until it ends. 2) "
    "If nobody but you can reach the node, disable protected mode: client.protected_mode = false "
    "in the configuration, or 'CONFIG SET protected-mode no' from the node's own machine. NOTE: "
    "you only need to do one of the above things in order for the node to start accepting "
    "connections from the outside.";

class Door {
 public:
  // What may be set at any time.
  std::string password;  // empty: none is asked for
  bool protected_mode = true;

  [[nodiscard]] bool needs_password() const { return !password.empty(); }
  // Without a password, Redis takes any for the default user, and so clients that always send one
  // can connect.
  [[nodiscard]] bool admits(std::string_view user, std::string_view given) const {
    return user == kDefaultUser && (!needs_password() || same_secret(given, password));
  }
  // Whether protected mode keeps a client out.
  [[nodiscard]] bool refuses(std::string_view address, std::string_view local_address) const {
    return protected_mode && !needs_password() && !comes_from_here(address, local_address);
  }

  // ---- CLIENT PAUSE
  enum class Pause : std::uint8_t { kNone, kWrites, kAll };
  // Of two pauses at a time the wider and the longer holds, as in Redis.
  void pause(Pause what, std::uint64_t until_ms, std::uint64_t now_ms);
  void unpause() { pause_ = Pause::kNone; }
  [[nodiscard]] bool is_paused() const { return pause_ != Pause::kNone; }
  [[nodiscard]] std::uint64_t paused_until_ms() const { return paused_until_ms_; }
  [[nodiscard]] bool holds(bool is_write) const {
    return pause_ == Pause::kAll || (pause_ == Pause::kWrites && is_write);
  }

  // ---- What is remembered
  struct CommandStats {
    std::uint64_t calls = 0;
    std::uint64_t took_us = 0;
    std::uint64_t failed = 0;  // of the calls
  };
  SlowLog slow_log;
  LatencyMonitor latency;

  // `command`: a name of the table, and so one that stays where it is.
  void count(std::string_view command, std::uint64_t took_us, bool failed);
  // Keys that reads looked for.
  void count_lookups(std::uint64_t hits, std::uint64_t misses) {
    hits_ += hits;
    misses_ += misses;
  }
  [[nodiscard]] std::uint64_t hits() const { return hits_; }
  [[nodiscard]] std::uint64_t misses() const { return misses_; }
  // By its first word, up to a bound: words come from us, but for those that a bug lets through.
  void count_error(std::string_view text);
  [[nodiscard]] std::uint64_t errors() const { return error_count_; }
  // "cmdstat_get:calls=2,usec=11,usec_per_call=5.50,failed_calls=0", a line for each.
  void append_command_stats(std::string& out) const;
  // "errorstat_ERR:count=2"
  void append_error_stats(std::string& out) const;
  void reset_statistics();

 private:
  static constexpr std::size_t kMaxErrorKinds = 128;

  Pause pause_ = Pause::kNone;
  std::uint64_t paused_until_ms_ = 0;

  std::map<std::string_view, CommandStats> commands_;
  std::string_view last_command_;  // most requests are like the one before
  CommandStats* last_stats_ = nullptr;
  std::map<std::string, std::uint64_t, std::less<>> errors_;
  std::uint64_t error_count_ = 0;
  std::uint64_t hits_ = 0;
  std::uint64_t misses_ = 0;
};

// =================================================================================================
// Bodies
// =================================================================================================

// Every byte that was given is looked at, whether or not one before it was wrong.
inline bool same_secret(std::string_view given, std::string_view wanted) {
  std::size_t difference = given.size() ^ wanted.size();
  const std::string_view against = wanted.empty() ? std::string_view("\0", 1) : wanted;
  std::size_t at = 0;
  for (const char byte : given) {
    difference |= static_cast<unsigned char>(byte) ^ static_cast<unsigned char>(against[at]);
    at = at + 1 == against.size() ? 0 : at + 1;
  }
  return difference == 0;
}

inline std::string_view peer_host(std::string_view address) {
  std::string_view host = address.substr(0, std::min(address.rfind(':'), address.size()));
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  host = host.substr(0, std::min(host.find('%'), host.size()));
  constexpr std::string_view kMapped = "::ffff:";
  return host.starts_with(kMapped) ? host.substr(kMapped.size()) : host;
}

inline bool comes_from_here(std::string_view address, std::string_view local_address) {
  const std::string_view client = peer_host(address);
  const std::string_view here = peer_host(local_address);
  const auto is_loopback = [](std::string_view host) {
    return host == "::1" || host.starts_with("127.");
  };
  if (client.empty() || here.empty()) return false;
  return client == here || (is_loopback(client) && is_loopback(here));
}

inline void Door::pause(Pause what, std::uint64_t until_ms, std::uint64_t now_ms) {
  if (is_paused() && paused_until_ms_ > now_ms) {
    what = std::max(what, pause_);
    until_ms = std::max(until_ms, paused_until_ms_);
  }
  pause_ = what;
  paused_until_ms_ = until_ms;
}

inline void Door::count(std::string_view command, std::uint64_t took_us, bool failed) {
  if (last_stats_ == nullptr || last_command_.data() != command.data()) {
    last_command_ = command;
    last_stats_ = &commands_[command];
  }
  ++last_stats_->calls;
  last_stats_->took_us += took_us;
  last_stats_->failed += failed ? 1 : 0;
}

inline void Door::count_error(std::string_view text) {
  ++error_count_;
  const std::string_view word = text.substr(0, std::min(text.find_first_of(" \r\n"), text.size()));
  const auto found = errors_.find(word);
  if (found != errors_.end()) {
    ++found->second;
  } else if (errors_.size() < kMaxErrorKinds && word.size() <= 32) {
    errors_.emplace(word, 1);
  }
}

inline void Door::append_command_stats(std::string& out) const {
  for (const auto& [name, stats] : commands_) {
    const std::uint64_t hundredths = stats.calls == 0 ? 0 : stats.took_us * 100 / stats.calls;
    const std::string fraction = std::to_string(hundredths % 100);
    out.append("cmdstat_").append(name);
    out += ":calls=" + std::to_string(stats.calls) + ",usec=" + std::to_string(stats.took_us) +
           ",usec_per_call=" + std::to_string(hundredths / 100) +
           (fraction.size() == 1 ? ".0" : ".") + fraction +
           ",failed_calls=" + std::to_string(stats.failed) + "\r\n";
  }
}

inline void Door::append_error_stats(std::string& out) const {
  for (const auto& [word, count] : errors_) {
    out += "errorstat_" + word + ":count=" + std::to_string(count) + "\r\n";
  }
}

inline void Door::reset_statistics() {
  hits_ = misses_ = 0;
  commands_.clear();
  last_stats_ = nullptr;
  errors_.clear();
  error_count_ = 0;
}

}  // namespace seshat

#endif  // SESHAT_DOOR_HPP
