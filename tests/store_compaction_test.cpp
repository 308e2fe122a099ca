// Cutting the log: what goes, what stays, what survives a power cut, and the space that comes back.
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "memory_disk.hpp"
#include "seshat/store.hpp"
#include "seshat/store_log_size.hpp"
#include "store_harness.hpp"

using namespace seshat;
using namespace seshat::tests;

namespace {

std::vector<raft::Entry> sets(std::uint64_t first, std::uint64_t last, std::uint64_t term = 1,
                              std::size_t value_size_bytes = 100) {
  std::vector<raft::Entry> result;
  for (std::uint64_t index = first; index <= last; ++index) {
    const std::string key = "key" + std::to_string(index % 10);
    const std::string value = std::to_string(index) + std::string(value_size_bytes, 'v');
    result.push_back(entry(term, index, set_operation(key, value)));
  }
  return result;
}

// Cuts, and waits until it is durable; answers where the log begins then.
Index cut(Node& node, Index to) {
  const std::size_t before = node.listener.cuts(kData).size();
  node->cut_log(kData, to);
  REQUIRE(node.listener.wait_cuts(kData, before + 1));
  return node.listener.cuts(kData).back();
}

Listener::Fetched fetch(Node& node, Index from, Index to) {
  const std::size_t before = node.listener.fetched().size();
  node->fetch(kData, raft::Fetch{NodeId{2}, from, 1 << 20, to});
  REQUIRE(eventually([&] { return node.listener.fetched().size() > before; }));
  return node.listener.fetched().back();
}

std::string why_not(MemoryDisk& disk) {
  const auto env = disk.env();
  auto store = Store::open(options_for("/data", env.get()));
  REQUIRE(store);
  KeyValueMachine machine;
  const auto restored = (*store)->restore(kData, machine);
  return restored ? "" : restored.error().text;
}

std::uint64_t bytes_in(const std::string& directory) {
  std::uint64_t bytes = 0;
  for (const auto& file : std::filesystem::recursive_directory_iterator(directory)) {
    std::error_code gone;
    if (file.is_regular_file(gone)) bytes += file.file_size(gone);
  }
  return bytes;
}

// The data group alone, on a real disk, in a directory of its own.
struct OnDisk {
  explicit OnDisk(std::size_t write_buffer_size_bytes) : options(options_for(dir / "data")) {
    options.write_buffer_size_bytes = write_buffer_size_bytes;
    open();
    store->start(listener);
  }
  // Opens and restores, without starting it.
  void open() {
    auto opened = Store::open(options);
    REQUIRE(opened);
    store = std::move(*opened);
    auto restored = store->restore(kData, machine);
    REQUIRE(restored);
    data = std::move(*restored);
  }
  Store* operator->() { return store.get(); }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_in(dir / "data"); }

  TemporaryDir dir;
  StoreOptions options;
  Listener listener;
  KeyValueMachine machine;
  raft::Restored data;
  std::unique_ptr<Store> store;
};

}  // namespace

TEST_CASE("a cut takes what is applied, and no more", "[store][compaction]") {
  MemoryDisk disk;
  Node node(disk);
  const auto log = sets(1, 100);
  node.append(kData, write(1, log));
  node.apply(kData, {log.begin(), log.begin() + 60});
  CHECK(node->log_stats(kData).first_index == Index{1});
  CHECK(cut(node, Index{40}) == Index{41});
  CHECK(cut(node, Index{30}) == Index{41});
  CHECK(cut(node, Index{100}) == Index{61});
  const LogStats stats = node->log_stats(kData);
  CHECK(stats.first_index == Index{61});
  CHECK(stats.last_index == Index{100});
  CHECK(stats.applied_durable == Index{60});
  CHECK(node->log_stats(kSystem).first_index == Index{1});
  CHECK(node->stats().log_cuts == 3);
}

