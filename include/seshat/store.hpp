// seshat/store.hpp - a node's disk: the logs, votes and state machines of its groups in one RocksDB.
//
//              append            ┌─────────┐ written ┌──────┐ SyncWAL ── on_synced
//    loop ───> apply ──────────> │ storage │ ──────> │ sync │
//              set_cluster_id    └─────────┘         └──────┘ ── the durable mark, the free space
//                                     └── on_applied
//              fetch ──────────> ┌──────┐ ── on_fetched
//              read_from_disk ─> │ pool │ ── the caller's own work
//                                └──────┘
//
// A write: the storage thread puts all log writes that wait, of all groups, into one unsynced
// batch; the sync thread then makes everything that was written meanwhile durable with one SyncWAL,
// and reports it: under load, one fsync carries many writes (group commit). No write is synced by
// itself, for a synced write would hold up every unsynced one for the length of its fsync.
//
// Applying: what a state machine changes and how far it is go into one unsynced batch of one family.
// It needs no sync: what a power cut takes is applied again from the log, which is durable. Log
// writes go first, as the whole cluster waits for them; then one piece of work of the appliers, so
// that neither starves.
//
// After a crash: the log of RocksDB keeps a prefix of what was written, so entries are never fewer
// than what was applied, and nothing that on_synced reported is missing; if it is (rot, or a disk
// that lied about a sync), open() refuses: durable_mark.hpp, wal_check.hpp.
//
// Keeps:    on_synced only after the sync; nothing is reported after on_storage_failed, and nothing
//           that failed is tried again.
// Threads:  open, restore, start, the destructor, set_cluster_id, identity: the owner (the loop).
//           append, fetch, apply, read_from_disk: the owner; they queue and return. cached(),
//           stats(), disk_low(), is_new(): any, and never wait for the disk. StoreEvents are called
//           on the store's own threads, "seshat-storage", "seshat-sync" and "seshat-pool", one at
//           a time.
// Bounds:   the queues hold what Raft handed out: log writes up to max_log_memory_size_bytes, one
//           batch of applied entries a group, one fetch a peer. What clients ask of the pool is
//           bounded by whoever admits clients.
// Limits:   one data group. On a disk that stands still the destructor waits; a process that must
//           end anyway ends by _exit. Records of a newer version deep in the data are found only
//           when they are read.
// Needs:    the store_*.hpp headers, durable_mark.hpp, data_dir.hpp, wal_check.hpp, work_pool.hpp;
//           librocksdb.
//
//   auto store = seshat::Store::open({.data_dir = "data", .node_id = {1}, .groups = {{0}, {1}}});
//   if (!store) return report(store.error());
//   auto restored = (*store)->restore(seshat::kFirstDataGroup, machine);
//   (*store)->start(events);
//   (*store)->append(seshat::kFirstDataGroup, write);     // later: events.on_synced(group, id)
#ifndef SESHAT_STORE_HPP
#define SESHAT_STORE_HPP

#include <rocksdb/db.h>
#include <rocksdb/listener.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "seshat/codec.hpp"
#include "seshat/data_dir.hpp"
#include "seshat/durable_mark.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/replica.hpp"
#include "seshat/result.hpp"
#include "seshat/state_machine.hpp"
#include "seshat/store_log.hpp"
#include "seshat/store_map.hpp"
#include "seshat/store_options.hpp"
#include "seshat/thread_name.hpp"
#include "seshat/wal_check.hpp"
#include "seshat/work_pool.hpp"

namespace seshat {

// What the disk answers. Called on the store's threads, one call at a time: post it and return.
class StoreEvents {
 public:
  virtual ~StoreEvents() = default;
  // Every write of `group` up to and including this one is on disk.
  virtual void on_synced(GroupId group, std::uint64_t write_id) = 0;
  // `last` and all before it is applied; an Outcome for each entry that apply() was given.
  virtual void on_applied(GroupId group, Index last, std::vector<Outcome> outcomes) = 0;
  virtual void on_fetched(GroupId group, NodeId peer, Term prev_log_term,
                          std::vector<raft::Entry> entries) = 0;
  // Once. The node must end: nothing more will be written, synced or reported.
  virtual void on_storage_failed(std::string what) = 0;
};

class Store final : public LogStore, public Applier {
 public:
  // Makes the directory or recovers what is in it. An Error says what is wrong and what to do; what
  // it is about stays as it is.
  [[nodiscard]] static Result<std::unique_ptr<Store>> open(StoreOptions options);

  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  // Finishes and reports what is queued, then writes everything out, so that the next start has
  // nothing to replay.
  ~Store() override;

