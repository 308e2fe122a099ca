// A disk as RocksDB shows it to the store: a write-ahead log that forgets its unsynced end.
//
//   write(mutation) ──> written ──(sync, later)──> durable
//                          │ power cut: keeps a prefix, at least what is durable
//                          └ the process dies: all of it stays
//
//   Disk      of the machine: survives the process; what it holds, what was synced, what is broken
//   Storage   of one process: store.hpp's storage thread, its syncs and its pool, in virtual time
//
// Keeps: one order for the writes of all groups and for applied batches; each is there as a whole
// or not at all (what a power cut tears fails its checksum, and goes with all that follows it); a
// sync covers what was written before it began. That is so for the cut of a log, and for a snapshot
// that takes the place of a group's state and log, as well.
#ifndef SESHAT_TESTS_SIM_DISK_HPP
#define SESHAT_TESTS_SIM_DISK_HPP

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/codec.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/replica.hpp"
#include "seshat/state_machine.hpp"
#include "sim/scenario.hpp"
#include "sim/world.hpp"

namespace seshat::sim {

// ---- What it holds ----------------------------------------------------------------------------------

using Records = std::map<std::string, std::string, std::less<>>;

class RecordMap final : public OrderedMap {
 public:
  explicit RecordMap(const Records& records) : records_(records) {}
  [[nodiscard]] Lookup get(std::string_view key, std::string& value) const override {
    const auto found = records_.find(key);
    if (found == records_.end()) return Lookup::kAbsent;
    value = found->second;
    return Lookup::kFound;
  }
  [[nodiscard]] Lookup scan(std::string_view from, std::string_view to,
                            const Visit& visit) const override {
    for (auto row = records_.lower_bound(from); row != records_.end() && row->first < to; ++row) {
      if (!visit(row->first, row->second)) break;
    }
    return Lookup::kFound;
  }

 private:
  const Records& records_;
};

using Changes = std::vector<std::pair<std::string, std::optional<std::string>>>;

inline void change(Records& records, const Changes& changes) {
  for (const auto& [key, value] : changes) {
    if (value) {
      records[key] = *value;
    } else {
      records.erase(key);
    }
  }
}

// What a state machine writes: seen by its own reads at once, by others when it is written.
class ChangeBatch final : public Batch {
 public:
  explicit ChangeBatch(const Records& records) : records_(records) {}
  [[nodiscard]] Lookup get(std::string_view key, std::string& value) const override {
    const auto changed = latest_.find(key);
    if (changed == latest_.end()) return RecordMap(records_).get(key, value);
    if (!changed->second) return Lookup::kAbsent;
    value = *changed->second;
    return Lookup::kFound;
  }
  void put(std::string_view key, std::string_view value) override {
    latest_[std::string(key)] = std::string(value);
  }
  void erase(std::string_view key) override { latest_[std::string(key)] = std::nullopt; }
  void erase_all() override {
    latest_.clear();
    for (const auto& [key, value] : records_) latest_[key] = std::nullopt;
  }
  [[nodiscard]] Changes changes() const { return {latest_.begin(), latest_.end()}; }

 private:
  const Records& records_;
  std::map<std::string, std::optional<std::string>, std::less<>> latest_;
};

struct GroupImage {
  raft::HardState hard_state;
  Index first_index{1};          // what comes before it has been cut off: it was applied
  std::vector<raft::Entry> log;  // from there on
  Records records;               // of the state machine

