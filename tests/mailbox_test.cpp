// The mailbox, with one owner and several threads that post. No test sleeps.
#include "seshat/mailbox.hpp"

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"

namespace {

using seshat::Mailbox;

struct Counted {
  std::size_t wakes = 0;
  std::function<void()> wake() {
    return [this] { ++wakes; };
  }
};

// An owner's loop: waits for a wake-up, then takes.
class Owner {
 public:
  std::function<void()> wake() {
    return [this] {
      const std::lock_guard lock(mutex_);
      woken_ = true;
      condition_.notify_one();
    };
  }
  void wait() {
    std::unique_lock lock(mutex_);
    condition_.wait(lock, [this] { return woken_; });
    woken_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable condition_;
  bool woken_ = false;
};

using Posted = std::pair<int, int>;  // who, and which of his

}  // namespace

TEST_CASE("what was pushed is taken once, in order", "[mailbox]") {
  Counted counted;
  Mailbox<int> box(counted.wake(), 10);
  for (int i = 0; i < 3; ++i) box.push(i);
  std::vector<int> items = {99};
  box.take(items);
  CHECK(items == std::vector<int>{0, 1, 2});
  box.take(items);
  CHECK(items.empty());
}

TEST_CASE("the owner is woken when the box was empty, and only then", "[mailbox]") {
  Counted counted;
  Mailbox<int> box(counted.wake(), 10);
  box.push(1);
  box.push(2);
  CHECK(box.leave_droppable(3));
  CHECK_FALSE(box.claim());
  CHECK(counted.wakes == 1);
  std::vector<int> items;
  box.take(items);
  box.push(4);
  CHECK(counted.wakes == 2);
}

TEST_CASE("what gathered at a poster comes in order behind what waits, with one wake-up at most",
          "[mailbox]") {
  Counted counted;
  Mailbox<int> box(counted.wake(), 10);
  std::vector<int> none;
  box.push_all(none);
  CHECK(counted.wakes == 0);
  std::vector<int> first = {1, 2};
  box.push_all(first);
  CHECK(first.empty());
  std::vector<int> second = {3, 4};
  box.push_all(second);
  CHECK(second.empty());
  CHECK(counted.wakes == 1);
  std::vector<int> items;
  box.take(items);
  CHECK(items == std::vector<int>{1, 2, 3, 4});
}

TEST_CASE(
    "what is left without a wake-up can be claimed once, and does not keep others from waking",
    "[mailbox]") {
  Counted counted;
  Mailbox<int> box(counted.wake(), 1);
  CHECK_FALSE(box.claim());
  box.leave(1);
  CHECK(box.leave_droppable(2));
  CHECK_FALSE(box.leave_droppable(3));
  CHECK(counted.wakes == 0);
  box.push(4);
  CHECK(counted.wakes == 1);
  CHECK_FALSE(box.claim());  // the owner was woken for all of it
  std::vector<int> items;
  box.take(items);
  CHECK(items == std::vector<int>{1, 2, 4});
  box.leave(5);
  CHECK(box.claim());
  box.push(6);  // who claimed sees to this as well
  CHECK(counted.wakes == 1);
  box.take(items);
  CHECK(items == std::vector<int>{5, 6});
  CHECK_FALSE(box.claim());
}

TEST_CASE("what may be lost is refused at the bound, what may not is taken", "[mailbox]") {
  Counted counted;
  Mailbox<int> box(counted.wake(), 2);
  CHECK(box.leave_droppable(1));
  CHECK(box.leave_droppable(2));
  CHECK_FALSE(box.leave_droppable(3));
  box.push(4);
  std::vector<int> items;
  box.take(items);
  CHECK(items == std::vector<int>{1, 2, 4});
  CHECK(box.leave_droppable(5));  // there is room again
}

TEST_CASE("a box with no room for what may be lost loses all of it, and wakes nobody",
          "[mailbox]") {
  Counted counted;
  Mailbox<int> box(counted.wake(), 0);
  CHECK_FALSE(box.leave_droppable(1));
  CHECK_FALSE(box.claim());
  CHECK(counted.wakes == 0);
}

TEST_CASE("items that can only be moved pass through", "[mailbox]") {
  Counted counted;
  Mailbox<std::unique_ptr<int>> box(counted.wake(), 1);
  box.push(std::make_unique<int>(7));
  std::vector<std::unique_ptr<int>> items;
  box.take(items);
  REQUIRE(items.size() == 1);
  CHECK(*items[0] == 7);
}

TEST_CASE("a wake-up may push: it is called outside the lock", "[mailbox]") {
  std::unique_ptr<Mailbox<int>> box;
  bool pushed = false;
  box = std::make_unique<Mailbox<int>>(
      [&] {
        if (!std::exchange(pushed, true)) box->push(2);
      },
      1);
  box->push(1);
  std::vector<int> items;
  box->take(items);
  CHECK(items == std::vector<int>{1, 2});
}

TEST_CASE("from many threads, everything comes and each poster's order holds", "[mailbox]") {
  constexpr int kThreads = 4;
  constexpr int kEach = 5000;
  Owner owner;
  Mailbox<Posted> box(owner.wake(), 100);
  std::vector<std::thread> posters;
  for (int who = 0; who < kThreads; ++who) {
    posters.emplace_back([&box, who] {
      for (int i = 0; i < kEach; ++i) box.push({who, i});
    });
  }
  std::vector<int> next(kThreads, 0);
  std::vector<Posted> items;
  for (int left = kThreads * kEach; left > 0; left -= static_cast<int>(items.size())) {
    owner.wait();  // a wake-up that was lost would leave us here
    box.take(items);
    for (const auto& [who, which] : items) REQUIRE(next[static_cast<std::size_t>(who)]++ == which);
  }
  for (std::thread& poster : posters) poster.join();
}

TEST_CASE("from many threads, what may be lost never passes its bound", "[mailbox]") {
  constexpr std::size_t kBound = 16;
  Owner owner;
  const auto wake = owner.wake();
  Mailbox<int> box(wake, kBound);
  std::atomic<std::size_t> accepted{0};
  std::atomic<int> running{4};
  std::vector<std::thread> posters;
  for (int who = 0; who < 4; ++who) {
    posters.emplace_back([&] {
      for (int i = 0; i < 5000; ++i) {
        accepted += box.leave_droppable(i) ? 1 : 0;
        if (box.claim()) wake();
      }
      if (--running == 0) box.push(-1);
    });
  }
  std::size_t taken = 0;
  std::vector<int> items;
  for (bool ended = false; !ended;) {
    owner.wait();
    box.take(items);
    ended = items.back() == -1;
    taken += items.size() - (ended ? 1 : 0);
    REQUIRE(items.size() <= kBound + (ended ? 1 : 0));
  }
  for (std::thread& poster : posters) poster.join();
  CHECK(taken == accepted);
}
