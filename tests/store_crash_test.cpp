// The store through power cuts, at every operation that changes something on the disk, and over
// disks that lose what they had promised to keep.
#include <array>
#include <atomic>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "catch.hpp"
#include "memory_disk.hpp"
#include "seshat/store.hpp"
#include "store_harness.hpp"

using namespace seshat;
using namespace seshat::tests;

namespace {

constexpr std::array<GroupId, 2> kGroups{kSystemGroup, kFirstDataGroup};
constexpr std::uint64_t kKeys = 7;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // and so slow: look at fewer points
#else
constexpr bool kSanitized = false;
#endif
constexpr std::array<std::uint64_t, 3> kWriteBehindMs{0, 1, 1000};
constexpr int kSteps = 24;  // of one life: enough for flushes, with buffers of 64 KB

StoreOptions options_on(rocksdb::Env& env, std::size_t write_buffer_size_bytes = 64u << 10) {
  StoreOptions options;
  options.data_dir = "/data/node1";
  options.node_id = NodeId{1};
  options.groups = {kGroups.begin(), kGroups.end()};
  options.block_cache_size_bytes = 1 << 20;
  options.write_buffer_size_bytes = write_buffer_size_bytes;
  options.env = &env;
  return options;
}

// What one group's disk may hold: the log and the hard state after each write, oldest first.
struct GroupModel {
  struct Point {
    raft::HardState hard_state;
    std::vector<raft::Entry> log;
  };
  std::vector<Point> points{Point{}};  // points[i]: after write i; points[0]: at the start
  std::size_t synced = 0;              // the newest point that was promised
  Index handed;                        // to the state machine, so committed

  [[nodiscard]] const Point& now() const { return points.back(); }
  [[nodiscard]] Index last() const { return Index{now().log.size()}; }
};
using Model = std::map<GroupId, GroupModel>;

// Writes at random what a Raft core could write, until the power goes or the work is done.
class Workload {
 public:
  Workload(Store& store, Listener& listener, const MemoryDisk& disk, Model& model,
           std::uint64_t seed)
      : store_(store), listener_(listener), disk_(disk), model_(model), random_(seed) {}

  void run(int steps) {
    for (int step = 0; step < steps && !disk_.is_off(); ++step) {
      const GroupId id = kGroups[random_() % kGroups.size()];
      GroupModel& group = model_[id];
      append(id, group);
      // Now and then several writes share a sync.
      if (random_() % 3 != 0) wait_synced();
      if (random_() % 3 == 0) apply(id, group);
    }
    wait_synced();
  }

 private:
  void append(GroupId id, GroupModel& group) {
    GroupModel::Point point = group.now();
    Index first = group.last() + 1;
    const bool conflict = random_() % 4 == 0 && first > group.handed + 1;
    if (conflict) first = group.handed + 1 + random_() % (first - group.handed);
    if (conflict || random_() % 5 == 0) ++point.hard_state.term;
    point.hard_state.vote = NodeId{random_() % 3};
    point.hard_state.commit = group.handed;
    std::vector<raft::Entry> added;
    if (conflict || random_() % 5 != 0) added = new_entries(first, point.hard_state.term);
    if (!added.empty()) point.log.resize(first.value - 1);
    point.log.insert(point.log.end(), added.begin(), added.end());
    group.points.push_back(point);
    store_.append(id, raft::Write{group.points.size() - 1, point.hard_state, std::move(added)});
  }

  std::vector<raft::Entry> new_entries(Index first, Term term) {
    std::vector<raft::Entry> result;
    const std::uint64_t count = 1 + random_() % 4;
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::string key = "key" + std::to_string(random_() % kKeys);
      const std::string value(100 + random_() % 6000, static_cast<char>('a' + random_() % 26));
      const std::string data =
          random_() % 4 == 0 ? delete_operation({key}) : set_operation(key, value);
      result.push_back(entry(term.value, first.value + i, data));
    }
    return result;
  }

  void wait_synced() {
    for (auto& [id, group] : model_) {
      if (group.points.size() == 1) continue;
      REQUIRE(listener_.wait_synced(id, group.points.size() - 1));
      // A report counts if the power was still on when it had come.
      if (!disk_.is_off()) group.synced = group.points.size() - 1;
    }
  }

  // Raft commits only what is durable here.
  void apply(GroupId id, GroupModel& group) {
    const std::vector<raft::Entry>& durable = group.points[group.synced].log;
    std::size_t common = 0;  // what is durable and was not replaced since
    while (common < durable.size() && common < group.now().log.size() &&
           durable[common].data == group.now().log[common].data) {
      ++common;
    }
    if (common <= group.handed.value) return;
    const auto from = durable.begin() + static_cast<std::ptrdiff_t>(group.handed.value);
    const std::size_t count = 1 + random_() % (common - group.handed.value);
    group.handed = group.handed + count;
    store_.apply(id, {from, from + static_cast<std::ptrdiff_t>(count)});
    if (random_() % 2 == 0) REQUIRE(listener_.wait_applied(id, group.handed));
  }