  [[nodiscard]] Index last_index() const { return first_index + log.size() - 1; }
  [[nodiscard]] bool has(Index index) const {
    return index >= first_index && index <= last_index();
  }
  [[nodiscard]] const raft::Entry& at(Index index) const { return log.at(index - first_index); }
  [[nodiscard]] bool holds(const raft::Entry& entry) const {
    return entry.index < first_index || (has(entry.index) && at(entry.index).term == entry.term);
  }
};

// A group's state at an exact index, and who took part there.
struct SnapshotImage {
  raft::Snapshot snapshot;
  Records records;
};
using SnapshotPtr = std::shared_ptr<const SnapshotImage>;

inline MachineState state_of(GroupId group, const Records& records) {
  const auto found = records.find(group == kSystemGroup ? kSystemStateKey : kDataStateKey);
  if (found == records.end()) return {};
  const Result<MachineState> state = codec::decode_machine_state(found->second);
  must(bool(state), "records", "how far a state machine is can't be read");
  return *state;
}

// One WriteBatch: log writes of several groups, what was applied to one, where the log of one begins
// now, or a snapshot in the place of log and state.
struct Mutation {
  struct LogWrite {
    GroupId group;
    raft::Write write;
  };
  std::vector<LogWrite> log;
  std::optional<std::pair<GroupId, Changes>> applied;
  std::optional<std::pair<GroupId, Index>> cut;
  std::optional<std::pair<GroupId, SnapshotPtr>> installed;
};

struct DiskImage {
  std::map<GroupId, GroupImage> groups;

  void change(const Mutation& mutation) {
    for (const Mutation::LogWrite& work : mutation.log) {
      GroupImage& group = groups[work.group];
      if (work.write.hard_state) group.hard_state = *work.write.hard_state;
      if (work.write.entries.empty()) continue;
      const Index from = work.write.entries.front().index;
      must(from <= group.last_index() + 1, "disk", "a write left a hole in the log");
      must(from >= group.first_index, "disk", "a write went below the beginning of the log");
      group.log.resize(from - group.first_index);
      group.log.insert(group.log.end(), work.write.entries.begin(), work.write.entries.end());
    }
    if (mutation.applied) {
      sim::change(groups[mutation.applied->first].records, mutation.applied->second);
    }
    if (mutation.cut) cut(groups[mutation.cut->first], mutation.cut->second);
    if (mutation.installed) install(groups[mutation.installed->first], *mutation.installed->second);
  }

 private:
  static void cut(GroupImage& group, Index first_index) {
    if (first_index <= group.first_index) return;
    must(first_index <= group.last_index() + 1, "disk", "the log was cut behind its end");
    group.log.erase(group.log.begin(), group.log.begin() + static_cast<std::ptrdiff_t>(
                                                               first_index - group.first_index));
    group.first_index = first_index;
  }
  static void install(GroupImage& group, const SnapshotImage& image) {
    group.records = image.records;
    group.log.clear();
    group.first_index = image.snapshot.last_included_index + 1;
  }
};

inline std::uint64_t hash_of(const Records& records) {
  std::uint64_t hash = 0xcbf29ce484222325;
  const auto add = [&hash](std::string_view text) {
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    hash = (hash ^ text.size()) * 0x100000001b3;
  };
  for (const auto& [key, value] : records) add(key), add(value);
  return hash;
}

// ---- The machine's disk -------------------------------------------------------------------------------

class Disk {
 public:
  [[nodiscard]] const DiskImage& durable() const { return durable_; }
  [[nodiscard]] const DiskImage& written() const { return written_; }
  [[nodiscard]] std::uint64_t last_write() const { return synced_ + unsynced_.size(); }
  [[nodiscard]] std::size_t unsynced() const { return unsynced_.size(); }

  void write(Mutation mutation) {
    written_.change(mutation);
    unsynced_.push_back(std::move(mutation));
  }
  // What a state machine changes: read at once, written with write_out(), and lost with a process that
  // ends before.
  void apply(Mutation mutation) {
    written_.change(mutation);
    applied_.push_back(std::move(mutation));
  }
  void write_out() {
    for (Mutation& mutation : applied_) unsynced_.push_back(std::move(mutation));
    applied_.clear();
  }
  void forget_applied() {
    if (applied_.empty()) return;
    applied_.clear();
    written_ = durable_;
    for (const Mutation& mutation : unsynced_) written_.change(mutation);
  }
  void sync(std::uint64_t up_to) {
    for (; synced_ < up_to && !unsynced_.empty(); ++synced_) {
      durable_.change(unsynced_.front());
      unsynced_.pop_front();
    }
  }
  // Of what was not synced, the first `kept` writes are there when power is back.
  void cut_power(std::size_t kept) {
    sync(synced_ + std::min(kept, unsynced_.size()));
    unsynced_.clear();
    applied_.clear();
    written_ = durable_;
    pages_lost = false;
  }
  // All that was on it is gone.
  void wipe() {
    DiskImage empty;
    for (const auto& [group, image] : durable_.groups) empty.groups[group] = {};
    unsynced_.clear();
    applied_.clear();
    written_ = durable_ = std::move(empty);
    pages_lost = false;
  }

