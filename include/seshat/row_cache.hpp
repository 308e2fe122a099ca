// seshat/row_cache.hpp - rows of the disk that were read or written lately, in memory, found by a hash.
//
//   shard   [ young ]  what was kept or asked for lately; when it is full, it becomes
//           [ old   ]  ... the old one, and what that held is forgotten
//
// It stands before an ordered map, RocksDB, whose get() costs several microseconds even where the
// block is in memory. Rows are kept by whoever read them below, and by whoever writes below; nothing
// else changes what is below. A read that was overtaken by a write keeps nothing:
//
//   version() ── read below ── keep(version)        wrote(): the version first, then the rows
//
// Threads: any.
// Bounds:  limit_bytes, roughly; rows of more than an eighth of a shard's share are not kept.
// Needs:   row_table.hpp.
#ifndef SESHAT_ROW_CACHE_HPP
#define SESHAT_ROW_CACHE_HPP

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "seshat/row_table.hpp"

namespace seshat {

class RowCache {
 public:
  // 0: nothing is kept.
  explicit RowCache(std::size_t limit_bytes) : share_bytes_(limit_bytes / kShards) {}

  // False: it isn't known here.
  [[nodiscard]] bool get(std::string_view key, std::string& value);

  // To be asked for before a read below whose result is to be kept.
  [[nodiscard]] std::uint64_t version() const { return version_; }
  // `key` had `value` below, by a read that began at `version`.
  void keep(std::string_view key, std::string_view value, std::uint64_t version);
  // All that `rows` say is below now, and readers still see it before they come here.
  // `erases_below`: nothing else is.
  void wrote(const RowTable& rows, bool erases_below = false);

  // Of what is kept, roughly.
  [[nodiscard]] std::size_t size_bytes() const { return size_bytes_; }

 private:
  // Many, so that growing a table, or forgetting one, holds nobody up for long.
  static constexpr std::size_t kShards = 256;

  struct Shard {
    std::mutex mutex;  // guards all below it
    RowTable young;
    RowTable old;
    std::size_t young_bytes = 0;
    std::size_t old_bytes = 0;
  };

  // Neither what picks a table's slot nor what it tells rows apart by.
  [[nodiscard]] Shard& shard_of(std::uint64_t hash) { return shards_[(hash >> 24) % kShards]; }
  [[nodiscard]] bool fits(std::size_t size_bytes) const { return size_bytes <= share_bytes_ / 8; }
  // Under the shard's lock. What is to be forgotten goes to `forgotten`, for after the lock.
  void put(Shard& shard, std::uint64_t hash, std::string_view key, std::string_view value,
           RowTable& forgotten);
  void clear();
  static void forget(Shard& shard, std::uint64_t hash, std::string_view key);

  const std::size_t share_bytes_;
  std::atomic<std::uint64_t> version_{0};
  std::atomic<std::size_t> size_bytes_{0};
  std::array<Shard, kShards> shards_;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline bool RowCache::get(std::string_view key, std::string& value) {
  if (share_bytes_ == 0) return false;
  const std::uint64_t hash = RowTable::hash_of(key);
  Shard& shard = shard_of(hash);
  RowTable forgotten;
  const std::lock_guard lock(shard.mutex);
  if (shard.young.get(hash, key, value).value_or(false)) return true;
  if (!shard.old.get(hash, key, value).value_or(false)) return false;
  put(shard, hash, key, value, forgotten);
  return true;
}

inline void RowCache::keep(std::string_view key, std::string_view value, std::uint64_t version) {
  if (!fits(key.size() + value.size())) return;
  const std::uint64_t hash = RowTable::hash_of(key);
  Shard& shard = shard_of(hash);
  RowTable forgotten;
  const std::lock_guard lock(shard.mutex);
  if (version_ == version) put(shard, hash, key, value, forgotten);
}

// A read that began before keeps nothing from here on, or did so before its row is put here.
inline void RowCache::wrote(const RowTable& rows, bool erases_below) {
  ++version_;
  if (share_bytes_ == 0) return;
  if (erases_below) clear();
  for (const RowTable::Row& row : rows) {
    const std::uint64_t hash = RowTable::hash_of(row.key());
    Shard& shard = shard_of(hash);
    RowTable forgotten;
    const std::lock_guard lock(shard.mutex);
    if (row.erased() || !fits(row.size_bytes())) {
      forget(shard, hash, row.key());
    } else {
      put(shard, hash, row.key(), row.value(), forgotten);
    }
  }
}

inline void RowCache::put(Shard& shard, std::uint64_t hash, std::string_view key,
                          std::string_view value, RowTable& forgotten) {
  if (2 * shard.young_bytes >= share_bytes_) {
    swap(forgotten, shard.old);
    swap(shard.old, shard.young);
    size_bytes_ -= std::exchange(shard.old_bytes, std::exchange(shard.young_bytes, 0));
  }
  bool made = false;
  RowTable::Row& row = shard.young.at(hash, key, &made);
  const std::size_t before_bytes = made ? 0 : row.size_bytes() + RowTable::kRowOverheadBytes;
  row.set(value);
  const std::size_t now_bytes = row.size_bytes() + RowTable::kRowOverheadBytes;
  shard.young_bytes += now_bytes - before_bytes;
  size_bytes_ += now_bytes - before_bytes;
}

inline void RowCache::clear() {
  for (Shard& shard : shards_) {
    RowTable young, old;  // go when the lock is gone
    const std::lock_guard lock(shard.mutex);
    swap(young, shard.young);
    swap(old, shard.old);
    size_bytes_ -= std::exchange(shard.young_bytes, 0) + std::exchange(shard.old_bytes, 0);
  }
}

// The erased row tells that nothing is known, and stays until its table goes.
inline void RowCache::forget(Shard& shard, std::uint64_t hash, std::string_view key) {
  for (RowTable* table : {&shard.young, &shard.old}) {
    if (table->find(hash, key) != nullptr) table->at(hash, key).erase();
  }
}

}  // namespace seshat

#endif  // SESHAT_ROW_CACHE_HPP
