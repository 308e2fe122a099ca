// seshat/leader_clock.hpp - the time that a leader stamps its entries with.
//
//   stamp = wall time when the term began + monotonic time since, and never below what was applied
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
    if (term != term_ || began_wall_ms_ == 0) {
      term_ = term;
      began_wall_ms_ = std::max(wall_clock_(), applied_ms);
      began_monotonic_ms_ = monotonic_ms;
    }
    last_ms_ =
        std::max({last_ms_, applied_ms, began_wall_ms_ + (monotonic_ms - began_monotonic_ms_)});
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
  std::uint64_t began_wall_ms_ = 0;
  std::uint64_t began_monotonic_ms_ = 0;
  std::uint64_t last_ms_ = 0;
};

}  // namespace seshat

#endif  // SESHAT_LEADER_CLOCK_HPP