  // What is wrong with it
  std::uint64_t slow = 0;  // faults that make it so
  std::uint64_t full = 0;
  bool sync_fails = false;   // the next one
  bool write_fails = false;  // the next one
  bool pages_lost = false;   // a sync failed: what was not synced may be gone

  void freeze() { ++frozen_; }
  void thaw() {
    if (--frozen_ > 0) return;
    for (auto& waiting : std::exchange(waiting_, {})) waiting();
  }
  // Runs `work` now, or when the disk moves again.
  void when_moving(std::function<void()> work) {
    if (frozen_ > 0) return waiting_.push_back(std::move(work));
    work();
  }

 private:
  DiskImage durable_;
  DiskImage written_;
  std::deque<Mutation> unsynced_;
  std::vector<Mutation> applied_;
  std::uint64_t synced_ = 0;
  std::uint64_t frozen_ = 0;
  std::vector<std::function<void()>> waiting_;
};

// ---- A process' threads: they stand still while it is paused, and end with it ----------------------------

class Life {
 public:
  [[nodiscard]] bool over() const { return over_; }
  [[nodiscard]] bool paused() const { return paused_; }
  void end() {
    over_ = true;
    deferred_.clear();
  }
  void pause() { paused_ = true; }
  void resume() {
    paused_ = false;
    for (auto& work : std::exchange(deferred_, {})) run(std::move(work));
  }
  void run(std::function<void()> work) {
    if (over_) return;
    if (paused_) return deferred_.push_back(std::move(work));
    work();
  }

 private:
  bool over_ = false;
  bool paused_ = false;
  std::vector<std::function<void()>> deferred_;
};

using LifePtr = std::shared_ptr<Life>;

// ---- The store of one process -------------------------------------------------------------------------------

// What it answers, on its own threads: post it and return.
class StorageEvents {
 public:
  virtual void on_synced(GroupId group, std::uint64_t write_id) = 0;
  virtual void on_applied(GroupId group, Index last, std::vector<Outcome> outcomes) = 0;
  virtual void on_fetched(GroupId group, NodeId peer, Term prev_log_term,
                          std::vector<raft::Entry> entries) = 0;
  virtual void on_storage_failed(const std::string& what) = 0;
  virtual void on_log_cut(GroupId group, Index first_index) = 0;
  virtual void on_snapshot_built(GroupId group, NodeId peer, SnapshotPtr image) = 0;
  virtual void on_installed(GroupId group) = 0;
  // For the checks: the state machine's records as they are now written.
  virtual void on_state_written(GroupId group, Index applied, std::uint64_t hash) = 0;

 protected:
  ~StorageEvents() = default;
};

class Storage final : public LogStore, public Applier {
 public:
  Storage(World& world, const Scenario& scenario, Disk& disk, LifePtr life, Random random,
          StorageEvents& events)
      : world_(world),
        scenario_(scenario),
        disk_(disk),
        life_(std::move(life)),
        random_(random),
        events_(events) {}

  // As store.hpp's restore(), of what the process found when it started: all of it synced.
  [[nodiscard]] raft::Restored restore(GroupId group, StateMachine& machine);

