// seshat/store_map.hpp - a RocksDB column family as the ordered map a state machine lives in.
//
// Threads: the maps may be read by any thread; a StoreBatch belongs to the one that applies.
// Needs:   store_buffer.hpp, row_cache.hpp, state_machine.hpp (OrderedMap, Batch); RocksDB.
#ifndef SESHAT_STORE_MAP_HPP
#define SESHAT_STORE_MAP_HPP

#include <rocksdb/db.h>
#include <rocksdb/iterator.h>
#include <rocksdb/options.h>
#include <rocksdb/slice.h>
#include <rocksdb/snapshot.h>
#include <rocksdb/status.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/row_cache.hpp"
#include "seshat/row_table.hpp"
#include "seshat/state_machine.hpp"
#include "seshat/store_buffer.hpp"

namespace seshat {

// kMemory never waits for the disk and answers kNotInMemory where only the disk could tell.
enum class ReadFrom : std::uint8_t { kMemory, kDisk };

class StoreMap final : public OrderedMap {
 public:
  StoreMap() = default;
  // Called, on the thread that reads, when what a get() found is damaged.
  using OnDamage = std::function<void(const rocksdb::Status&)>;

  StoreMap(rocksdb::DB& db, rocksdb::ColumnFamilyHandle& family, ReadFrom from,
           OnDamage on_damage = nullptr)
      : db_(&db), family_(&family), on_damage_(std::move(on_damage)) {
    if (from == ReadFrom::kMemory) options_.read_tier = rocksdb::kBlockCacheTier;
  }

  [[nodiscard]] Lookup get(std::string_view key, std::string& value) const override {
    rocksdb::Status status;
    return get(key, value, status);
  }
  // `status`: what RocksDB said.
  [[nodiscard]] Lookup get(std::string_view key, std::string& value,
                           rocksdb::Status& status) const {
    // Where a table that may hold the key is not open, RocksDB (7.8.3) finds something instead of
    // answering Incomplete, and leaves `value` as it was. One that is really empty is read from the
    // disk, too.
    value.clear();
    status = db_->Get(options_, family_, slice(key), &value);
    if (status.IsCorruption() && on_damage_) on_damage_(status);
    if (reads_memory() && status.ok() && value.empty()) return Lookup::kNotInMemory;
    return lookup_of(status);
  }

  // Reads of the disk: RocksDB's snapshot of now; to be given back.
  [[nodiscard]] std::shared_ptr<const rocksdb::Snapshot> snapshot() const {
    return {db_->GetSnapshot(),
            [db = db_](const rocksdb::Snapshot* of) { db->ReleaseSnapshot(of); }};
  }
  // At most kMaxAtOnce keys as they are in the snapshot; `lookups` and `values` have room for each.
  static constexpr std::size_t kMaxAtOnce = 32;
  void get_some(std::span<const std::string_view> keys, const rocksdb::Snapshot& snapshot,
                Lookup* lookups, rocksdb::PinnableSlice* values) const {
    std::array<rocksdb::Slice, kMaxAtOnce> slices;
    std::array<rocksdb::Status, kMaxAtOnce> statuses;
    std::transform(keys.begin(), keys.end(), slices.begin(), slice);
    rocksdb::ReadOptions options = options_;
    options.snapshot = &snapshot;
    db_->MultiGet(options, family_, keys.size(), slices.data(), values, statuses.data());
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (statuses[i].IsCorruption() && on_damage_) on_damage_(statuses[i]);
      lookups[i] = lookup_of(statuses[i]);
    }
  }

  [[nodiscard]] bool reads_memory() const { return options_.read_tier == rocksdb::kBlockCacheTier; }

  [[nodiscard]] Lookup scan(std::string_view from, std::string_view to,
                            const Visit& visit) const override {
    if (reads_memory()) return Lookup::kNotInMemory;
    rocksdb::ReadOptions options;
    options.fill_cache = false;
    const rocksdb::Slice end = slice(to);
    options.iterate_upper_bound = &end;
    const std::unique_ptr<rocksdb::Iterator> row(db_->NewIterator(options, family_));
    for (row->Seek(slice(from)); row->Valid(); row->Next()) {
      if (!visit(row->key().ToStringView(), row->value().ToStringView())) return Lookup::kFound;
    }
    if (row->status().IsCorruption() && on_damage_) on_damage_(row->status());
    return row->status().ok() ? Lookup::kFound : Lookup::kFailed;
  }

