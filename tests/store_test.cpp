#include "seshat/store.hpp"

#include <rocksdb/db.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "catch.hpp"
#include "memory_disk.hpp"
#include "store_harness.hpp"

using namespace seshat;
using namespace seshat::tests;

namespace {

std::string reason(const StoreOptions& options) {
  const auto store = Store::open(options);
  return store ? "" : store.error().text;
}

// Counts the syncs of RocksDB's log, and may make them slow or let them fail.
struct SlowDisk {
  explicit SlowDisk(MemoryDisk& disk, std::chrono::milliseconds sync_takes) {
    disk.set_hook([this, sync_takes](DiskOperation operation, const std::string& path) {
      if (operation != DiskOperation::kSync || !path.ends_with(".log")) {
        return rocksdb::IOStatus::OK();
      }
      ++syncs;
      std::this_thread::sleep_for(sync_takes);
      return rocksdb::IOStatus::OK();
    });
  }
  std::atomic<int> syncs{0};
};

std::string large(char c) { return std::string(2'000, c); }

}  // namespace

// ---- The directory -----------------------------------------------------------------------------------

TEST_CASE("a new directory gets an incarnation of its own, and keeps it", "[store]") {
  const TemporaryDir parent;
  std::uint64_t incarnation = 0;
  {
    const auto store = Store::open(options_for(parent / "a/b"));
    REQUIRE(store);
    CHECK((*store)->is_new());
    CHECK((*store)->identity().id == NodeId{1});
    CHECK((*store)->identity().cluster_id.empty());
    incarnation = (*store)->identity().incarnation;
    CHECK(incarnation != 0);
  }
  CHECK((*Store::open(options_for(parent / "a/b")))->identity().incarnation == incarnation);
  CHECK((*Store::open(options_for(parent / "other/")))->identity().incarnation != incarnation);
  for (const char* name : {"rocksdb", "durable-mark", "LOCK"}) {
    CHECK(std::filesystem::exists(parent / ("a/b/" + std::string(name))));
  }
}

TEST_CASE("the cluster id is kept", "[store]") {
  MemoryDisk disk;
  {
    Node node(disk);
    node->set_cluster_id("0123456789abcdef0123456789abcdef");
    CHECK(node->identity().cluster_id == "0123456789abcdef0123456789abcdef");
    REQUIRE(eventually([&] { return node->stats().syncs == 1; }));
    MemoryDisk cut = disk.after_cut(0);
    CHECK(Node(cut)->identity() == node->identity());
  }
}

TEST_CASE("a directory belongs to one process", "[store]") {
  const TemporaryDir parent;
  const auto first = Store::open(options_for(parent / "a"));
  REQUIRE(first);
  CHECK_THAT(reason(options_for(parent / "a")),
             ContainsSubstring("another seshat uses " + (parent / "a")));
  CHECK(reason(options_for(parent / "b")).empty());
}

TEST_CASE("a directory belongs to one node", "[store]") {
  const TemporaryDir parent;
  REQUIRE(reason(options_for(parent / "a")).empty());
  StoreOptions other = options_for(parent / "a");
  other.node_id = NodeId{2};
  CHECK_THAT(reason(other), ContainsSubstring("belongs to node 1, but this node is 2"));
}

TEST_CASE("a directory that can't be made or written is refused, and nothing is half made",
          "[store]") {
  const TemporaryDir parent;
  std::ofstream(parent / "file") << "not a directory";
  CHECK_THAT(reason(options_for(parent / "file/data")), ContainsSubstring("can't be made"));
  CHECK_THAT(reason(options_for(parent / "file")), ContainsSubstring("is not a directory"));
  CHECK(std::filesystem::is_regular_file(parent / "file"));

  MemoryDisk read_only;
  read_only.set_hook([](DiskOperation, const std::string&) {
    return rocksdb::IOStatus::IOError("Read-only file system");
  });
  const auto env = read_only.env();
  CHECK_THAT(reason(options_for("/data", env.get())),
             ContainsSubstring("/data can't be made: IO error: Read-only file system"));
  CHECK(read_only.files().empty());
}

TEST_CASE("a directory with somebody's files is left alone", "[store]") {
  const TemporaryDir parent;
  std::filesystem::create_directories(parent / "photos");
  std::ofstream(parent / "photos/cat.jpg") << "meow";
  CHECK_THAT(reason(options_for(parent / "photos")),
             ContainsSubstring("holds 'cat.jpg' and no seshat data"));
  CHECK_FALSE(std::filesystem::exists(parent / "photos/LOCK"));
  std::filesystem::create_directories(parent / "empty");
  CHECK(reason(options_for(parent / "empty")).empty());
}

TEST_CASE("a group that can't be stored is refused", "[store]") {
  const TemporaryDir parent;
  StoreOptions options = options_for(parent / "a");
  options.groups.push_back(GroupId{2});
  CHECK_THAT(reason(options), ContainsSubstring("group 2 can't be stored"));
  CHECK_FALSE(std::filesystem::exists(parent / "a"));
}

TEST_CASE("records of a newer version are refused by name", "[store]") {
  MemoryDisk disk;
  { Node node(disk); }
  const auto env = disk.env();
  const std::string newer("\x08\x04", 2);
  const auto restore_reason = [&](GroupId group) {
    const auto store = Store::open(options_for("/data", env.get()));
    REQUIRE(store);
    KeyValueMachine machine;
    const auto restored = (*store)->restore(group, machine);
    return restored ? std::string() : restored.error().text;
  };
  SECTION("identity") {
    tamper(*env, store_detail::kDefault, "identity", newer);
    CHECK_THAT(reason(options_for("/data", env.get())),
               ContainsSubstring("NodeIdentity has version 4, but this seshat knows only up to 3"));
  }
  SECTION("hard state") {
    tamper(*env, store_detail::kDataState, "state", newer);
    CHECK_THAT(restore_reason(kData), ContainsSubstring("RaftHardState has version 4"));
  }
  SECTION("log entry") {
    tamper(*env, store_detail::kDataLog, "log:00000000000000000001", newer);
    CHECK_THAT(restore_reason(kData), ContainsSubstring("VersionedLogEntry has version 4"));
  }
  SECTION("applied state") {
    tamper(*env, store_detail::kDataKv, std::string(kDataStateKey), newer);
    CHECK_THAT(restore_reason(kData), ContainsSubstring("MachineState has version 4"));
  }
}

// ---- The log --------------------------------------------------------------------------------------------

TEST_CASE("what was appended is restored, each group by itself", "[store]") {
  MemoryDisk disk;
  const std::vector<raft::Entry> log{entry(1, 1, "", raft::EntryType::kNoOp), entry(1, 2, "a"),
                                     entry(2, 3, std::string(65'536, 'b'))};
  {
    Node node(disk);
    CHECK(node.data.entries.empty());
    CHECK(node.data.hard_state == raft::HardState{});
    CHECK(node->is_new());
    node.append(kData, write(1, log, raft::HardState{Term{2}, NodeId{3}, Index{1}}));
    node.append(kSystem, write(1, {}, raft::HardState{Term{7}, NodeId{1}, {}}));
    CHECK_FALSE(node->is_new());
  }
  Node node(disk);
  CHECK_FALSE(node->is_new());
  CHECK(same(node.data.entries, log));
  CHECK(node.data.hard_state == raft::HardState{Term{2}, NodeId{3}, Index{1}});
  CHECK(node.system.entries.empty());
  CHECK(node.system.hard_state == raft::HardState{Term{7}, NodeId{1}, {}});
}

TEST_CASE("entries that conflict replace what stood there and after it (§5.3)", "[store]") {
  MemoryDisk disk;
  {
    Node node(disk);
    node.append(kData, write(1, entries(1, 1, 10)));
    node.append(kData, write(2, {entry(2, 4, "new"), entry(2, 5, "new")}));
  }
  {
    Node node(disk);
    REQUIRE(node.data.entries.size() == 5);
    CHECK(node.data.entries[2].term == Term{1});
    CHECK(node.data.entries[3].term == Term{2});
    CHECK(*node.data.entries[4].data == "new");
    node.append(kData, write(1, {entry(3, 1, "first")}));  // the end is known after a restart too
  }
  Node node(disk);
  CHECK(same(node.data.entries, {entry(3, 1, "first")}));
}

TEST_CASE("a log with a hole, or behind what was applied, is refused", "[store]") {
  MemoryDisk disk;
  {
    Node node(disk);
    const std::vector<raft::Entry> log{entry(1, 1, set_operation("k", "v")),
                                       entry(1, 2, set_operation("k", "w"))};
    node.append(kData, write(1, log));
    node.apply(kData, log);
  }
  const auto env = disk.env();
  std::string bytes;
  const char* expected = "";
  SECTION("hole") {
    codec::encode(entry(1, 4, "x"), bytes);
    tamper(*env, store_detail::kDataLog, "log:00000000000000000004", bytes);
    expected = "log entry 3 is missing";
  }
  SECTION("applied beyond the end") {
    bytes = codec::encode(MachineState{Index{3}, Term{1}});
    tamper(*env, store_detail::kDataKv, std::string(kDataStateKey), bytes);
    expected = "has applied entry 3, but the log ends at 2";
  }
  SECTION("applied another entry") {
    bytes = codec::encode(MachineState{Index{2}, Term{5}});
    tamper(*env, store_detail::kDataKv, std::string(kDataStateKey), bytes);
    expected = "applied another entry 2 than the log holds";
  }
  SECTION("a term above the saved one") {
    codec::encode(entry(99, 3, "x"), bytes);
    tamper(*env, store_detail::kDataLog, "log:00000000000000000003", bytes);
    expected = "the log has a term above the saved one";
  }
  const auto store = Store::open(options_for("/data", env.get()));
  REQUIRE(store);
  KeyValueMachine machine;
  const auto restored = (*store)->restore(kData, machine);
  REQUIRE_FALSE(restored);
  CHECK_THAT(restored.error().text, ContainsSubstring(expected));
  CHECK_THAT(restored.error().text, ContainsSubstring("let it join again"));
}

TEST_CASE("a restart keeps only a bounded tail of what is applied in memory", "[store]") {
  MemoryDisk disk;
  constexpr std::uint64_t kCount = 200;
  {
    Node node(disk);
    std::vector<raft::Entry> log;
    for (std::uint64_t index = 1; index <= kCount; ++index) {
      log.push_back(entry(1 + index / 100, index, set_operation("k", std::string(60'000, 'x'))));
    }
    node.append(kData, write(1, log));
    node.apply(kData, {log.begin(), log.begin() + 150});
  }
  Node node(disk);
  CHECK(node.data.applied_index == Index{150});
  CHECK(node.data.base_index > Index{50});  // 12 MB of log, of which 4 before the applied
  CHECK(node.data.base_index < Index{100});
  CHECK(node.data.base_term == Term{1});
  CHECK(node.data.entries.front().index == node.data.base_index + 1);
  CHECK(node.data.entries.back().index == Index{kCount});
}

TEST_CASE("a fetch gives the term before it, and no more than was asked for", "[store]") {
  MemoryDisk disk;
  Node node(disk);
  std::vector<raft::Entry> log = entries(1, 1, 10, 1'000);
  log[4].term = log[5].term = Term{2};
  for (std::size_t i = 6; i < log.size(); ++i) log[i].term = Term{3};
  node.append(kData, write(1, log));
  const auto fetched = [&](Index from, Index to, std::size_t max_size_bytes) {
    node->fetch(kData, raft::Fetch{NodeId{2}, from, max_size_bytes, to});
    REQUIRE(node.listener.wait_fetched());
    return node.listener.fetched().back();
  };
  SECTION("bounded by bytes") {
    const Listener::Fetched got = fetched(Index{6}, Index{9}, 2'500);
    CHECK(got.peer == NodeId{2});
    CHECK(got.group == kData);
    CHECK(got.prev_log_term == Term{2});
    CHECK(same(got.entries, {log[5], log[6]}));
  }
  SECTION("bounded by the last index") {
    CHECK(same(fetched(Index{9}, Index{9}, 1 << 20).entries, {log[8]}));
  }
  SECTION("at least one entry, however large") {
    CHECK(fetched(Index{2}, Index{9}, 1).entries.size() == 1);
  }
  SECTION("from the beginning") {
    const Listener::Fetched got = fetched(Index{1}, Index{3}, 1 << 20);
    CHECK(got.prev_log_term == Term{});
    CHECK(got.entries.size() == 3);
  }
}

// ---- Syncing ----------------------------------------------------------------------------------------------

TEST_CASE("writes that gather during a sync share the next one, and nobody waits for it to append",
          "[store]") {
  MemoryDisk disk;
  Node node(disk);
  SlowDisk slow(disk, std::chrono::milliseconds(200));
  constexpr std::uint64_t kWrites = 500;
  auto longest = std::chrono::steady_clock::duration::zero();
  for (std::uint64_t id = 1; id <= kWrites; ++id) {
    const auto before = std::chrono::steady_clock::now();
    node->append(kData, write(id, entries(1, id, id)));
    (void)node->stats();
    (void)node->disk_low();
    std::string value;
    CHECK(node->cached(kData).get("nothing", value) == Lookup::kAbsent);
    longest = std::max(longest, std::chrono::steady_clock::now() - before);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  CHECK(longest < std::chrono::milliseconds(150));
  CHECK(node->stats().unsynced_age_ms > 0);
  REQUIRE(node.listener.wait_synced(kData, kWrites));
  CHECK(slow.syncs >= 3);
  CHECK(slow.syncs <= 20);  // 500 writes
  const Store::Stats stats = node->stats();
  CHECK(stats.syncs <= stats.batches);
  CHECK(stats.last_sync_ms >= 190);
  CHECK(stats.longest_sync_ms >= stats.last_sync_ms);
}

TEST_CASE("nothing waits for a disk that stands still", "[store]") {
  MemoryDisk disk;
  Node node(disk);
  const std::vector<raft::Entry> applied{entry(1, 1, set_operation("k", "v"))};
  node.append(kData, write(1, applied));
  node.apply(kData, applied);
  Gate gate;
  disk.set_hook([&](DiskOperation, const std::string&) {
    gate.pass();
    return rocksdb::IOStatus::OK();
  });
  gate.shut();
  const auto before = std::chrono::steady_clock::now();
  for (std::uint64_t id = 2; id <= 100; ++id) node->append(kData, write(id, entries(1, id, id)));
  node->apply(kData, {entry(1, 2, set_operation("k", "w"))});
  node->fetch(kData, raft::Fetch{NodeId{2}, Index{1}, 100, Index{1}});
  node->read_from_disk(kData, [](const OrderedMap&) {});
  node->set_cluster_id("0123");
  std::string value;
  CHECK(node->cached(kData).get("nothing", value) == Lookup::kAbsent);
  (void)node->stats();
  CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds(2));
  CHECK(node.listener.synced(kData) == 1);
  gate.open();
  CHECK(node.listener.wait_synced(kData, 100));
}

TEST_CASE("a report of a sync comes after the sync", "[store]") {
  MemoryDisk disk;
  Node node(disk);
  for (std::uint64_t id = 1; id <= 20; ++id) {
    node.append(kData, write(id, entries(1, id, id)));
    MemoryDisk cut = disk.after_kill();
    MemoryDisk found = cut.after_cut(id);
    CHECK(Node(found).data.entries.size() >= id);
  }
}

// ---- Failures ---------------------------------------------------------------------------------------------

TEST_CASE("a failed write or sync is told once, and nothing is reported or tried after it",
          "[store]") {
  MemoryDisk disk;
  std::atomic<int> tries{0};
  Node node(disk);
  node.append(kData, write(1, entries(1, 1, 1)));
  const DiskOperation broken = GENERATE(DiskOperation::kSync, DiskOperation::kWrite);
  disk.set_hook([&](DiskOperation operation, const std::string& path) {
    if (operation != broken || !path.ends_with(".log")) return rocksdb::IOStatus::OK();
    ++tries;
    return rocksdb::IOStatus::IOError("input/output error");
  });
  node->append(kData, write(2, entries(1, 2, 2)));
  REQUIRE(node.listener.wait_failed());
  for (std::uint64_t id = 3; id < 10; ++id) node->append(kData, write(id, entries(1, id, id)));
  node->apply(kData, {entry(1, 1, set_operation("k", "v"))});
  node->fetch(kData, raft::Fetch{NodeId{2}, Index{1}, 100, Index{1}});
  node.stop();
  CHECK(tries == 1);
  CHECK(node.listener.synced(kData) == 1);
  REQUIRE(node.listener.failures().size() == 1);
  CHECK_THAT(node.listener.failures()[0], ContainsSubstring("input/output error"));
  CHECK_THAT(node.listener.failures()[0], ContainsSubstring("/data"));
  CHECK(node.listener.late() == 0);
}

TEST_CASE("a failed flush ends the node", "[store]") {
  MemoryDisk disk;
  Node node(disk, {.write_buffer_size_bytes = 64u << 10});
  disk.set_hook([](DiskOperation operation, const std::string& path) {
    const bool table = operation == DiskOperation::kWrite && path.ends_with(".sst");
    return table ? rocksdb::IOStatus::NoSpace("no space left") : rocksdb::IOStatus::OK();
  });
  std::uint64_t id = 0;
  do {
    ++id;
    node->append(kData, write(id, entries(1, id, id, 10'000)));
  } while (id < 100 && node.listener.wait_synced(kData, id));
  REQUIRE(node.listener.wait_failed());
  CHECK_THAT(node.listener.failures()[0], ContainsSubstring("no space left"));
  CHECK(node.listener.failures().size() == 1);
}

TEST_CASE("an entry that can't be applied ends the node", "[store]") {
  MemoryDisk disk;
  Node node(disk);
  node.append(kData, write(1, entries(1, 1, 1)));
  node->apply(kData, {entry(1, 1, "not an operation")});
  REQUIRE(node.listener.wait_failed());
  CHECK_THAT(node.listener.failures()[0], ContainsSubstring("log entry 1 can't be applied"));
}

TEST_CASE("a failure before the start is told at the start", "[store]") {
  MemoryDisk disk;
  { Node node(disk); }
  const auto env = disk.env();
  auto store = Store::open(options_for("/data", env.get()));
  REQUIRE(store);
  Listener listener;
  disk.set_hook(
      [](DiskOperation, const std::string&) { return rocksdb::IOStatus::IOError("bad"); });
  (*store)->start(listener);
  (*store)->set_cluster_id("0123");
  CHECK(listener.wait_failed());
}

// ---- Applying and reading -----------------------------------------------------------------------------------

TEST_CASE("each applied entry gets its answer, and the values stay", "[store]") {
  MemoryDisk disk;
  const std::vector<raft::Entry> log{
      entry(1, 1, "", raft::EntryType::kNoOp), entry(1, 2, set_operation("a", "1")),
      entry(1, 3, set_operation("b", "2")), entry(1, 4, delete_operation({"a", "b", "c"})),
      entry(1, 5, set_operation("b", "3"))};
  {
    Node node(disk);
    node.append(kData, write(1, log));
    node.apply(kData, log);
    const std::vector<Outcome> outcomes = node.listener.outcomes();
    REQUIRE(outcomes.size() == 5);
    CHECK(outcomes[3] == Outcome{Outcome::Kind::kInteger, 2});
    CHECK(outcomes[4] == Outcome{});
  }
  Node node(disk);
  CHECK(node.data.applied_index == Index{5});
  std::string storage;
  StoredValue value;
  read_disk(*node, kData, [&](const OrderedMap& map) {
    CHECK(read_value(map, "a", storage, value) == Lookup::kAbsent);
    REQUIRE(read_value(map, "b", storage, value) == Lookup::kFound);
    CHECK(value.data == "3");
    CHECK(value.mod_index == Index{5});
  });
}

TEST_CASE("the system group keeps membership and shard map", "[store]") {
  MemoryDisk disk;
  ClusterMembership membership;
  membership.cluster_id = "0123456789abcdef0123456789abcdef";
  membership.members[NodeId{1}] = NodeInfo{NodeId{1}, 7, "a:1", "a:2", {}, 0, 1, 1};
  membership.membership_version = 1;
  const std::string record = codec::encode(membership);
  Operation operation;
  operation.type = OperationType::kSetMembership;
  operation.arguments = {record};
  const std::vector<raft::Entry> log{entry(1, 1, codec::encode(operation))};
  {
    Node node(disk);
    node.append(kSystem, write(1, log));
    node.apply(kSystem, log);
    CHECK(node.listener.outcomes()[0].integer == 1);
    CHECK(**read_membership(node->cached(kSystem)) == membership);
  }
  Node node(disk);
  read_disk(*node, kSystem,
            [&](const OrderedMap& map) { CHECK(**read_membership(map) == membership); });
}

TEST_CASE("values and applied index change together: a kill at any moment never counts twice",
          "[store]") {
  MemoryDisk disk;
  const auto env = disk.env();
  CountingMachine machine;
  Listener listener;
  auto store = Store::open(options_for("/data", env.get()));
  REQUIRE((*store)->restore(kSystem, machine));
  (*store)->start(listener);
  constexpr std::uint64_t kCount = 60;
  (*store)->append(kSystem, write(1, entries(1, 1, kCount)));
  REQUIRE(listener.wait_synced(kSystem, 1));
  for (std::uint64_t index = 1; index <= kCount; ++index) {
    (*store)->apply(kSystem, entries(1, index, index));
    if (index % 7 != 0) continue;
    MemoryDisk killed = disk.after_kill();  // some of the last ones may be under way
    const auto killed_env = killed.env();
    auto next = Store::open(options_for("/data", killed_env.get()));
    REQUIRE(next);
    const auto restored = (*next)->restore(kSystem, machine);
    REQUIRE(restored);
    Listener nobody;
    (*next)->start(nobody);
    read_disk(**next, kSystem, [&](const OrderedMap& map) {
      CHECK(count_in(map) == restored->applied_index.value);
    });
  }
  REQUIRE(listener.wait_applied(kSystem, Index{kCount}));
  CHECK(count_in((*store)->cached(kSystem)) == kCount);
}

TEST_CASE("what is not in memory is said to be so, and found on disk", "[store]") {
  MemoryDisk disk;
  {
    Node node(disk);
    std::vector<raft::Entry> log;  // more than one block: the first is read at every start
    for (std::uint64_t index = 1; index <= 100; ++index) {
      const std::string key = index == 50 ? "cold" : std::to_string(index);
      log.push_back(entry(1, index, set_operation(key, large('c'))));
    }
    node.append(kData, write(1, log));
    node.apply(kData, log);
    std::string storage;
    StoredValue value;
    CHECK(read_value(node->cached(kData), "cold", storage, value) == Lookup::kFound);
  }
  Node node(disk);
  std::string storage;
  StoredValue value;
  CHECK(read_value(node->cached(kData), "cold", storage, value) == Lookup::kNotInMemory);
  read_disk(*node, kData, [&](const OrderedMap& map) {
    REQUIRE(read_value(map, "cold", storage, value) == Lookup::kFound);
    CHECK(value.data == large('c'));
  });
  CHECK(read_value(node->cached(kData), "cold", storage, value) == Lookup::kFound);
}

TEST_CASE("work for the disk that was queued is done before the store is gone", "[store]") {
  MemoryDisk disk;
  std::atomic<int> done{0};
  {
    Node node(disk);
    for (int i = 0; i < 50; ++i) node->read_from_disk(kData, [&](const OrderedMap&) { ++done; });
    for (std::uint64_t id = 1; id <= 50; ++id) {
      node->append(kData, write(id, entries(1, id, id)));
    }
  }
  CHECK(done == 50);
  CHECK(Node(disk).data.entries.size() == 50);
}

TEST_CASE("a full disk is noticed before it is full", "[store]") {
  MemoryDisk disk;
  disk.set_free_space(600ull << 20);
  Node node(disk);
  CHECK_FALSE(node->disk_low());
  disk.set_free_space(500ull << 20);
  CHECK(eventually([&] { return node->disk_low(); }));
  disk.set_free_space(600ull << 20);
  CHECK(eventually([&] { return !node->disk_low(); }));
  CHECK(node->stats().free_disk_bytes == 600ull << 20);
}

// ---- RocksDB, as this store relies on it --------------------------------------------------------------------

TEST_CASE("the sequence number never goes back over restarts", "[store]") {
  MemoryDisk disk;
  const auto env = disk.env();
  const StoreOptions options = options_for("/db", env.get());
  std::uint64_t last = 0;
  for (int life = 0; life < 8; ++life) {
    rocksdb::DBOptions db_options = store_detail::database_options(options);
    db_options.create_if_missing = db_options.create_missing_column_families = true;
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* opened = nullptr;
    REQUIRE(rocksdb::DB::Open(db_options, "/db", store_detail::families(options), &handles, &opened)
                .ok());
    const std::unique_ptr<rocksdb::DB> db(opened);
    CHECK(db->GetLatestSequenceNumber() == last);
    // Lives without writes, with deletes alone, with flushes and compactions, and with an empty WAL.
    auto* family = handles[store_detail::kDataLog];
    if (life % 2 == 0) CHECK(db->Put(rocksdb::WriteOptions(), family, "key", "value").ok());
    if (life % 4 < 2) CHECK(db->Delete(rocksdb::WriteOptions(), family, "key").ok());
    last = db->GetLatestSequenceNumber();
    if (life >= 4) {
      CHECK(db->Flush(rocksdb::FlushOptions(), handles).ok());
      CHECK(db->CompactRange(rocksdb::CompactRangeOptions(), family, nullptr, nullptr).ok());
    }
    for (auto* handle : handles) CHECK(db->DestroyColumnFamilyHandle(handle).ok());
  }
  CHECK(last == 8);
}