  void append(GroupId group, raft::Write write) override {
    if (scenario_.encode) recode(write);
    writes_.push_back({group, std::move(write)});
    wake_storage();
  }
  void apply(GroupId group, std::vector<raft::Entry> entries) override {
    applies_.emplace_back(group, std::move(entries));
    wake_storage();
  }
  // As the store does it: mostly at once, sometimes as if a key had to be read from the disk.
  [[nodiscard]] std::optional<std::vector<Outcome>> apply_now(
      GroupId group, const std::vector<raft::Entry>& entries) override {
    if (group == kSystemGroup || failed_ || random_.next() % 4 == 0) return std::nullopt;
    return apply_to_machine(group, entries);
  }
  void fetch(GroupId group, raft::Fetch fetch) override;
  // Cuts the log up to and including `to`, but never what is not applied, and that durably.
  void cut_log(GroupId group, Index to) {
    cuts_[group] = std::max(cuts_[group], to);
    wake_storage();
  }
  // Some time later, on the pool: all that was applied by now is there to be read.
  void scan_disk(GroupId group, std::function<void(const OrderedMap&)> work) {
    after(stretched(random_.scattered(50, 100 * kMillisecond)),
          [this, group, work = std::move(work)] {
            if (!failed_) work(map(group));
          });
  }
  // The same for a few rows that were not in memory.
  void read_disk(GroupId group, std::function<void(const OrderedMap&)> work) {
    after(stretched(random_.scattered(20, 2 * kMillisecond)),
          [this, group, work = std::move(work)] {
            if (failed_) return work(FailedMap());
            work(map(group));
          });
  }
  // A copy of the group's state as it is then, for `peer`.
  void build_snapshot(GroupId group, NodeId peer);
  // Some time later, and after all that was appended or applied so far.
  void install(GroupId group, SnapshotPtr image) {
    after(random_.scattered(100, 500 * kMillisecond), [this, group, image] {
      installs_.emplace_back(group, image);
      wake_storage();
    });
  }

  [[nodiscard]] Index first_index(GroupId group) const {
    return disk_.written().groups.at(group).first_index;
  }
  [[nodiscard]] RecordMap map(GroupId group) const {
    return RecordMap(disk_.written().groups.at(group).records);
  }
  [[nodiscard]] bool idle() const { return !storage_busy_ && !syncing_ && !unsynced_; }

 private:
  void after(std::uint64_t delay_us, std::function<void()> work) {
    world_.after(delay_us, [life = life_, work = std::move(work)] { life->run(work); });
  }
  [[nodiscard]] std::uint64_t stretched(std::uint64_t time_us) {
    return disk_.slow == 0 ? time_us : time_us + random_.scattered(20 * kMillisecond, 3 * kSecond);
  }
  // On the disk's time: later if it stands still.
  void on_disk(std::uint64_t time_us, std::function<void()> work) {
    after(stretched(time_us), [this, work = std::move(work)] {
      disk_.when_moving([life = life_, work] { life->run(work); });
    });
  }
  static void recode(raft::Write& write);

  void wake_storage();
  void storage_turn();
  void write_log();
  void apply_one();
  [[nodiscard]] std::vector<Outcome> apply_to_machine(GroupId group,
                                                      const std::vector<raft::Entry>& entries);
  void write_out_later();
  void cut_logs();
  void install_one();
  void wake_sync();
  struct Reports {  // when a sync is done
    std::map<GroupId, std::uint64_t> writes;
    std::vector<GroupId> installed;
  };
  void finish_sync(std::uint64_t up_to, const Reports& reports);
  void fail(const std::string& what);
  [[nodiscard]] bool write_fails();

  World& world_;
  const Scenario& scenario_;
  Disk& disk_;
  LifePtr life_;
  Random random_;
  StorageEvents& events_;
  std::map<GroupId, StateMachine*> machines_;

