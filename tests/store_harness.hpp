// tests/store_harness.hpp - what the tests of the store share: who listens, entries, a machine, a
// store on a disk in memory.
#ifndef SESHAT_TESTS_STORE_HARNESS_HPP
#define SESHAT_TESTS_STORE_HARNESS_HPP

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "memory_disk.hpp"
#include "seshat/codec.hpp"
#include "seshat/state_machine.hpp"
#include "seshat/store.hpp"

namespace seshat::tests {

// Keeps what the store reports; the waits end early, with false, when the store has failed.
class Listener final : public StoreEvents {
 public:
  struct Fetched {
    GroupId group;
    NodeId peer;
    Term prev_log_term;
    std::vector<raft::Entry> entries;
  };

  void on_synced(GroupId group, std::uint64_t write_id) override {
    note([&] { synced_[group] = write_id; });
  }
  void on_applied(GroupId group, Index last, std::vector<Outcome> outcomes) override {
    note([&] {
      applied_[group] = last;
      outcomes_.insert(outcomes_.end(), outcomes.begin(), outcomes.end());
    });
  }
  void on_fetched(GroupId group, NodeId peer, Term prev_log_term,
                  std::vector<raft::Entry> entries) override {
    note([&] { fetched_.push_back({group, peer, prev_log_term, std::move(entries)}); });
  }
  void on_log_cut(GroupId group, Index first_index) override {
    note([&] { cuts_[group].push_back(first_index); });
  }
  void on_installed(GroupId group, const MachineState& state) override {
    note([&] { installed_[group].push_back(state); });
  }
  void on_storage_failed(std::string what) override {
    note([&] { failures_.push_back(std::move(what)); });
  }

  [[nodiscard]] bool wait_synced(GroupId group, std::uint64_t write_id) {
    return wait([&] { return synced_[group] >= write_id; });
  }
  [[nodiscard]] bool wait_applied(GroupId group, Index last) {
    return wait([&] { return applied_[group] >= last; });
  }
  [[nodiscard]] bool wait_fetched() {
    return wait([&] { return !fetched_.empty(); });
  }
  [[nodiscard]] bool wait_cuts(GroupId group, std::size_t count) {
    return wait([&] { return cuts_[group].size() >= count; });
  }
  [[nodiscard]] bool wait_installed(GroupId group, std::size_t count) {
    return wait([&] { return installed_[group].size() >= count; });
  }
  [[nodiscard]] bool wait_failed() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return !failures_.empty(); });
  }

  [[nodiscard]] std::uint64_t synced(GroupId group) {
    const std::lock_guard lock(mutex_);
    return synced_[group];
  }
  [[nodiscard]] std::vector<Index> cuts(GroupId group) {
    const std::lock_guard lock(mutex_);
    return cuts_[group];
  }
  [[nodiscard]] std::vector<MachineState> installed(GroupId group) {
    const std::lock_guard lock(mutex_);
    return installed_[group];
  }
  [[nodiscard]] std::vector<Outcome> outcomes() {
    const std::lock_guard lock(mutex_);
    return outcomes_;
  }
  [[nodiscard]] std::vector<Fetched> fetched() {
    const std::lock_guard lock(mutex_);
    return fetched_;
  }
  [[nodiscard]] std::vector<std::string> failures() {
    const std::lock_guard lock(mutex_);
    return failures_;
  }
  // How many reports came after a failure.
  [[nodiscard]] int late() {
    const std::lock_guard lock(mutex_);
    return late_;
  }

 private:
  static constexpr std::chrono::seconds kPatience{20};

  template <class Change>
  void note(Change change) {
    {
      const std::lock_guard lock(mutex_);
      if (!failures_.empty()) ++late_;
      change();
    }
    changed_.notify_all();
  }
  template <class Reached>
  bool wait(Reached reached) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPatience, [&] { return reached() || !failures_.empty(); });
    return reached();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<GroupId, std::uint64_t> synced_;
  std::map<GroupId, Index> applied_;
  std::map<GroupId, std::vector<Index>> cuts_;
  std::map<GroupId, std::vector<MachineState>> installed_;
  std::vector<Outcome> outcomes_;
  std::vector<Fetched> fetched_;
  std::vector<std::string> failures_;
  int late_ = 0;
};