  Store& store_;
  Listener& listener_;
  const MemoryDisk& disk_;
  Model& model_;
  std::mt19937_64 random_;
};

std::string value_in(const OrderedMap& map, const std::string& key) {
  std::string storage;
  StoredValue value;
  if (read_value(map, key, storage, value) != Lookup::kFound) return "(none)";
  return std::string(value.data) + "@" + std::to_string(value.mod_index.value);
}

// What the keys hold after the first `applied` entries of `log`, with the index that wrote each.
std::map<std::string, std::string> replay(const std::vector<raft::Entry>& log, Index applied) {
  std::map<std::string, std::string> values;
  for (const raft::Entry& entry : log) {
    if (entry.index > applied) break;
    const auto operation = codec::decode_operation(*entry.data);
    const std::string key(operation->arguments[0]);
    if (operation->type == OperationType::kDelete) {
      values.erase(key);
    } else {
      values[key] = std::string(operation->arguments[1]) + "@" + std::to_string(entry.index.value);
    }
  }
  return values;
}

bool state_matches(const OrderedMap& map, GroupId id, const raft::Restored& restored) {
  if (id == kSystemGroup) return count_in(map) == restored.applied_index.value;
  const auto expected = replay(restored.entries, restored.applied_index);
  for (std::uint64_t number = 0; number < kKeys; ++number) {
    const std::string key = "key" + std::to_string(number);
    const auto found = expected.find(key);
    if (value_in(map, key) != (found == expected.end() ? "(none)" : found->second)) return false;
  }
  return true;
}

// Whether what was found is what some write left, one at or after the last that was promised.
bool log_matches(const GroupModel& group, const raft::Restored& found, std::size_t& point) {
  for (point = group.synced; point < group.points.size(); ++point) {
    const GroupModel::Point& candidate = group.points[point];
    if (candidate.hard_state == found.hard_state && same(candidate.log, found.entries)) return true;
  }
  return false;
}

struct Machines {
  CountingMachine counting;
  KeyValueMachine key_value;
  StateMachine& of(GroupId id) {
    if (id == kSystemGroup) return counting;
    return key_value;
  }
};

// Compares what a power cut left with the model, makes it the model's new start, and starts the
// store.
void check_and_start(Store& store, Machines& machines, Listener& listener, Model& model) {
  std::map<GroupId, raft::Restored> restored;
  for (const GroupId id : kGroups) {
    GroupModel& group = model[id];
    auto found = store.restore(id, machines.of(id));
    INFO("group " << id.value << ": " << (found ? "" : found.error().text));
    REQUIRE(found);
    std::size_t point = 0;
    REQUIRE(found->base_index == Index{});
    REQUIRE(log_matches(group, *found, point));
    REQUIRE(found->applied_index <= group.handed);
    group = GroupModel{{group.points[point]}, 0, found->applied_index};
    restored[id] = std::move(*found);
  }
  store.start(listener);
  for (const GroupId id : kGroups) {
    bool matches = false;
    read_disk(store, id,
              [&](const OrderedMap& map) { matches = state_matches(map, id, restored[id]); });
    INFO("group " << id.value << " applied " << restored[id].applied_index.value);
    REQUIRE(matches);
  }
}

// One life of the node: open, check, work, until it is cut off or done. What it found at its start
// it may take for durable, but only if the power was still on then.
void live(MemoryDisk& disk, Model& model, std::uint64_t seed, int steps) {
  const auto env = disk.env();
  Listener listener;
  Machines machines;
  StoreOptions options = options_on(*env);
  options.write_behind_ms = kWriteBehindMs[seed % kWriteBehindMs.size()];
  auto store = Store::open(options);
  INFO((store ? "" : store.error().text));
  REQUIRE(store);  // a mere power cut never keeps a node from starting
  Model next = model;
  check_and_start(**store, machines, listener, next);
  if (disk.is_off()) return;
  model = next;
  Workload(**store, listener, disk, model, seed).run(steps);
}

std::uint64_t operations_of_a_life(std::uint64_t seed) {
  MemoryDisk disk;
  std::atomic<int> tables{0};
  disk.set_hook([&](DiskOperation operation, const std::string& path) {
    if (operation == DiskOperation::kName && path.ends_with(".sst")) ++tables;
    return rocksdb::IOStatus::OK();
  });
  Model model;
  live(disk, model, seed, kSteps);
  REQUIRE(tables > 8);  // at the end there are six: so some were flushed, and deleted, meanwhile
  return disk.operations();
}

