// What clients saw, to be judged by linearizability.hpp: operations, and what leaders' clocks showed.
//
//   HistoryOperation   one call and its return; of a transaction with all its commands, as one
//   LeaderTime         between what times a leader's clock was, at each moment of the history
//   History            the operations of all clients, in any order
#ifndef SESHAT_TESTS_LINEARIZABILITY_HISTORY_HPP
#define SESHAT_TESTS_LINEARIZABILITY_HISTORY_HPP

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace seshat::test {

inline constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();

struct HistoryOperation {
  enum class Kind : std::uint8_t {
    kRead,
    kWrite,
    kDelete,
    kIncrement,
    kExpire,       // gives a key that is there a time to live
    kPersist,      // takes it away
    kWatch,        // of the keys of its `steps`
    kTransaction,  // all of its `steps`, or, where they are not done, nothing
  };
  enum class If : std::uint8_t { kAlways, kAbsent, kPresent, kEqual };

  Kind kind = Kind::kRead;
  std::string key;
  std::string value;    // written, or (a read, an increment) answered
  bool absent = false;  // a read that found nothing
  // What was answered, if it is known: how many keys a delete removed; of kExpire, kPersist and a
  // write with a condition, 1 or 0: whether it was done.
  std::optional<std::int64_t> count;
  std::uint64_t called = 0;
  std::uint64_t returned = kNever;  // kNever: the outcome is unknown

  If condition = If::kAlways;    // of a write
  std::string expected = {};     // of kEqual
  std::uint64_t lives = kNever;  // of a write and kExpire: time to live; kNever: without end
  // Of a transaction, in their order. What they answered counts where its outcome is known.
  std::vector<HistoryOperation> steps = {};
  // Of a transaction: reads made under its WATCH. It is not done unless they still hold.
  std::vector<HistoryOperation> seen = {};
  std::uint64_t watch = 0;  // a kWatch and the transaction that it guards have the same; 0: none

  [[nodiscard]] bool is_unknown() const { return returned == kNever; }
};

using History = std::vector<HistoryOperation>;

// What the leaders' clocks may have shown: at least, and at most, this much more than the history's own
// time. Bounds only widen: a leader goes on from what its clock was when its term began, and none goes
// back (docs/architecture.md, Time).
class LeaderTime {
 public:
  using Time = std::int64_t;

  // From `since` on a leader's clock may be off by this much.
  void allow(std::uint64_t since, Time behind, Time ahead) {
    if (!steps_.empty()) behind = std::min(behind, steps_.back().behind);
    if (!steps_.empty()) ahead = std::max(ahead, steps_.back().ahead);
    steps_.push_back({since, behind, ahead});
  }
  // Clocks that measure how time passes are off by at most this.
  void allow_drift(Time slow_ppm, Time fast_ppm) {
    slow_ppm_ = slow_ppm;
    fast_ppm_ = fast_ppm;
  }

  [[nodiscard]] Time earliest(std::uint64_t at) const {
    return static_cast<Time>(at) + step(at).behind - drift(at, slow_ppm_);
  }
  [[nodiscard]] Time latest(std::uint64_t at) const {
    if (at == kNever) return std::numeric_limits<Time>::max();
    return static_cast<Time>(at) + step(at).ahead + drift(at, fast_ppm_);
  }

 private:
  struct Step {
    std::uint64_t since = 0;
    Time behind = 0;
    Time ahead = 0;
  };
  [[nodiscard]] Step step(std::uint64_t at) const {
    Step last;
    for (const Step& next : steps_) {
      if (next.since <= at) last = next;
    }
    return last;
  }
  [[nodiscard]] static Time drift(std::uint64_t at, Time ppm) {
    return static_cast<Time>(at) / 1'000'000 * ppm + ppm;
  }

  std::vector<Step> steps_;  // by time
  Time slow_ppm_ = 0;
  Time fast_ppm_ = 0;
};

}  // namespace seshat::test

#endif  // SESHAT_TESTS_LINEARIZABILITY_HISTORY_HPP
