// Snapshots: built, read, received and installed, and what a power cut at any moment leaves of them.
#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "memory_disk.hpp"
#include "seshat/store.hpp"
#include "store_harness.hpp"

using namespace seshat;
using namespace seshat::tests;

namespace {

const raft::Configuration kThree{{NodeId{1}, NodeId{2}, NodeId{3}}, {}, {}};

raft::Entry configuration_entry(std::uint64_t term, std::uint64_t index) {
  return {Term{term}, Index{index}, raft::EntryType::kConfigChange, nullptr,
          std::make_shared<const raft::Configuration>(kThree)};
}

// Sets k<index> to `value`, but entry 3, which changes the configuration.
std::vector<raft::Entry> log_of(std::uint64_t first, std::uint64_t last, const std::string& value,
                                std::uint64_t term = 1) {
  std::vector<raft::Entry> log;
  for (std::uint64_t index = first; index <= last; ++index) {
    log.push_back(index == 3
                      ? configuration_entry(term, 3)
                      : entry(term, index, set_operation("k" + std::to_string(index), value)));
  }
  return log;
}

Result<SnapshotMetadata> build(Store& store, GroupId group = kData) {
  std::promise<Result<SnapshotMetadata>> done;
  ClusterMembership membership;
  membership.cluster_id = "0123";
  store.build_snapshot(group, membership,
                       [&](Result<SnapshotMetadata> built) { done.set_value(std::move(built)); });
  return done.get_future().get();
}

Result<std::shared_ptr<SnapshotReader>> open_reader(Store& store, Index index,
                                                    GroupId group = kData) {
  std::promise<Result<std::shared_ptr<SnapshotReader>>> done;
  store.open_snapshot(group, index, [&](auto opened) { done.set_value(std::move(opened)); });
  return done.get_future().get();
}

Result<std::shared_ptr<SnapshotWriter>> open_writer(Store& store,
                                                    const SnapshotMetadata& metadata) {
  std::promise<Result<std::shared_ptr<SnapshotWriter>>> done;
  store.receive_snapshot(metadata, [&](auto opened) { done.set_value(std::move(opened)); });
  return done.get_future().get();
}

// A snapshot in memory.
struct Sent {
  SnapshotMetadata metadata;
  std::vector<std::string> chunks;
};

Sent take(Store& store, std::size_t chunk_size_bytes, GroupId group = kData) {
  const auto built = build(store, group);
  INFO((built ? "" : built.error().text));
  REQUIRE(built);
  Sent sent{*built, {}};
  const auto reader = open_reader(store, built->snapshot.last_included_index, group);
  REQUIRE(reader);
  std::string after;
  for (bool last = false; !last;) {
    auto rows = (*reader)->read(after, chunk_size_bytes);
    REQUIRE(rows);
    last = rows->last;
    after = rows->last_key;
    sent.chunks.push_back(std::move(rows->rows));
  }
  return sent;
}

std::shared_ptr<SnapshotWriter> receive(Store& store, const Sent& sent) {
  const auto writer = open_writer(store, sent.metadata);
  REQUIRE(writer);
  for (const std::string& chunk : sent.chunks) REQUIRE((*writer)->write(chunk));
  const auto finished = (*writer)->finish();
  INFO((finished ? "" : finished.error().text));
  REQUIRE(finished);
  return *writer;
}

// Of a leader that has applied `last` entries with the value "new".
Sent snapshot_of_leader(std::uint64_t last, std::size_t chunk_size_bytes = 1 << 20) {
  MemoryDisk disk;
  Node leader(disk);
  const auto log = log_of(1, last, "new", 7);
  leader.append(kData, write(1, log));
  leader.apply(kData, log);
  return take(*leader, chunk_size_bytes);
}

std::string value_in(const OrderedMap& map, const std::string& key) {
  std::string storage;
  StoredValue value;
  switch (read_value(map, key, storage, value)) {
    case Lookup::kFound:
      return std::string(value.data);
    case Lookup::kAbsent:
      return "(none)";
    default:
      return "(failed)";
  }
}

std::string on_disk(Store& store, const std::string& key) {
  std::string value;
  read_disk(store, kData, [&](const OrderedMap& map) { value = value_in(map, key); });
  return value;
}

std::size_t files_below(const MemoryDisk& disk, const std::string& part) {
  const auto files = disk.files();
  return static_cast<std::size_t>(
      std::count_if(files.begin(), files.end(),
                    [&](const std::string& file) { return file.find(part) != std::string::npos; }));
}

std::vector<std::string> families_on(MemoryDisk& disk) {
  const auto env = disk.env();
  rocksdb::DBOptions options;
  options.env = env.get();
  std::vector<std::string> names;
  REQUIRE(rocksdb::DB::ListColumnFamilies(options, "/data/rocksdb", &names).ok());
  return names;
}

bool has(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

// ---- Configurations --------------------------------------------------------------------------------

TEST_CASE("the configuration that was applied is restored", "[store][snapshot]") {
  MemoryDisk disk;
  {
    Node node(disk);
    const auto log = log_of(1, 10, "v");
    node.append(kData, write(1, log));
    node.apply(kData, log);
  }
  Node node(disk);
  CHECK(node.data.configuration_index == Index{3});
  CHECK(node.data.configuration == kThree);
  CHECK(node.system.configuration_index == Index{});
}

// ---- Building ----------------------------------------------------------------------------------------

TEST_CASE("a snapshot holds the state as of one entry, whatever comes after", "[store][snapshot]") {
  MemoryDisk disk;
  Node node(disk);
  const auto log = log_of(1, 100, "old");
  node.append(kData, write(1, log));
  node.apply(kData, log);
  CHECK_FALSE(node->newest_snapshot(kData));
  const auto built = build(*node);
  REQUIRE(built);
  CHECK(built->group == kData);
  CHECK(built->snapshot == raft::Snapshot{Index{100}, Term{1}, kThree, Index{3}});
  CHECK(built->membership.cluster_id == "0123");
  CHECK(built->row_count == 100);  // 99 values, and where it stands
  CHECK(*node->newest_snapshot(kData) == *built);
  CHECK(node->stats().snapshots_built == 1);
  const auto reader = open_reader(*node, Index{100});
  REQUIRE(reader);

  const auto more = log_of(101, 200, "later");
  node.append(kData, write(2, more));
  node.apply(kData, more);
  std::uint64_t rows = 0;
  std::uint64_t checksum = kFnv1aStart;
  std::string after;
  for (bool last = false; !last;) {
    const auto chunk = (*reader)->read(after, 500);
    REQUIRE(chunk);
    checksum = fnv1a(chunk->rows, checksum);
    std::string_view left = chunk->rows;
    std::string_view key;
    std::string_view value;
    while (take_row(left, key, value)) ++rows;
    CHECK(left.empty());
    CHECK(chunk->last_key == key);
    after = chunk->last_key;
    last = chunk->last;
  }
  CHECK(rows == built->row_count);
  CHECK(checksum == built->checksum);
  CHECK(*(*reader)->read("", 500)->rows.data() == 1);  // from the beginning once more
}

TEST_CASE("a snapshot as of the same entry is not built twice; a newer one replaces it",
          "[store][snapshot]") {
  MemoryDisk disk;
  Node node(disk);
  const auto log = log_of(1, 20, "v");
  node.append(kData, write(1, log));
  node.apply(kData, {log.begin(), log.begin() + 10});
  const auto first = build(*node);
  REQUIRE(first);
  CHECK(*build(*node) == *first);
  auto reader = open_reader(*node, Index{10});
  REQUIRE(reader);
  node.apply(kData, {log.begin() + 10, log.end()});
  REQUIRE(build(*node));
  CHECK(node->newest_snapshot(kData)->snapshot.last_included_index == Index{20});
  CHECK_FALSE(open_reader(*node, Index{10}));  // but whoever reads it goes on
  CHECK((*reader)->read("", 1 << 20)->last);
  CHECK(files_below(disk, "/snapshots/1-00000000000000000010/") > 0);
  *reader = nullptr;
  CHECK(files_below(disk, "/snapshots/1-00000000000000000010/") == 0);
  CHECK(files_below(disk, "removing") == 0);
  node->remove_snapshot(kData, Index{20});
  CHECK(eventually([&] { return !node->newest_snapshot(kData); }));
  CHECK(eventually([&] { return files_below(disk, "/snapshots/") == 0; }));
}

TEST_CASE("what is as new as the kept snapshot costs no checkpoint", "[store][snapshot]") {
  MemoryDisk disk;
  Node node(disk);
  const auto log = log_of(1, 20, "v");
  node.append(kData, write(1, log));
  node.apply(kData, log);
  const auto first = build(*node);
  REQUIRE(first);
  std::atomic<bool> begun{false};
  disk.set_hook([&](DiskOperation, const std::string& path) {
    if (path.find("/snapshots/building-") != std::string::npos) begun = true;
    return rocksdb::IOStatus::OK();
  });
  CHECK(*build(*node) == *first);
  CHECK_FALSE(begun);
}

TEST_CASE("a snapshot that is removed is not the newest any more, whatever the disk is busy with",
          "[store][snapshot]") {
  MemoryDisk disk;
  Node node(disk);
  const auto log = log_of(1, 20, "v");
  node.append(kData, write(1, log));
  node.apply(kData, {log.begin(), log.begin() + 10});
  REQUIRE(build(*node));
  node.apply(kData, {log.begin() + 10, log.end()});
  Gate gate;
  disk.set_hook([&](DiskOperation, const std::string& path) {
    if (path.find("/snapshots/building-") != std::string::npos) gate.pass();
    return rocksdb::IOStatus::OK();
  });
  gate.shut();
  std::promise<bool> built;
  node->build_snapshot(kData, {}, [&](auto result) { built.set_value(bool(result)); });
  node->remove_snapshot(kData, Index{10});
  CHECK_FALSE(node->newest_snapshot(kData));
  CHECK_FALSE(open_reader(*node, Index{10}));
  gate.open();
  CHECK(built.get_future().get());
}

TEST_CASE("a snapshot is built beside one of the same entry that is removed and still read",
          "[store][snapshot]") {
  const TemporaryDir dir;
  Listener listener;
  KeyValueMachine machine;
  {
    auto store = Store::open(options_for(dir / "data"));
    REQUIRE((store && (*store)->restore(kData, machine)));
    (*store)->start(listener);
    const auto log = log_of(1, 10, "v");
    (*store)->append(kData, write(1, log));
    REQUIRE(listener.wait_synced(kData, 1));
    (*store)->apply(kData, log);
    REQUIRE(listener.wait_applied(kData, Index{10}));
    REQUIRE(build(**store));
    auto old = open_reader(**store, Index{10});
    REQUIRE(old);
    (*store)->remove_snapshot(kData, Index{10});
    const auto again = build(**store);
    INFO((again ? "" : again.error().text));
    REQUIRE(again);
    CHECK((*old)->read("", 1 << 20));
    *old = nullptr;
    CHECK(open_reader(**store, Index{10}));
  }
  auto store = Store::open(options_for(dir / "data"));
  REQUIRE((store && (*store)->restore(kData, machine)));
  REQUIRE((*store)->newest_snapshot(kData));
  (*store)->start(listener);
  CHECK(open_reader(**store, Index{10}));
}

TEST_CASE("a kept snapshot that lost rows can't be read to its end", "[store][snapshot]") {
  MemoryDisk disk;
  {
    Node node(disk);
    const auto log = log_of(1, 100, "v");
    node.append(kData, write(1, log));
    node.apply(kData, log);
    REQUIRE(build(*node));
  }
  const auto read_all = [&](std::size_t chunk_size_bytes, std::size_t again_at) {
    Node node(disk);
    const auto reader = open_reader(*node, Index{100});
    REQUIRE(reader);
    std::string after;
    std::vector<std::string> keys;
    for (;;) {
      const auto rows = (*reader)->read(after, chunk_size_bytes);
      if (!rows) return rows.error().text;
      keys.push_back(after = rows->last_key);
      if (rows->last) return std::string();
      if (keys.size() == again_at) after = keys[again_at / 2];  // as after a broken connection
    }
  };
  CHECK(read_all(200, 8).empty());
  const std::string file = "/data/snapshots/1-00000000000000000100/metadata";
  auto metadata = codec::decode_snapshot_metadata(disk.content(file));
  REQUIRE(metadata);
  ++metadata->row_count;
  disk.set_content(file, codec::encode(*metadata));
  CHECK_THAT(read_all(200, 0), ContainsSubstring("not those that it was built of"));
  CHECK_THAT(read_all(200, 8), ContainsSubstring("not those that it was built of"));
}

TEST_CASE("the write-ahead log that a checkpoint links is synced before the snapshot has its name",
          "[store][snapshot]") {
  MemoryDisk disk;
  Node node(disk);
  const auto log = log_of(1, 10, "v");
  node.append(kData, write(1, log));
  node.apply(kData, log);
  std::atomic<bool> linked{false};
  std::atomic<bool> synced{false};
  std::atomic<bool> synced_in_time{false};
  disk.set_hook([&](DiskOperation operation, const std::string& path) {
    const bool in_build = path.find("/snapshots/building-") != std::string::npos;
    if (in_build && path.ends_with(".sst")) linked = true;
    if (linked && operation == DiskOperation::kSync &&
        path.find("/rocksdb/") != std::string::npos && path.ends_with(".log")) {
      synced = true;
    }
    if (in_build && path.ends_with("/metadata")) synced_in_time = synced.load();
    return rocksdb::IOStatus::OK();
  });
  REQUIRE(build(*node));
  CHECK(linked);
  CHECK(synced_in_time);
}

TEST_CASE("many cuts wait as one piece of work for the disk, and a build not behind each",
          "[store][compaction]") {
  MemoryDisk disk;
  Node node(disk);
  const auto log = log_of(1, 100, "v");
  node.append(kData, write(1, log));
  node.apply(kData, log);
  Gate gate;
  std::atomic<bool> reached{false};
  disk.set_hook([&](DiskOperation, const std::string& path) {
    if (path.find("/snapshots/building-") != std::string::npos) {
      reached = true;
      gate.pass();
    }
    return rocksdb::IOStatus::OK();
  });
  gate.shut();
  std::promise<bool> built;
  node->build_snapshot(kData, {}, [&](auto result) { built.set_value(bool(result)); });
  REQUIRE(eventually([&] { return reached.load(); }));
  for (std::uint64_t to = 10; to <= 90; to += 10) {
    node->cut_log(kData, Index{to});
    REQUIRE(node.listener.wait_cuts(kData, to / 10));
  }
  gate.open();
  REQUIRE(built.get_future().get());
  REQUIRE(build(*node));  // behind what waited
  CHECK(node->stats().reclaims == 1);
}

TEST_CASE("the newest snapshot is there after a restart, and litter is not", "[store][snapshot]") {
  const TemporaryDir dir;
  Listener listener;
  KeyValueMachine machine;
  SnapshotMetadata built;
  {
    auto store = Store::open(options_for(dir / "data"));
    REQUIRE((store && (*store)->restore(kData, machine)));
    (*store)->start(listener);
    const auto log = log_of(1, 10, "v");
    (*store)->append(kData, write(1, log));
    REQUIRE(listener.wait_synced(kData, 1));
    (*store)->apply(kData, log);
    REQUIRE(listener.wait_applied(kData, Index{10}));
    built = *build(**store);
  }
  const std::string snapshots = dir / "data/snapshots";
  for (const char* name :
       {"building-4/checkpoint", "incoming-5", "removing-1-1", "1-00000000000000000009"}) {
    std::filesystem::create_directories(snapshots + "/" + name);
    std::ofstream(snapshots + "/" + name + "/1.sst") << "half";
  }
  auto store = Store::open(options_for(dir / "data"));
  REQUIRE((store && (*store)->restore(kData, machine)));
  CHECK(*(*store)->newest_snapshot(kData) == built);
  std::size_t left = 0;
  for (const auto& found : std::filesystem::directory_iterator(snapshots)) {
    CHECK(found.path().filename() == "1-00000000000000000010");
    ++left;
  }
  CHECK(left == 1);
  (*store)->start(listener);
  CHECK(open_reader(**store, Index{10}));
}

TEST_CASE("serving goes on while a snapshot is built", "[store][snapshot]") {
  MemoryDisk disk;
  Node node(disk);
  const auto log = log_of(1, 10, "v");
  node.append(kData, write(1, log));
  node.apply(kData, log);
  Gate gate;
  std::atomic<bool> reached{false};
  disk.set_hook([&](DiskOperation, const std::string& path) {
    if (path.find("/snapshots/building-") != std::string::npos) {
      reached = true;
      gate.pass();
    }
    return rocksdb::IOStatus::OK();
  });
  gate.shut();
  std::promise<bool> built;
  node->build_snapshot(kData, {}, [&](auto result) { built.set_value(bool(result)); });
  REQUIRE(eventually([&] { return reached.load(); }));
  const auto more = log_of(11, 20, "w");
  node.append(kData, write(2, more));
  node.apply(kData, more);
  CHECK(value_in(node->cached(kData), "k20") == "w");
  CHECK(on_disk(*node, "k11") == "w");
  CHECK_FALSE(node->newest_snapshot(kData));
  gate.open();
  CHECK(built.get_future().get());
}

// ---- Receiving and installing ------------------------------------------------------------------------

TEST_CASE("a snapshot replaces state and log, and applying goes on from it (class 12)",
          "[store][snapshot]") {
  const Sent sent = snapshot_of_leader(50, GENERATE(1, 700, 1 << 20));
  MemoryDisk disk;
  const raft::HardState vote{Term{8}, NodeId{2}, Index{}};
  {
    Node node(disk);
    auto log = log_of(1, 80, "old", 2);  // longer than the snapshot, and another
    node.append(kData, write(1, log, vote));
    node.apply(kData, {log.begin(), log.begin() + 20});
    node->install_snapshot(kData, receive(*node, sent));
    REQUIRE(node.listener.wait_installed(kData, 1));
    const MachineState state = node.listener.installed(kData).back();
    CHECK(state.applied_index == Index{50});
    CHECK(state.applied_term == Term{7});
    CHECK(state.key_count == 49);
    const LogStats stats = node->log_stats(kData);
    CHECK(stats.first_index == Index{51});
    CHECK(stats.last_index == Index{50});
    CHECK(stats.applied_durable == Index{50});
    CHECK(value_in(node->cached(kData), "k10") == "new");
    CHECK(on_disk(*node, "k50") == "new");
    CHECK(node->stats().snapshots_received == 1);
    CHECK(node->stats().snapshots_installed == 1);
    const auto next = log_of(51, 60, "next", 7);
    node.append(kData, write(2, next, std::nullopt));
    node.apply(kData, {next.begin(), next.begin() + 5});
    CHECK(on_disk(*node, "k55") == "next");
    CHECK(eventually([&] { return !has(families_on(disk), "data_kv"); }));
    CHECK(files_below(disk, "/snapshots/") == 0);
  }
  Node node(disk);
  CHECK(node.data.first_index == Index{51});
  CHECK(node.data.base_index == Index{50});
  CHECK(node.data.base_term == Term{7});
  CHECK(node.data.applied_index == Index{55});
  CHECK(node.data.entries.size() == 10);
  CHECK(node.data.hard_state == vote);
  CHECK(node.data.configuration == kThree);
  CHECK(on_disk(*node, "k55") == "next");
  CHECK(on_disk(*node, "k70") == "(none)");
  CHECK_FALSE(has(families_on(disk), "data_kv"));
}

TEST_CASE("snapshots one after the other, with restarts between", "[store][snapshot]") {
  MemoryDisk disk;
  for (std::uint64_t round = 1; round <= 3; ++round) {
    const Sent sent = snapshot_of_leader(round * 10);
    Node node(disk);
    CHECK(node.data.applied_index == Index{(round - 1) * 10});
    node.append(kData, write(1, {}));  // the term of the leader, as any node keeps it
    node->install_snapshot(kData, receive(*node, sent));
    REQUIRE(node.listener.wait_installed(kData, 1));
    CHECK(on_disk(*node, "k" + std::to_string(round * 10)) == "new");
    const Sent again = take(*node, 100);  // what was installed can be sent on
    CHECK(again.metadata.checksum == sent.metadata.checksum);
    CHECK(again.metadata.snapshot == sent.metadata.snapshot);
  }
  const auto families = families_on(disk);
  CHECK(families.size() == store_detail::kFamilyNames.size());
}

TEST_CASE("rows that are wrong, missing or out of order are refused", "[store][snapshot]") {
  Sent sent = snapshot_of_leader(50, 200);
  REQUIRE(sent.chunks.size() > 3);
  MemoryDisk disk;
  Node node(disk);
  const auto outcome = [&]() -> std::string {
    const auto writer = open_writer(*node, sent.metadata);
    REQUIRE(writer);
    for (const std::string& chunk : sent.chunks) {
      if (auto written = (*writer)->write(chunk); !written) return written.error().text;
    }
    const auto finished = (*writer)->finish();
    return finished ? "" : finished.error().text;
  };
  SECTION("as they are") { CHECK(outcome().empty()); }
  SECTION("a chunk is missing") {
    sent.chunks.erase(sent.chunks.begin() + 1);
    CHECK_THAT(outcome(), ContainsSubstring("rows are missing or wrong"));
  }
  SECTION("all are missing") {
    sent.chunks.clear();
    CHECK_THAT(outcome(), ContainsSubstring("rows are missing or wrong"));
  }
  SECTION("two change places") {
    std::swap(sent.chunks[0], sent.chunks[1]);
    CHECK_THAT(outcome(), ContainsSubstring("out of order"));
  }
  SECTION("one comes twice") {
    sent.chunks.insert(sent.chunks.begin(), sent.chunks[0]);
    CHECK_THAT(outcome(), ContainsSubstring("out of order"));
  }
  SECTION("a row is cut short") {
    sent.chunks[1].pop_back();
    CHECK_THAT(outcome(), ContainsSubstring("not whole"));
  }
  SECTION("a byte is wrong") {
    sent.chunks[1].back() ^= 1;
    CHECK_THAT(outcome(), ContainsSubstring("rows are missing or wrong"));
  }
  SECTION("it stands elsewhere") {
    sent.metadata.snapshot.last_included_index = Index{51};
    CHECK_THAT(outcome(), ContainsSubstring("another entry than was announced"));
  }
  CHECK(files_below(disk, "/snapshots/") == 0);
}

TEST_CASE("a writer says how far it is, and what it leaves is gone with it", "[store][snapshot]") {
  const Sent sent = snapshot_of_leader(50, 200);
  MemoryDisk disk;
  Node node(disk);
  auto writer = open_writer(*node, sent.metadata);
  REQUIRE(writer);
  CHECK((*writer)->last_key().empty());
  REQUIRE((*writer)->write(sent.chunks[0]));
  std::string_view rows = sent.chunks[0];
  std::string_view key;
  std::string_view value;
  while (take_row(rows, key, value)) continue;
  CHECK((*writer)->last_key() == key);
  CHECK(files_below(disk, "/snapshots/incoming-") == 1);
  *writer = nullptr;
  CHECK(files_below(disk, "/snapshots/") == 0);
}

TEST_CASE("an install comes after what was appended and applied before it", "[store][snapshot]") {
  const Sent sent = snapshot_of_leader(50);
  MemoryDisk disk;
  Node node(disk);
  const auto writer = receive(*node, sent);
  const auto log = log_of(1, 40, "old");
  node->append(kData, write(1, log));
  for (const raft::Entry& each : log) node->apply(kData, {each});
  node->install_snapshot(kData, writer);
  REQUIRE(node.listener.wait_installed(kData, 1));
  CHECK(node.listener.outcomes().size() == 40);
  CHECK(node.listener.synced(kData) <= 1);
  CHECK(on_disk(*node, "k40") == "new");
  CHECK(node->log_stats(kData).last_index == Index{50});
}

TEST_CASE("readers beside an install see the old state or the new one", "[store][snapshot]") {
  const TemporaryDir dir;
  const Sent first = snapshot_of_leader(50);
  const Sent second = snapshot_of_leader(60);
  Listener listener;
  KeyValueMachine machine;
  auto store = Store::open(options_for(dir / "data"));
  REQUIRE(store);
  REQUIRE((*store)->restore(kData, machine));
  (*store)->start(listener);
  const auto log = log_of(1, 10, "old");
  (*store)->append(kData, write(1, log));
  REQUIRE(listener.wait_synced(kData, 1));
  (*store)->apply(kData, log);
  REQUIRE(listener.wait_applied(kData, Index{10}));

  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> wrong{0};
  std::atomic<std::uint64_t> seen_new{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      while (!done) {
        std::string storage;
        StoredValue value;
        const Lookup lookup = read_value((*store)->cached(kData), "k10", storage, value);
        const bool old_or_new = value.data == "old" || value.data == "new";
        if (lookup != Lookup::kNotInMemory && (lookup != Lookup::kFound || !old_or_new)) ++wrong;
        if (lookup == Lookup::kFound && value.data == "new") ++seen_new;
        read_disk(**store, kData, [&](const OrderedMap& map) {
          const std::string before = value_in(map, "k9");
          const std::string after = value_in(map, "k10");  // of the same generation
          if (before != after || (before != "old" && before != "new")) ++wrong;
          if (before == "new") ++seen_new;
        });
        (*store)->fetch(kData, raft::Fetch{NodeId{2}, Index{2}, 1 << 20, Index{9}});
        (void)(*store)->log_stats(kData);
        (void)(*store)->stats();
        (void)(*store)->newest_snapshot(kData);
      }
    });
  }
  (*store)->install_snapshot(kData, receive(**store, first));
  REQUIRE(listener.wait_installed(kData, 1));
  REQUIRE(eventually([&] { return seen_new > 10; }));
  (*store)->install_snapshot(kData, receive(**store, second));
  REQUIRE(listener.wait_installed(kData, 2));
  done = true;
  for (std::thread& reader : readers) reader.join();
  CHECK(wrong == 0);
  CHECK(listener.failures().empty());
  CHECK(eventually([&] { return value_in((*store)->cached(kData), "k60") != "(none)"; }));
}

