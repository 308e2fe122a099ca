#include "seshat/peer_clock.hpp"

#include <chrono>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "catch.hpp"

namespace {

using namespace std::chrono_literals;
using seshat::peer_detail::PeerClock;

TEST_CASE("time between two questions counts, a step of it at most", "[peer]") {
  const PeerClock::Steady::time_point start{};
  PeerClock clock(500, start);
  CHECK(clock.now_ms(start) == 0);
  CHECK(clock.now_ms(start + 400ms) == 400);
  CHECK(clock.now_ms(start + 900ms) == 900);
  CHECK(clock.now_ms(start + 60s) == 1400);  // the process had stopped
  CHECK(clock.now_ms(start + 60s + 1ms) == 1401);
}

TEST_CASE("parts of a millisecond are not lost, however often it is asked", "[peer]") {
  const PeerClock::Steady::time_point start{};
  PeerClock clock(500, start);
  for (int i = 1; i <= 1000; ++i) clock.now_ms(start + i * 300us);
  CHECK(clock.now_ms(start + 300ms) == 300);
}

TEST_CASE("who asks with an older time than another thread sees no time go back", "[peer]") {
  const PeerClock::Steady::time_point start{};
  PeerClock clock(500, start);
  CHECK(clock.now_ms(start + 20ms) == 20);
  CHECK(clock.now_ms(start + 19ms) == 20);
  CHECK(clock.now_ms(start + 21ms) == 21);
}

TEST_CASE("what was stamped under a lock is not later than what is read under it next", "[peer]") {
  PeerClock clock(500);
  std::mutex mutex;
  std::uint64_t stamp_ms = 0;
  bool went_back = false;
  std::vector<std::thread> threads;
  for (int who = 0; who < 4; ++who) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20'000; ++i) {
        const std::lock_guard lock(mutex);
        const std::uint64_t now_ms = clock.now_ms();
        went_back |= now_ms < stamp_ms;
        stamp_ms = now_ms;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_FALSE(went_back);
}

}  // namespace
