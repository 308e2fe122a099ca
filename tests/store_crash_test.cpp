// The store through power cuts, at every operation that changes something on the disk, and over
// disks that lose what they had promised to keep.
#include <array>
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
  Workload(Store& store, Listener& listener, Model& model, std::uint64_t seed)
      : store_(store), listener_(listener), model_(model), random_(seed) {}

  void run(int steps) {
    for (int step = 0; step < steps && going_; ++step) {
      const GroupId id = kGroups[random_() % kGroups.size()];
      GroupModel& group = model_[id];
      append(id, group);
      // Now and then several writes share a sync.
      if (random_() % 3 != 0) wait_synced();
      if (random_() % 3 == 0) apply(id, group);
    }
    wait_synced();
    for (auto& [id, group] : model_) {
      group.synced = std::max<std::size_t>(group.synced, listener_.synced(id));
    }
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
      const std::string value(100 + random_() % 3000, static_cast<char>('a' + random_() % 26));
      const std::string data =
          random_() % 4 == 0 ? delete_operation({key}) : set_operation(key, value);
      result.push_back(entry(term.value, first.value + i, data));
    }
    return result;
  }

  void wait_synced() {
    for (auto& [id, group] : model_) {
      if (group.points.size() == 1 || !going_) continue;
      going_ = listener_.wait_synced(id, group.points.size() - 1);
      group.synced = std::max<std::size_t>(group.synced, listener_.synced(id));
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
    if (common <= group.handed.value || !going_) return;
    const auto from = durable.begin() + static_cast<std::ptrdiff_t>(group.handed.value);
    const std::size_t count = 1 + random_() % (common - group.handed.value);
    group.handed = group.handed + count;
    store_.apply(id, {from, from + static_cast<std::ptrdiff_t>(count)});
    if (random_() % 2 == 0) going_ = listener_.wait_applied(id, group.handed);
  }

  Store& store_;
  Listener& listener_;
  Model& model_;
  std::mt19937_64 random_;
  bool going_ = true;
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
// store. False if the power went again meanwhile.
bool check_and_start(MemoryDisk& disk, Result<std::unique_ptr<Store>>& store, Machines& machines,
                     Listener& listener, Model& model) {
  INFO((store ? "" : store.error().text));
  REQUIRE((store || disk.is_off()));  // a mere power cut never keeps a node from starting
  if (!store) return false;
  Model next;
  std::map<GroupId, raft::Restored> restored;
  for (const GroupId id : kGroups) {
    auto found = (*store)->restore(id, machines.of(id));
    INFO("group " << id.value << ": " << (found ? "" : found.error().text));
    REQUIRE((found || disk.is_off()));
    if (!found) return false;
    std::size_t point = 0;
    REQUIRE(found->base_index == Index{});
    REQUIRE(log_matches(model[id], *found, point));
    REQUIRE(found->applied_index <= model[id].handed);
    next[id].points = {model[id].points[point]};
    next[id].handed = found->applied_index;
    restored[id] = std::move(*found);
  }
  (*store)->start(listener);
  for (const GroupId id : kGroups) {
    bool matches = false;
    read_disk(**store, id,
              [&](const OrderedMap& map) { matches = state_matches(map, id, restored[id]); });
    INFO("group " << id.value << " applied " << restored[id].applied_index.value);
    REQUIRE((matches || disk.is_off()));
  }
  model = next;  // what was found counts as durable from here on
  return true;
}

// One life of the node: open, check, work, and be cut off at operation `cut_at` (0: never).
void live(MemoryDisk& disk, Model& model, std::uint64_t seed, std::uint64_t cut_at) {
  disk.cut_power_at(cut_at);
  const auto env = disk.env();
  Listener listener;
  Machines machines;
  auto store = Store::open(options_on(*env));
  if (!check_and_start(disk, store, machines, listener, model)) return;
  Workload(**store, listener, model, seed).run(40);
  if (cut_at != 0) disk.cut_power();
  store = Error{};
  CHECK(listener.late() == 0);
  CHECK(listener.failures().size() <= 1);
}

std::uint64_t operations_of_a_life(std::uint64_t seed) {
  MemoryDisk disk;
  Model model;
  live(disk, model, seed, 0);
  return disk.operations();
}

// Power cuts in the first life, in the second (while it recovers, or later), and a third that ends
// well; each starts from what the one before left.
void three_lives(std::uint64_t seed, std::uint64_t cut_at) {
  INFO("seed " << seed << ", cut at " << cut_at);
  std::mt19937_64 random(seed * 1'000'003 + cut_at);
  Model model;
  MemoryDisk first;
  live(first, model, seed, cut_at);
  MemoryDisk second(first, random());
  live(second, model, seed + 1, 1 + random() % 150);
  MemoryDisk third(second, random());
  live(third, model, seed + 2, 0);
  MemoryDisk fourth(third, random());
  live(fourth, model, seed + 3, 0);
}

}  // namespace

TEST_CASE("after a power cut at any operation: all that was promised, and nothing invented",
          "[store][crash]") {
  const char* all = std::getenv("SESHAT_EVERY_CRASH");  // slow: every operation for every seed
  const std::uint64_t stride = all != nullptr ? 1 : 4;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    const std::uint64_t operations = operations_of_a_life(seed * 100);
    REQUIRE(operations > 100);
    for (std::uint64_t cut_at = 1 + seed % stride; cut_at <= operations; cut_at += stride) {
      three_lives(seed * 100, cut_at);
    }
  }
}
