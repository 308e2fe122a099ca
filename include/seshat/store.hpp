// seshat/store.hpp - a node's disk: the logs, votes and state machines of its groups in one RocksDB.
//
//              append            ┌─────────┐ SyncWAL ── on_synced, on_log_cut, the durable mark
//    loop ───> apply ──────────> │ storage │ ── on_applied
//      │       cut_log           └─────────┘ ── on_installed
//      │       set_cluster_id         │ what is due
//      │       install_snapshot       v
//      │                         ┌────────┐
//      └─────> apply_now: buffer │ writer │ ── buffer to RocksDB
//                                └────────┘
//              fetch ──────────> ┌──────┐ ── on_fetched
//              read_from_disk ─> │ pool │ ── the caller's own work
//                                └──────┘
//
// A write: the storage thread puts all log writes that wait, of all groups, into one unsynced batch,
// makes it durable with SyncWAL, and reports it; what comes meanwhile is the next batch: under load,
// one fsync carries many writes (group commit). Where they come one by one, whoever appends may write
// and sync instead (store_queue.hpp). No write has its sync within it, for such a write would hold up
// every unsynced one for the length of its fsync.
//
// Applying: what a state machine changes goes to a buffer in memory, where reads find it, and from
// there to RocksDB, with the index it stands for, in one unsynced batch a second (store_writer.hpp).
// Neither needs a sync: what a crash takes is applied again from the log, which is durable. The loop
// applies by itself what needs no disk (apply_now); the rest is the storage thread's, after the log
// writes, for which the whole cluster waits.
//
// Cutting a log: one record says where it begins now. It waits until what was applied up to there is
// written, comes after it in RocksDB's log, and so never survives a power cut that takes the latter;
// when it is durable, the entries before it leave the disk (store_log_cut.hpp).
//
// A snapshot comes in as a new generation of the state beside the old one, on the pool; then one
// synced write on the storage thread puts it in force and empties the log. Snapshots are built on a
// thread of their own, from a checkpoint.
//
// After a crash: the log of RocksDB keeps a prefix of what was written, so entries are never fewer
// than what was applied, and nothing that on_synced reported is missing; if it is (rot, or a disk
// that lied about a sync), open() refuses: durable_mark.hpp, wal_check.hpp.
//
// Keeps:    on_synced only after the sync; nothing is reported after on_storage_failed, and nothing
//           that failed is tried again.
// Threads:  open, restore, start, the destructor, set_cluster_id, identity: the owner (the loop).
//           append, fetch, apply, read_from_disk, cut_log, all of snapshots: the owner; they queue
//           and return. cached(), stats(), log_stats(), cut_point(), log_size_until(),
//           newest_snapshot(), disk_low(), is_new(): any, and never wait for the disk. apply_now: the
//           owner, and not while something it gave to apply() is under way. hold_writes, then
//           write_held: one thread at a time. StoreEvents are called on the store's own threads and in
//           write_held, one at a time.
// Bounds:   the queues hold what Raft handed out: log writes up to max_log_memory_size_bytes, one
//           batch of applied entries a group, one fetch a peer. A buffer has four times a quarter of
//           a write buffer, and a batch; then whoever applies waits for the writer. What clients ask
//           of the pool is bounded by whoever admits clients.
// Limits:   one data group. Writes wait for an fsync or two while a generation is made, filled and
//           put in force. On a disk that stands still the destructor waits; a process that must
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
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "seshat/codec.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/replica.hpp"
#include "seshat/result.hpp"
#include "seshat/snapshot.hpp"
#include "seshat/state_machine.hpp"
#include "seshat/store_database.hpp"
#include "seshat/store_events.hpp"
#include "seshat/store_generation.hpp"
#include "seshat/store_group.hpp"
#include "seshat/store_incoming.hpp"
#include "seshat/store_map.hpp"
#include "seshat/store_options.hpp"
#include "seshat/store_queue.hpp"
#include "seshat/store_snapshot.hpp"
#include "seshat/store_writer.hpp"
#include "seshat/thread_name.hpp"
#include "seshat/work_pool.hpp"

namespace seshat {

class Store final : public LogStore, public Applier, public HeldWrites {
 public:
  // Makes the directory or recovers what is in it. An Error says what is wrong and what to do; what
  // it is about stays as it is.
  [[nodiscard]] static Result<std::unique_ptr<Store>> open(StoreOptions options);

  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  // Stops, then writes everything out, so that the next start has nothing to replay.
  ~Store() override;
  // Finishes and reports what is queued, and ends its threads: nobody is called back any more.
  void stop();

