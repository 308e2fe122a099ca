// seshat/peer_clock.hpp - milliseconds that hardly count while the process stands still.
//
//   asked:     │···│·······│·│                                  │··│
//   counted:   all of these        a step, and no more ────────>     all of these
//
// Whoever waits for a sign of another node must not take a pause of its own (SIGSTOP, a machine that
// sleeps) for that node's silence. The process that runs asks at least once a step.
//
// Threads: any; it waits for nobody, so it may be asked under any lock. What was stamped under a lock
//          is never later than what is read under it next.
// Alone:   copy this file; it needs only the standard library.
#ifndef SESHAT_PEER_CLOCK_HPP
#define SESHAT_PEER_CLOCK_HPP

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <mutex>

namespace seshat::peer_detail {

class PeerClock {
 public:
  using Steady = std::chrono::steady_clock;

  // `step_ms`: so much of the time between two questions counts, at most.
  explicit PeerClock(std::uint64_t step_ms, Steady::time_point now = Steady::now())
      : step_(step_ms), asked_(now) {}

  // Since it was made. `now`: never earlier than before, but by what threads differ.
  std::uint64_t now_ms(Steady::time_point now = Steady::now()) {
    const std::lock_guard lock(mutex_);
    if (now > asked_) {
      counted_ += std::min<Steady::duration>(now - asked_, step_);
      asked_ = now;
    }
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(counted_).count());
  }

 private:
  const std::chrono::milliseconds step_;
  std::mutex mutex_;  // guards both below
  Steady::time_point asked_;
  Steady::duration counted_{0};
};

}  // namespace seshat::peer_detail

#endif  // SESHAT_PEER_CLOCK_HPP
