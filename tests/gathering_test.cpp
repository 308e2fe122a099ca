// How long what was proposed waits for more: never without need, never for long.
#include "seshat/gathering.hpp"

#include <chrono>
#include <cstdint>

#include "catch.hpp"

using seshat::Gathering;

namespace {

using namespace std::chrono_literals;
using Time = Gathering::Clock::time_point;

// A leader's log, and the time, in microseconds.
struct Leader {
  explicit Leader(bool short_of_cpu = true) { gathering.allow(short_of_cpu); }

  void propose(std::uint64_t count) { log.last += count; }
  void commit() { log.committed = log.left; }
  // The end of a turn. True: what waits goes on waiting.
  bool waits() {
    const bool waits = gathering.waits(log, now);
    if (!waits) log.left = log.last;
    return waits;
  }
  // So many clients write, and all are answered after `took`.
  void round(std::uint64_t clients, std::chrono::microseconds took) {
    propose(clients);
    CHECK_FALSE(waits());
    now += took;
    commit();
    CHECK_FALSE(waits());
  }
  void rounds(std::uint64_t clients, std::chrono::microseconds took) {
    for (int i = 0; i < 64; ++i) round(clients, took);
  }

  Gathering gathering;
  Gathering::Log log{0, 0, 0};
  Time now{};
};

}  // namespace

TEST_CASE("where cores are free nothing waits", "[gathering]") {
  Leader leader(false);
  leader.rounds(50, 500us);
  leader.propose(1);
  CHECK_FALSE(leader.waits());
  CHECK_FALSE(leader.gathering.until());
  CHECK(leader.gathering.rounds() == 0);
}

TEST_CASE("where they are short, what the first ones ask waits until nearly all have asked",
          "[gathering]") {
  Leader leader;
  leader.rounds(50, 500us);
  CHECK(leader.gathering.rounds() == 0);
  leader.propose(20);
  CHECK(leader.waits());
  leader.propose(26);
  CHECK(leader.waits());
  CHECK(leader.gathering.until());
  leader.propose(1);
  CHECK_FALSE(leader.waits());
  CHECK_FALSE(leader.gathering.until());
  CHECK(leader.gathering.rounds() == 1);
}

TEST_CASE("it waits for two rounds' time, and for 2 ms, at most", "[gathering]") {
  const auto [took, wait] = GENERATE(table<std::chrono::microseconds, std::chrono::microseconds>(
      {{100us, 200us}, {500us, 1000us}, {1500us, 2000us}, {40'000us, 2000us}}));
  Leader leader;
  leader.rounds(50, took);
  leader.propose(20);
  CHECK(leader.waits());
  // Smoothed, and so not quite.
  const auto until = *leader.gathering.until() - leader.now;
  CHECK(until <= wait);
  CHECK(until > wait - wait / 50);
  leader.now += until - 1us;
  leader.propose(1);
  CHECK(leader.waits());
  leader.now += 1us;
  CHECK_FALSE(leader.waits());
}

TEST_CASE("two crowds that ask by turns become one", "[gathering]") {
  Leader leader;
  leader.rounds(25, 500us);
  // The others' writes are under way when the first ones ask again.
  leader.propose(25);
  CHECK_FALSE(leader.waits());
  leader.now += 100us;
  leader.propose(25);
  CHECK(leader.waits());
  leader.now += 400us;
  leader.log.committed = leader.log.left;
  CHECK(leader.waits());
  leader.now += 50us;
  leader.propose(25);
  CHECK_FALSE(leader.waits());
}

TEST_CASE("a few clients are not made to wait for each other", "[gathering]") {
  Leader leader;
  leader.rounds(3, 500us);
  leader.propose(1);
  CHECK_FALSE(leader.waits());
  leader.commit();
  leader.rounds(4, 500us);
  leader.propose(1);
  CHECK(leader.waits());
}

TEST_CASE("clients that went away are soon not waited for", "[gathering]") {
  Leader leader;
  leader.rounds(64, 500us);
  int waited = 0;
  for (int i = 0; i < 100; ++i) {
    leader.propose(8);
    if (leader.waits()) {
      ++waited;
      leader.now = *leader.gathering.until();
      CHECK_FALSE(leader.waits());
    }
    leader.now += 500us;
    leader.commit();
  }
  CHECK(waited > 2);
  CHECK(waited < 40);
}

TEST_CASE("once cores are free again, what waits leaves", "[gathering]") {
  Leader leader;
  leader.rounds(50, 500us);
  leader.propose(20);
  CHECK(leader.waits());
  leader.gathering.allow(false);
  CHECK_FALSE(leader.waits());
}

TEST_CASE("of a log that is led elsewhere nothing is kept", "[gathering]") {
  Leader leader;
  leader.rounds(50, 500us);
  leader.propose(20);
  CHECK(leader.waits());
  leader.gathering.forget();
  CHECK_FALSE(leader.gathering.until());
  leader.log = {1000, 1000, 1001};
  CHECK_FALSE(leader.waits());
}