  [[nodiscard]] const NodeIdentity& identity() const { return identity_; }
  // Whether no group has a log, a vote or applied entries: a new node, or one that was wiped.
  [[nodiscard]] bool is_new() const { return is_new_.load(std::memory_order_relaxed); }
  // Durable soon.
  void set_cluster_id(std::string cluster_id);
  // As StoreOptions says it, once it is known how many nodes there are. Any thread.
  void set_ends_on_damage(bool ends) { ends_on_damage_ = ends; }

  // What raft::Raft starts from; `machine` is restored, and applies from now on. Before start().
  [[nodiscard]] Result<raft::Restored> restore(GroupId group, StateMachine& machine);
  void start(StoreEvents& events);

  // LogStore, Applier. After start().
  void append(GroupId group, raft::Write write) override;
  [[nodiscard]] bool hold_writes() override { return queue_.hold(); }
  void write_held() override;
  void fetch(GroupId group, raft::Fetch fetch) override;
  void apply(GroupId group, std::vector<raft::Entry> entries) override;
  [[nodiscard]] std::optional<std::vector<Outcome>> apply_now(
      GroupId group, const std::vector<raft::Entry>& entries) override;

  // What the state machine of `group` wrote, as far as memory holds it: never waits for the disk,
  // and answers kNotInMemory instead.
  [[nodiscard]] const OrderedMap& cached(GroupId group) const { return find(group).data; }
  // Runs `work` on the pool, with a map that reads the disk as well.
  void read_from_disk(GroupId group, std::function<void(const OrderedMap&)> work);
  // The same for OrderedMap::scan(): what was applied by now is written before.
  void scan_disk(GroupId group, std::function<void(const OrderedMap&)> work);

  // Entries up to and including `to`, as far as they are applied, leave the log, as soon as that is
  // written; then on_log_cut.
  // After start().
  void cut_log(GroupId group, Index to);
  // What the group has applied is written without waiting for more, so that it can be cut off soon.
  void write_soon(GroupId group) { writer_.ask(find(group)); }
  [[nodiscard]] LogStats log_stats(GroupId group) const { return find(group).log_stats(); }
  // Up to where to cut so that about `keep_size_bytes` of the log remain.
  [[nodiscard]] Index cut_point(GroupId group, std::uint64_t keep_size_bytes) const {
    return find(group).log.cut_point(keep_size_bytes);
  }
  // Of the log's entries up to and including `last`, roughly.
  [[nodiscard]] std::uint64_t log_size_until(GroupId group, Index last) const {
    return find(group).log.size_until(last);
  }

  // Snapshots. `done` is called on a thread of the store; the reader and the writer are to be used,
  // and let go of, where one may wait for the disk, and before the store is gone. After start().
  using Built = std::function<void(Result<SnapshotMetadata>)>;
  using Opened = std::function<void(Result<std::shared_ptr<SnapshotReader>>)>;
  using Receiving = std::function<void(Result<std::shared_ptr<SnapshotWriter>>)>;
  // Replaces the snapshot that was kept, unless that is as new. `membership` goes into it as it is.
  void build_snapshot(GroupId group, ClusterMembership membership, Built done);
  // Also those of former lives. Never waits.
  [[nodiscard]] std::optional<SnapshotMetadata> newest_snapshot(GroupId group) const {
    return shelf_->newest(group);
  }
  void open_snapshot(GroupId group, Index index, Opened done);
  // newest_snapshot() has forgotten it at once; its files go as soon as nobody reads it.
  void remove_snapshot(GroupId group, Index index);
  void receive_snapshot(SnapshotMetadata metadata, Receiving done);
  // Puts a snapshot in force, once all was done that was appended and applied before; then
  // on_installed. The writer came from receive_snapshot(), and finish() has succeeded. Meanwhile
  // nothing but hard state may be appended to the group, nothing applied, and no other installed.
  void install_snapshot(GroupId group, std::shared_ptr<SnapshotWriter> snapshot);

  using Stats = StoreStats;
  [[nodiscard]] Stats stats() const { return counters_.stats(now_ms()); }
  // Less than min_free_disk_mb is left; checked about once a second.
  [[nodiscard]] bool disk_low() const { return disk_low_.load(std::memory_order_relaxed); }

 private:
  using SteadyClock = std::chrono::steady_clock;

  static constexpr std::chrono::milliseconds kQuickWrite{5};      // of the log, and its sync
  static constexpr std::size_t kRestoredTailSizeBytes = 4 << 20;  // applied, yet kept for followers
  static constexpr std::size_t kMaxAppliedNow = 512;  // entries in one turn of the loop, and bytes
  static constexpr std::size_t kMaxAppliedNowBytes = 256 << 10;
  static constexpr std::size_t kPoolThreads = 2;
  static constexpr std::chrono::seconds kHousekeepingInterval{1};

