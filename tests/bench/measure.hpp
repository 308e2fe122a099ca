// tests/bench/measure.hpp - latencies, counts and CPU times of one run.
//
//   |  warm-up  |  measured: duration_ms  |     what was answered in between counts
//               ^ CPU times               ^ CPU times
//
// Needs Linux: CPU times of other processes come from /proc.
#ifndef SESHAT_TESTS_BENCH_MEASURE_HPP
#define SESHAT_TESTS_BENCH_MEASURE_HPP

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "options.hpp"

namespace seshat::bench {

using Nanoseconds = std::uint64_t;

[[nodiscard]] inline Nanoseconds now_ns() {
  return static_cast<Nanoseconds>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                      std::chrono::steady_clock::now().time_since_epoch())
                                      .count());
}

// Counts of durations: every power of two in 64 steps, so that a percentile is less than 2 % off.
class Histogram {
 public:
  void add(Nanoseconds value) { ++counts_[bucket_of(value)], ++total_; }
  // The longest duration of the shortest `share` (0 to 1) of all; 0 without any.
  [[nodiscard]] Nanoseconds percentile(double share) const;

 private:
  static constexpr std::size_t kSteps = 128;

  static std::size_t bucket_of(Nanoseconds value) {
    const auto shift = static_cast<std::size_t>(std::bit_width(value / kSteps));
    return shift * kSteps + static_cast<std::size_t>(value >> shift);
  }
  static Nanoseconds end_of(std::size_t bucket) {
    return ((bucket % kSteps + 1) << (bucket / kSteps)) - 1;
  }

  std::array<std::uint64_t, 58 * kSteps> counts_{};
  std::uint64_t total_ = 0;
};

// CPU time spent so far, in seconds.
struct CpuTimes {
  double servers = 0;    // all processes of Options::pids, with children that have ended
  double generator = 0;  // this process, all threads
  double driver = 0;     // the thread that sends and receives
  double machine = 0;    // all processes and the kernel, over all cores
};

[[nodiscard]] CpuTimes cpu_times(const std::vector<std::string>& pids);

class Recorder {
 public:
  explicit Recorder(const Options& options);

  // An operation was answered, and how. The driver reports in the order of time.
  void answered(Nanoseconds sent_at, Nanoseconds now, bool right);
  // An operation that was under way when all ended.
  void unanswered(Nanoseconds sent_at) { longest_ = std::max(longest_, ended_at_ - sent_at); }
  // What was wrong with the first answer that was wrong.
  void complain(std::string text);
  // Turns pages at their time; true once all is measured.
  [[nodiscard]] bool over(Nanoseconds now);
  [[nodiscard]] std::string json() const;

 private:
  enum class Phase : std::uint8_t { kWarmUp, kMeasured, kOver };

