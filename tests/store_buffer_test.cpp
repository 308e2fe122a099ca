// What was applied and is not in RocksDB yet: where reads find it, when it is written, and what a
// crash makes of it.
#include "seshat/store_buffer.hpp"

#include <chrono>
#include <cstdint>
#include <future>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "memory_disk.hpp"
#include "seshat/store.hpp"
#include "store_harness.hpp"

namespace seshat::tests {
namespace {

RowTable changes(std::vector<std::pair<std::string, std::optional<std::string>>> list) {
  RowTable result;
  for (auto& [key, value] : list) {
    RowTable::Row& row = result.at(key);
    if (value) row.set(*value);
  }
  return result;
}

std::string read(const StoreBuffer& buffer, const std::string& key) {
  std::string value;
  const std::optional<Lookup> lookup = buffer.get(key, value);
  if (!lookup) return "(below)";
  return *lookup == Lookup::kAbsent ? "(erased)" : value;
}

std::string value_of(const OrderedMap& map, const std::string& key) {
  std::string storage;
  StoredValue value;
  return read_value(map, key, storage, value) == Lookup::kFound ? std::string(value.data)
                                                                : "(none)";
}

raft::Entry set(std::uint64_t index, const std::string& key, const std::string& value) {
  return entry(1, index, set_operation(key, value));
}

// So that nothing is written before write_out().
constexpr std::uint64_t kHourMs = 3'600'000;

// By asking for a snapshot, which has to have all of it.
Result<SnapshotMetadata> write_out(Node& node) {
  std::promise<Result<SnapshotMetadata>> built;
  node->build_snapshot(
      kData, {}, [&](Result<SnapshotMetadata> result) { built.set_value(std::move(result)); });
  return built.get_future().get();
}

// What the disk would hold after a kill.
std::string after_kill(MemoryDisk& disk, const std::string& key) {
  MemoryDisk killed = disk.after_kill();
  const auto env = killed.env();
  auto store = Store::open(options_for("/data", env.get()));
  REQUIRE(store);
  KeyValueMachine machine;
  const auto restored = (*store)->restore(kData, machine);
  REQUIRE(restored);
  return value_of((*store)->cached(kData), key) + " at " +
         std::to_string(restored->applied_index.value) + " of " +
         std::to_string(restored->base_index.value + restored->entries.size());
}

}  // namespace

TEST_CASE("a buffer knows what changed last, and what it does not know", "[store][buffer]") {
  StoreBuffer buffer;
  CHECK(read(buffer, "a") == "(below)");
  auto first = changes({{"a", "1"}, {"b", "2"}});
  buffer.merge(first, Index{2});
  auto second = changes({{"a", std::nullopt}, {"c", "3"}});
  buffer.merge(second, Index{4});
  CHECK(read(buffer, "a") == "(erased)");
  CHECK(read(buffer, "b") == "2");
  CHECK(read(buffer, "c") == "3");
  CHECK(read(buffer, "d") == "(below)");
}

TEST_CASE("what is frozen is read until something newer is, or it is written", "[store][buffer]") {
  StoreBuffer buffer;
  CHECK_FALSE(buffer.freeze());
  auto first = changes({{"a", "1"}, {"b", "1"}});
  buffer.merge(first, Index{2});
  const auto frozen = buffer.freeze();
  REQUIRE(frozen);
  CHECK(frozen->last == Index{2});
  CHECK(frozen->rows->size() == 2);
  CHECK(buffer.size_bytes() == 0);
  auto second = changes({{"a", "2"}});
  buffer.merge(second, Index{3});
  CHECK(read(buffer, "a") == "2");
  CHECK(read(buffer, "b") == "1");
  CHECK_FALSE(buffer.freeze());  // the first is not written
  buffer.written();
  CHECK(read(buffer, "b") == "(below)");
  CHECK(read(buffer, "a") == "2");
  const auto next = buffer.freeze();
  REQUIRE(next);
  CHECK(next->last == Index{3});
  CHECK(next->rows->size() == 1);
}

TEST_CASE("the size of a buffer follows what it holds", "[store][buffer]") {
  StoreBuffer buffer;
  auto first = changes({{"a", std::string(1000, 'x')}});
  buffer.merge(first, Index{1});
  const std::size_t large = buffer.size_bytes();
  CHECK(large > 1000);
  for (std::uint64_t i = 2; i < 100; ++i) {
    auto again = changes({{"a", std::string(1000, 'y')}});
    buffer.merge(again, Index{i});
  }
  CHECK(buffer.size_bytes() == large);
  auto shorter = changes({{"a", "z"}});
  buffer.merge(shorter, Index{100});
  CHECK(buffer.size_bytes() == large - 999);
}

TEST_CASE("what is applied is read at once, and reaches the disk with the index it stands for",
          "[store][buffer]") {
  MemoryDisk disk;
  Node node(disk, {.write_behind_ms = kHourMs});
  node.append(kData, write(1, {set(1, "a", "1"), set(2, "a", "2"), set(3, "a", "3")}));
  node.apply(kData, {set(1, "a", "1"), set(2, "a", "2")});
  CHECK(value_of(node->cached(kData), "a") == "2");
  read_disk(*node, kData, [](const OrderedMap& map) { CHECK(value_of(map, "a") == "2"); });
  CHECK(node->log_stats(kData).applied_durable == Index{0});
  CHECK(after_kill(disk, "a") == "(none) at 0 of 3");  // the log has it all

  node->cut_log(kData, Index{1});
  CHECK(node->stats().log_cuts == 0);  // it waits until what it cuts off is written
  REQUIRE(write_out(node));
  REQUIRE(node.listener.wait_cuts(kData, 1));
  CHECK(after_kill(disk, "a") == "2 at 2 of 3");
  CHECK(value_of(node->cached(kData), "a") == "2");
}

TEST_CASE("a key that changes again and again is written once", "[store][buffer]") {
  MemoryDisk disk;
  Node node(disk, {.write_behind_ms = kHourMs});
  std::vector<raft::Entry> log;
  for (std::uint64_t i = 1; i <= 500; ++i) log.push_back(set(i, "a", std::string(1000, 'v')));
  node.append(kData, write(1, log));
  const std::uint64_t before = node->stats().written_rows;
  for (const raft::Entry& one : log) node.apply(kData, {one});
  REQUIRE(write_out(node));
  CHECK(node->stats().written_rows == before + 2);  // the key, and where the state machine stands
}

TEST_CASE("so much that is not written does not wait for its time", "[store][buffer]") {
  MemoryDisk disk;
  Node node(disk, {.write_buffer_size_bytes = 64 << 10, .write_behind_ms = kHourMs});
  std::vector<raft::Entry> log;
  for (std::uint64_t i = 1; i <= 200; ++i) {
    log.push_back(set(i, "key" + std::to_string(i), std::string(1000, 'v')));
  }
  node.append(kData, write(1, log));
  for (const raft::Entry& one : log) node.apply(kData, {one});
  CHECK(eventually([&] { return node->stats().written_rows >= 150; }));
}

TEST_CASE("what waits is written after its time, without a further write", "[store][buffer]") {
  MemoryDisk disk;
  Node node(disk, {.write_behind_ms = 20});
  node.append(kData, write(1, {set(1, "a", "1")}));
  node.apply(kData, {set(1, "a", "1")});
  CHECK(eventually([&] { return node->log_stats(kData).applied_durable == Index{1}; }));
  CHECK(after_kill(disk, "a") == "1 at 1 of 1");
}

TEST_CASE("entries whose keys are in memory are applied at once, others not at all",
          "[store][buffer]") {
  MemoryDisk disk;
  {
    Node node(disk);
    std::vector<raft::Entry> log;  // several blocks of a table, of which a start reads the first
    for (std::uint64_t i = 1; i <= 100; ++i) {
      log.push_back(set(i, "key" + std::to_string(i), std::to_string(i) + std::string(1000, 'v')));
    }
    node.append(kData, write(1, log));
    node.apply(kData, log);
  }
  Node node(disk, {.write_behind_ms = kHourMs});
  const std::vector<raft::Entry> log = {set(101, "key77", "2"), set(102, "key77", "3")};
  node.append(kData, write(1, log));
  CHECK_FALSE(node->apply_now(kData, {log[0]}));  // only the disk can tell whether it is there
  CHECK(node->stats().applied_batches == 0);
  node.apply(kData, {log[0]});
  const auto outcomes = node->apply_now(kData, {log[1]});
  REQUIRE(outcomes);
  CHECK(outcomes->size() == 1);
  CHECK(value_of(node->cached(kData), "key77") == "3");
}

TEST_CASE("entries that are applied at once follow those of the storage thread in their own batch",
          "[store][buffer]") {
  MemoryDisk disk;
  Node node(disk);
  constexpr std::uint64_t kRounds = 3000;
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    const std::uint64_t index = 2 * round + 1;
    const std::string value = std::to_string(round);
    node.apply(kData, {set(index, "first", value)});
    REQUIRE(node->apply_now(kData, {set(index + 1, "second", value)}));
    REQUIRE(value_of(node->cached(kData), "first") == value);
    REQUIRE(value_of(node->cached(kData), "second") == value);
  }
}

