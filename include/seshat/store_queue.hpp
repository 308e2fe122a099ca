// seshat/store_queue.hpp - what waits for the disk, and whose turn it is to do it.
//
//   loop, pool ── add ──> [ log writes, applies, cuts ] ── take ──────────> the storage thread
//                                 └── held by who adds ── take_held ──> who added it
//
// Under load the storage thread does everything: what comes during one sync shares the next. A
// write that comes alone would only wait for that thread to wake, which takes a good part of what a
// quick sync takes. So where log writes lately came one by one, and syncs were quick, a thread that
// brings one and has nothing else to do may hold what it adds, and do it itself.
//
// Keeps:    one turn at a time, whoever has it; log writes leave in the order in which they came.
// Threads:  add, look_again, stop: any. take, has_time: the storage thread. hold, then take_held:
//           one thread at a time. Who took a turn calls done().
// Needs:    store_group.hpp, raft.hpp, records.hpp.
#ifndef SESHAT_STORE_QUEUE_HPP
#define SESHAT_STORE_QUEUE_HPP

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/store_generation.hpp"
#include "seshat/store_group.hpp"

namespace seshat {

class StoreQueue {
 public:
  using Clock = std::chrono::steady_clock;

  struct LogWrite {
    StoreGroup* group;
    raft::Write write;
  };
  struct Apply {
    StoreGroup* group;
    std::vector<raft::Entry> entries;
    std::shared_ptr<const StoreGeneration> generation = nullptr;  // to be put in force instead
  };
  struct Cut {
    StoreGroup* group;
    Index to;
  };
  struct Turn {
    std::vector<LogWrite> writes;
    std::vector<Cut> cuts;
    std::optional<NodeIdentity> identity;
    std::optional<Apply> apply;
    bool was_slow = false;  // set by who has it
  };

  void add(LogWrite write);
  void add(Apply apply);
  void add(Cut cut);
  void add(NodeIdentity identity);
  // take() returns, with a turn for nothing if nothing waits.
  void look_again();
  // take() gives what is left, and then false.
  void stop();
  // After stop(), once nobody takes any more: lets go of the generations among them.
  void forget_applies() { applies_.clear(); }

  // Waits for work until `due`. False: there is none left, and none will come.
  [[nodiscard]] bool take(Turn& turn, Clock::time_point due);
  // Nothing waits for the next turn.
  [[nodiscard]] bool has_time();

  // Until take_held(), what this thread adds to the log wakes nobody. False: it does, as ever.
  [[nodiscard]] bool hold();
  // False: nothing was added meanwhile, or it is left to the storage thread.
  [[nodiscard]] bool take_held(Turn& turn);

  void done(const Turn& turn);

 private:
  static constexpr std::size_t kMaxWritesBytes = 8 << 20;  // of log writes in one turn
  // Of turns in a row with one small write each, and nothing that waited behind it.
  static constexpr std::uint32_t kLoneTurns = 16;
  static constexpr std::size_t kMaxLoneBytes = 16 << 10;
  static constexpr std::size_t kMaxLoneEntries = 8;