  using Group = StoreGroup;
  using LogWrite = StoreQueue::LogWrite;
  using Apply = StoreQueue::Apply;
  using Cut = StoreQueue::Cut;
  using Turn = StoreQueue::Turn;
  struct Written {
    GroupId group;
    std::uint64_t write_id;
  };

  explicit Store(StoreOptions options) : database_(std::move(options)) {}

  // open()
  [[nodiscard]] Result<void> open_database();
  [[nodiscard]] Result<void> open_groups();

  // The storage thread, and who writes what it held
  void run_storage();
  void do_turn(Turn& turn);
  // Gives what advance_mark() is to be told.
  [[nodiscard]] std::uint64_t write_and_sync(Turn& turn);
  [[nodiscard]] bool write_log(Turn& turn);
  void fail_write(const std::string& what);
  [[nodiscard]] Result<void> add_cuts(Turn& turn, rocksdb::WriteBatch& batch);
  void cut_at_the_end();
  [[nodiscard]] std::vector<Cut> take_cuts(std::vector<Cut> asked);
  [[nodiscard]] static std::vector<Written> written_by(const Turn& turn);
  void apply_to_machine(Apply& work);
  [[nodiscard]] std::optional<std::vector<Outcome>> apply_from_disk(
      Group& group, const std::vector<raft::Entry>& entries);
  void was_applied(Group& group, StoreBatch& batch, Index last);
  void put_in_force(Apply& work);

  // The writer
  void start_writer();
  void was_written(std::size_t rows);

  // Syncing: the storage thread, and the housekeeping thread for what was written by others
  // Gives the sequence number up to which all is durable; 0: it failed.
  [[nodiscard]] std::uint64_t sync(const std::vector<Written>& written,
                                   const std::vector<Cut>& cuts);
  // The lock: of sync_call_mutex_, or none if somebody has it and the caller does not want to wait.
  void advance_mark(std::uint64_t sequence, const std::unique_lock<std::mutex>& one_at_a_time);
  [[nodiscard]] bool sync_wal();
  [[nodiscard]] bool sync_wal_alone();  // under sync_call_mutex_
  void note_durable(const std::vector<std::uint64_t>& applied);
  void finish_cut(const Cut& cut);
  void reclaim_later(Group& group);
  void reclaim(Group& group);

  // The housekeeping thread, once a second
  void run_housekeeping();
  void sync_mark();
  void measure();

  // The pool
  void fetch_entries(const Group& group, const raft::Fetch& fetch);
  void ingest(Group& group, IncomingSnapshot& snapshot);
  void drop(std::shared_ptr<const StoreGeneration> generation);

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
  void flush();
  [[nodiscard]] std::vector<rocksdb::ColumnFamilyHandle*> all_families(
      std::vector<std::shared_ptr<const StoreGeneration>>& generations) const;
  [[nodiscard]] rocksdb::DB& db() const { return database_.db(); }
  [[nodiscard]] std::uint64_t now_ms() const;

  // Set before any thread of ours runs, and not changed after
  StoreDatabase database_;
  std::deque<Group> groups_;  // gone before the database is
  std::unique_ptr<SnapshotShelf> shelf_;

  NodeIdentity identity_;  // the owner's
  std::atomic<bool> is_new_{true};
  std::atomic<bool> ends_on_damage_{true};

  StoreQueue queue_;

  // Of who has a turn
  std::vector<Cut> waiting_cuts_;  // for what they cut off to be written
  // The storage thread's
  SteadyClock::time_point write_due_ = SteadyClock::now() + StoreWriter::kNever;

  // To the housekeeping thread
  std::mutex housekeeping_mutex_;
  std::condition_variable housekeeping_wake_;
  bool housekeeping_stopping_ = false;
  std::atomic<bool> unsynced_{false};  // something was written that nobody syncs by himself

  // Held while the disk is asked for a sync, and until it is told; guards the durable mark.
  std::mutex sync_call_mutex_;

  // Reports, from all threads
  std::mutex report_mutex_;
  StoreEvents* events_ = nullptr;
  std::string failure_;
  std::atomic<bool> failed_{false};
  std::atomic<bool> stopping_{false};  // slow work is to end early

  std::atomic<bool> disk_low_{false};
  StoreCounters counters_;