// ---- Power cuts ----------------------------------------------------------------------------------------

namespace {

struct Life {
  bool old_applied = false;  // all of this was promised while the power was on
  bool built = false;
  bool installed = false;
  bool appended = false;
};

// A node that applies something, builds a snapshot, receives another and installs it, and goes on.
Life live(MemoryDisk& disk, const Sent& sent) {
  Life life;
  Node node(disk, {.write_buffer_size_bytes = 64u << 10});
  const auto log = log_of(1, 20, "old", 2);
  node.append(kData, write(1, log, raft::HardState{Term{8}, NodeId{3}, Index{}}));
  life.old_applied = !disk.is_off();
  node.apply(kData, {log.begin(), log.begin() + 10});
  REQUIRE(build(*node));
  life.built = !disk.is_off();
  node->install_snapshot(kData, receive(*node, sent));
  REQUIRE(node.listener.wait_installed(kData, 1));
  life.installed = !disk.is_off();
  node.append(kData, write(2, log_of(51, 55, "next", 7), std::nullopt));
  life.appended = !disk.is_off();
  return life;
}

void check_after(MemoryDisk& disk, const Life& life) {
  Node node(disk);
  const raft::Restored& found = node.data;
  const std::string k1 = on_disk(*node, "k1");
  if (life.old_applied) CHECK(found.hard_state == raft::HardState{Term{8}, NodeId{3}, Index{}});
  const bool is_new = found.applied_index == Index{50};
  if (life.installed) CHECK(is_new);
  if (is_new) {
    CHECK(k1 == "new");
    CHECK(on_disk(*node, "k50") == "new");
    CHECK(found.first_index == Index{51});
    CHECK(found.base_term == Term{7});
    CHECK(found.configuration == kThree);
    CHECK((found.entries.empty() || found.entries.size() == 5));
    if (life.appended) CHECK(found.entries.size() == 5);
  } else {
    CHECK(found.applied_index <= Index{10});
    CHECK(found.first_index == Index{1});
    CHECK(k1 == (found.applied_index == Index{} ? "(none)" : "old"));
    CHECK(on_disk(*node, "k50") == "(none)");
    if (life.old_applied) CHECK(node->log_stats(kData).last_index == Index{20});
  }
  CHECK(files_below(disk, "/snapshots/incoming-") == 0);
  CHECK(files_below(disk, "/snapshots/building-") == 0);
  CHECK(files_below(disk, "/snapshots/removing-") == 0);
  const auto families = families_on(disk);
  CHECK(families.size() == store_detail::kFamilyNames.size());
  const auto kept = node->newest_snapshot(kData);
  if (life.built) CHECK(kept);
  if (kept) {
    const auto reader = open_reader(*node, kept->snapshot.last_included_index);
    REQUIRE(reader);
    const auto rows = (*reader)->read("", 1 << 20);
    REQUIRE(rows);
    CHECK(fnv1a(rows->rows) == kept->checksum);
  }
}

}  // namespace

