// seshat/store_buffer.hpp - what was applied and is not in RocksDB yet.
//
//   apply ──merge──> [ active ] ──freeze──> [ frozen ] ──one batch──> RocksDB
//   get ───────────> active, else frozen, else RocksDB
//
// The log is durable before anything is applied, so that what is applied need not reach the disk at
// once: a crash applies it again. So changes gather here and go to RocksDB in large batches, each
// with the applied index it stands for. A key that changes a hundred times meanwhile is written
// once, what is read and written all the time is found by one hash, and the keys of a batch are in
// order, which a memtable takes in several times as fast as single ones.
//
// What was frozen stays, when it is written, as a cache for reads, until the next freeze.
//
// Threads: get() any; the rest as said. Nothing here waits for the disk.
// Needs:   row_table.hpp, state_machine.hpp (Lookup), raft.hpp (Index).
#ifndef SESHAT_STORE_BUFFER_HPP
#define SESHAT_STORE_BUFFER_HPP

#include <atomic>
#include <cstddef>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "seshat/raft.hpp"
#include "seshat/row_table.hpp"
#include "seshat/state_machine.hpp"

namespace seshat {

class StoreBuffer {
 public:
  // nullopt: what is below knows. Any thread.
  [[nodiscard]] std::optional<Lookup> get(std::string_view key, std::string& value) const;

  // What was merged between two freezes, up to the entry `last`.
  struct Frozen {
    const RowTable* rows;  // until written()
    Index last;
  };

  // Takes what a batch of entries, up to `last`, changed: all of it becomes visible at once. `changes`
  // is empty then. Whoever applies.
  void merge(RowTable& changes, Index last);
  // Of what was merged since the last freeze, roughly. Any thread.
  [[nodiscard]] std::size_t size_bytes() const { return active_bytes_; }
  // What was merged since the last time, for RocksDB; nullopt: nothing was, or that of the last time
  // is not written yet. Any thread.
  [[nodiscard]] std::optional<Frozen> freeze();
  // What freeze() gave is in RocksDB. Any thread.
  void written();

 private:
  // Of a row, beyond its bytes.
  static constexpr std::size_t kOverheadBytes = 80;

  [[nodiscard]] static std::optional<Lookup> find(const RowTable& rows, std::string_view key,
                                                  std::string& value);

  mutable std::mutex mutex_;  // guards all below it
  RowTable active_;
  Index last_;
  RowTable frozen_;
  bool writing_ = false;  // frozen_ is not in RocksDB yet
  std::atomic<std::size_t> active_bytes_{0};
};

// =================================================================================================
// Bodies
// =================================================================================================

inline std::optional<Lookup> StoreBuffer::find(const RowTable& rows, std::string_view key,
                                               std::string& value) {
  const RowTable::Row* row = rows.find(key);
  if (row == nullptr) return std::nullopt;
  if (row->erased()) return Lookup::kAbsent;
  value.assign(row->value());
  return Lookup::kFound;
}

inline std::optional<Lookup> StoreBuffer::get(std::string_view key, std::string& value) const {
  const std::lock_guard lock(mutex_);
  const std::optional<Lookup> lookup = find(active_, key, value);
  return lookup ? lookup : find(frozen_, key, value);
}

inline void StoreBuffer::merge(RowTable& changes, Index last) {
  const std::lock_guard lock(mutex_);
  last_ = last;
  std::size_t size_bytes = active_bytes_;
  for (RowTable::Row& row : changes) {
    bool made = false;
    const RowTable::Row& now = active_.replace(row, &made);
    size_bytes += now.size_bytes() + (made ? kOverheadBytes : 0);
    if (!made) size_bytes -= row.size_bytes();  // which holds what was there before
  }
  active_bytes_ = size_bytes;
  changes.clear();
}

// What was frozen before has been written, and was only a cache since.
inline std::optional<StoreBuffer::Frozen> StoreBuffer::freeze() {
  RowTable before;  // goes when the lock is gone
  const std::lock_guard lock(mutex_);
  if (writing_ || active_.empty()) return std::nullopt;
  swap(before, frozen_);
  swap(active_, frozen_);
  active_bytes_ = 0;
  writing_ = true;
  return Frozen{&frozen_, last_};
}

inline void StoreBuffer::written() {
  const std::lock_guard lock(mutex_);
  writing_ = false;
}

}  // namespace seshat

#endif  // SESHAT_STORE_BUFFER_HPP