TEST_CASE("a cut log is restored, with the term of the entry before it (class 17)",
          "[store][compaction]") {
  MemoryDisk disk;
  auto log = sets(1, 50, 3);
  const auto later = sets(51, 80, 5);
  log.insert(log.end(), later.begin(), later.end());
  {
    Node node(disk);
    node.append(kData, write(1, log));
    node.apply(kData, log);
    REQUIRE(cut(node, Index{50}) == Index{51});
  }
  {
    Node node(disk);
    CHECK(node.data.first_index == Index{51});
    CHECK(node.data.base_index == Index{50});
    CHECK(node.data.base_term == Term{3});
    CHECK(node.data.applied_index == Index{80});
    CHECK(same(node.data.entries, later));
    REQUIRE(cut(node, Index{80}) == Index{81});  // all of it
  }
  {
    Node node(disk);
    CHECK(node.data.first_index == Index{81});
    CHECK(node.data.base_index == Index{80});
    CHECK(node.data.base_term == Term{5});
    CHECK(node.data.entries.empty());
    CHECK(node->log_stats(kData).last_index == Index{80});
    node.append(kData, write(1, {entry(6, 81, set_operation("k", "v"))}));
  }
  Node node(disk);
  CHECK(node.data.entries.size() == 1);
  CHECK(node.data.base_term == Term{5});
}

TEST_CASE("a log that begins after what was applied is refused (class 16)", "[store][compaction]") {
  MemoryDisk disk;
  {
    Node node(disk);
    const auto log = sets(1, 20);
    node.append(kData, write(1, log));
    node.apply(kData, log);
    REQUIRE(cut(node, Index{15}) == Index{16});
  }
  const auto env = disk.env();
  std::string bytes;
  SECTION("the state is older than the log") {
    tamper(*env, store_detail::kDataKv, std::string(kDataStateKey),
           codec::encode(MachineState{Index{10}, Term{1}}));
    CHECK_THAT(why_not(disk), ContainsSubstring("begins at entry 16, but the state machine has "
                                                "applied only entry 10"));
    CHECK_THAT(why_not(disk), ContainsSubstring("let it join again"));
  }
  SECTION("the log was cut too far") {
    codec::encode(raft::Entry{Term{1}, Index{25}, raft::EntryType::kNoOp, nullptr}, bytes);
    tamper(*env, store_detail::kDataState, "base", bytes);
    CHECK_THAT(why_not(disk), ContainsSubstring("begins at entry 26"));
  }
}

TEST_CASE("a fetch from before the cut finds nothing, and from it on the term before it",
          "[store][compaction]") {
  MemoryDisk disk;
  Node node(disk);
  const auto log = sets(1, 100, 4);
  node.append(kData, write(1, log));
  node.apply(kData, log);
  REQUIRE(cut(node, Index{50}) == Index{51});
  CHECK(fetch(node, Index{50}, Index{60}).entries.empty());
  const Listener::Fetched got = fetch(node, Index{51}, Index{60});
  CHECK(got.prev_log_term == Term{4});
  CHECK(got.entries.size() == 10);
}

TEST_CASE("fetches beside cuts give whole runs of entries, or nothing", "[store][compaction]") {
  OnDisk node(64 << 10);
  constexpr std::uint64_t kRounds = 100;
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    const auto log = sets(round * 50 + 1, round * 50 + 50, 1, 200);
    node->append(kData, write(round + 1, log));
    REQUIRE(node.listener.wait_synced(kData, round + 1));
    node->apply(kData, log);
    REQUIRE(node.listener.wait_applied(kData, log.back().index));
    const Index from{round * 50 + 1};
    node->fetch(kData, raft::Fetch{NodeId{2}, from, 1 << 20, log.back().index});
    node->cut_log(kData, Index{round * 50 + 20});
    node->fetch(kData, raft::Fetch{NodeId{2}, from, 1 << 20, log.back().index});
  }
  REQUIRE(eventually([&] { return node.listener.fetched().size() == 2 * kRounds; }));
  for (const Listener::Fetched& fetched : node.listener.fetched()) {
    CHECK((fetched.entries.empty() || fetched.entries.size() == 50));
  }
  // What no cut comes near is given.
  const Index last{kRounds * 50};
  node->fetch(kData, raft::Fetch{NodeId{2}, Index{last.value - 29}, 1 << 20, last});
  REQUIRE(eventually([&] { return node.listener.fetched().size() == 2 * kRounds + 1; }));
  CHECK(node.listener.fetched().back().entries.size() == 30);
  CHECK(node.listener.failures().empty());
}