  [[nodiscard]] static std::size_t size_bytes(const LogWrite& write);
  [[nodiscard]] static bool is_small(const LogWrite& write);
  template <class Change>
  void tell(const Change& change);
  // With the mutex
  [[nodiscard]] bool waits() const;
  void take_writes(Turn& turn);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<LogWrite> writes_;
  std::deque<Apply> applies_;
  std::vector<Cut> cuts_;
  std::optional<NodeIdentity> identity_;
  bool look_again_ = false;
  bool stopping_ = false;
  bool due_passed_ = false;  // take() is to return as soon as nobody has a turn
  bool busy_ = false;        // somebody has a turn
  std::thread::id holder_;   // of what it adds to the log
  bool held_ = false;        // ... which it did
  std::atomic<std::uint32_t> lone_turns_ = 0;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline void StoreQueue::add(LogWrite write) {
  {
    const std::lock_guard lock(mutex_);
    writes_.push_back(std::move(write));
    if (holder_ == std::this_thread::get_id()) {
      held_ = true;
      return;
    }
  }
  changed_.notify_one();
}

// Whoever waits in take() looks at what `change` did.
template <class Change>
void StoreQueue::tell(const Change& change) {
  {
    const std::lock_guard lock(mutex_);
    change();
  }
  changed_.notify_one();
}

inline void StoreQueue::add(Apply apply) {
  tell([&] { applies_.push_back(std::move(apply)); });
}

inline void StoreQueue::add(Cut cut) {
  tell([&] { cuts_.push_back(cut); });
}

inline void StoreQueue::add(NodeIdentity identity) {
  tell([&] { identity_ = std::move(identity); });
}

inline void StoreQueue::look_again() {
  tell([&] { look_again_ = true; });
}

inline void StoreQueue::stop() {
  tell([&] { stopping_ = true; });
}

inline std::size_t StoreQueue::size_bytes(const LogWrite& write) {
  std::size_t bytes = 0;
  for (const raft::Entry& entry : write.write.entries) bytes += entry.size_bytes();
  return bytes;
}

inline bool StoreQueue::is_small(const LogWrite& write) {
  return write.write.entries.size() <= kMaxLoneEntries && size_bytes(write) <= kMaxLoneBytes;
}

inline bool StoreQueue::waits() const {
  return !writes_.empty() || !applies_.empty() || !cuts_.empty() || identity_ || look_again_;
}

inline bool StoreQueue::has_time() {
  const std::lock_guard lock(mutex_);
  return writes_.empty() && applies_.empty() && cuts_.empty() && !stopping_;
}

// ---- Turns -----------------------------------------------------------------------------------------

inline bool StoreQueue::take(Turn& turn, Clock::time_point due) {
  turn = {};
  std::unique_lock lock(mutex_);
  const auto ready = [this] { return !busy_ && (stopping_ || waits()); };
  if (!changed_.wait_until(lock, due, ready)) {
    due_passed_ = true;
    changed_.wait(lock, [this] { return !busy_; });
    due_passed_ = false;
  }
  busy_ = true;
  look_again_ = false;
  take_writes(turn);
  turn.identity = std::exchange(identity_, std::nullopt);
  turn.cuts.swap(cuts_);
  // A snapshot is put in force after what was appended before it.
  const bool later = !applies_.empty() && applies_.front().generation != nullptr &&
                     std::ranges::any_of(writes_, [this](const LogWrite& write) {
                       return write.group == applies_.front().group;
                     });
  if (!applies_.empty() && !later) {
    turn.apply = std::move(applies_.front());
    applies_.pop_front();
  }
  const bool nothing = turn.writes.empty() && turn.cuts.empty() && !turn.identity && !turn.apply;
  return !nothing || !stopping_;
}

inline void StoreQueue::take_writes(Turn& turn) {
  std::size_t taken_bytes = 0;
  while (!writes_.empty() && taken_bytes < kMaxWritesBytes) {
    taken_bytes += size_bytes(writes_.front());
    turn.writes.push_back(std::move(writes_.front()));
    writes_.pop_front();
  }
}

inline void StoreQueue::done(const Turn& turn) {
  bool more = false;
  {
    const std::lock_guard lock(mutex_);
    busy_ = false;
    more = waits() || stopping_ || due_passed_;
    const bool lone = turn.writes.size() == 1 && is_small(turn.writes.front()) && writes_.empty() &&
                      !turn.was_slow;
    if (!lone && !turn.writes.empty()) lone_turns_ = 0;
    if (lone && lone_turns_ < kLoneTurns) ++lone_turns_;
  }
  if (more) changed_.notify_one();
}

// ---- Held ------------------------------------------------------------------------------------------

// Under load nobody comes as far as the lock.
inline bool StoreQueue::hold() {
  if (lone_turns_.load(std::memory_order_relaxed) < kLoneTurns) return false;
  const std::lock_guard lock(mutex_);
  if (busy_ || stopping_ || due_passed_ || waits()) return false;
  holder_ = std::this_thread::get_id();
  return true;
}

// The storage thread may have been woken by something else, and taken what was held.
inline bool StoreQueue::take_held(Turn& turn) {
  turn = {};
  {
    const std::lock_guard lock(mutex_);
    holder_ = {};
    if (!std::exchange(held_, false) || writes_.empty()) return false;
    if (!busy_ && !stopping_ && writes_.size() == 1 && is_small(writes_.front())) {
      busy_ = true;
      take_writes(turn);
      return true;
    }
  }
  changed_.notify_one();
  return false;
}

}  // namespace seshat

#endif  // SESHAT_STORE_QUEUE_HPP