  std::vector<Mutation::LogWrite> writes_;
  std::deque<std::pair<GroupId, std::vector<raft::Entry>>> applies_;
  std::map<GroupId, Index> cuts_;
  std::deque<std::pair<GroupId, SnapshotPtr>> installs_;
  bool storage_busy_ = false;
  Reports to_report_;  // written: the last write of each group
  bool unsynced_ = false;
  bool syncing_ = false;
  bool write_out_due_ = false;
  bool failed_ = false;
};

inline raft::Restored Storage::restore(GroupId id, StateMachine& machine) {
  machines_[id] = &machine;
  const GroupImage& group = disk_.written().groups.at(id);
  const Result<MachineState> state = machine.restore(RecordMap(group.records));
  must(bool(state), "restart", state ? "" : state.error().text);
  raft::Restored restored;
  restored.hard_state = group.hard_state;
  restored.applied_index = state->applied_index;
  restored.first_index = group.first_index;
  restored.configuration = state->configuration;
  restored.configuration_index = state->configuration_index;
  const Index applied = state->applied_index;
  must(applied <= group.last_index() && applied + 1 >= group.first_index, "restart", [&] {
    return "the state machine applied " + std::to_string(applied.value) + ", the log has " +
           std::to_string(group.first_index.value) + " to " +
           std::to_string(group.last_index().value);
  });
  must(!group.has(applied) || group.at(applied).term == state->applied_term, "restart", [&] {
    return "the state machine applied another entry " + std::to_string(applied.value) +
           " than the log has";
  });
  // Down to an entry whose term is known: one of the log, or the one applied last.
  Index base = applied;
  std::size_t tail_bytes = 0;
  while (group.has(base)) {
    tail_bytes += group.at(base).size_bytes();
    const bool term_known = group.has(base - 1) || base == Index{1};
    if (tail_bytes > scenario_.restored_tail_size_bytes || !term_known) break;
    base = base - 1;
  }
  restored.base_index = base;
  if (base == applied) restored.base_term = state->applied_term;
  if (group.has(base)) restored.base_term = group.at(base).term;
  restored.entries.assign(
      group.log.begin() + static_cast<std::ptrdiff_t>(base + 1 - group.first_index),
      group.log.end());
  const auto problem = raft::check_restored(restored);
  must(!problem, "restart", problem.value_or(""));
  return restored;
}

inline void Storage::recode(raft::Write& write) {
  if (write.hard_state) {
    const auto decoded = codec::decode_hard_state(codec::encode(*write.hard_state));
    must(bool(decoded), "codec", "a hard state can't be read back");
    write.hard_state = *decoded;
  }
  std::string bytes;
  for (raft::Entry& entry : write.entries) {
    bytes.clear();
    codec::encode(entry, bytes);
    const auto decoded = codec::decode_entry(bytes);
    must(bool(decoded), "codec", "an entry can't be read back");
    entry = *decoded;
  }
}

// ---- The storage thread

inline void Storage::wake_storage() {
  const bool idle = writes_.empty() && applies_.empty() && cuts_.empty() && installs_.empty();
  if (storage_busy_ || failed_ || idle) return;
  storage_busy_ = true;
  on_disk(random_.between(1, scenario_.disk.write_us), [this] { storage_turn(); });
}

inline void Storage::storage_turn() {
  storage_busy_ = false;
  if (failed_) return;
  if (!writes_.empty()) write_log();
  if (!failed_ && !cuts_.empty()) cut_logs();
  if (!failed_ && applies_.empty() && !installs_.empty()) install_one();
  if (!failed_ && !applies_.empty()) apply_one();
  wake_storage();
}

inline bool Storage::write_fails() {
  return disk_.full > 0 || std::exchange(disk_.write_fails, false);
}

inline void Storage::write_log() {
  if (write_fails()) return fail("the log could not be written");
  Mutation mutation;
  mutation.log = std::exchange(writes_, {});
  for (const Mutation::LogWrite& work : mutation.log) {
    to_report_.writes[work.group] = work.write.id;
  }
  disk_.write(std::move(mutation));
  unsynced_ = true;
  wake_sync();
}

inline void Storage::apply_one() {
  const auto [group, entries] = std::move(applies_.front());
  applies_.pop_front();
  std::vector<Outcome> outcomes = apply_to_machine(group, entries);
  events_.on_applied(group, entries.back().index, std::move(outcomes));
}

inline std::vector<Outcome> Storage::apply_to_machine(GroupId group,
                                                      const std::vector<raft::Entry>& entries) {
  const Records& records = disk_.written().groups.at(group).records;
  ChangeBatch batch(records);
  Result<std::vector<Outcome>> outcomes = machines_.at(group)->apply(batch, entries);
  must(bool(outcomes), "apply", outcomes ? "" : outcomes.error().text);
  Mutation mutation;
  mutation.applied.emplace(group, batch.changes());
  disk_.apply(std::move(mutation));
  machines_.at(group)->committed();
  events_.on_state_written(group, entries.back().index, hash_of(records));
  write_out_later();
  return std::move(*outcomes);
}

// All that gathered meanwhile goes to the disk together.
inline void Storage::write_out_later() {
  if (std::exchange(write_out_due_, true)) return;
  on_disk(random_.scattered(kMillisecond, kSecond), [this] {
    write_out_due_ = false;
    if (failed_) return;
    if (write_fails()) return fail("what was applied could not be written");
    disk_.write_out();
    unsynced_ = true;
    wake_sync();
  });
}

inline void Storage::cut_logs() {
  for (const auto& [group, wanted] : std::exchange(cuts_, {})) {
    const Index applied = state_of(group, disk_.durable().groups.at(group).records).applied_index;
    const Index first = std::min(wanted, applied) + 1;
    if (first <= first_index(group)) continue;
    if (write_fails()) return fail("the log could not be cut");
    Mutation mutation;
    mutation.cut.emplace(group, first);
    disk_.write(std::move(mutation));
    unsynced_ = true;
    ++world_.counters().cuts;
    events_.on_log_cut(group, first);
  }
  wake_sync();
}

inline void Storage::install_one() {
  const auto [group, image] = std::move(installs_.front());
  installs_.pop_front();
  if (write_fails()) return fail("a snapshot could not be put in place");
  disk_.write_out();
  Mutation mutation;
  mutation.installed.emplace(group, image);
  disk_.write(std::move(mutation));
  const auto state = machines_.at(group)->restore(map(group));
  must(bool(state) && state->applied_index == image->snapshot.last_included_index, "install",
       "the installed state is not where the snapshot says");
  to_report_.installed.push_back(group);
  unsynced_ = true;
  wake_sync();
}

// ---- Syncing

inline void Storage::wake_sync() {
  if (syncing_ || !unsynced_ || failed_) return;
  syncing_ = true;
  unsynced_ = false;
  const std::uint64_t up_to = disk_.last_write();
  on_disk(random_.between(scenario_.disk.min_sync_us, scenario_.disk.max_sync_us),
          [this, up_to, reports = std::exchange(to_report_, {})] { finish_sync(up_to, reports); });
}

inline void Storage::finish_sync(std::uint64_t up_to, const Reports& reports) {
  syncing_ = false;
  if (failed_) return;
  if (std::exchange(disk_.sync_fails, false)) {
    disk_.pages_lost = true;
    return fail("the log could not be synced");
  }
  disk_.sync(up_to);
  for (const auto& [group, write_id] : reports.writes) events_.on_synced(group, write_id);
  for (const GroupId group : reports.installed) events_.on_installed(group);
  wake_sync();
}

inline void Storage::fail(const std::string& what) {
  failed_ = true;
  events_.on_storage_failed(what);
}

// ---- The pool

inline void Storage::fetch(GroupId id, raft::Fetch fetch) {
  after(stretched(random_.between(50, 2000)), [this, id, fetch] {
    if (failed_) return;
    const GroupImage& group = disk_.written().groups.at(id);
    const Index prev = fetch.from - 1;
    std::vector<raft::Entry> entries;
    std::size_t size_bytes = 0;
    const bool cut_off =
        fetch.from < group.first_index || (prev != Index{} && prev < group.first_index);
    for (Index index = fetch.from; index <= fetch.to && !cut_off; ++index) {
      must(index <= group.last_index(), "disk", "an applied entry is not on disk");
      size_bytes += group.at(index).size_bytes();
      if (size_bytes > fetch.max_size_bytes && !entries.empty()) break;
      entries.push_back(group.at(index));
    }
    const Term prev_term = group.has(prev) ? group.at(prev).term : Term{};
    events_.on_fetched(id, fetch.peer, prev_term, std::move(entries));
  });
}

inline void Storage::build_snapshot(GroupId id, NodeId peer) {
  after(stretched(random_.scattered(kMillisecond, 300 * kMillisecond)), [this, id, peer] {
    if (failed_) return;
    auto image = std::make_shared<SnapshotImage>();
    image->records = disk_.written().groups.at(id).records;
    const MachineState state = state_of(id, image->records);
    image->snapshot = {state.applied_index, state.applied_term, state.configuration,
                       state.configuration_index};
    events_.on_snapshot_built(id, peer, std::move(image));
  });
}

}  // namespace seshat::sim

#endif  // SESHAT_TESTS_SIM_DISK_HPP