  const Options options_;
  Phase phase_ = Phase::kWarmUp;
  Nanoseconds begins_at_;
  Nanoseconds ended_at_ = 0;
  CpuTimes before_;
  CpuTimes after_;
  Histogram latencies_;
  Nanoseconds longest_ = 0;
  std::uint64_t operations_ = 0;
  std::uint64_t errors_ = 0;
  std::string complaint_;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline Nanoseconds Histogram::percentile(double share) const {
  const auto wanted = static_cast<std::uint64_t>(share * static_cast<double>(total_));
  std::uint64_t seen = 0;
  for (std::size_t bucket = 0; bucket < counts_.size(); ++bucket) {
    seen += counts_[bucket];
    if (counts_[bucket] != 0 && seen >= wanted) return end_of(bucket);
  }
  return 0;
}

namespace detail {

inline double seconds_of(clockid_t clock) {
  timespec time{};
  if (clock_gettime(clock, &time) != 0) throw std::runtime_error("clock_gettime failed");
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// utime, stime, cutime, cstime: fields 14 to 17 of /proc/PID/stat (proc(5)). The second one is a
// name in parentheses that may hold anything.
inline double ticks_of_process(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/stat");
  std::string text;
  if (!std::getline(file, text)) throw std::runtime_error("process " + pid + " is gone");
  std::istringstream fields(text.substr(text.rfind(')') + 1));
  std::string skipped;
  for (int field = 3; field < 14; ++field) fields >> skipped;
  double sum = 0;
  for (int field = 14; field < 18; ++field) {
    double ticks = 0;
    fields >> ticks;
    sum += ticks;
  }
  return sum;
}

// The first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal, ...
inline double busy_ticks_of_machine() {
  std::ifstream file("/proc/stat");
  std::string skipped;
  file >> skipped;
  double sum = 0;
  for (int field = 0; field < 7; ++field) {
    double ticks = 0;
    file >> ticks;
    if (field != 3 && field != 4) sum += ticks;
  }
  return sum;
}

}  // namespace detail

inline CpuTimes cpu_times(const std::vector<std::string>& pids) {
  const auto ticks_a_second = static_cast<double>(sysconf(_SC_CLK_TCK));
  CpuTimes times;
  for (const std::string& pid : pids) {
    times.servers += detail::ticks_of_process(pid) / ticks_a_second;
  }
  times.generator = detail::seconds_of(CLOCK_PROCESS_CPUTIME_ID);
  times.driver = detail::seconds_of(CLOCK_THREAD_CPUTIME_ID);
  times.machine = detail::busy_ticks_of_machine() / ticks_a_second;
  return times;
}

inline Recorder::Recorder(const Options& options)
    : options_(options),
      begins_at_(now_ns() + (options.count != 0 ? 0 : options.warm_up_ms * 1'000'000)) {}

inline void Recorder::answered(Nanoseconds sent_at, Nanoseconds now, bool right) {
  if (phase_ != Phase::kMeasured) return;
  ++operations_;
  if (!right) ++errors_;
  latencies_.add(now - sent_at);
  longest_ = std::max(longest_, now - sent_at);
}

inline void Recorder::complain(std::string text) {
  if (complaint_.empty()) complaint_ = std::move(text);
}

inline bool Recorder::over(Nanoseconds now) {
  if (phase_ == Phase::kWarmUp && now >= begins_at_) {
    phase_ = Phase::kMeasured;
    before_ = cpu_times(options_.pids);
    begins_at_ = now;
  }
  const bool done = options_.count != 0 ? operations_ >= options_.count
                                        : now >= begins_at_ + options_.duration_ms * 1'000'000;
  if (phase_ == Phase::kMeasured && done) {
    phase_ = Phase::kOver;
    after_ = cpu_times(options_.pids);
    ended_at_ = now;
  }
  return phase_ == Phase::kOver;
}

// The driver is one thread: with nine tenths of a core it has little left to be faster with.
inline std::string Recorder::json() const {
  const double seconds = static_cast<double>(ended_at_ - begins_at_) * 1e-9;
  const double operations = std::max(1.0, static_cast<double>(operations_));
  const double servers = after_.servers - before_.servers;
  const double generator = after_.generator - before_.generator;
  const double driver_share = (after_.driver - before_.driver) / seconds;
  const double others = after_.machine - before_.machine - servers - generator;
  const auto us = [](Nanoseconds value) { return static_cast<double>(value) / 1000; };
  const auto percentile_us = [&](double share) {
    return us(std::min(latencies_.percentile(share), longest_));
  };
  std::string complaint;
  for (const char c : complaint_) complaint += c == '"' || c == '\\' || c < ' ' ? ' ' : c;
  std::ostringstream out;
  out.precision(10);
  out << "{\"clients\": " << options_.clients << ", \"pipeline\": " << options_.pipeline
      << ", \"keys\": " << options_.keys << ", \"key_size_bytes\": " << options_.key_size_bytes
      << ", \"value_size_bytes\": " << options_.value_size_bytes << ", \"seconds\": " << seconds
      << ", \"operations\": " << operations_
      << ", \"per_second\": " << static_cast<double>(operations_) / seconds
      << ", \"p50_us\": " << percentile_us(0.5) << ", \"p99_us\": " << percentile_us(0.99)
      << ", \"p999_us\": " << percentile_us(0.999) << ", \"max_us\": " << us(longest_)
      << ", \"errors\": " << errors_ << ", \"first_error\": \"" << complaint << "\""
      << ", \"server_cpu_us\": " << servers * 1e6 / operations
      << ", \"generator_cpu_us\": " << generator * 1e6 / operations
      << ", \"server_cores\": " << servers / seconds
      << ", \"generator_cores\": " << generator / seconds
      << ", \"other_cores\": " << std::max(0.0, others / seconds)
      << ", \"driver_share\": " << driver_share
      << ", \"generator_is_bottleneck\": " << (driver_share >= 0.9 ? "true" : "false") << "}";
  return out.str();
}

}  // namespace seshat::bench

#endif  // SESHAT_TESTS_BENCH_MEASURE_HPP
