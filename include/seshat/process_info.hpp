// seshat/process_info.hpp - what INFO tells of the process: memory, processor time, a rate.
//
// Threads: none inside. Needs: node_info.hpp (a line of INFO), machine_memory.hpp.
#ifndef SESHAT_PROCESS_INFO_HPP
#define SESHAT_PROCESS_INFO_HPP

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <fstream>
#include <string>
#include <string_view>

#if __has_include(<sys/resource.h>)
#include <sys/resource.h>
#endif
#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

#include "seshat/machine_memory.hpp"
#include "seshat/node_info.hpp"

namespace seshat::process_info {

struct Memory {
  std::uint64_t resident_bytes = 0;
  std::uint64_t used_bytes = 0;  // of those, what is not a page of a file
};

// Linux tells what is now; elsewhere the largest so far, where that is known.
[[nodiscard]] Memory memory();

// 1.47M, as Redis writes sizes for people.
[[nodiscard]] std::string human_size(std::uint64_t size_bytes);

// The lines of section "memory". `peak_bytes`: the most that was seen to be used.
void append_memory(std::string& out, std::uint64_t peak_bytes);

// The lines of section "cpu".
void append_cpu(std::string& out);

// How often something happens, over the last one or two seconds, or since the last sample where
// those are rare.
class Rate {
 public:
  // `count` so far. Call it as often as you like.
  void sample(std::uint64_t now_ms, std::uint64_t count);
  [[nodiscard]] std::uint64_t per_sec(std::uint64_t now_ms, std::uint64_t count) const;

 private:
  static constexpr std::uint64_t kSampleMs = 100;
  static constexpr std::uint64_t kWindowMs = 1600;
  struct Sample {
    std::uint64_t at_ms;
    std::uint64_t count;
  };
  std::deque<Sample> samples_;  // oldest first
};

// =================================================================================================
// Bodies
// =================================================================================================

inline Memory memory() {
  std::ifstream statm("/proc/self/statm");
  std::uint64_t total_pages = 0;
  std::uint64_t resident_pages = 0;
  std::uint64_t file_pages = 0;
  if (statm >> total_pages >> resident_pages >> file_pages) {
    const auto page_bytes = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    return {resident_pages * page_bytes,
            (resident_pages - std::min(file_pages, resident_pages)) * page_bytes};
  }
#if __has_include(<sys/resource.h>)
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) == 0) {
    const auto largest_bytes = static_cast<std::uint64_t>(usage.ru_maxrss);
    return {largest_bytes, largest_bytes};
  }
#endif
  return {};
}

inline std::string human_size(std::uint64_t size_bytes) {
  constexpr std::string_view kUnits = "BKMGTP";
  if (size_bytes < 1024) return std::to_string(size_bytes) + "B";
  std::size_t unit = 0;
  auto size = static_cast<double>(size_bytes);
  while (size >= 1024 && unit + 1 < kUnits.size()) {
    size /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  (void)std::snprintf(text.data(), text.size(), "%.2f%c", size, kUnits[unit]);
  return text.data();
}

inline void append_memory(std::string& out, std::uint64_t peak_bytes) {
  const Memory now = memory();
  const auto both = [&](const std::string& name, std::uint64_t size_bytes) {
    node_info::line(out, name, size_bytes);
    node_info::line(out, name + "_human", human_size(size_bytes));
  };
  both("used_memory", now.used_bytes);
  both("used_memory_rss", now.resident_bytes);
  both("used_memory_peak", std::max(peak_bytes, now.used_bytes));
  both("total_system_memory", machine_memory_bytes());
  both("maxmemory", 0);
  node_info::line(out, "maxmemory_policy", "noeviction");
}

inline void append_cpu(std::string& out) {
#if __has_include(<sys/resource.h>)
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return;
  const auto seconds = [](const timeval& time) {
    std::string micros = std::to_string(time.tv_usec);
    micros.insert(0, 6 - std::min<std::size_t>(micros.size(), 6), '0');
    return std::to_string(time.tv_sec) + "." + micros;
  };
  node_info::line(out, "used_cpu_sys", seconds(usage.ru_stime));
  node_info::line(out, "used_cpu_user", seconds(usage.ru_utime));
#else
  (void)out;
#endif
}

inline void Rate::sample(std::uint64_t now_ms, std::uint64_t count) {
  if (!samples_.empty() && now_ms - samples_.back().at_ms < kSampleMs) return;
  samples_.push_back({now_ms, count});
  while (samples_.size() > 1 && now_ms - samples_.front().at_ms > kWindowMs) samples_.pop_front();
}

inline std::uint64_t Rate::per_sec(std::uint64_t now_ms, std::uint64_t count) const {
  if (samples_.empty() || now_ms <= samples_.front().at_ms) return 0;
  return (count - samples_.front().count) * 1000 / (now_ms - samples_.front().at_ms);
}

}  // namespace seshat::process_info

#endif  // SESHAT_PROCESS_INFO_HPP