// Power cuts in the first life, in the second (while it recovers, or later), and a third that ends
// well; each starts from what the one before left.
void four_lives(std::uint64_t seed, std::uint64_t cut_at) {
  INFO("seed " << seed << ", cut at " << cut_at);
  std::mt19937_64 random(seed * 1'000'003 + cut_at);
  Model model;
  MemoryDisk first;
  first.cut_power_at(cut_at, random());
  live(first, model, seed, kSteps);
  MemoryDisk second = first.after_cut(random());
  second.cut_power_at(1 + random() % 150, random());
  live(second, model, seed + 1, kSteps / 2);
  MemoryDisk third = second.after_cut(random());
  live(third, model, seed + 2, kSteps / 4);
  MemoryDisk fourth = third.after_cut(random());
  live(fourth, model, seed + 3, 0);
}

}  // namespace

TEST_CASE("after a power cut at any operation: all that was promised, and nothing invented",
          "[store][crash]") {
  const bool all = std::getenv("SESHAT_EVERY_CRASH") != nullptr;  // every operation for every seed
  const std::uint64_t stride = all ? 1 : kSanitized ? 32 : 4;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    const std::uint64_t operations = operations_of_a_life(seed * 100);
    REQUIRE(operations > 100);
    for (std::uint64_t cut_at = 1 + seed % stride; cut_at <= operations; cut_at += stride) {
      four_lives(seed * 100, cut_at);
    }
  }
}

TEST_CASE("what a start was given is on disk: a power cut right after it takes nothing",
          "[store][crash]") {
  MemoryDisk disk;
  Gate gate;
  const auto env = disk.env();
  Listener listener;
  CountingMachine machine;
  auto store = Store::open(options_on(*env));
  REQUIRE((store && (*store)->restore(kSystemGroup, machine)));
  disk.set_hook([&](DiskOperation operation, const std::string&) {
    if (operation == DiskOperation::kSync) gate.pass();
    return rocksdb::IOStatus::OK();
  });
  gate.shut();
  (*store)->start(listener);
  (*store)->append(kSystemGroup, write(1, entries(1, 1, 10)));
  REQUIRE(eventually([&] { return (*store)->stats().batches == 1; }));  // written, and not synced
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    MemoryDisk killed = disk.after_kill();
    const auto next_env = killed.env();
    const auto found = [&machine](rocksdb::Env& on) {
      auto next = Store::open(options_on(on));
      auto restored = (*next)->restore(kSystemGroup, machine);
      return restored ? restored->entries.size() : 0;
    };
    auto next = Store::open(options_on(*next_env));
    REQUIRE((next && (*next)->restore(kSystemGroup, machine)->entries.size() == 10));
    MemoryDisk cut = killed.after_cut(seed);
    const auto last_env = cut.env();
    CHECK(found(*last_env) == 10);
  }
  gate.open();
}

// ---- Disks that lose what they had promised to keep ------------------------------------------------

namespace {

constexpr std::size_t kBlock = 32768;  // of RocksDB's log

std::string wal_of(const MemoryDisk& disk) {
  std::string found;
  for (const std::string& file : disk.files()) {
    if (file.ends_with(".log")) found = file;
  }
  return found;
}

// A disk as a kill leaves it: a log of two and a half blocks and more, all of it synced and marked.
// From the second block on, records fill the blocks exactly.
class SyncedLog {
 public:
  SyncedLog() : env_(disk_.env()) {
    auto store = Store::open(options_on(*env_, 64u << 20));
    REQUIRE((store && (*store)->restore(kSystemGroup, machine_)));
    (*store)->start(listener_);
    store_ = store->get();
    append(entries(1, 1, 200));
    const std::size_t before = size();
    append(entries(1, 201, 201, 1000));
    overhead_bytes_ = size() - before - 1000;
    while (size() % kBlock != 0) {
      const std::size_t left = kBlock - size() % kBlock;
      append_record(left > 12'000 ? 8'000 : left);
    }
    while (size() < 4 * kBlock) append_record(2048);
    append_record(2048);  // its sync begins after the mark of the one before was written
    append_record(2048);
    killed = std::make_unique<Killed>(disk_);
    store_ = nullptr;
  }

  // A fresh copy of that disk, to be damaged.
  struct Killed {
    explicit Killed(MemoryDisk& from) : disk(from.after_kill()), env(disk.env()) {}
    MemoryDisk disk;
    std::unique_ptr<rocksdb::Env> env;
  };
  std::unique_ptr<Killed> killed;
  [[nodiscard]] std::unique_ptr<Killed> copy() const {
    return std::make_unique<Killed>(killed->disk);
  }