TEST_CASE("the system group's entries, very many and large ones are left to the storage thread",
          "[store][buffer]") {
  MemoryDisk disk;
  Node node(disk);
  std::vector<raft::Entry> log;
  for (std::uint64_t i = 1; i <= 513; ++i) log.push_back(set(i, "a", "v"));
  CHECK_FALSE(node->apply_now(kData, log));
  CHECK_FALSE(node->apply_now(kSystem, {entry(1, 1, "", raft::EntryType::kNoOp)}));
  log.pop_back();
  CHECK(node->apply_now(kData, log));
  CHECK_FALSE(node->apply_now(kData, {set(513, "a", std::string(300'000, 'v'))}));
}

TEST_CASE("a snapshot has all that was applied, written or not", "[store][buffer][snapshot]") {
  MemoryDisk disk;
  Node node(disk, {.write_behind_ms = kHourMs});
  node.append(kData, write(1, {set(1, "a", "1"), set(2, "b", "2")}));
  node.apply(kData, {set(1, "a", "1"), set(2, "b", "2")});
  const Result<SnapshotMetadata> metadata = write_out(node);
  REQUIRE(metadata);
  CHECK(metadata->snapshot.last_included_index == Index{2});
}

TEST_CASE(
    "what was applied is due after half an interval at the soonest, each node in a third of it",
    "[store][buffer]") {
  using namespace std::chrono_literals;
  using std::chrono::nanoseconds;
  constexpr nanoseconds kInterval = 900ms;
  constexpr nanoseconds kWall = 1'000'000s;  // a multiple of the interval, and 100 ms
  static_assert(kWall % kInterval == 100ms);
  const auto left = [&](nanoseconds waited, std::uint64_t node) {
    return StoreWriter::time_left(waited, kInterval, kWall, NodeId{node});
  };
  CHECK(left(0ms, 3) == 800ms);
  CHECK(left(0ms, 1) == 1100ms);  // 200 ms would be too soon
  CHECK(left(0ms, 2) == 500ms);
  CHECK(left(300ms, 1) == 200ms);
  CHECK(left(300ms, 2) == 500ms);
  CHECK(left(900ms, 3) <= 0ms);
  CHECK(StoreWriter::time_left(5ms, 0ms, kWall, NodeId{1}) == -5ms);
}

TEST_CASE("a store that stops writes what waits", "[store][buffer]") {
  MemoryDisk disk;
  {
    Node node(disk, {.write_behind_ms = kHourMs});
    node.append(kData, write(1, {set(1, "a", "1")}));
    node.apply(kData, {set(1, "a", "1")});
  }
  CHECK(after_kill(disk, "a") == "1 at 1 of 1");
}

TEST_CASE("a disk that refuses what was applied ends the store", "[store][buffer]") {
  MemoryDisk disk;
  Node node(disk, {.write_behind_ms = kHourMs});
  node.append(kData, write(1, {set(1, "a", "1")}));
  node.apply(kData, {set(1, "a", "1")});
  disk.set_hook([](DiskOperation operation, const std::string&) {
    return operation == DiskOperation::kWrite ? rocksdb::IOStatus::NoSpace() : rocksdb::IOStatus();
  });
  CHECK_FALSE(write_out(node));
  REQUIRE(node.listener.wait_failed());
  CHECK_THAT(node.listener.failures().front(), ContainsSubstring("No space left"));
}

}  // namespace seshat::tests