  [[nodiscard]] const NodeIdentity& identity() const { return identity_; }
  // Whether no group has a log, a vote or applied entries: a new node, or one that was wiped.
  [[nodiscard]] bool is_new() const { return is_new_.load(std::memory_order_relaxed); }
  // Durable soon.
  void set_cluster_id(std::string cluster_id);

  // What raft::Raft starts from; `machine` is restored, and applies from now on. Before start().
  [[nodiscard]] Result<raft::Restored> restore(GroupId group, StateMachine& machine);
  void start(StoreEvents& events);

  // LogStore, Applier. After start().
  void append(GroupId group, raft::Write write) override;
  void fetch(GroupId group, raft::Fetch fetch) override;
  void apply(GroupId group, std::vector<raft::Entry> entries) override;

  // What the state machine of `group` wrote, as far as memory holds it: never waits for the disk,
  // and answers kNotInMemory instead.
  [[nodiscard]] const OrderedMap& cached(GroupId group) const { return find(group).cached; }
  // Runs `work` on the pool, with a map that reads the disk as well.
  void read_from_disk(GroupId group, std::function<void(const OrderedMap&)> work);

  struct Stats {
    std::uint64_t size_bytes = 0;       // tables on disk and what waits in memory to become one
    std::uint64_t free_disk_bytes = 0;  // of the file system; as of the last second, like the above
    std::uint64_t unsynced_age_ms = 0;  // of the oldest write that is not durable yet
    std::uint64_t batches = 0;          // of log writes, since the start
    std::uint64_t syncs = 0;            // ... and the syncs that made them durable
    std::uint64_t applied_batches = 0;
    std::uint64_t last_sync_ms = 0;  // how long it took
    std::uint64_t longest_sync_ms = 0;
  };
  [[nodiscard]] Stats stats() const;
  // Less than min_free_disk_mb is left; checked about once a second.
  [[nodiscard]] bool disk_low() const { return disk_low_.load(std::memory_order_relaxed); }

 private:
  using SteadyClock = std::chrono::steady_clock;

  static constexpr std::size_t kMaxBatchSizeBytes = 8 << 20;      // of log writes in one batch
  static constexpr std::size_t kRestoredTailSizeBytes = 4 << 20;  // applied, yet kept for followers
  static constexpr std::size_t kPoolThreads = 2;
  static constexpr std::chrono::seconds kHousekeepingInterval{1};
  static constexpr const char* kIdentityKey = "identity";

  struct Group {
    GroupId id;
    rocksdb::ColumnFamilyHandle* data = nullptr;
    StoreLog log;     // writing to it: the storage thread
    StoreMap cached;  // reads: any thread
    StoreMap on_disk;
    StateMachine* machine = nullptr;  // the storage thread's
  };
  struct LogWrite {
    Group* group;
    raft::Write write;
  };
  struct ApplyWork {
    Group* group;
    std::vector<raft::Entry> entries;
  };
  // What the storage thread takes in one turn.
  struct Turn {
    std::vector<LogWrite> writes;
    std::optional<NodeIdentity> identity;
    std::optional<ApplyWork> apply;
  };
  struct Written {
    GroupId group;
    std::uint64_t write_id;
  };
  // RocksDB's own threads (flush, compaction) tell here what went wrong.
  class FailureListener final : public rocksdb::EventListener {
   public:
    explicit FailureListener(Store& store) : store_(store) {}
    void OnBackgroundError(rocksdb::BackgroundErrorReason reason, rocksdb::Status* error) override;

   private:
    Store& store_;
  };

  Store(StoreOptions options, DataDir dir, DurableMark mark);

