// seshat/leader_clock.hpp - the time that a leader stamps its entries with.
//
//   stamp = wall time when the term began + monotonic time since; where what was applied is later, it
//           goes on from that
//
// So a clock that is set while a node leads does nothing, and the state's time, the highest stamp that
// was applied, only moves forward. A new leader whose wall clock is ahead moves it ahead by as much;
// one whose clock is behind goes on from where it was.
//
// Threads: none inside. Needs: raft.hpp (Term).
#ifndef SESHAT_LEADER_CLOCK_HPP
#define SESHAT_LEADER_CLOCK_HPP

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <utility>

#include "seshat/raft.hpp"

namespace seshat {

class LeaderClock {
 public:
  // Milliseconds since 1970.
  using WallClock = std::function<std::uint64_t()>;
  explicit LeaderClock(WallClock wall_clock = &wall_ms) : wall_clock_(std::move(wall_clock)) {}

  // `monotonic_ms`: of a clock that never goes back. `applied_ms`: the highest stamp applied.
  [[nodiscard]] std::uint64_t stamp_ms(raft::Term term, std::uint64_t monotonic_ms,
                                       std::uint64_t applied_ms) {
    const bool new_term = term != term_ || last_ms_ == 0;
    if (new_term) last_ms_ = std::max(last_ms_, wall_clock_());
    if (!new_term) last_ms_ += monotonic_ms - last_monotonic_ms_;
    term_ = term;
    last_monotonic_ms_ = monotonic_ms;
    // What a former leader appended may be applied only now: it goes on from there.
    last_ms_ = std::max(last_ms_, applied_ms);
    return last_ms_;
  }

  [[nodiscard]] static std::uint64_t wall_ms() {
    const auto since_1970 = std::chrono::system_clock::now().time_since_epoch();
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(since_1970).count());
  }

 private:
  WallClock wall_clock_;
  raft::Term term_;
  std::uint64_t last_ms_ = 0;
  std::uint64_t last_monotonic_ms_ = 0;
};

}  // namespace seshat

#endif  // SESHAT_LEADER_CLOCK_HPP
