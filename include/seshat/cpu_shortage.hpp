// seshat/cpu_shortage.hpp - whether a thread has to wait for a core when it wants to run.
//
// Linux counts for each thread how long it was ready to run and did not: /proc/thread-self/schedstat,
// two numbers of nanoseconds (run, waited) and one of time slices. Where there is no such file, or it
// stays empty, nothing is ever short.
//
// Threads: made by the thread that it is about; afterwards one at a time. Needs: the standard library, POSIX.
#ifndef SESHAT_CPU_SHORTAGE_HPP
#define SESHAT_CPU_SHORTAGE_HPP

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <optional>

namespace seshat {

class CpuShortage {
 public:
  using Clock = std::chrono::steady_clock;

  // Of the time in which the thread could have run. One that is woken on a free core waits for some
  // microseconds as well, against some tens of them that it then runs.
  static constexpr double kShortAbove = 0.33;
  static constexpr double kEnoughBelow = 0.25;
  // A thread that wants to run less than this says nothing of the machine.
  static constexpr double kMinShare = 0.01;
  static constexpr std::chrono::milliseconds kInterval{100};

  explicit CpuShortage(const char* file = "/proc/thread-self/schedstat")
      : file_(open(file, O_RDONLY | O_CLOEXEC)) {}
  ~CpuShortage() {
    if (file_ >= 0) close(file_);
  }
  CpuShortage(const CpuShortage&) = delete;
  CpuShortage& operator=(const CpuShortage&) = delete;

  // Looks again if the last look is kInterval ago. What it saw holds until the next one.
  [[nodiscard]] bool is_short(Clock::time_point now);

 private:
  struct Times {
    double ran_ns;
    double waited_ns;
  };
  struct Look {
    Clock::time_point at;
    Times times;
  };

  [[nodiscard]] std::optional<Times> read() const;

  int file_;
  std::optional<Look> last_;
  bool short_ = false;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline bool CpuShortage::is_short(Clock::time_point now) {
  if (last_ && now - last_->at < kInterval) return short_;
  const std::optional<Times> times = read();
  if (!times) return short_ = false;
  if (last_) {
    const std::chrono::duration<double, std::nano> since = now - last_->at;
    const double waited_ns = times->waited_ns - last_->times.waited_ns;
    const double wanted_ns = waited_ns + times->ran_ns - last_->times.ran_ns;
    short_ = wanted_ns > kMinShare * since.count() &&
             waited_ns > (short_ ? kEnoughBelow : kShortAbove) * wanted_ns;
  }
  last_ = {now, *times};
  return short_;
}

inline std::optional<CpuShortage::Times> CpuShortage::read() const {
  std::array<char, 96> text{};
  if (file_ < 0 || pread(file_, text.data(), text.size() - 1, 0) <= 0) return std::nullopt;
  char* next = text.data();
  const std::uint64_t ran_ns = std::strtoull(next, &next, 10);
  const char* second = next;
  const std::uint64_t waited_ns = std::strtoull(second, &next, 10);
  if (next == second) return std::nullopt;
  return Times{static_cast<double>(ran_ns), static_cast<double>(waited_ns)};
}

}  // namespace seshat

#endif  // SESHAT_CPU_SHORTAGE_HPP
