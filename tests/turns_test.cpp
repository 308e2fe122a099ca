// Turns: never two at once, and none that was wanted is missing.
#include "seshat/turns.hpp"

#include <barrier>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "seshat/mailbox.hpp"

using seshat::Mailbox;
using seshat::Turns;

namespace {

// Of one thread, which may do something in the moment in which it was found taken.
class Scripted {
 public:
  void lock() {
    if (const auto then = std::exchange(before_locking, nullptr)) then();
    taken_ = true;
  }
  void unlock() { taken_ = false; }
  bool try_lock() {
    if (!taken_) return taken_ = true;
    if (const auto then = std::exchange(when_taken, nullptr)) then();
    return false;
  }

  inline static std::function<void()> when_taken;
  inline static std::function<void()> before_locking;

 private:
  bool taken_ = false;
};

}  // namespace

TEST_CASE("a turn is done where it is wanted, if nobody has one", "[turns]") {
  Turns<> turns;
  int done = 0;
  CHECK_FALSE(turns.take_or_leave([&] { ++done; }));
  CHECK_FALSE(turns.take_or_leave([&] { ++done; }));
  CHECK(done == 2);
  turns.take();
  CHECK_FALSE(turns.let_go());
}

TEST_CASE("a turn that can't be had is left to who has one, who hears of it once", "[turns]") {
  Turns<> turns;
  int done = 0;
  turns.take();
  std::thread([&] {
    CHECK_FALSE(turns.take_or_leave([&] { ++done; }));
    CHECK_FALSE(turns.take_or_leave([&] { ++done; }));
  }).join();
  CHECK(done == 0);
  CHECK(turns.let_go());
  turns.take();
  CHECK_FALSE(turns.let_go());
}

TEST_CASE("who lets go in the moment in which somebody finds the turn taken still hears of it",
          "[turns]") {
  Turns<Scripted> turns;
  bool heard = false;
  turns.take();
  Scripted::when_taken = [&] { heard = turns.let_go(); };
  CHECK_FALSE(turns.take_or_leave([] {}));
  CHECK(heard);
}

TEST_CASE("who waits for a turn goes before who can't wait, and hears of it", "[turns]") {
  Turns<Scripted> turns;
  bool done = false;
  Scripted::before_locking = [&] { CHECK_FALSE(turns.take_or_leave([&] { done = true; })); };
  turns.take();
  CHECK_FALSE(done);
  CHECK(turns.let_go());
  CHECK_FALSE(turns.take_or_leave([&] { done = true; }));
  CHECK(done);
}

TEST_CASE("who helped hears of what was left to it", "[turns]") {
  Turns<> turns;
  CHECK(turns.take_or_leave(
      [&] { std::thread([&] { CHECK_FALSE(turns.take_or_leave([] {})); }).join(); }));
  CHECK_FALSE(turns.take_or_leave([] {}));
}

TEST_CASE("among threads that come at once, turns exclude each other, and each item finds one",
          "[turns]") {
  constexpr int kRounds = 20'000;
  Turns<> turns;
  Mailbox<int> box([] {}, 0);
  std::vector<int> items;  // the turn's, as all below it
  int seen = 0;
  bool in_turn = false;
  bool two_at_once = false;
  const auto turn = [&] {
    two_at_once = two_at_once || in_turn;
    in_turn = true;
    box.take(items);
    seen += static_cast<int>(items.size());
    in_turn = false;
  };
  int missed = 0;
  // All have their turns, or have left them, before anybody goes on: what is missing then is missing.
  std::barrier round_ends(3, [&]() noexcept {
    box.take(items);
    missed += static_cast<int>(items.size());
  });
  const auto help = [&] {
    for (int i = 0; i < kRounds; ++i) {
      box.leave(i);
      while (turns.take_or_leave(turn)) {
      }
      round_ends.arrive_and_wait();
    }
  };
  std::thread one(help);
  std::thread other(help);
  for (int i = 0; i < kRounds; ++i) {
    bool again = true;
    while (again) {
      turns.take();
      turn();
      again = turns.let_go();
    }
    round_ends.arrive_and_wait();
  }
  one.join();
  other.join();
  CHECK_FALSE(two_at_once);
  CHECK(missed == 0);
  CHECK(seen == 2 * kRounds);
}
