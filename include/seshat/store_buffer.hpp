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
// Needs:   state_machine.hpp (Lookup), raft.hpp (Index).
#ifndef SESHAT_STORE_BUFFER_HPP
#define SESHAT_STORE_BUFFER_HPP

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "seshat/raft.hpp"
#include "seshat/state_machine.hpp"

namespace seshat {

class StoreBuffer {
 public:
  struct Change {
    std::string value;
    bool erased = false;
  };
  struct KeyHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view key) const {
      return std::hash<std::string_view>{}(key);
    }
  };
  using Changes = std::unordered_map<std::string, Change, KeyHash, std::equal_to<>>;

  // nullopt: what is below knows. Any thread.
  [[nodiscard]] std::optional<Lookup> get(std::string_view key, std::string& value) const;

  // What was merged between two freezes, up to the entry `last`.
  struct Frozen {
    std::shared_ptr<const Changes> changes;
    Index last;
  };

  // Takes what a batch of entries, up to `last`, changed: all of it becomes visible at once. Whoever
  // applies.
  void merge(Changes& changes, Index last);
  // Of what was merged since the last freeze, roughly. Any thread.
  [[nodiscard]] std::size_t size_bytes() const { return active_bytes_; }
  // What was merged since the last time, for RocksDB; nullopt: nothing was, or that of the last time
  // is not written yet. Any thread.
  [[nodiscard]] std::optional<Frozen> freeze();
  // What freeze() gave is in RocksDB. Any thread.
  void written();

 private:
  // Of a key and a value in a hash table, beyond their bytes.
  static constexpr std::size_t kOverheadBytes = 128;

  [[nodiscard]] static std::optional<Lookup> find(const Changes& changes, std::string_view key,
                                                  std::string& value);

  mutable std::mutex mutex_;  // guards all below it
  Changes active_;
  Index last_;
  std::shared_ptr<const Changes> frozen_;
  bool writing_ = false;  // frozen_ is not in RocksDB yet
  std::atomic<std::size_t> active_bytes_{0};
};

// =================================================================================================
// Bodies
// =================================================================================================

inline std::optional<Lookup> StoreBuffer::find(const Changes& changes, std::string_view key,
                                               std::string& value) {
  const auto found = changes.find(key);
  if (found == changes.end()) return std::nullopt;
  if (found->second.erased) return Lookup::kAbsent;
  value = found->second.value;
  return Lookup::kFound;
}

inline std::optional<Lookup> StoreBuffer::get(std::string_view key, std::string& value) const {
  const std::lock_guard lock(mutex_);
  if (const std::optional<Lookup> lookup = find(active_, key, value)) return lookup;
  return frozen_ == nullptr ? std::nullopt : find(*frozen_, key, value);
}

inline void StoreBuffer::merge(Changes& changes, Index last) {
  const std::lock_guard lock(mutex_);
  last_ = last;
  std::size_t size_bytes = active_bytes_;
  while (!changes.empty()) {
    Changes::node_type change = changes.extract(changes.begin());
    const std::size_t new_bytes = change.mapped().value.size();
    const auto found = active_.find(change.key());
    if (found == active_.end()) {
      size_bytes += change.key().size() + new_bytes + kOverheadBytes;
      active_.insert(std::move(change));
    } else {
      size_bytes += new_bytes - found->second.value.size();
      std::swap(found->second, change.mapped());
    }
  }
  active_bytes_ = size_bytes;
}

inline std::optional<StoreBuffer::Frozen> StoreBuffer::freeze() {
  std::shared_ptr<const Changes> before;  // goes when the lock is gone
  const std::lock_guard lock(mutex_);
  if (writing_ || active_.empty()) return std::nullopt;
  before = std::exchange(frozen_, std::make_shared<const Changes>(std::move(active_)));
  active_.clear();
  active_bytes_ = 0;
  writing_ = true;
  return Frozen{frozen_, last_};
}

inline void StoreBuffer::written() {
  const std::lock_guard lock(mutex_);
  writing_ = false;
}

}  // namespace seshat

#endif  // SESHAT_STORE_BUFFER_HPP