  [[nodiscard]] static rocksdb::Slice slice(std::string_view text) {
    return {text.data(), text.size()};
  }
  [[nodiscard]] static Lookup lookup_of(const rocksdb::Status& status) {
    if (status.ok()) return Lookup::kFound;
    if (status.IsNotFound()) return Lookup::kAbsent;
    return status.IsIncomplete() ? Lookup::kNotInMemory : Lookup::kFailed;
  }

 private:
  rocksdb::DB* db_ = nullptr;
  rocksdb::ColumnFamilyHandle* family_ = nullptr;
  rocksdb::ReadOptions options_;
  OnDamage on_damage_;
};

// A family, and before it what was applied and is not written to it yet, and what was read of late.
class BufferedMap final : public OrderedMap {
 public:
  BufferedMap(const StoreBuffer& buffer, RowCache& cache, StoreMap below)
      : buffer_(buffer), cache_(cache), below_(std::move(below)) {}

  [[nodiscard]] Lookup get(std::string_view key, std::string& value) const override {
    rocksdb::Status status;
    return get(key, value, status);
  }
  // `status`: what RocksDB said, if it was asked.
  [[nodiscard]] Lookup get(std::string_view key, std::string& value,
                           rocksdb::Status& status) const {
    if (const std::optional<Lookup> found = buffer_.get(key, value)) return *found;
    if (cache_.get(key, value)) return Lookup::kFound;
    const std::uint64_t version = cache_.version();
    const Lookup lookup = below_.get(key, value, status);
    if (lookup == Lookup::kFound) cache_.keep(key, value, version);
    return lookup;
  }
  [[nodiscard]] Lookup get_all(std::span<const std::string> keys,
                               const VisitRow& visit) const override {
    return below_.reads_memory() ? get_all_in_memory(keys, visit) : get_all_of_disk(keys, visit);
  }
  // Only what has reached the family: see Store::scan_disk().
  [[nodiscard]] Lookup scan(std::string_view from, std::string_view to,
                            const Visit& visit) const override {
    return below_.scan(from, to, visit);
  }

 private:
  // More than this, or changes that keep coming, are read where time matters less.
  static constexpr std::size_t kMaxInMemoryBytes = 1 << 20;
  static constexpr int kMaxTries = 3;

  [[nodiscard]] Lookup get_all_in_memory(std::span<const std::string> keys,
                                         const VisitRow& visit) const;
  [[nodiscard]] Lookup get_all_of_disk(std::span<const std::string> keys,
                                       const VisitRow& visit) const;

  const StoreBuffer& buffer_;
  RowCache& cache_;
  StoreMap below_;
};

// One by one; if nothing was merged from the first to the last, that was one moment.
inline Lookup BufferedMap::get_all_in_memory(std::span<const std::string> keys,
                                             const VisitRow& visit) const {
  std::vector<std::pair<Lookup, std::string>> rows(keys.size());
  for (int tries = 0; tries < kMaxTries; ++tries) {
    const std::uint64_t merged = buffer_.times_merged();
    std::size_t size_bytes = 0;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      auto& [lookup, value] = rows[i];
      lookup = get(keys[i], value);
      if (lookup != Lookup::kFound && lookup != Lookup::kAbsent) return lookup;
      if (lookup == Lookup::kAbsent) value.clear();
      size_bytes += value.size();
      if (size_bytes > kMaxInMemoryBytes) return Lookup::kNotInMemory;
    }
    if (buffer_.times_merged() != merged) continue;
    for (const auto& [lookup, value] : rows) {
      if (!visit(lookup, value)) break;
    }
    return Lookup::kFound;
  }
  return Lookup::kNotInMemory;
}