TEST_CASE("the size of a log and where to cut it are known from memory", "[store][compaction]") {
  LogSize size(Index{10});
  CHECK(size.cut_point(0) == Index{10});
  for (std::uint64_t index = 11; index <= 1010; ++index) size.add(Index{index}, 10'000);
  CHECK(size.size_bytes() == 10'000'000);
  const Index half = size.cut_point(5'000'000);
  CHECK(half > Index{480});
  CHECK(half <= Index{510});
  CHECK(size.cut_point(20'000'000) == Index{10});
  size.cut(Index{510});
  CHECK(size.size_bytes() == 5'000'000);
  size.truncate(Index{760});
  CHECK(size.size_bytes() == 2'500'000);
  size.add(Index{761}, 1);
  CHECK(size.size_bytes() == 2'500'001);
  size.truncate(Index{510});
  CHECK(size.size_bytes() == 0);
}

TEST_CASE("... and found again at the start without reading the log", "[store][compaction]") {
  MemoryDisk disk;
  std::uint64_t before = 0;
  std::mt19937_64 random(5);
  {
    Node node(disk);
    for (std::uint64_t id = 0; id < 10; ++id) {
      std::vector<raft::Entry> log;
      for (std::uint64_t index = id * 100 + 1; index <= id * 100 + 100; ++index) {
        std::string data(4'000, ' ');  // that can't be compressed
        for (char& c : data) c = static_cast<char>(random());
        log.push_back(entry(1, index, data));
      }
      node.append(kData, write(id + 1, log));
    }
    before = node->log_stats(kData).size_bytes;
    CHECK(before > 4'000'000);
    CHECK(before < 4'100'000);
  }
  Node node(disk);
  const std::uint64_t after = node->log_stats(kData).size_bytes;
  CHECK(after > before * 9 / 10);
  CHECK(after < before * 11 / 10);
  const Index half = node->cut_point(kData, before / 2);
  CHECK(half > Index{400});
  CHECK(half < Index{600});
}

TEST_CASE("the space of a long log comes back as it is cut", "[store][compaction]") {
  OnDisk node(1 << 20);
  constexpr std::uint64_t kSteps = 20;
  constexpr std::uint64_t kStep = 5'000;
  std::mt19937_64 random(1);
  std::uint64_t step = 0;
  const auto run = [&](bool cut_each) {
    for (const std::uint64_t end = step + kSteps; step < end;) {
      std::vector<raft::Entry> log;
      for (std::uint64_t index = step * kStep + 1; index <= (step + 1) * kStep; ++index) {
        std::string value(1'000, ' ');
        for (char& c : value) c = static_cast<char>(random());
        log.push_back(entry(1, index, set_operation("key" + std::to_string(index % 100), value)));
      }
      ++step;
      node->append(kData, write(step, log));
      REQUIRE(node.listener.wait_synced(kData, step));
      node->apply(kData, log);
      REQUIRE(node.listener.wait_applied(kData, log.back().index));
      if (cut_each) node->cut_log(kData, log.back().index);
    }
    return Index{step * kStep};
  };
  const Index last = run(false);
  const std::uint64_t uncut = node.bytes();
  CHECK(uncut > 100'000'000);
  for (std::uint64_t to = kStep; to <= last.value; to += kStep) {
    node->cut_log(kData, Index{to});
  }
  REQUIRE(node.listener.wait_cuts(kData, kSteps));
  // 100 keys of 1 KB live; the rest is what RocksDB's buffers, WAL and level 0 hold.
  const bool shrank = eventually([&] { return node.bytes() < 30'000'000; });
  INFO("100,000 entries: " << uncut << " bytes, and " << node.bytes() << " after the cut");
  CHECK(shrank);
  run(true);  // a log that is cut as it grows
  const bool stayed = eventually([&] { return node.bytes() < 30'000'000; });
  INFO("100,000 more, cut as they came: " << node.bytes() << " bytes");
  CHECK(stayed);
  node.store.reset();
  node.open();
  CHECK(node.data.first_index == Index{2 * last.value + 1});
  CHECK(node.data.applied_index == Index{2 * last.value});
}

// ---- Power cuts ----------------------------------------------------------------------------------------

namespace {

// What was promised before the power went.
struct Promised {
  std::uint64_t synced = 0;
  Index cut_to{1};  // where the log begins, at least
};

// One life: appends, applies and cuts, with buffers small enough for flushes in between.
Promised live(MemoryDisk& disk) {
  const auto env = disk.env();
  StoreOptions options = options_for("/data", env.get());
  options.write_buffer_size_bytes = 16 << 10;
  Listener listener;
  CountingMachine machine;
  auto store = Store::open(options);
  REQUIRE(store);
  REQUIRE((*store)->restore(kSystem, machine));
  (*store)->start(listener);
  Promised promised;
  for (std::uint64_t round = 0; round < 8; ++round) {
    const auto log = entries(1, round * 10 + 1, round * 10 + 10, 700);
    (*store)->append(kSystem, write(round + 1, log));
    REQUIRE(listener.wait_synced(kSystem, round + 1));
    if (!disk.is_off()) promised.synced = round * 10 + 10;
    (*store)->apply(kSystem, log);
    REQUIRE(listener.wait_applied(kSystem, log.back().index));
    (*store)->cut_log(kSystem, Index{round * 10 + 5});
    REQUIRE(listener.wait_cuts(kSystem, round + 1));
    if (!disk.is_off()) promised.cut_to = listener.cuts(kSystem).back();
  }
  return promised;
}

}  // namespace

TEST_CASE("a power cut at any operation around a cut loses nothing (classes 13, 14)",
          "[store][compaction][crash]") {
  MemoryDisk whole;
  (void)live(whole);
  const std::uint64_t operations = whole.operations();
  REQUIRE(operations > 100);
  const std::uint64_t stride = every_crash() ? 1 : 4;
  for (std::uint64_t cut_at = 40; cut_at <= operations; cut_at += stride) {
    for (std::uint64_t seed = 0; seed < (every_crash() ? 4 : 1); ++seed) {
      MemoryDisk disk;
      disk.cut_power_at(cut_at, seed * 1'000 + cut_at);
      const Promised promised = live(disk);
      MemoryDisk after = disk.after_cut();
      const auto env = after.env();
      Listener listener;
      CountingMachine machine;
      auto store = Store::open(options_for("/data", env.get()));
      INFO("cut at " << cut_at << ": " << (store ? "" : store.error().text));
      REQUIRE(store);
      const auto restored = (*store)->restore(kSystem, machine);
      INFO((restored ? "" : restored.error().text));
      REQUIRE(restored);
      const LogStats stats = (*store)->log_stats(kSystem);
      CHECK(restored->first_index >= promised.cut_to);
      CHECK(restored->first_index <= restored->applied_index + 1);
      CHECK(stats.last_index.value >= promised.synced);
      (*store)->start(listener);
      read_disk(**store, kSystem, [&](const OrderedMap& map) {
        CHECK(count_in(map) == restored->applied_index.value);
      });
    }
  }
}
