// seshat/gathering.hpp - how long what clients proposed waits for more, where cores are short.
//
//   proposed ──> [ waits ] ── nearly all who ask have asked, or two rounds' time is over ──> leaves
//
// A round (a message a peer, a sync a node, the wake-ups between them) costs as much CPU for one write
// as for fifty. Where every thread waits for a core anyway, few large rounds answer sooner than many
// small ones: the clients whom one round answered ask again, and the next one takes them all. Where
// cores are free, a round is better begun at once; so this waits only while it is told to.
//
// Keeps:    how many writes lately went unanswered at once, and how long a round takes.
// Threads:  none inside. Time is passed in.
// Alone:    copy this file; it needs only the standard library.
#ifndef SESHAT_GATHERING_HPP
#define SESHAT_GATHERING_HPP

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>

namespace seshat {

class Gathering {
 public:
  using Clock = std::chrono::steady_clock;

  // Of a leader's log, by index.
  struct Log {
    std::uint64_t committed;
    std::uint64_t left;  // up to here it is on its way to the disk and the peers
    std::uint64_t last;
  };

  // Nobody waits for longer, nor for more than two rounds.
  static constexpr std::chrono::microseconds kMaxWait{2000};
  // With fewer, the one who asks late costs the others more than their round costs the machine.
  static constexpr std::uint64_t kMinWrites = 4;

  // Whether it may wait at all, from the next ask on.
  void allow(bool allowed) { allowed_ = allowed; }
  [[nodiscard]] bool allowed() const { return allowed_; }

  // Asked at the end of each turn. True: what has not left yet goes on waiting; it wants to be asked
  // again by until(), if no turn ends before. False: all of it leaves now.
  [[nodiscard]] bool waits(const Log& log, Clock::time_point now);
  [[nodiscard]] std::optional<Clock::time_point> until() const { return until_; }
  // Of a log that is led elsewhere now.
  void forget();

  // Rounds that waited for more.
  [[nodiscard]] std::uint64_t rounds() const { return rounds_; }

 private:
  // One at a time, from where its writes leave until all of them are committed.
  struct Round {
    std::uint64_t last;
    Clock::time_point began;
  };

  void note_commit(std::uint64_t committed, Clock::time_point now);
  void leave(const Log& log, Clock::time_point now);

  bool allowed_ = false;
  std::optional<Clock::time_point> until_;  // something waits
  std::uint64_t expected_ = 0;              // unanswered at once, as of late
  Clock::duration round_time_{};            // smoothed
  std::optional<Round> round_;              // whose time is taken
  std::uint64_t rounds_ = 0;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline bool Gathering::waits(const Log& log, Clock::time_point now) {
  note_commit(log.committed, now);
  const std::uint64_t waiting = log.last - log.left;
  if (waiting == 0) {
    until_.reset();
    return false;
  }
  expected_ = std::max(expected_, log.last - log.committed);
  const bool all_are_here = expected_ < kMinWrites || waiting >= expected_ - expected_ / 16;
  const bool begins = !until_;
  if (begins) until_ = now + std::min<Clock::duration>(2 * round_time_, kMaxWait);
  if (allowed_ && !all_are_here && now < *until_) {
    if (begins) ++rounds_;
    return true;
  }
  leave(log, now);
  return false;
}

inline void Gathering::note_commit(std::uint64_t committed, Clock::time_point now) {
  if (!round_ || committed < round_->last) return;
  round_time_ += (now - round_->began - round_time_) / 8;
  round_.reset();
}

inline void Gathering::forget() {
  until_.reset();
  round_.reset();
  expected_ = 0;
}

// Clients that went away are forgotten within some rounds.
inline void Gathering::leave(const Log& log, Clock::time_point now) {
  const std::uint64_t unanswered = log.last - log.committed;
  expected_ -= (expected_ - unanswered + 7) / 8;
  until_.reset();
  if (!round_) round_ = {log.last, now};
}

}  // namespace seshat

#endif  // SESHAT_GATHERING_HPP
