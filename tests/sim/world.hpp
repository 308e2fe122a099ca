// Virtual time, chance and the trace: what everything in the simulator shares.
//
//   World::after(delay, event) ──> events, in the order of their times ──> run_until()
//
// Keeps: one seed, one run. Events of the same time run in the order in which they were asked for;
// nothing here depends on an address, an unordered container or the real clock.
#ifndef SESHAT_TESTS_SIM_WORLD_HPP
#define SESHAT_TESTS_SIM_WORLD_HPP

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace seshat::sim {

inline constexpr std::uint64_t kMillisecond = 1000;  // in virtual microseconds
inline constexpr std::uint64_t kSecond = 1'000'000;

// A broken promise of the cluster. Ends the run.
struct Violation : std::runtime_error {
  Violation(std::string of, const std::string& detail)
      : std::runtime_error(of + ": " + detail), kind(std::move(of)) {}
  std::string kind;
};

// `detail` gives the text, and is asked only if there is something to tell.
template <class Detail>
void must(bool holds, const char* kind, Detail detail) {
  if (holds) return;
  if constexpr (std::is_invocable_v<Detail>) {
    throw Violation(kind, detail());
  } else {
    throw Violation(kind, detail);
  }
}

inline std::uint64_t mix(std::uint64_t x) {  // splitmix64, by Sebastiano Vigna
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(mix(seed)) {}
  // Independent of what is drawn here later: a decision that is switched off shifts no other.
  [[nodiscard]] Random fork(std::uint64_t tag) const { return Random(state_ ^ mix(tag)); }

  std::uint64_t next() { return mix(state_ += 0x9e3779b97f4a7c15); }
  std::uint64_t below(std::uint64_t n) { return n == 0 ? 0 : next() % n; }
  std::uint64_t between(std::uint64_t low, std::uint64_t high) {
    return low + below(high - low + 1);
  }
  bool chance(std::uint64_t permille) { return below(1000) < permille; }
  // Small ones as often as large ones: each doubling between `low` and `high` is as likely.
  std::uint64_t scattered(std::uint64_t low, std::uint64_t high) {
    std::uint64_t doublings = 0;
    while ((low << (doublings + 1)) <= high) ++doublings;
    const std::uint64_t from = low << below(doublings + 1);
    return std::min(high, between(from, from * 2));
  }

 private:
  std::uint64_t state_;
};

// One line an event: time, who, what. Off: costs nothing. Lines are hashed, and printed if asked.
class Trace {
 public:
  enum class Mode : std::uint8_t { kOff, kHash, kPrint };
  explicit Trace(Mode mode) : mode_(mode) {}

  [[nodiscard]] bool on() const { return mode_ != Mode::kOff; }
  [[nodiscard]] std::uint64_t hash() const { return hash_; }
  [[nodiscard]] std::uint64_t lines() const { return lines_; }

  void line(std::uint64_t now_us, const std::string& who, const std::string& what) {
    if (!on()) return;
    char time[32];
    std::snprintf(time, sizeof(time), "%4llu.%06llu  ",
                  static_cast<unsigned long long>(now_us / kSecond),
                  static_cast<unsigned long long>(now_us % kSecond));
    const std::string text =
        time + who + std::string(who.size() < 8 ? 8 - who.size() : 1, ' ') + what + "\n";
    for (const char c : text) hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    ++lines_;
    if (mode_ == Mode::kPrint) std::fputs(text.c_str(), stdout);
  }

 private:
  Mode mode_;
  std::uint64_t hash_ = 0xcbf29ce484222325;
  std::uint64_t lines_ = 0;
};

// What a run did; sums over runs.
struct Counters {
  std::uint64_t events = 0;
  std::uint64_t simulated_us = 0;
  std::uint64_t faults = 0;
  std::uint64_t restarts = 0;
  std::uint64_t elections = 0;
  std::uint64_t messages = 0;
  std::uint64_t lost_messages = 0;
  std::uint64_t operations = 0;  // acknowledged
  std::uint64_t unknown = 0;     // of unknown outcome
  std::uint64_t refused = 0;     // given up, certainly without effect
  std::uint64_t entries = 0;     // committed
  std::uint64_t undecided = 0;   // histories on which the checker gave up
  std::uint64_t changing = 0;    // runs in which members change
  std::uint64_t changes = 0;     // of members, committed
  std::uint64_t snapshots = 0;   // installed
  std::uint64_t cuts = 0;        // of logs
  std::uint64_t wipes = 0;
  std::uint64_t transactions = 0;     // done
  std::uint64_t watches_refused = 0;  // EXEC answered that a watched key had changed
  std::uint64_t removals = 0;         // proposed, of keys whose time was over

  void add(const Counters& other) {
    events += other.events;
    simulated_us += other.simulated_us;
    faults += other.faults;
    restarts += other.restarts;
    elections += other.elections;
    messages += other.messages;
    lost_messages += other.lost_messages;
    operations += other.operations;
    unknown += other.unknown;
    refused += other.refused;
    entries += other.entries;
    undecided += other.undecided;
    changing += other.changing;
    changes += other.changes;
    snapshots += other.snapshots;
    cuts += other.cuts;
    wipes += other.wipes;
    transactions += other.transactions;
    watches_refused += other.watches_refused;
    removals += other.removals;
  }
};

class World {
 public:
  World(std::uint64_t seed, Trace& trace) : seed_(seed), trace_(trace) {}

  [[nodiscard]] std::uint64_t now_us() const { return now_us_; }
  [[nodiscard]] Random random(std::uint64_t tag) const { return Random(seed_).fork(tag); }
  [[nodiscard]] Counters& counters() { return counters_; }
  [[nodiscard]] const Counters& counters() const { return counters_; }
  [[nodiscard]] bool tracing() const { return trace_.on(); }
  void trace(const std::string& who, const std::string& what) { trace_.line(now_us_, who, what); }

  void after(std::uint64_t delay_us, std::function<void()> event) {
    events_.push_back({now_us_ + delay_us, next_number_++, std::move(event)});
    std::push_heap(events_.begin(), events_.end(), later);
  }
  void at(std::uint64_t time_us, std::function<void()> event) {
    after(time_us > now_us_ ? time_us - now_us_ : 0, std::move(event));
  }

  // Runs what is due until `end_us`, or until `done` says so.
  template <class Done>
  void run_until(std::uint64_t end_us, Done done) {
    while (!done() && !events_.empty() && events_.front().time_us <= end_us) {
      std::pop_heap(events_.begin(), events_.end(), later);
      Event event = std::move(events_.back());
      events_.pop_back();
      now_us_ = event.time_us;
      ++counters_.events;
      event.run();
    }
    if (!done()) now_us_ = std::max(now_us_, end_us);
    counters_.simulated_us = now_us_;
  }

 private:
  struct Event {
    std::uint64_t time_us;
    std::uint64_t number;
    std::function<void()> run;
  };
  static bool later(const Event& a, const Event& b) {
    return a.time_us != b.time_us ? a.time_us > b.time_us : a.number > b.number;
  }

  std::uint64_t seed_;
  Trace& trace_;
  std::uint64_t now_us_ = 0;
  std::uint64_t next_number_ = 0;
  std::vector<Event> events_;
  Counters counters_;
};

}  // namespace seshat::sim

#endif  // SESHAT_TESTS_SIM_WORLD_HPP