// What is in the buffer at one moment, and for the others a snapshot of what was below it then. A key
// that is asked for many times is copied from the buffer once.
inline Lookup BufferedMap::get_all_of_disk(std::span<const std::string> keys,
                                           const VisitRow& visit) const {
  std::vector<std::string_view> different(keys.begin(), keys.end());
  std::sort(different.begin(), different.end());
  different.erase(std::unique(different.begin(), different.end()), different.end());
  std::vector<StoreBuffer::Found> buffered;
  std::uint64_t version = 0;
  std::shared_ptr<const rocksdb::Snapshot> snapshot;
  std::uint64_t written = 0;
  do {
    written = buffer_.times_written();
    version = cache_.version();
    snapshot = below_.snapshot();
  } while (!buffer_.get_all(different, written, buffered));
  const auto buffered_at = [&](std::string_view key) -> const StoreBuffer::Found& {
    const auto at = std::lower_bound(different.begin(), different.end(), key);
    return buffered[static_cast<std::size_t>(at - different.begin())];
  };

  constexpr std::size_t kAtOnce = StoreMap::kMaxAtOnce;
  for (std::size_t first = 0; first < keys.size(); first += kAtOnce) {
    const auto some = keys.subspan(first, std::min(kAtOnce, keys.size() - first));
    std::array<std::string_view, kAtOnce> below;
    std::array<Lookup, kAtOnce> lookups{};
    std::array<rocksdb::PinnableSlice, kAtOnce> values;
    std::size_t count = 0;
    for (const std::string& key : some) {
      if (!buffered_at(key).lookup) below[count++] = key;
    }
    if (count > 0) below_.get_some({below.data(), count}, *snapshot, lookups.data(), values.data());
    std::size_t next = 0;
    for (const std::string& key : some) {
      const StoreBuffer::Found& found = buffered_at(key);
      const std::size_t at = found.lookup ? next : next++;
      const Lookup lookup = found.lookup ? *found.lookup : lookups[at];
      if (lookup != Lookup::kFound && lookup != Lookup::kAbsent) return lookup;
      const std::string_view value = found.lookup ? found.value : values[at].ToStringView();
      if (!found.lookup && lookup == Lookup::kFound) cache_.keep(key, value, version);
      if (!visit(lookup, lookup == Lookup::kFound ? value : std::string_view())) {
        return Lookup::kFound;
      }
    }
  }
  return Lookup::kFound;
}

// What applying changes: it becomes visible together, in commit(). Reads see those made so far.
class StoreBatch final : public Batch {
 public:
  // `before`: what was applied so far, of which `buffer` is the top. `changes` is empty, and used for
  // its memory.
  StoreBatch(StoreBuffer& buffer, const BufferedMap& before, RowTable& changes)
      : buffer_(buffer), before_(before), changes_(changes) {}
  StoreBatch(const StoreBatch&) = delete;
  StoreBatch& operator=(const StoreBatch&) = delete;
  ~StoreBatch() override { changes_.clear(); }

  // Why the last read that answered kFailed did so; ok if none did.
  [[nodiscard]] const rocksdb::Status& failure() const { return failure_; }
  // A read would have had to wait for the disk, and `before` may not: nothing counts.
  [[nodiscard]] bool missed() const { return missed_; }
  // All changes, of the entries up to `last`, count.
  void commit(Index last) { buffer_.merge(changes_, last, erases_below_); }

  [[nodiscard]] Lookup get(std::string_view key, std::string& value) const override {
    const std::optional<bool> changed = changes_.get(RowTable::hash_of(key), key, value);
    if (changed) return *changed ? Lookup::kFound : Lookup::kAbsent;
    if (erases_below_) return Lookup::kAbsent;
    rocksdb::Status status;
    const Lookup lookup = before_.get(key, value, status);
    if (lookup == Lookup::kFailed) failure_ = status;
    if (lookup == Lookup::kNotInMemory) missed_ = true;
    return lookup;
  }
  void put(std::string_view key, std::string_view value) override { changes_.at(key).set(value); }
  void erase(std::string_view key) override { changes_.at(key).erase(); }
  void erase_all() override {
    changes_.clear();
    erases_below_ = true;
  }

 private:
  StoreBuffer& buffer_;
  const BufferedMap& before_;
  RowTable& changes_;
  mutable rocksdb::Status failure_;
  mutable bool missed_ = false;
  bool erases_below_ = false;
};

}  // namespace seshat

#endif  // SESHAT_STORE_MAP_HPP