  std::thread storage_thread_;
  std::thread housekeeping_thread_;
  StoreWriter writer_;
  WorkPool pool_;
  WorkPool slow_pool_;  // one thread: what may take seconds, and nobody waits for
};

// =================================================================================================
// Bodies
// =================================================================================================

// ---- Opening ------------------------------------------------------------------------------------

inline Result<std::unique_ptr<Store>> Store::open(StoreOptions options) {
  std::unique_ptr<Store> store(new Store(std::move(options)));
  if (Result<void> opened = store->open_database(); !opened) return opened.error();
  return store;
}

inline Result<void> Store::open_database() {
  Result<void> opened = database_.open([this](const std::string& what) { fail(what); });
  if (!opened) return opened;
  identity_ = database_.identity();
  ends_on_damage_ = database_.options().ends_on_damage;
  is_new_ = database_.holds_nothing();
  if (Result<void> found = open_groups(); !found) return found;
  shelf_ = std::make_unique<SnapshotShelf>(*database_.options().env, database_.dir().snapshots());
  if (Result<void> opened = shelf_->open(); !opened) return opened;
  measure();
  return {};
}

inline Result<void> Store::open_groups() {
  for (const GroupId id : database_.options().groups) {
    const auto on_damage = [this, id](const rocksdb::Status& status) {
      if (ends_on_damage_) fail_read(id, status);
    };
    Group& group = groups_.emplace_back(id, database_, on_damage);
    if (Result<void> loaded = group.load(); !loaded) return loaded;
  }
  return {};
}

inline Result<raft::Restored> Store::restore(GroupId id, StateMachine& machine) {
  return find(id).restore(machine, kRestoredTailSizeBytes);
}

// ---- Starting and stopping ------------------------------------------------------------------------

inline void Store::start(StoreEvents& events) {
  {
    const std::lock_guard lock(report_mutex_);
    events_ = &events;
    if (failed()) events_->on_storage_failed(failure_);  // since open()
  }
  start_writer();
  storage_thread_ = std::thread([this] { run_storage(); });
  housekeeping_thread_ = std::thread([this] { run_housekeeping(); });
  pool_.start(kPoolThreads, "seshat-pool");
  slow_pool_.start(1, "seshat-slow");
}

inline Store::~Store() {
  stop();
  if (database_.is_open() && !failed() && events_ != nullptr) flush();
  queue_.forget_applies();  // a generation that nobody put in force: the next start drops it
  groups_.clear();
  database_.close();  // its threads may report a failure until here
}

// In the order in which work flows, so that each finds its queue complete.
inline void Store::stop() {
  stopping_ = true;
  queue_.stop();
  if (storage_thread_.joinable()) storage_thread_.join();
  writer_.give_up();
  writer_.stop();
  {
    const std::lock_guard lock(housekeeping_mutex_);
    housekeeping_stopping_ = true;
  }
  housekeeping_wake_.notify_all();
  if (housekeeping_thread_.joinable()) housekeeping_thread_.join();
  slow_pool_.stop();
  pool_.stop();
}

// Nothing here adds to what was promised, so that a failure loses nothing: the next start recovers.
// A store that was never started has nothing to write.
inline void Store::flush() {
  rocksdb::Status status;
  for (Group& group : groups_) {
    if (status.ok()) status = writer_.write_now(database_, group);
  }
  std::vector<std::shared_ptr<const StoreGeneration>> generations;  // kept meanwhile
  if (status.ok()) status = db().Flush(rocksdb::FlushOptions(), all_families(generations));
  const std::uint64_t sequence = db().GetLatestSequenceNumber();
  if (status.ok()) status = db().SyncWAL();
  if (status.ok() && database_.mark().advance(sequence)) (void)bool(database_.mark().sync());
}

inline std::vector<rocksdb::ColumnFamilyHandle*> Store::all_families(
    std::vector<std::shared_ptr<const StoreGeneration>>& generations) const {
  std::vector<rocksdb::ColumnFamilyHandle*> families = database_.fixed_families();
  for (const Group& group : groups_) {
    generations.push_back(group.data.now());
    families.push_back(&generations.back()->family());
  }
  return families;
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
  queue_.add(identity_);
}

inline void Store::append(GroupId id, raft::Write write) {
  queue_.add(LogWrite{&find(id), std::move(write)});
}

inline void Store::write_held() {
  Turn turn;
  if (!queue_.take_held(turn)) return;
  StoreCounters::count(counters_.held_writes);
  const std::uint64_t synced = failed() ? 0 : write_and_sync(turn);
  queue_.done(turn);
  events_->on_told(true);
  advance_mark(synced, std::unique_lock(sync_call_mutex_, std::try_to_lock));
}

inline void Store::apply(GroupId id, std::vector<raft::Entry> entries) {
  Group& group = find(id);
  raft::require(group.machine != nullptr, "entries were to be applied before restore()");
  queue_.add(Apply{&group, std::move(entries)});
}

// Few entries whose keys are in memory, as nearly always: their clients hear at once, and no other
// thread has to wake. The system group's are left to the other way, which posts them.
inline std::optional<std::vector<Outcome>> Store::apply_now(
    GroupId id, const std::vector<raft::Entry>& entries) {
  Group& group = find(id);
  raft::require(group.machine != nullptr, "entries were to be applied before restore()");
  if (id == kSystemGroup || entries.size() > kMaxAppliedNow || failed()) return std::nullopt;
  std::size_t size_bytes = 0;
  for (const raft::Entry& entry : entries) size_bytes += entry.size_bytes();
  if (size_bytes > kMaxAppliedNowBytes || writer_.is_full(group)) return std::nullopt;
  const std::shared_ptr<const StoreGeneration> generation = group.data.now();
  StoreBatch batch(generation->buffer(), generation->cached(), group.changes);
  Result<std::vector<Outcome>> outcomes = group.machine->apply(batch, entries);
  if (batch.missed() || !outcomes) return std::nullopt;  // an error comes once more, and is told
  was_applied(group, batch, entries.back().index);
  return std::move(*outcomes);
}

inline void Store::was_applied(Group& group, StoreBatch& batch, Index last) {
  batch.commit(last);
  group.machine->committed();
  group.applied = last.value;
  StoreCounters::count(counters_.applied_batches);
  writer_.note_applied(group);
}

inline void Store::cut_log(GroupId id, Index to) { queue_.add(Cut{&find(id), to}); }

// What is fetched has been applied, and so neither changes nor waits in the storage thread's queue.
inline void Store::fetch(GroupId id, raft::Fetch fetch) {
  pool_.post_first(
      [this, &group = std::as_const(*this).find(id), fetch] { fetch_entries(group, fetch); });
}

inline void Store::scan_disk(GroupId id, std::function<void(const OrderedMap&)> work) {
  Group& group = find(id);
  pool_.post([this, &group, work = std::move(work)] {
    if (!writer_.write_out(group)) return work(FailedMap());
    const std::shared_ptr<const StoreGeneration> generation = group.data.now();
    work(generation->on_disk());
  });
}

inline void Store::read_from_disk(GroupId id, std::function<void(const OrderedMap&)> work) {
  pool_.post([&group = std::as_const(*this).find(id), work = std::move(work)] {
    const std::shared_ptr<const StoreGeneration> generation = group.data.now();
    work(generation->on_disk());
  });
}

// ---- The storage thread -----------------------------------------------------------------------------

inline void Store::run_storage() {
  name_this_thread("seshat-storage");
  Turn turn;
  while (queue_.take(turn, write_due_)) {
    write_due_ = SteadyClock::now() + StoreWriter::kNever;
    if (!failed()) do_turn(turn);  // else forget it
    queue_.done(turn);
  }
  if (!failed() && !waiting_cuts_.empty()) cut_at_the_end();
}

inline std::uint64_t Store::write_and_sync(Turn& turn) {
  const SteadyClock::time_point began = SteadyClock::now();
  const std::uint64_t synced = write_log(turn) ? sync(written_by(turn), turn.cuts) : 0;
  turn.was_slow = SteadyClock::now() - began > kQuickWrite;
  return synced;
}

inline void Store::do_turn(Turn& turn) {
  turn.cuts = take_cuts(std::move(turn.cuts));
  if (!turn.writes.empty() || !turn.cuts.empty() || turn.identity) {
    const std::uint64_t synced = write_and_sync(turn);
    if (!turn.writes.empty()) events_->on_told(!turn.apply && queue_.has_time());
    advance_mark(synced, std::unique_lock(sync_call_mutex_));
  }
  if (turn.apply && !failed()) {
    if (turn.apply->generation != nullptr) {
      put_in_force(*turn.apply);
    } else {
      apply_to_machine(*turn.apply);
      events_->on_told(queue_.has_time());
    }
  }
  if (!failed()) write_due_ = writer_.begin_due(database_, groups_);
}

// What cuts wait for is written now.
inline void Store::cut_at_the_end() {
  for (Group& group : groups_) {
    writer_.finish(group);
    const rocksdb::Status status = writer_.write_now(database_, group);
    if (!status.ok())
      return fail_write("what was applied could not be written: " + status.ToString());
  }
  Turn turn;
  turn.cuts = take_cuts({});
  const std::uint64_t synced = write_log(turn) ? sync({}, turn.cuts) : 0;
  advance_mark(synced, std::unique_lock(sync_call_mutex_));
}

// Those of which all is written; the rest wait on.
inline std::vector<Store::Cut> Store::take_cuts(std::vector<Cut> asked) {
  for (Cut& cut : asked) {
    cut.to = std::min(cut.to, Index{cut.group->applied});
    waiting_cuts_.push_back(cut);
  }
  const auto waits = [](const Cut& cut) { return cut.to > Index{cut.group->written}; };
  const auto ready = std::stable_partition(waiting_cuts_.begin(), waiting_cuts_.end(), waits);
  std::vector<Cut> cuts(ready, waiting_cuts_.end());
  waiting_cuts_.erase(ready, waiting_cuts_.end());
  return cuts;
}

// Everything that waits becomes durable together, or not at all.
inline bool Store::write_log(Turn& turn) {
  rocksdb::WriteBatch batch;
  rocksdb::Status status;
  if (Result<void> cut = add_cuts(turn, batch); !cut) {
    fail(cut.error().text);
    return false;
  }
  std::uint64_t none = 0;
  counters_.oldest_unsynced_ms.compare_exchange_strong(none, now_ms());
  for (const LogWrite& work : turn.writes) {
    if (status.ok()) status = work.group->log.add(work.write, batch);
  }
  if (status.ok() && turn.identity) {
    status = batch.Put(&database_.family(store_detail::kDefault), StoreDatabase::kIdentityKey,
                       codec::encode(*turn.identity));
  }
  rocksdb::WriteOptions options;
  options.memtable_insert_hint_per_batch = true;  // each entry goes behind the last one
  if (status.ok()) status = database_.write(options, batch);
  if (!status.ok()) fail_write("the log could not be written: " + status.ToString());
  StoreCounters::count(counters_.batches);
  return status.ok();
}

// After a sync that failed, writes fail as well. The sync knows why: it speaks first.
inline void Store::fail_write(const std::string& what) {
  const std::lock_guard after_the_sync(sync_call_mutex_);
  fail(what);
}

// What was applied up to a cut was written before it, and so is durable when the cut is.
inline Result<void> Store::add_cuts(Turn& turn, rocksdb::WriteBatch& batch) {
  for (Cut& cut : turn.cuts) {
    Group& group = *cut.group;
    const Result<bool> some = group.log.cut(cut.to, batch);
    if (!some) return Error{"group " + std::to_string(group.id.value) + ": " + some.error().text};
    cut.to = group.log.first_index() - 1;
  }
  return {};
}

// The last write of each group stands for those before it.
inline std::vector<Store::Written> Store::written_by(const Turn& turn) {
  std::vector<Written> written;
  for (const LogWrite& work : turn.writes) {
    const auto same = [&work](const Written& other) { return other.group == work.group->id; };
    const auto found = std::find_if(written.begin(), written.end(), same);
    if (found == written.end()) {
      written.push_back({work.group->id, work.write.id});
    } else {
      found->write_id = work.write.id;
    }
  }
  return written;
}

// Whoever hears of it may apply the next entries at once: nothing of the machine, and nothing that a
// batch uses, may be touched after the report.
inline void Store::apply_to_machine(Apply& work) {
  Group& group = *work.group;
  const Index last = work.entries.back().index;
  std::optional<std::vector<Outcome>> outcomes = apply_from_disk(group, work.entries);
  if (!outcomes) return;
  report([&](StoreEvents& events) { events.on_applied(group.id, last, std::move(*outcomes)); });
  if (writer_.is_full(group)) events_->on_told(false);  // they do not wait for the writer as well
  writer_.make_room(database_, group);
}

inline std::optional<std::vector<Outcome>> Store::apply_from_disk(
    Group& group, const std::vector<raft::Entry>& entries) {
  const std::shared_ptr<const StoreGeneration> generation = group.data.now();
  StoreBatch batch(generation->buffer(), generation->on_disk(), group.changes);
  Result<std::vector<Outcome>> outcomes = group.machine->apply(batch, entries);
  if (!batch.failure().ok()) {
    fail_read(group.id, batch.failure());
    return std::nullopt;
  }
  if (!outcomes) {
    fail("group " + std::to_string(group.id.value) + ": " + outcomes.error().text);
    return std::nullopt;
  }
  was_applied(group, batch, entries.back().index);
  return std::move(*outcomes);
}

// One write, synced at once: a crash leaves the old state and its log, or the new one and no log.
inline void Store::put_in_force(Apply& work) {
  Group& group = *work.group;
  writer_.finish(group);
  if (failed()) return;
  Result<MachineState> state = group.machine->restore(work.generation->on_disk());
  if (!state) return fail("group " + std::to_string(group.id.value) + ": " + state.error().text);
  raft::require(state->applied_index.value >= group.applied,
                "an older snapshot was to be installed");
  rocksdb::WriteBatch batch;
  rocksdb::Status status = group.put_in_force(*work.generation, *state, batch);
  if (status.ok()) status = database_.write(rocksdb::WriteOptions(), batch);
  if (!status.ok()) return fail_write("a snapshot could not be installed: " + status.ToString());
  if (!sync_wal()) return;
  group.log.cut_is_durable(state->applied_index + 1);
  group.applied = group.applied_durable = state->applied_index.value;
  writer_.set_written(group, state->applied_index);
  is_new_ = false;
  drop(group.data.switch_to(std::move(work.generation)));
  reclaim_later(group);
  StoreCounters::count(counters_.snapshots_installed);
  unsynced_ = true;  // so that the durable mark moves on
  report([&](StoreEvents& events) { events.on_installed(group.id, *state); });
}

// ---- The writer ------------------------------------------------------------------------------------

inline void Store::start_writer() {
  const StoreOptions& options = database_.options();
  writer_.start({options.write_behind_ms, options.write_buffer_size_bytes / 4},
                {[this] { queue_.look_again(); }, [this](std::size_t rows) { was_written(rows); },
                 [this](const rocksdb::Status& status) {
                   fail_write("what was applied could not be written: " + status.ToString());
                 }});
}

// It becomes durable with the next sync, which shall come although no log write asks for it.
inline void Store::was_written(std::size_t rows) {
  counters_.written_rows.fetch_add(rows, std::memory_order_relaxed);
  unsynced_ = true;
  queue_.look_again();
}

// ---- Syncing -----------------------------------------------------------------------------------

inline std::uint64_t Store::sync(const std::vector<Written>& written,
                                 const std::vector<Cut>& cuts) {
  const std::lock_guard one_at_a_time(sync_call_mutex_);
  const std::uint64_t started_ms = now_ms();
  // All of this was handed to the operating system before the sync begins, and so is part of it.
  unsynced_ = false;
  const std::uint64_t sequence = db().GetLatestSequenceNumber();
  std::vector<std::uint64_t> applied;
  for (const Group& group : groups_) applied.push_back(group.written);
  if (!sync_wal_alone()) return 0;
  const std::uint64_t took_ms = now_ms() - started_ms;
  if (!written.empty() || !cuts.empty()) counters_.oldest_unsynced_ms = 0;
  StoreCounters::count(counters_.syncs);
  counters_.last_sync_ms = took_ms;
  if (took_ms > counters_.longest_sync_ms) counters_.longest_sync_ms = took_ms;
  note_durable(applied);
  if (!written.empty()) is_new_ = false;
  for (const Written& last : written) {
    report([&](StoreEvents& events) { events.on_synced(last.group, last.write_id); });
  }
  for (const Cut& cut : cuts) finish_cut(cut);
  return sequence;
}

// For which nobody waits: the mark may be behind what was promised, and never ahead.
inline void Store::advance_mark(std::uint64_t sequence,
                                const std::unique_lock<std::mutex>& one_at_a_time) {
  if (sequence == 0) return;
  if (!one_at_a_time) {
    unsynced_ = true;  // so that the housekeeping thread sees to it
    return;
  }
  if (Result<void> advanced = database_.mark().advance(sequence); !advanced) {
    fail(advanced.error().text);
  }
}

inline bool Store::sync_wal() {
  const std::lock_guard one_at_a_time(sync_call_mutex_);
  return sync_wal_alone();
}

inline bool Store::sync_wal_alone() {
  if (failed()) return false;  // a sync that failed is not tried again
  const rocksdb::Status status = db().SyncWAL();
  if (!status.ok()) fail("the log could not be synced: " + status.ToString());
  return status.ok();
}

inline void Store::note_durable(const std::vector<std::uint64_t>& applied) {
  for (std::size_t i = 0; i < applied.size(); ++i) {
    if (applied[i] > groups_[i].applied_durable) groups_[i].applied_durable = applied[i];
  }
}

inline void Store::finish_cut(const Cut& cut) {
  const Index first = cut.to + 1;
  cut.group->log.cut_is_durable(first);
  StoreCounters::count(counters_.log_cuts);
  report([&](StoreEvents& events) { events.on_log_cut(cut.group->id, first); });
  reclaim_later(*cut.group);
}

// One that waits does for all cuts until it begins: a build shall not wait behind many.
inline void Store::reclaim_later(Group& group) {
  if (group.reclaim_queued.exchange(true)) return;
  slow_pool_.post([this, &group] { reclaim(group); });
}

inline void Store::reclaim(Group& group) {
  group.reclaim_queued = false;
  if (failed() || stopping_) return;
  StoreCounters::count(counters_.reclaims);
  group.log.reclaim(database_.options().write_buffer_size_bytes / 4);
}

inline void Store::run_housekeeping() {
  name_this_thread("seshat-house");
  std::unique_lock lock(housekeeping_mutex_);
  while (!housekeeping_wake_.wait_for(lock, kHousekeepingInterval,
                                      [this] { return housekeeping_stopping_; })) {
    if (!failed() && unsynced_) {
      const std::uint64_t synced = sync({}, {});
      advance_mark(synced, std::unique_lock(sync_call_mutex_));
    }
    if (!failed()) sync_mark();
    measure();
  }
}

inline void Store::sync_mark() {
  const std::lock_guard one_at_a_time(sync_call_mutex_);
  if (Result<void> synced = database_.mark().sync(); !synced) fail(synced.error().text);
}

// What others ask for all the time, asked of the disk once a second.
inline void Store::measure() {
  std::uint64_t free_bytes = 0;
  const StoreOptions& options = database_.options();
  if (options.env->GetFreeSpace(database_.path(), &free_bytes).ok()) {
    counters_.free_disk_bytes = free_bytes;
    disk_low_ = free_bytes >> 20 < options.min_free_disk_mb;
  }
  std::vector<std::shared_ptr<const StoreGeneration>> generations;  // kept meanwhile
  counters_.size_bytes = database_.size_bytes(all_families(generations));
  std::uint64_t row_cache_bytes = 0;
  for (const auto& generation : generations) row_cache_bytes += generation->cache().size_bytes();
  counters_.row_cache_bytes = row_cache_bytes;
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

// ---- Snapshots ---------------------------------------------------------------------------------

inline void Store::build_snapshot(GroupId id, ClusterMembership membership, Built done) {
  slow_pool_.post(
      [this, &group = find(id), membership = std::move(membership), done = std::move(done)] {
        if (failed()) return done(Error{"the storage has failed: no snapshot is built"});
        const std::uint64_t started_ms = now_ms();
        if (!writer_.write_out(group)) {
          return done(Error{"the storage ends: no snapshot is built"});
        }
        const auto generation = group.data.now();
        Result<SnapshotMetadata> built = shelf_->build(
            db(), group.id, *generation, membership, [this] { return sync_wal(); }, stopping_);
        if (built) {
          StoreCounters::count(counters_.snapshots_built);
          counters_.last_build_ms = now_ms() - started_ms;
        }
        done(std::move(built));
      });
}

inline void Store::open_snapshot(GroupId group, Index index, Opened done) {
  pool_.post([this, group, index, done = std::move(done)] { done(shelf_->read(group, index)); });
}

inline void Store::remove_snapshot(GroupId group, Index index) {
  // Letting go of it waits for the disk.
  slow_pool_.post([kept = shelf_->take(group, index)]() mutable { kept.reset(); });
}

inline void Store::receive_snapshot(SnapshotMetadata metadata, Receiving done) {
  pool_.post([this, metadata = std::move(metadata), done = std::move(done)] {
    const Result<std::string> directory = shelf_->make_directory("incoming");
    if (!directory) return done(directory.error());
    const auto family = store_detail::data_family(metadata.group);
    done(std::shared_ptr<SnapshotWriter>(std::make_shared<IncomingSnapshot>(
        *database_.options().env, *directory, metadata, database_.state_options(family))));
  });
}

inline void Store::install_snapshot(GroupId id, std::shared_ptr<SnapshotWriter> snapshot) {
  auto incoming = std::dynamic_pointer_cast<IncomingSnapshot>(std::move(snapshot));
  raft::require(incoming != nullptr && incoming->is_finished() &&
                    incoming->metadata().group == id && find(id).machine != nullptr,
                "a snapshot was to be installed that is not finished, or not the group's");
  pool_.post([this, &group = find(id), incoming = std::move(incoming)] {
    if (!failed()) ingest(group, *incoming);
  });
}

// Everything but the switch. RocksDB refuses to open a family with tables whose log is newer than a
// torn one: so every log older than the family is synced before there are tables.
inline void Store::ingest(Group& group, IncomingSnapshot& snapshot) {
  StoreCounters::count(counters_.snapshots_received);
  auto next = group.make_generation();
  if (!next) return fail("a snapshot could not be installed: " + next.error().text);
  if (!sync_wal()) return;
  const rocksdb::Status status = snapshot.ingest(db(), (*next)->family());
  if (!status.ok()) return fail("a snapshot could not be installed: " + status.ToString());
  queue_.add(Apply{&group, {}, std::move(*next)});
}

// Its space comes back when nobody reads it any more; if the node stops first, at the next start.
inline void Store::drop(std::shared_ptr<const StoreGeneration> generation) {
  slow_pool_.post([this, generation = std::move(generation)] {
    if (failed() || stopping_) return;
    database_.drop(generation->family());
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
  failure_ = what + " (" + database_.path() + ")";
  failed_.store(true, std::memory_order_release);
  writer_.give_up();
  if (events_ != nullptr) events_->on_storage_failed(failure_);
}

inline std::uint64_t Store::now_ms() const {
  const auto now = SteadyClock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

}  // namespace seshat

#endif  // SESHAT_STORE_HPP
