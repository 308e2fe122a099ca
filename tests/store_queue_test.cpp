// Whose turn it is to do what waits for the disk: the storage thread's, or that of who brought it.
#include "seshat/store_queue.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <future>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "store_harness.hpp"

namespace seshat {
namespace {

using namespace std::chrono_literals;
using namespace seshat::tests;
using Turn = StoreQueue::Turn;

// What is queued, with no group to write it to: nobody looks there.
StoreQueue::LogWrite log_write(std::uint64_t id, std::uint64_t count = 1,
                               std::size_t size_bytes = 10) {
  return {nullptr, write(id, entries(1, id, id + count - 1, size_bytes))};
}

// As the storage thread has it.
Turn do_one(StoreQueue& queue, bool was_slow = false) {
  Turn turn;
  CHECK(queue.take(turn, StoreQueue::Clock::now()));
  turn.was_slow = was_slow;
  queue.done(turn);
  return turn;
}

void write_one_by_one(StoreQueue& queue, std::uint64_t count = 16) {
  for (std::uint64_t id = 1; id <= count; ++id) {
    queue.add(log_write(id));
    CHECK(do_one(queue).writes.size() == 1);
  }
}

bool may_hold(StoreQueue& queue) {
  Turn turn;
  const bool holds = queue.hold();
  CHECK_FALSE(queue.take_held(turn));
  return holds;
}

// Writes that come one by one, and then write 17, which this thread holds.
Turn hold_one(StoreQueue& queue) {
  write_one_by_one(queue);
  REQUIRE(queue.hold());
  queue.add(log_write(17));
  Turn held;
  REQUIRE(queue.take_held(held));
  return held;
}

TEST_CASE("what is added while nobody looks is one turn, in the order of its coming", "[store]") {
  StoreQueue queue;
  for (std::uint64_t id = 1; id <= 5; ++id) queue.add(log_write(id));
  queue.add(StoreQueue::Cut{nullptr, Index{7}});
  queue.add(NodeIdentity{});
  CHECK_FALSE(queue.has_time());
  const Turn turn = do_one(queue);
  REQUIRE(turn.writes.size() == 5);
  for (std::uint64_t id = 1; id <= 5; ++id) CHECK(turn.writes[id - 1].write.id == id);
  CHECK(turn.cuts.size() == 1);
  CHECK(turn.identity);
  CHECK(queue.has_time());
}

TEST_CASE("a turn takes some 8 MB of log writes, and the next one the rest", "[store]") {
  StoreQueue queue;
  for (std::uint64_t id = 1; id <= 4; ++id) queue.add(log_write(id, 1, 3 << 20));
  CHECK(do_one(queue).writes.size() == 3);
  CHECK(do_one(queue).writes.size() == 1);
}

TEST_CASE("a stopped queue gives what is left, and then says so", "[store]") {
  StoreQueue queue;
  queue.add(log_write(1));
  queue.stop();
  CHECK(do_one(queue).writes.size() == 1);
  Turn turn;
  CHECK_FALSE(queue.take(turn, StoreQueue::Clock::now() + 1h));
}

TEST_CASE("who waits is woken for a look as well, and gets nothing at the time it said",
          "[store]") {
  StoreQueue queue;
  CHECK(do_one(queue).writes.empty());
  auto waits = std::async(std::launch::async, [&] {
    Turn turn;
    return queue.take(turn, StoreQueue::Clock::now() + 1h);
  });
  queue.look_again();
  CHECK(waits.get());
}

TEST_CASE("writes may be held once sixteen came one by one and were quickly done", "[store]") {
  StoreQueue queue;
  CHECK_FALSE(may_hold(queue));
  write_one_by_one(queue, 15);
  CHECK_FALSE(may_hold(queue));
  write_one_by_one(queue, 1);
  CHECK(may_hold(queue));

  const auto after = [](auto something) {
    StoreQueue other;
    write_one_by_one(other);
    something(other);
    return may_hold(other);
  };
  CHECK(after([](StoreQueue&) {}));
  CHECK_FALSE(after([](StoreQueue& other) {  // two at once
    other.add(log_write(1));
    other.add(log_write(2));
    do_one(other);
  }));
  CHECK(after([](StoreQueue& other) {  // one with eight entries
    other.add(log_write(1, 8));
    do_one(other);
  }));
  CHECK_FALSE(after([](StoreQueue& other) {  // ... with nine
    other.add(log_write(1, 9));
    do_one(other);
  }));
  CHECK_FALSE(after([](StoreQueue& other) {  // a large one
    other.add(log_write(1, 1, 20'000));
    do_one(other);
  }));
  CHECK_FALSE(after([](StoreQueue& other) {  // a slow one
    other.add(log_write(1));
    do_one(other, true);
  }));
  CHECK_FALSE(after([](StoreQueue& other) {  // one behind which another waited
    Turn turn;
    other.add(log_write(1));
    CHECK(other.take(turn, StoreQueue::Clock::now()));
    other.add(log_write(2));
    other.done(turn);
    do_one(other);
  }));
  CHECK(after([](StoreQueue& other) {  // what is no write says nothing about writes
    other.add(StoreQueue::Cut{nullptr, Index{7}});
    do_one(other);
  }));
}

TEST_CASE("nothing is held while somebody has a turn, something waits, or all ends", "[store]") {
  StoreQueue queue;
  write_one_by_one(queue);
  Turn turn;
  CHECK(queue.take(turn, StoreQueue::Clock::now()));
  CHECK_FALSE(queue.hold());
  queue.done(turn);
  queue.add(StoreQueue::Cut{nullptr, Index{7}});
  CHECK_FALSE(queue.hold());
  do_one(queue);
  CHECK(may_hold(queue));
  queue.stop();
  CHECK_FALSE(queue.hold());
}

TEST_CASE("what was held is the holder's, and meanwhile nobody else has a turn", "[store]") {
  StoreQueue queue;
  const Turn held = hold_one(queue);
  REQUIRE(held.writes.size() == 1);
  CHECK(held.writes[0].write.id == 17);

  queue.add(log_write(18));
  auto storage = std::async(std::launch::async, [&] {
    Turn turn;
    const bool more = queue.take(turn, StoreQueue::Clock::now());
    return more && turn.writes.size() == 1;
  });
  CHECK(storage.wait_for(20ms) == std::future_status::timeout);
  queue.done(held);
  CHECK(storage.get());
}

TEST_CASE("whose time has come while somebody has a turn is woken by its end", "[store]") {
  StoreQueue queue;
  const Turn held = hold_one(queue);
  auto storage = std::async(std::launch::async, [&] {
    Turn turn;
    return queue.take(turn, StoreQueue::Clock::now()) && turn.writes.empty();
  });
  CHECK(storage.wait_for(20ms) == std::future_status::timeout);
  queue.done(held);
  CHECK(storage.wait_for(10s) == std::future_status::ready);
  queue.look_again();
  CHECK(storage.get());
}

TEST_CASE("what was held and has company, or is large, is left to the storage thread", "[store]") {
  for (const std::uint64_t held_writes : {1, 2}) {
    StoreQueue queue;
    write_one_by_one(queue);
    auto storage = std::async(std::launch::async, [&] {
      Turn turn;
      std::size_t writes = 0;
      while (writes < held_writes && queue.take(turn, StoreQueue::Clock::now() + 1h)) {
        writes += turn.writes.size();
        queue.done(turn);
      }
      return writes;
    });
    REQUIRE(queue.hold());
    for (std::uint64_t i = 0; i < held_writes; ++i) {
      queue.add(log_write(17 + i, 1, held_writes == 1 ? 20'000 : 10));
    }
    Turn turn;
    CHECK_FALSE(queue.take_held(turn));
    CHECK(storage.wait_for(10s) == std::future_status::ready);
    queue.stop();
    CHECK(storage.get() == held_writes);
  }
}

TEST_CASE("what another thread adds meanwhile is not held", "[store]") {
  StoreQueue queue;
  write_one_by_one(queue);
  REQUIRE(queue.hold());
  auto storage = std::async(std::launch::async, [&] {
    Turn turn;
    const bool more = queue.take(turn, StoreQueue::Clock::now() + 1h);
    queue.done(turn);
    return more && turn.writes.size() == 1;
  });
  std::thread([&] { queue.add(log_write(17)); }).join();
  CHECK(storage.get());
  Turn turn;
  CHECK_FALSE(queue.take_held(turn));
}

// ---- The store ---------------------------------------------------------------------------------------

// Appends one by one until the store lets this thread hold; gives the next id.
std::uint64_t append_until_held(tests::Node& node, std::uint64_t id = 1) {
  const bool holds = eventually([&] {
    if (node->hold_writes()) return true;
    node.append(kData, write(id, entries(1, id, id)));
    ++id;
    return false;
  });
  REQUIRE(holds);
  return id;
}

// How far the mark beside the log says that all is durable.
std::uint64_t marked(MemoryDisk& disk) {
  MemoryDisk copy = disk.after_kill();
  const auto env = copy.env();
  return DurableMark::open(*env, "/data/durable-mark")->sequence();
}

TEST_CASE("a held write is synced by who appended it, and told after the sync", "[store]") {
  MemoryDisk disk;
  tests::Node node(disk);
  std::atomic<std::thread::id> synced_by;
  disk.set_hook([&](DiskOperation operation, const std::string& path) {
    const bool of_the_log = operation == DiskOperation::kSync && path.ends_with(".log");
    if (of_the_log) synced_by = std::this_thread::get_id();
    return rocksdb::IOStatus::OK();
  });
  std::uint64_t id = 1;
  for (int i = 0; i < 20; ++i, ++id) {
    id = append_until_held(node, id);
    node->append(kData, write(id, entries(1, id, id)));
    CHECK(node.listener.synced(kData) == id - 1);
    const std::uint64_t before = marked(disk);
    node->write_held();
    CHECK(node.listener.synced(kData) == id);
    CHECK(synced_by.load() == std::this_thread::get_id());
    CHECK(eventually([&] { return marked(disk) > before; }));
    MemoryDisk cut = disk.after_kill();
    MemoryDisk found = cut.after_cut(id);
    CHECK(tests::Node(found).data.entries.size() >= id);
  }
  node.stop();
}

TEST_CASE("a held write that fails ends the node, as any other", "[store]") {
  MemoryDisk disk;
  tests::Node node(disk);
  const std::uint64_t id = append_until_held(node);
  disk.set_hook([](DiskOperation operation, const std::string&) {
    return operation == DiskOperation::kSync ? rocksdb::IOStatus::IOError("worn out")
                                             : rocksdb::IOStatus::OK();
  });
  node->append(kData, write(id, entries(1, id, id)));
  node->write_held();
  REQUIRE(node.listener.failures().size() == 1);
  CHECK_THAT(node.listener.failures().front(), Catch::Matchers::ContainsSubstring("worn out"));
  CHECK(node.listener.synced(kData) == id - 1);
  CHECK(node.listener.late() == 0);
}

}  // namespace
}  // namespace seshat