// Whether the tests of crashes look at every operation, and not at some of them.
inline bool every_crash() { return std::getenv("SESHAT_EVERY_CRASH") != nullptr; }

// Waits for a condition that nothing reports, with a bound.
template <class Condition>
bool eventually(Condition condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::yield();
  }
  return true;
}

// A door for hooks of a MemoryDisk: shut it, and those who come wait.
class Gate {
 public:
  void shut() {
    const std::lock_guard lock(mutex_);
    open_ = false;
  }
  void open() {
    {
      const std::lock_guard lock(mutex_);
      open_ = true;
    }
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = true;
};

inline raft::Entry entry(std::uint64_t term, std::uint64_t index, std::string data,
                         raft::EntryType type = raft::EntryType::kNormal) {
  return {Term{term}, Index{index}, type, std::make_shared<const std::string>(std::move(data))};
}

inline raft::Write write(std::uint64_t id, std::vector<raft::Entry> entries,
                         std::optional<raft::HardState> hard_state = raft::HardState{
                             Term{9}, {}, {}}) {
  return {id, hard_state, std::move(entries)};
}

inline std::string set_operation(std::string_view key, std::string_view value) {
  Operation operation;
  operation.type = OperationType::kSet;
  operation.time_ms = 1'000;
  operation.arguments = {key, value};
  return codec::encode(operation);
}

inline std::string delete_operation(std::vector<std::string_view> keys) {
  Operation operation;
  operation.type = OperationType::kDelete;
  operation.arguments = std::move(keys);
  return codec::encode(operation);
}

// Entries that look alike, for logs whose content doesn't matter.
inline std::vector<raft::Entry> entries(std::uint64_t term, std::uint64_t first, std::uint64_t last,
                                        std::size_t size_bytes = 10) {
  std::vector<raft::Entry> result;
  for (std::uint64_t index = first; index <= last; ++index) {
    result.push_back(entry(term, index, std::string(size_bytes, 'e')));
  }
  return result;
}

inline bool same(const std::vector<raft::Entry>& a, const std::vector<raft::Entry>& b) {
  const auto equal = [](const raft::Entry& x, const raft::Entry& y) {
    const std::string none;
    return x.term == y.term && x.index == y.index && x.type == y.type &&
           (x.data ? *x.data : none) == (y.data ? *y.data : none);
  };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), equal);
}

// Counts what it applied, in a key of its own: an entry applied twice, or never, shows.
class CountingMachine final : public StateMachine {
 public:
  Result<std::vector<Outcome>> apply(Batch& batch,
                                     const std::vector<raft::Entry>& entries) override {
    std::vector<Outcome> outcomes;
    for (const raft::Entry& entry : entries) {
      std::string count;
      if (batch.get("count", count) == Lookup::kFailed) return Error{"the disk failed"};
      const std::uint64_t next = (count.empty() ? 0 : std::stoull(count)) + 1;
      batch.put("count", std::to_string(next));
      outcomes.push_back({Outcome::Kind::kInteger, static_cast<std::int64_t>(next)});
      batch.put(kSystemStateKey, codec::encode(MachineState{entry.index, entry.term}));
    }
    return outcomes;
  }
  Result<MachineState> restore(const OrderedMap& map) override {
    return detail::read_state(map, kSystemStateKey);
  }
};

// Reads on the store's pool, and waits for it. After start().
inline void read_disk(Store& store, GroupId group, std::function<void(const OrderedMap&)> read) {
  std::promise<void> done;
  store.read_from_disk(group, [&](const OrderedMap& map) {
    read(map);
    done.set_value();
  });
  done.get_future().wait();
}

