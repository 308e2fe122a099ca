// seshat/store_buffer.hpp - what was applied and is not in RocksDB yet.
//
//   apply ──merge──> [ active ] ──freeze──> [ frozen ] ──one batch──> RocksDB
//   get ───────────> active, else frozen, else what is below: row_cache.hpp, RocksDB
//
// Where all rows were erased, nothing below that place is looked at, and its batch begins with that.
//
// The log is durable before anything is applied, so that what is applied need not reach the disk at
// once: a crash applies it again. So changes gather here and go to RocksDB in large batches, each
// with the applied index it stands for. A key that changes a hundred times meanwhile is written
// once, what is read and written all the time is found by one hash, and the keys of a batch are in
// order, which a memtable takes in several times as fast as single ones.
//
// Threads: get() any; the rest as said. Nothing here waits for the disk.
// Needs:   row_table.hpp, state_machine.hpp (Lookup), raft.hpp (Index).
#ifndef SESHAT_STORE_BUFFER_HPP
#define SESHAT_STORE_BUFFER_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/raft.hpp"
#include "seshat/row_table.hpp"
#include "seshat/state_machine.hpp"

namespace seshat {

class StoreBuffer {
 public:
  // nullopt: what is below knows. Any thread.
  [[nodiscard]] std::optional<Lookup> get(std::string_view key, std::string& value) const;
  // The same for many keys at one moment, if nothing was written() since that was counted: then what
  // was below when it was counted, and later, is right for those that are not here. False: it was.
  struct Found {
    std::optional<Lookup> lookup;
    std::string value;
  };
  [[nodiscard]] bool get_all(std::span<const std::string_view> keys, std::uint64_t written,
                             std::vector<Found>& found) const;
  // How often written() and merge() were called.
  [[nodiscard]] std::uint64_t times_written() const { return times_written_; }
  [[nodiscard]] std::uint64_t times_merged() const { return times_merged_; }

  // What was merged between two freezes, up to the entry `last`.
  struct Frozen {
    const RowTable* rows;  // until written()
    Index last;
    bool erases_below;  // all that was below is gone, before these rows
  };

  // Takes what a batch of entries, up to `last`, changed: all of it becomes visible at once. `changes`
  // is empty then. `erases_below`: all that was there is gone, before the changes. Whoever applies.
  void merge(RowTable& changes, Index last, bool erases_below = false);
  // Of what was merged since the last freeze, roughly. Any thread.
  [[nodiscard]] std::size_t size_bytes() const { return active_bytes_; }
  // What was merged since the last time, for RocksDB; nullopt: nothing was, or that of the last time
  // is not written yet. Any thread.
  [[nodiscard]] std::optional<Frozen> freeze();
  // What freeze() gave is in RocksDB, and found there from now on. Any thread.
  void written();

 private:
  // Under the lock.
  [[nodiscard]] std::optional<Lookup> find(std::string_view key, std::string& value) const;

  mutable std::mutex mutex_;  // guards all below it
  RowTable active_;
  bool active_erases_ = false;
  Index last_;
  RowTable frozen_;
  bool frozen_erases_ = false;
  bool writing_ = false;  // frozen_ is not in RocksDB yet
  std::atomic<std::size_t> active_bytes_{0};
  // Changed under the lock, so that who saw a change finds it counted.
  std::atomic<std::uint64_t> times_written_{0};
  std::atomic<std::uint64_t> times_merged_{0};
};

// =================================================================================================
// Bodies
// =================================================================================================

inline std::optional<Lookup> StoreBuffer::get(std::string_view key, std::string& value) const {
  const std::lock_guard lock(mutex_);
  return find(key, value);
}

inline bool StoreBuffer::get_all(std::span<const std::string_view> keys, std::uint64_t written,
                                 std::vector<Found>& found) const {
  found.resize(keys.size());
  const std::lock_guard lock(mutex_);
  if (times_written_ != written) return false;
  for (std::size_t i = 0; i < keys.size(); ++i) found[i].lookup = find(keys[i], found[i].value);
  return true;
}

inline std::optional<Lookup> StoreBuffer::find(std::string_view key, std::string& value) const {
  const std::uint64_t hash = RowTable::hash_of(key);
  std::optional<bool> found = active_.get(hash, key, value);
  if (!found && active_erases_) return Lookup::kAbsent;
  if (!found) found = frozen_.get(hash, key, value);
  if (!found && frozen_erases_) return Lookup::kAbsent;
  if (!found) return std::nullopt;
  return *found ? Lookup::kFound : Lookup::kAbsent;
}

inline void StoreBuffer::merge(RowTable& changes, Index last, bool erases_below) {
  RowTable erased;  // goes when the lock is gone
  const std::lock_guard lock(mutex_);
  ++times_merged_;
  last_ = last;
  if (erases_below) {
    swap(erased, active_);
    active_erases_ = true;
    active_bytes_ = 0;
  }
  std::size_t size_bytes = active_bytes_;
  for (RowTable::Row& row : changes) {
    bool made = false;
    const RowTable::Row& now = active_.replace(row, &made);
    size_bytes += now.size_bytes() + (made ? RowTable::kRowOverheadBytes : 0);
    if (!made) size_bytes -= row.size_bytes();  // which holds what was there before
  }
  active_bytes_ = size_bytes;
  changes.clear();
}

inline std::optional<StoreBuffer::Frozen> StoreBuffer::freeze() {
  const std::lock_guard lock(mutex_);
  if (writing_ || active_.empty()) return std::nullopt;
  swap(active_, frozen_);
  frozen_erases_ = std::exchange(active_erases_, false);
  active_bytes_ = 0;
  writing_ = true;
  return Frozen{&frozen_, last_, frozen_erases_};
}

inline void StoreBuffer::written() {
  RowTable done;  // goes when the lock is gone
  const std::lock_guard lock(mutex_);
  ++times_written_;
  swap(done, frozen_);
  frozen_erases_ = false;
  writing_ = false;
}

}  // namespace seshat

#endif  // SESHAT_STORE_BUFFER_HPP
