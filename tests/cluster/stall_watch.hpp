// tests/cluster/stall_watch.hpp - when the machine stood still: a virtual one whose processors are given to
// others, or one that has too much to do.
//
//   StallWatch stalls;
//   ... measure ...
//   if (stalls.take() < what_was_measured) CHECK(...);
#ifndef SESHAT_TESTS_STALL_WATCH_HPP
#define SESHAT_TESTS_STALL_WATCH_HPP

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "harness.hpp"

namespace seshat::tests {

// A thread that does nothing but sleep, anywhere or on each processor, and notes how late it comes.
class StallWatch {
 public:
  enum class Where { kAnywhere, kOnEach };

  explicit StallWatch(Where where = Where::kAnywhere) {
    if (where == Where::kAnywhere) {
      threads_.emplace_back([this] { watch(); });
      return;
    }
    const unsigned processors = std::max(1u, std::thread::hardware_concurrency());
    for (unsigned each = 0; each < processors; ++each) {
      threads_.emplace_back([this, each] {
        stay_on(each);
        watch();
      });
    }
  }
  StallWatch(const StallWatch&) = delete;
  StallWatch& operator=(const StallWatch&) = delete;
  ~StallWatch() {
    stopping_ = true;
    for (std::thread& thread : threads_) thread.join();
  }
  // The longest since the last call.
  [[nodiscard]] Milliseconds take() { return Milliseconds(longest_ms_.exchange(0)); }

 private:
  // If it may.
  static void stay_on(unsigned processor) {
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(processor, &only);
    pthread_setaffinity_np(pthread_self(), sizeof only, &only);
  }
  void watch() {
    while (!stopping_) {
      const auto due = SteadyClock::now() + 10ms;
      std::this_thread::sleep_until(due);
      const std::int64_t late_ms = since(due).count();
      std::int64_t longest_ms = longest_ms_;
      while (late_ms > longest_ms && !longest_ms_.compare_exchange_weak(longest_ms, late_ms)) {
      }
    }
  }

  std::atomic<std::int64_t> longest_ms_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> threads_;
};

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_STALL_WATCH_HPP