 private:
  void append(std::vector<raft::Entry> added) {
    last_ = added.back().index.value;
    store_->append(kSystemGroup, write(++id_, std::move(added)));
    REQUIRE(listener_.wait_synced(kSystemGroup, id_));
  }
  void append_record(std::size_t size_bytes) {
    append(entries(1, last_ + 1, last_ + 1, size_bytes - overhead_bytes_));
  }
  // Without the room ahead.
  [[nodiscard]] std::size_t size() const {
    return disk_.content(wal_of(disk_)).find_last_not_of('\0') + 1;
  }

  MemoryDisk disk_;
  std::unique_ptr<rocksdb::Env> env_;
  Listener listener_;
  CountingMachine machine_;
  Store* store_ = nullptr;
  std::uint64_t id_ = 0;
  std::uint64_t last_ = 0;
  std::size_t overhead_bytes_ = 0;
};

std::map<std::string, std::string> all_of(const MemoryDisk& disk) {
  std::map<std::string, std::string> contents;
  for (const std::string& file : disk.files()) contents[file] = disk.content(file);
  return contents;
}

// Opens, and says why that was refused; empty if it was not.
std::string refusal(SyncedLog::Killed& node) {
  const auto store = Store::open(options_on(*node.env, 64u << 20));
  return store ? "" : store.error().text;
}

}  // namespace

TEST_CASE("rot in the synced part of the log is refused, and nothing is changed",
          "[store][crash]") {
  const SyncedLog log;
  REQUIRE(refusal(*log.copy()).empty());
  const auto [first, size_bytes] = GENERATE(table<std::size_t, std::size_t>({
      {0, 1},                   // one byte, at the very beginning
      {5'000, 1},               // inside the first block
      {2 * kBlock + 100, 1},    // ... and a later one
      {kBlock + 5'000, 512},    // a sector
      {kBlock + 4'096, 4'096},  // a page
      {2 * kBlock, kBlock},     // a block that RocksDB would pass over in silence
      {kBlock, 2 * kBlock},     // two of them
  }));
  const bool zeros = GENERATE(true, false);
  INFO(size_bytes << " bytes at " << first << (zeros ? " zeroed" : " flipped"));
  const auto node = log.copy();
  const std::string wal = wal_of(node->disk);
  std::string content = node->disk.content(wal);
  for (std::size_t i = first; i < first + size_bytes; ++i) {
    content[i] = zeros ? '\0' : static_cast<char>(~content[i]);
  }
  const bool same = content == node->disk.content(wal);
  node->disk.set_content(wal, content);
  const auto before = all_of(node->disk);
  const std::string why = refusal(*node);
  if (same) return;  // there were zeros already
  CHECK_THAT(why, ContainsSubstring("synced data is missing or damaged"));
  CHECK_THAT(why, ContainsSubstring("/data/node1/durable-mark"));
  CHECK_THAT(why, ContainsSubstring("Move /data/node1 away"));
  CHECK(all_of(node->disk) == before);
  CHECK(refusal(*node) == why);  // it does not go away by itself
}

TEST_CASE("a log that lost its synced end, or is gone, is refused", "[store][crash]") {
  const SyncedLog log;
  const auto node = log.copy();
  const std::string wal = wal_of(node->disk);
  SECTION("its last quarter") {
    node->disk.set_content(wal, node->disk.content(wal).substr(0, 3 * kBlock));
  }
  SECTION("all of it") { node->disk.set_content(wal, ""); }
  SECTION("the file") { node->disk.remove(wal); }
  SECTION("the database") {
    for (const std::string& file : node->disk.files()) {
      if (file.find("/rocksdb/") != std::string::npos) node->disk.remove(file);
    }
  }
  const std::string why = refusal(*node);
  CHECK_THAT(why, ContainsSubstring("synced data is missing or damaged"));
  CHECK_THAT(why, ContainsSubstring("let it join again"));
}

TEST_CASE("what stands after the synced part never keeps a node from starting", "[store][crash]") {
  const SyncedLog log;
  const auto node = log.copy();
  const std::string wal = wal_of(node->disk);
  const std::string synced = node->disk.content(wal);
  SECTION("zeros") { node->disk.set_content(wal, synced + std::string(100'000, '\0')); }
  SECTION("noise") { node->disk.set_content(wal, synced + std::string(100'000, '\x5a')); }
  SECTION("half a record") { node->disk.set_content(wal, synced + synced.substr(kBlock, 700)); }
  CHECK(refusal(*node).empty());
}

TEST_CASE("a database without its mark, or with a damaged one, is refused", "[store][crash]") {
  const SyncedLog log;
  const auto node = log.copy();
  const std::string mark = "/data/node1/durable-mark";
  SECTION("damaged") {
    node->disk.set_content(mark, std::string(node->disk.content(mark).size(), '\x55'));
    CHECK_THAT(refusal(*node), ContainsSubstring("durable-mark is damaged"));
  }
  SECTION("gone") {
    node->disk.remove(mark);
    CHECK_THAT(refusal(*node), ContainsSubstring("durable-mark is missing"));
  }
}
