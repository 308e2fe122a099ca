// seshat/store_map.hpp - a RocksDB column family as the ordered map a state machine lives in.
//
// Threads: the maps may be read by any thread; a StoreBatch belongs to the one that applies.
// Needs:   store_buffer.hpp, row_cache.hpp, state_machine.hpp (OrderedMap, Batch); RocksDB.
#ifndef SESHAT_STORE_MAP_HPP
#define SESHAT_STORE_MAP_HPP

#include <rocksdb/db.h>
#include <rocksdb/iterator.h>
#include <rocksdb/options.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

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
    status = db_->Get(options_, family_, slice(key), &value);
    if (status.IsCorruption() && on_damage_) on_damage_(status);
    // Where a table that may hold the key is not open, RocksDB (7.8.3) finds an empty value instead
    // of answering Incomplete. One that is really empty is read from the disk, too.
    if (reads_memory() && status.ok() && value.empty()) return Lookup::kNotInMemory;
    return lookup_of(status);
  }

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
  [[nodiscard]] bool reads_memory() const { return options_.read_tier == rocksdb::kBlockCacheTier; }

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
  // Only what has reached the family: see Store::scan_disk().
  [[nodiscard]] Lookup scan(std::string_view from, std::string_view to,
                            const Visit& visit) const override {
    return below_.scan(from, to, visit);
  }

 private:
  const StoreBuffer& buffer_;
  RowCache& cache_;
  StoreMap below_;
};

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
