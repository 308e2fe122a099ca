// seshat/slow_log.hpp - what took long: SLOWLOG's entries and LATENCY's samples.
//
//   SlowLog          the last commands that took longer than a threshold, newest first
//   LatencyMonitor   for each kind of event, when it took long and how long, a sample a second
//
// A command's time runs from when it is taken up to when its reply is there. So, other than in
// Redis, a write's has in it the wait for a majority of the nodes.
//
// Bounds:  entries and samples, their arguments, and the length of each, as Redis 7.0 has them.
// Keeps:   no password stands in the log.
// Threads: none inside; no clock: the caller says what time it is.
// Alone:   needs glob.hpp and the standard library.
#ifndef SESHAT_SLOW_LOG_HPP
#define SESHAT_SLOW_LOG_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/glob.hpp"

namespace seshat {

// What the log keeps of a request: secrets replaced, 32 arguments at most, 128 bytes of each.
[[nodiscard]] std::vector<std::string> logged_arguments(std::span<const std::string_view> args);
// `beginning` of an argument of so many bytes, and how many are missing.
[[nodiscard]] std::string shortened_argument(std::string_view beginning, std::size_t size_bytes);

class SlowLog {
 public:
  struct Entry {
    std::int64_t id = 0;
    std::uint64_t at_secs = 0;  // since 1970
    std::uint64_t took_us = 0;
    std::vector<std::string> arguments;
    std::string address;  // of the client, and its name
    std::string name;
  };

  std::int64_t slower_than_us = 10'000;  // 0: every command; negative: none

  [[nodiscard]] bool wants(std::uint64_t took_us) const {
    return slower_than_us >= 0 && max_entries_ > 0 &&
           took_us >= static_cast<std::uint64_t>(slower_than_us);
  }
  void set_max_entries(std::size_t max_entries);
  // The id is given here; what is too old goes.
  void add(Entry entry);
  void clear() { entries_.clear(); }
  [[nodiscard]] const std::deque<Entry>& entries() const { return entries_; }  // newest first

 private:
  std::size_t max_entries_ = 128;
  std::deque<Entry> entries_;
  std::int64_t next_id_ = 0;
};

class LatencyMonitor {
 public:
  struct Sample {
    std::uint64_t at_secs = 0;  // since 1970
    std::uint64_t took_ms = 0;
  };
  struct Event {
    std::deque<Sample> samples;  // oldest first; of one second, the longest
    std::uint64_t max_ms = 0;
  };
  static constexpr std::size_t kMaxSamples = 160;

  std::uint64_t threshold_ms = 0;  // 0: nothing is sampled

  [[nodiscard]] bool wants(std::uint64_t took_us) const {
    return threshold_ms > 0 && took_us / 1000 >= threshold_ms;
  }
  // `event`: one of few, chosen by us.
  void add(std::string_view event, std::uint64_t at_secs, std::uint64_t took_us);
  // True: there was something to forget.
  bool forget(std::string_view event) { return events_.erase(std::string(event)) != 0; }
  [[nodiscard]] const std::map<std::string, Event, std::less<>>& events() const { return events_; }

 private:
  std::map<std::string, Event, std::less<>> events_;
};

// =================================================================================================
// Bodies
// =================================================================================================

namespace slow_log_detail {

inline constexpr std::size_t kMaxArguments = 32;
inline constexpr std::size_t kMaxArgumentSizeBytes = 128;
inline constexpr std::string_view kRedacted = "(redacted)";

inline bool is_named(std::span<const std::string_view> args, std::size_t index,
                     std::string_view name) {
  return index < args.size() && equals_ignoring_case(args[index], name);
}

// AUTH, HELLO ... AUTH user password, CONFIG SET requirepass.
inline bool is_secret(std::span<const std::string_view> args, std::size_t index) {
  if (index == 0) return false;
  if (is_named(args, 0, "auth")) return true;
  if (is_named(args, 0, "hello")) {
    return is_named(args, index - 1, "auth") || (index > 1 && is_named(args, index - 2, "auth"));
  }
  if (!is_named(args, 0, "config") || !is_named(args, 1, "set") || index < 3) return false;
  return is_named(args, index - 1, "requirepass") ||
         is_named(args, index - 1, "client.requirepass");
}

}  // namespace slow_log_detail

inline std::string shortened_argument(std::string_view beginning, std::size_t size_bytes) {
  beginning = beginning.substr(0, slow_log_detail::kMaxArgumentSizeBytes);
  if (size_bytes <= beginning.size()) return std::string(beginning.substr(0, size_bytes));
  return std::string(beginning) + "... (" + std::to_string(size_bytes - beginning.size()) +
         " more bytes)";
}

inline std::vector<std::string> logged_arguments(std::span<const std::string_view> args) {
  namespace detail = slow_log_detail;
  // One place less where the last has to say how many are missing.
  const std::size_t shown =
      args.size() > detail::kMaxArguments ? detail::kMaxArguments - 1 : args.size();
  std::vector<std::string> logged;
  for (std::size_t i = 0; i < shown; ++i) {
    logged.push_back(detail::is_secret(args, i) ? std::string(detail::kRedacted)
                                                : shortened_argument(args[i], args[i].size()));
  }
  if (args.size() > shown) {
    logged.push_back("... (" + std::to_string(args.size() - shown) + " more arguments)");
  }
  return logged;
}

inline void SlowLog::add(Entry entry) {
  entry.id = next_id_++;
  entries_.push_front(std::move(entry));
  if (entries_.size() > max_entries_) entries_.pop_back();
}

inline void SlowLog::set_max_entries(std::size_t max_entries) {
  max_entries_ = max_entries;
  if (entries_.size() > max_entries) entries_.resize(max_entries);
}

inline void LatencyMonitor::add(std::string_view event, std::uint64_t at_secs,
                                std::uint64_t took_us) {
  const std::uint64_t took_ms = took_us / 1000;
  Event& of = events_[std::string(event)];
  of.max_ms = std::max(of.max_ms, took_ms);
  if (!of.samples.empty() && of.samples.back().at_secs == at_secs) {
    of.samples.back().took_ms = std::max(of.samples.back().took_ms, took_ms);
    return;
  }
  of.samples.push_back({at_secs, took_ms});
  if (of.samples.size() > kMaxSamples) of.samples.pop_front();
}

}  // namespace seshat

#endif  // SESHAT_SLOW_LOG_HPP