TEST_CASE(
    "a power cut at any operation of a build, a receive, an install: old or new, each whole "
    "(classes 12, 15, 16)",
    "[store][snapshot][crash]") {
  const Sent sent = snapshot_of_leader(50, 500);
  MemoryDisk whole;
  (void)live(whole, sent);
  const std::uint64_t operations = whole.operations();
  REQUIRE(operations > 150);
  const std::uint64_t stride = every_crash() ? 1 : 3;
  for (std::uint64_t cut_at = 60; cut_at <= operations; cut_at += stride) {
    for (std::uint64_t seed = 0; seed < (every_crash() ? 4 : 1); ++seed) {
      INFO("cut at " << cut_at << " of " << operations << ", seed " << seed);
      MemoryDisk disk;
      disk.cut_power_at(cut_at, seed * 1'000'003 + cut_at);
      const Life life = live(disk, sent);
      MemoryDisk after = disk.after_cut();
      check_after(after, life);
    }
  }
}

TEST_CASE("a kill at any moment of an install leaves the old state or the new one",
          "[store][snapshot][crash]") {
  const Sent sent = snapshot_of_leader(50, 500);
  MemoryDisk disk;
  struct Killed {
    explicit Killed(MemoryDisk& from) : disk(from.after_kill()) {}
    MemoryDisk disk;
  };
  std::vector<std::unique_ptr<Killed>> killed;
  std::mutex mutex;
  {
    Node node(disk);
    const auto log = log_of(1, 20, "old", 2);
    node.append(kData, write(1, log, raft::HardState{Term{8}, NodeId{3}, Index{}}));
    const auto writer = receive(*node, sent);
    disk.set_hook([&](DiskOperation, const std::string&) {
      const std::lock_guard lock(mutex);
      killed.push_back(std::make_unique<Killed>(disk));
      return rocksdb::IOStatus::OK();
    });
    node->install_snapshot(kData, writer);
    REQUIRE(node.listener.wait_installed(kData, 1));
    disk.set_hook([](DiskOperation, const std::string&) { return rocksdb::IOStatus::OK(); });
  }
  REQUIRE(killed.size() > 10);
  for (const auto& each : killed) check_after(each->disk, Life{true, false, false, false});
}