  // open()
  [[nodiscard]] Result<void> open_database();
  [[nodiscard]] Result<void> check_promised(const rocksdb::DBOptions& options);
  [[nodiscard]] Result<void> open_rocksdb(const rocksdb::DBOptions& options);
  [[nodiscard]] Result<void> open_groups();
  [[nodiscard]] Result<void> open_identity();
  [[nodiscard]] Result<void> make_identity();
  [[nodiscard]] static std::string rebuild_advice(const std::string& path);
  [[nodiscard]] Error missing(std::uint64_t found, const std::string& file) const;
  [[nodiscard]] Error refused(const std::string& why) const;
  [[nodiscard]] bool holds_nothing() const;
  [[nodiscard]] static Result<void> check_groups(const std::vector<GroupId>& groups);

  // The storage thread
  void run_storage();
  [[nodiscard]] bool take_turn(Turn& turn);
  void write_log(Turn& turn);
  void hand_to_sync(const std::vector<LogWrite>& writes);
  void apply_to_machine(ApplyWork& work);

  // The sync thread
  void run_sync();
  void sync(const std::vector<Written>& written);
  void sync_mark();
  void measure();

  // The pool
  void fetch_entries(const Group& group, const raft::Fetch& fetch);

  [[nodiscard]] const Group& find(GroupId group) const;
  [[nodiscard]] Group& find(GroupId group) {
    return const_cast<Group&>(std::as_const(*this).find(group));
  }
  template <class Report>
  void report(Report report);
  void fail(const std::string& what);
  void fail_read(GroupId id, const rocksdb::Status& status) {
    fail("group " + std::to_string(id.value) + " could not be read: " + status.ToString());
  }
  [[nodiscard]] bool failed() const { return failed_.load(std::memory_order_acquire); }
  void stop_threads();
  void close_database();
  [[nodiscard]] std::uint64_t now_ms() const;

  // Set before any thread of ours runs, and not changed after
  StoreOptions options_;
  DataDir dir_;
  WalContinuity continuity_{WalContinuity::Mode::kReplay};  // the database points to it
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> families_;  // by store_detail::Family
  std::deque<Group> groups_;

  NodeIdentity identity_;  // the owner's
  std::atomic<bool> is_new_{true};

  // To the storage thread
  std::mutex storage_mutex_;
  std::condition_variable storage_wake_;
  std::deque<LogWrite> writes_;
  std::deque<ApplyWork> applies_;
  std::optional<NodeIdentity> identity_write_;
  bool storage_stopping_ = false;

  // To the sync thread
  std::mutex sync_mutex_;
  std::condition_variable sync_wake_;
  std::vector<Written> written_;     // one for each group that has something to report
  bool unsynced_ = false;            // something was written, whether reported or not
  std::uint64_t written_at_ms_ = 0;  // the oldest of it
  bool sync_stopping_ = false;
  std::mutex sync_call_mutex_;  // held while the disk is asked, and until its failure is reported

  DurableMark mark_;  // the sync thread's

  // Reports, from all threads
  std::mutex report_mutex_;
  StoreEvents* events_ = nullptr;
  std::string failure_;
  std::atomic<bool> failed_{false};

  std::atomic<bool> disk_low_{false};
  struct {
    std::atomic<std::uint64_t> size_bytes{0}, free_disk_bytes{0}, oldest_unsynced_ms{0}, batches{0},
        syncs{0}, applied_batches{0}, last_sync_ms{0}, longest_sync_ms{0};
  } counters_;

