// seshat/store_log_cut.hpp - how the front of a log leaves the disk.
//
// A log begins behind its base, a record that names the last entry that was cut off (store_log.hpp).
// What stands before it counts for nothing, whether its bytes are still there or not. So they need
// no tombstones, which would slow reads of the log and take space themselves; once the base is
// durable, and not before, they just go:
//
//   in memory      a flush leaves them out. A busy log is cut faster than its buffer fills, so that
//                  most entries never reach a table
//   in a table     a compaction leaves them out, and tables that hold nothing else are deleted at
//                  once (DeleteFilesInRange; not those of level 0)
//   what is left   (in level 0) is compacted away when it has become a quarter of a write buffer
//
// Threads: LogFloor: any. RocksDB asks the filter on its own threads. reclaim() waits for the disk.
// Limits:  that quarter, and what the youngest tables hold beside live entries, may stay.
// Needs:   RocksDB.
#ifndef SESHAT_STORE_LOG_CUT_HPP
#define SESHAT_STORE_LOG_CUT_HPP

#include <rocksdb/compaction_filter.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/options.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace seshat {

// The first key of a log that is still needed, as far as that is durable.
class LogFloor {
 public:
  [[nodiscard]] std::string key() const {
    const std::lock_guard lock(mutex_);
    return key_;
  }
  void raise(std::string key) {
    const std::lock_guard lock(mutex_);
    if (key > key_) key_ = std::move(key);
  }

 private:
  mutable std::mutex mutex_;
  std::string key_;  // empty: all is needed
};

namespace store_detail {

// Skips whatever comes before the floor, as one range.
class BelowFloor final : public rocksdb::CompactionFilter {
 public:
  explicit BelowFloor(std::string floor) : floor_(std::move(floor)) {}
  const char* Name() const override { return "seshat.BelowFloor"; }
  Decision FilterV2(int, const rocksdb::Slice& key, ValueType, const rocksdb::Slice&, std::string*,
                    std::string* skip_until) const override {
    if (key.compare(floor_) >= 0) return Decision::kKeep;
    *skip_until = floor_;
    return Decision::kRemoveAndSkipUntil;
  }

 private:
  std::string floor_;
};

class BelowFloorFactory final : public rocksdb::CompactionFilterFactory {
 public:
  explicit BelowFloorFactory(std::shared_ptr<const LogFloor> floor) : floor_(std::move(floor)) {}
  const char* Name() const override { return "seshat.BelowFloorFactory"; }
  bool ShouldFilterTableFileCreation(rocksdb::TableFileCreationReason reason) const override {
    return reason == rocksdb::TableFileCreationReason::kFlush ||
           reason == rocksdb::TableFileCreationReason::kCompaction;
  }
  std::unique_ptr<rocksdb::CompactionFilter> CreateCompactionFilter(
      const rocksdb::CompactionFilter::Context&) override {
    return std::make_unique<BelowFloor>(floor_->key());
  }

 private:
  std::shared_ptr<const LogFloor> floor_;
};

// Gives back the space of all that lies below `floor` in `log`, down to what is not worth a
// compaction. What can't be deleted now is tried again with the next cut; a disk that fails is told
// to the database's listener.
inline void reclaim(rocksdb::DB& db, rocksdb::ColumnFamilyHandle& log, const std::string& floor,
                    std::uint64_t worth_compacting_bytes) {
  const rocksdb::Slice begin;
  const rocksdb::Slice end(floor);
  rocksdb::DeleteFilesInRange(&db, &log, nullptr, &end, /*include_end=*/false)
      .PermitUncheckedError();
  const rocksdb::Range below(begin, end);
  std::uint64_t left_bytes = 0;
  rocksdb::SizeApproximationOptions tables;
  tables.include_files = true;
  if (!db.GetApproximateSizes(tables, &log, &below, 1, &left_bytes).ok()) return;
  if (left_bytes < worth_compacting_bytes) return;
  rocksdb::CompactRangeOptions options;
  options.exclusive_manual_compaction = false;
  db.CompactRange(options, &log, nullptr, &end).PermitUncheckedError();
}

}  // namespace store_detail

}  // namespace seshat

#endif  // SESHAT_STORE_LOG_CUT_HPP
