// seshat/boot_clock.hpp - the clock that leases and timeouts count on.
//
// Threads: any. Needs: replica.hpp (Clock).
#ifndef SESHAT_BOOT_CLOCK_HPP
#define SESHAT_BOOT_CLOCK_HPP

#include <chrono>
#include <cstdint>
#include <ctime>

#include "seshat/replica.hpp"

namespace seshat {

// Goes on while the machine sleeps, where there is such a clock (Linux); leases depend on it. On
// other systems sleep stops it: use raft.read_mode = "read-index" on machines that may sleep.
class BootClock final : public Clock {
 public:
  [[nodiscard]] std::uint64_t now_ms() const override;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline std::uint64_t BootClock::now_ms() const {
#ifdef CLOCK_BOOTTIME
  timespec now{};
  if (clock_gettime(CLOCK_BOOTTIME, &now) == 0) {
    return static_cast<std::uint64_t>(now.tv_sec) * 1000 +
           static_cast<std::uint64_t>(now.tv_nsec) / 1'000'000;
  }
#endif
  const auto since_start = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(since_start).count());
}

}  // namespace seshat

#endif  // SESHAT_BOOT_CLOCK_HPP