inline std::uint64_t count_in(const OrderedMap& map) {
  std::string count;
  return map.get("count", count) == Lookup::kFound ? std::stoull(count) : 0;
}

// ---- Stores ----------------------------------------------------------------------------------------

inline constexpr GroupId kSystem = kSystemGroup;
inline constexpr GroupId kData = kFirstDataGroup;

inline StoreOptions options_for(const std::string& dir, rocksdb::Env* env = nullptr) {
  StoreOptions options;
  options.data_dir = dir;
  options.node_id = NodeId{1};
  options.groups = {kSystem, kData};
  options.block_cache_size_bytes = 8 << 20;
  options.env = env;
  return options;
}

// A directory on the machine's own file system, gone at the end.
class TemporaryDir {
 public:
  TemporaryDir() {
    static std::atomic<int> number{0};
    path_ =
        std::filesystem::temp_directory_path() /
        ("seshat-store-" + std::to_string(std::random_device()()) + "-" + std::to_string(number++));
    std::filesystem::create_directories(path_);
  }
  TemporaryDir(const TemporaryDir&) = delete;
  TemporaryDir& operator=(const TemporaryDir&) = delete;
  ~TemporaryDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] std::string operator/(const std::string& name) const {
    return (path_ / name).string();
  }

 private:
  std::filesystem::path path_;
};

struct NodeOptions {
  std::size_t write_buffer_size_bytes = 64u << 20;
  std::uint64_t write_behind_ms = 1000;
};

// A store over a disk in memory, restored and started.
class Node {
 public:
  explicit Node(MemoryDisk& disk, NodeOptions node_options = {}) : env_(disk.env()) {
    StoreOptions options = options_for("/data", env_.get());
    options.write_buffer_size_bytes = node_options.write_buffer_size_bytes;
    options.write_behind_ms = node_options.write_behind_ms;
    auto opened = Store::open(options);
    INFO((opened ? "" : opened.error().text));
    REQUIRE(opened);
    store_ = std::move(*opened);
    system = restore(kSystem, system_machine);
    data = restore(kData, data_machine);
    store_->start(listener);
  }

  void stop() { store_.reset(); }
  Store* operator->() { return store_.get(); }
  Store& operator*() { return *store_; }

  // Appends, and waits until it is on disk.
  void append(GroupId group, raft::Write write) {
    const std::uint64_t id = write.id;
    store_->append(group, std::move(write));
    REQUIRE(listener.wait_synced(group, id));
  }
  void apply(GroupId group, const std::vector<raft::Entry>& entries) {
    store_->apply(group, entries);
    REQUIRE(listener.wait_applied(group, entries.back().index));
  }

 private:
  std::unique_ptr<rocksdb::Env> env_;

 public:
  Listener listener;
  SystemMachine system_machine;
  KeyValueMachine data_machine;
  raft::Restored system;
  raft::Restored data;

 private:
  raft::Restored restore(GroupId group, StateMachine& machine) {
    auto restored = store_->restore(group, machine);
    INFO((restored ? "" : restored.error().text));
    REQUIRE(restored);
    return std::move(*restored);
  }

  std::unique_ptr<Store> store_;
};

// Writes into the database as no store would.
inline void tamper(rocksdb::Env& env, std::size_t family, const std::string& key,
                   const std::string& value) {
  const StoreOptions options = options_for("/data", &env);
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* opened = nullptr;
  REQUIRE(rocksdb::DB::Open(store_detail::database_options(options), "/data/rocksdb",
                            store_detail::families(options), &handles, &opened)
              .ok());
  const std::unique_ptr<rocksdb::DB> db(opened);
  CHECK(db->Put(rocksdb::WriteOptions(), handles[family], key, value).ok());
  for (auto* handle : handles) CHECK(db->DestroyColumnFamilyHandle(handle).ok());
}

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_STORE_HARNESS_HPP
