// seshat/store_map.hpp - a RocksDB column family as the ordered map a state machine lives in.
//
// Threads: StoreMap may be read by any thread; a StoreBatch belongs to the one that applies.
// Needs:   state_machine.hpp (OrderedMap, Batch); RocksDB.
#ifndef SESHAT_STORE_MAP_HPP
#define SESHAT_STORE_MAP_HPP

#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/utilities/write_batch_with_index.h>

#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "seshat/state_machine.hpp"

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
    const rocksdb::Status status = db_->Get(options_, family_, slice(key), &value);
    if (status.IsCorruption() && on_damage_) on_damage_(status);
    // Where a table that may hold the key is not open, RocksDB (7.8.3) finds an empty value instead
    // of answering Incomplete. One that is really empty is read from the disk, too.
    if (reads_memory() && status.ok() && value.empty()) return Lookup::kNotInMemory;
    return lookup_of(status);
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

// Changes to one family that become visible, and durable, together. Reads see those made so far.
class StoreBatch final : public Batch {
 public:
  StoreBatch(rocksdb::DB& db, rocksdb::ColumnFamilyHandle& family)
      : db_(&db),
        family_(&family),
        batch_(rocksdb::BytewiseComparator(), 0, /*overwrite_key=*/true) {}

  // Why the last read that answered kFailed did so; ok if none did.
  [[nodiscard]] const rocksdb::Status& failure() const { return failure_; }
  [[nodiscard]] rocksdb::WriteBatch& changes() { return *batch_.GetWriteBatch(); }

  [[nodiscard]] Lookup get(std::string_view key, std::string& value) const override {
    const rocksdb::Status status = batch_.GetFromBatchAndDB(db_, rocksdb::ReadOptions(), family_,
                                                            StoreMap::slice(key), &value);
    const Lookup lookup = StoreMap::lookup_of(status);
    if (lookup == Lookup::kFailed) failure_ = status;
    return lookup;
  }
  void put(std::string_view key, std::string_view value) override {
    note(batch_.Put(family_, StoreMap::slice(key), StoreMap::slice(value)));
  }
  void erase(std::string_view key) override { note(batch_.Delete(family_, StoreMap::slice(key))); }

 private:
  void note(const rocksdb::Status& status) {
    if (!status.ok()) failure_ = status;
  }

  rocksdb::DB* db_;
  rocksdb::ColumnFamilyHandle* family_;
  // GetFromBatchAndDB is not const, but changes nothing.
  mutable rocksdb::WriteBatchWithIndex batch_;
  mutable rocksdb::Status failure_;
};

}  // namespace seshat

#endif  // SESHAT_STORE_MAP_HPP