  std::thread storage_thread_;
  std::thread sync_thread_;
  WorkPool pool_;
};

// =================================================================================================
// Bodies
// =================================================================================================

// ---- Opening ------------------------------------------------------------------------------------

inline Result<std::unique_ptr<Store>> Store::open(StoreOptions options) {
  if (Result<void> known = check_groups(options.groups); !known) return known.error();
  if (options.env == nullptr) options.env = rocksdb::Env::Default();
  Result<DataDir> dir = DataDir::open(*options.env, options.data_dir);
  if (!dir) return dir.error();
  // The mark is made before the database.
  if (dir->has_database() && options.env->FileExists(dir->durable_mark()).IsNotFound()) {
    return Error{dir->durable_mark() + " is missing, and nothing else says how much of the data " +
                 "in " + dir->path() + " was promised. " + rebuild_advice(dir->path())};
  }
  Result<DurableMark> mark = DurableMark::open(*options.env, dir->durable_mark());
  if (!mark) return mark.error();
  std::unique_ptr<Store> store(new Store(std::move(options), std::move(*dir), std::move(*mark)));
  if (Result<void> opened = store->open_database(); !opened) return opened.error();
  return store;
}

inline Store::Store(StoreOptions options, DataDir dir, DurableMark mark)
    : options_(std::move(options)), dir_(std::move(dir)), mark_(std::move(mark)) {}

inline Result<void> Store::check_groups(const std::vector<GroupId>& groups) {
  for (const GroupId group : groups) {
    if (group <= kFirstDataGroup) continue;
    return Error{"group " + std::to_string(group.value) +
                 " can't be stored: this seshat keeps one data group, " +
                 std::to_string(kFirstDataGroup.value)};
  }
  return {};
}

inline Result<void> Store::open_database() {
  rocksdb::DBOptions options = store_detail::database_options(options_);
  options.listeners.push_back(std::make_shared<FailureListener>(*this));
  if (Result<void> whole = check_promised(options); !whole) return whole;
  if (Result<void> opened = open_rocksdb(options); !opened) return opened;
  if (Result<void> ours = open_identity(); !ours) return ours;
  if (Result<void> found = open_groups(); !found) return found;
  is_new_ = holds_nothing();
  measure();
  return {};
}

// Nothing that was promised may be missing. Looks only, and changes nothing.
inline Result<void> Store::check_promised(const rocksdb::DBOptions& options) {
  if (mark_.sequence() == 0) return {};  // nothing was promised: new, or not even made to the end
  if (!dir_.has_database()) return missing(0, dir_.database() + "/CURRENT");
  const Result<WalFinding> finding =
      examine_wal(options, dir_.database(), store_detail::families(options_));
  if (!finding) return refused(finding.error().text);
  if (finding->sequence < mark_.sequence()) return missing(finding->sequence, finding->file);
  return {};
}

inline std::string Store::rebuild_advice(const std::string& path) {
  return "Move " + path +
         " away, start the node with an empty directory, and let it join again: it copies "
         "everything from its peers";
}

inline Error Store::missing(std::uint64_t found, const std::string& file) const {
  const std::string where = file.empty() ? dir_.database() : file;
  return Error{"synced data is missing or damaged: " + dir_.durable_mark() +
               " says that all changes up to " + std::to_string(mark_.sequence()) +
               " are on disk, but only those up to " + std::to_string(found) + " are there (" +
               where + "). The disk lost what it had promised to keep, so this node could break " +
               "promises of its own. " + rebuild_advice(dir_.path())};
}

inline Error Store::refused(const std::string& why) const {
  return Error{dir_.path() + " can't be used: " + why};
}

inline Result<void> Store::open_rocksdb(const rocksdb::DBOptions& options) {
  rocksdb::DBOptions with_filter = options;
  with_filter.wal_filter = &continuity_;
  with_filter.create_if_missing = true;
  with_filter.create_missing_column_families = true;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(
      with_filter, dir_.database(), store_detail::families(options_), &families_, &db);
  db_.reset(db);
  if (!status.ok()) return refused(status.ToString());
  // Once more, of what was really replayed.
  const std::uint64_t found = db_->GetLatestSequenceNumber();
  if (found < mark_.sequence()) return missing(found, continuity_.file());
  return {};
}

inline Result<void> Store::open_identity() {
  std::string bytes;
  const rocksdb::Status status = db_->Get(rocksdb::ReadOptions(), kIdentityKey, &bytes);
  if (status.IsNotFound()) return make_identity();
  if (!status.ok()) return refused("its identity can't be read: " + status.ToString());
  Result<NodeIdentity> found = codec::decode_identity(bytes);
  if (!found) return refused(found.error().text);
  if (found->id != options_.node_id) {
    const std::string theirs = std::to_string(found->id.value);
    return Error{dir_.path() + " belongs to node " + theirs + ", but this node is " +
                 std::to_string(options_.node_id.value) +
                 ": give each node its own data directory, or start this one as node " + theirs};
  }
  identity_ = std::move(*found);
  return {};
}

// The incarnation tells this directory from any other that the same node had or will have.
inline Result<void> Store::make_identity() {
  if (db_->GetLatestSequenceNumber() != 0) return refused("it holds data, but not whose they are");
  std::random_device random;
  identity_.id = options_.node_id;
  while (identity_.incarnation == 0) {
    identity_.incarnation = std::uint64_t{random()} << 32 | random();
  }
  // No other thread writes yet, so that this one may wait for its own sync.
  rocksdb::WriteOptions synced;
  synced.sync = true;
  const rocksdb::Status status = db_->Put(synced, kIdentityKey, codec::encode(identity_));
  if (!status.ok()) return refused("it can't be written: " + status.ToString());
  if (Result<void> advanced = mark_.advance(db_->GetLatestSequenceNumber()); !advanced) {
    return advanced;
  }
  return mark_.sync();
}

inline Result<void> Store::open_groups() {
  for (const GroupId id : options_.groups) {
    const bool system = id == kSystemGroup;
    const auto family = [this](store_detail::Family number) -> rocksdb::ColumnFamilyHandle& {
      return *families_[number];
    };
    Group& group = groups_.emplace_back();
    group.id = id;
    group.data = &family(system ? store_detail::kSystemData : store_detail::kDataKv);
    group.log = StoreLog(*db_, family(system ? store_detail::kSystemLog : store_detail::kDataLog),
                         family(system ? store_detail::kSystemState : store_detail::kDataState));
    group.cached = StoreMap(*db_, *group.data, ReadFrom::kMemory);
    group.on_disk =
        StoreMap(*db_, *group.data, ReadFrom::kDisk, [this, id](const rocksdb::Status& status) {
          if (options_.ends_on_damage) fail_read(id, status);
        });
    if (Result<void> loaded = group.log.load(); !loaded) {
      return refused("group " + std::to_string(id.value) + ": " + loaded.error().text);
    }
  }
  return {};
}

// All families but the one with the identity; those of a group that was not asked for count too.
inline bool Store::holds_nothing() const {
  for (std::size_t i = store_detail::kDefault + 1; i < families_.size(); ++i) {
    const std::unique_ptr<rocksdb::Iterator> at(
        db_->NewIterator(rocksdb::ReadOptions(), families_[i]));
    at->SeekToFirst();
    if (at->Valid() || !at->status().ok()) return false;
  }
  return true;
}

inline Result<raft::Restored> Store::restore(GroupId id, StateMachine& machine) {
  Group& group = find(id);
  const auto inconsistent = [this, id](const std::string& why) {
    return refused("group " + std::to_string(id.value) + ": " + why + ". " +
                   rebuild_advice(dir_.path()));
  };
  const auto unreadable = [this, id](const Error& error) {
    return refused("group " + std::to_string(id.value) + ": " + error.text);
  };
  const Result<MachineState> state = machine.restore(group.on_disk);
  if (!state) return unreadable(state.error());
  Result<std::optional<raft::HardState>> hard_state = group.log.hard_state();
  if (!hard_state) return unreadable(hard_state.error());
  Result<raft::Restored> restored = group.log.restore(state->applied_index, kRestoredTailSizeBytes);
  if (!restored) return inconsistent(restored.error().text);
  if (*hard_state) restored->hard_state = **hard_state;
  if (const auto why = raft::check_restored(*restored)) return inconsistent(*why);
  const std::uint64_t applied_at = state->applied_index - restored->base_index;
  const Term applied_term =
      applied_at == 0 ? restored->base_term : restored->entries[applied_at - 1].term;
  if (applied_term != state->applied_term) {
    return inconsistent("the state machine applied another entry " +
                        std::to_string(state->applied_index.value) + " than the log holds");
  }
  group.machine = &machine;
  return restored;
}

// ---- Starting and stopping ------------------------------------------------------------------------

inline void Store::start(StoreEvents& events) {
  {
    const std::lock_guard lock(report_mutex_);
    events_ = &events;
    if (failed()) events_->on_storage_failed(failure_);  // since open()
  }
  storage_thread_ = std::thread([this] { run_storage(); });
  sync_thread_ = std::thread([this] { run_sync(); });
  pool_.start(kPoolThreads, "seshat-pool");
}

inline Store::~Store() {
  stop_threads();
  if (db_ != nullptr) close_database();
}

// In the order in which work flows, so that each finds its queue complete.
inline void Store::stop_threads() {
  {
    const std::lock_guard lock(storage_mutex_);
    storage_stopping_ = true;
  }
  storage_wake_.notify_all();
  if (storage_thread_.joinable()) storage_thread_.join();
  {
    const std::lock_guard lock(sync_mutex_);
    sync_stopping_ = true;
  }
  sync_wake_.notify_all();
  if (sync_thread_.joinable()) sync_thread_.join();
  pool_.stop();
}

// Nothing here adds to what was promised, so that a failure loses nothing: the next start recovers.
// A store that was never started has nothing to write.
inline void Store::close_database() {
  if (!failed() && events_ != nullptr) {
    rocksdb::Status status = db_->Flush(rocksdb::FlushOptions(), families_);
    const std::uint64_t sequence = db_->GetLatestSequenceNumber();
    if (status.ok()) status = db_->SyncWAL();
    if (status.ok() && mark_.advance(sequence)) (void)bool(mark_.sync());
  }
  for (rocksdb::ColumnFamilyHandle* family : families_) {
    db_->DestroyColumnFamilyHandle(family).PermitUncheckedError();
  }
  db_->Close().PermitUncheckedError();
}

// ---- What the loop asks for ------------------------------------------------------------------------

inline const Store::Group& Store::find(GroupId id) const {
  for (const Group& group : groups_) {
    if (group.id == id) return group;
  }
  raft::broken_invariant("the store was asked for a group that it was not opened with");
}

inline void Store::set_cluster_id(std::string cluster_id) {
  identity_.cluster_id = std::move(cluster_id);
  {
    const std::lock_guard lock(storage_mutex_);
    identity_write_ = identity_;
  }
  storage_wake_.notify_one();
}

inline void Store::append(GroupId id, raft::Write write) {
  Group& group = find(id);
  {
    const std::lock_guard lock(storage_mutex_);
    writes_.push_back({&group, std::move(write)});
  }
  storage_wake_.notify_one();
}

inline void Store::apply(GroupId id, std::vector<raft::Entry> entries) {
  Group& group = find(id);
  raft::require(group.machine != nullptr, "entries were to be applied before restore()");
  {
    const std::lock_guard lock(storage_mutex_);
    applies_.push_back({&group, std::move(entries)});
  }
  storage_wake_.notify_one();
}

// What is fetched has been applied, and so neither changes nor waits in the storage thread's queue.
inline void Store::fetch(GroupId id, raft::Fetch fetch) {
  pool_.post_first(
      [this, &group = std::as_const(*this).find(id), fetch] { fetch_entries(group, fetch); });
}

inline void Store::read_from_disk(GroupId id, std::function<void(const OrderedMap&)> work) {
  pool_.post([&map = std::as_const(*this).find(id).on_disk, work = std::move(work)] { work(map); });
}

inline Store::Stats Store::stats() const {
  Stats stats;
  const auto get = [](const std::atomic<std::uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
  };
  stats.size_bytes = get(counters_.size_bytes);
  stats.free_disk_bytes = get(counters_.free_disk_bytes);
  stats.batches = get(counters_.batches);
  stats.syncs = get(counters_.syncs);
  stats.applied_batches = get(counters_.applied_batches);
  stats.last_sync_ms = get(counters_.last_sync_ms);
  stats.longest_sync_ms = get(counters_.longest_sync_ms);
  const std::uint64_t oldest_ms = get(counters_.oldest_unsynced_ms);
  if (oldest_ms != 0) stats.unsynced_age_ms = now_ms() - oldest_ms;
  return stats;
}

// ---- The storage thread -----------------------------------------------------------------------------

inline void Store::run_storage() {
  name_this_thread("seshat-storage");
  Turn turn;
  while (take_turn(turn)) {
    if (failed()) continue;  // and so forget it
    if (!turn.writes.empty() || turn.identity) write_log(turn);
    if (turn.apply && !failed()) apply_to_machine(*turn.apply);
  }
}

// Waits for work; false: there is none left, and the store stops.
inline bool Store::take_turn(Turn& turn) {
  turn = {};
  std::unique_lock lock(storage_mutex_);
  storage_wake_.wait(lock, [this] {
    return storage_stopping_ || !writes_.empty() || !applies_.empty() || identity_write_;
  });
  std::size_t size_bytes = 0;
  while (!writes_.empty() && size_bytes < kMaxBatchSizeBytes) {
    for (const raft::Entry& entry : writes_.front().write.entries) size_bytes += entry.size_bytes();
    turn.writes.push_back(std::move(writes_.front()));
    writes_.pop_front();
  }
  turn.identity = std::exchange(identity_write_, std::nullopt);
  if (!applies_.empty()) {
    turn.apply = std::move(applies_.front());
    applies_.pop_front();
  }
  return !turn.writes.empty() || turn.identity || turn.apply;
}

// Everything that waits becomes durable together, or not at all.
inline void Store::write_log(Turn& turn) {
  rocksdb::WriteBatch batch;
  rocksdb::Status status;
  for (const LogWrite& work : turn.writes) {
    if (status.ok()) status = work.group->log.add(work.write, batch);
  }
  if (status.ok() && turn.identity) {
    status =
        batch.Put(families_[store_detail::kDefault], kIdentityKey, codec::encode(*turn.identity));
  }
  if (status.ok()) status = db_->Write(rocksdb::WriteOptions(), &batch);
  if (!status.ok()) {
    // After a sync that failed, writes fail as well. The sync knows why: it speaks first.
    const std::lock_guard after_the_sync(sync_call_mutex_);
    return fail("the log could not be written: " + status.ToString());
  }
  counters_.batches.fetch_add(1, std::memory_order_relaxed);
  hand_to_sync(turn.writes);
}

inline void Store::hand_to_sync(const std::vector<LogWrite>& writes) {
  {
    const std::lock_guard lock(sync_mutex_);
    for (const LogWrite& work : writes) {
      const auto same = [&work](const Written& other) { return other.group == work.group->id; };
      const auto found = std::find_if(written_.begin(), written_.end(), same);
      if (found == written_.end()) {
        written_.push_back({work.group->id, work.write.id});
      } else {
        found->write_id = work.write.id;
      }
    }
    if (!unsynced_) written_at_ms_ = now_ms();
    unsynced_ = true;
    std::uint64_t none = 0;
    counters_.oldest_unsynced_ms.compare_exchange_strong(none, written_at_ms_);
  }
  sync_wake_.notify_one();
}

inline void Store::apply_to_machine(ApplyWork& work) {
  const Group& group = *work.group;
  const Index last = work.entries.back().index;
  StoreBatch batch(*db_, *group.data);
  Result<std::vector<Outcome>> outcomes = group.machine->apply(batch, work.entries);
  if (!batch.failure().ok()) return fail_read(group.id, batch.failure());
  if (!outcomes) {
    return fail("group " + std::to_string(group.id.value) + ": " + outcomes.error().text);
  }
  const rocksdb::Status status = db_->Write(rocksdb::WriteOptions(), &batch.changes());
  if (!status.ok()) {
    const std::lock_guard after_the_sync(sync_call_mutex_);  // as in write_log()
    return fail("what was applied could not be written: " + status.ToString());
  }
  counters_.applied_batches.fetch_add(1, std::memory_order_relaxed);
  report([&](StoreEvents& events) { events.on_applied(group.id, last, std::move(*outcomes)); });
}

// ---- The sync thread -----------------------------------------------------------------------------------

inline void Store::run_sync() {
  name_this_thread("seshat-sync");
  auto housekeeping_at = SteadyClock::now() + kHousekeepingInterval;
  for (bool stopping = false; !stopping;) {
    std::vector<Written> written;
    bool unsynced = false;
    {
      std::unique_lock lock(sync_mutex_);
      sync_wake_.wait_until(lock, housekeeping_at, [this] { return unsynced_ || sync_stopping_; });
      written.swap(written_);
      unsynced = std::exchange(unsynced_, false);
      stopping = sync_stopping_;
    }
    if (failed()) continue;
    if (unsynced) sync(written);
    if (SteadyClock::now() < housekeeping_at) continue;
    housekeeping_at = SteadyClock::now() + kHousekeepingInterval;
    if (!failed()) sync_mark();
    measure();
  }
}

inline void Store::sync(const std::vector<Written>& written) {
  const std::uint64_t started_ms = now_ms();
  // All of this was handed to the operating system before the sync begins, and so is part of it.
  const std::uint64_t sequence = db_->GetLatestSequenceNumber();
  {
    const std::lock_guard speaks_first(sync_call_mutex_);
    const rocksdb::Status status = db_->SyncWAL();
    if (!status.ok()) return fail("the log could not be synced: " + status.ToString());
  }
  const std::uint64_t took_ms = now_ms() - started_ms;
  {
    const std::lock_guard lock(sync_mutex_);
    counters_.oldest_unsynced_ms = unsynced_ ? written_at_ms_ : 0;
  }
  counters_.syncs.fetch_add(1, std::memory_order_relaxed);
  counters_.last_sync_ms = took_ms;
  if (took_ms > counters_.longest_sync_ms) counters_.longest_sync_ms = took_ms;
  if (!written.empty()) is_new_ = false;
  for (const Written& last : written) {
    report([&](StoreEvents& events) { events.on_synced(last.group, last.write_id); });
  }
  if (Result<void> advanced = mark_.advance(sequence); !advanced) fail(advanced.error().text);
}

inline void Store::sync_mark() {
  if (Result<void> synced = mark_.sync(); !synced) fail(synced.error().text);
}

// What others ask for all the time, asked of the disk once a second.
inline void Store::measure() {
  std::uint64_t free_bytes = 0;
  if (options_.env->GetFreeSpace(dir_.path(), &free_bytes).ok()) {
    counters_.free_disk_bytes = free_bytes;
    disk_low_ = free_bytes >> 20 < options_.min_free_disk_mb;
  }
  std::uint64_t size_bytes = 0;
  for (rocksdb::ColumnFamilyHandle* family : families_) {
    for (const std::string* property : {&rocksdb::DB::Properties::kLiveSstFilesSize,
                                        &rocksdb::DB::Properties::kSizeAllMemTables}) {
      std::uint64_t part_bytes = 0;
      if (db_->GetIntProperty(family, *property, &part_bytes)) size_bytes += part_bytes;
    }
  }
  counters_.size_bytes = size_bytes;
}

// ---- The pool ---------------------------------------------------------------------------------------------

inline void Store::fetch_entries(const Group& group, const raft::Fetch& fetch) {
  Result<StoreLog::Fetched> fetched = group.log.read(fetch);
  if (!fetched) {  // a log that can't be read serves nobody: let another node lead
    return fail("group " + std::to_string(group.id.value) + ": " + fetched.error().text);
  }
  report([&](StoreEvents& events) {
    events.on_fetched(group.id, fetch.peer, fetched->prev_log_term, std::move(fetched->entries));
  });
}

// ---- Reports -----------------------------------------------------------------------------------------------

// One at a time, so that nothing can follow a failure.
template <class Report>
void Store::report(Report report) {
  const std::lock_guard lock(report_mutex_);
  if (!failed()) report(*events_);
}

inline void Store::fail(const std::string& what) {
  const std::lock_guard lock(report_mutex_);
  if (failed()) return;
  failure_ = what + " (" + dir_.path() + ")";
  failed_.store(true, std::memory_order_release);
  if (events_ != nullptr) events_->on_storage_failed(failure_);
}

inline void Store::FailureListener::OnBackgroundError(rocksdb::BackgroundErrorReason,
                                                      rocksdb::Status* error) {
  // An echo of what another thread has met, and reports with its cause.
  if (error->ToString().find("previous error") != std::string::npos) return;
  store_.fail("the database could not write: " + error->ToString());
}

inline std::uint64_t Store::now_ms() const {
  const auto now = SteadyClock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

}  // namespace seshat

#endif  // SESHAT_STORE_HPP
