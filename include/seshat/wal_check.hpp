// seshat/wal_check.hpp - is the write-ahead log whole up to the durable mark?
//
// RocksDB numbers every change (its sequence number), so the records of its log join without a gap:
//
//   tables hold     │ record 1001..1040 │ 1041..1041 │ 1042..1100 │ damage, or the end
//   up to 1000      │                   │            │            │ -> "found" is 1100
//
// Point-in-time recovery ends the log at a damaged record and throws away what follows: right for
// a tail that was never synced, a silent loss for one that was. And it passes over a block of zeros
// as if nothing had stood there. So this reads the log first, without changing anything, and says
// how far it is whole; the caller compares that with the durable mark, and opens the database only
// if nothing promised is missing. What is refused stays as it is, for another try (a cable, a
// controller) or for whoever must save what can be saved.
//
// Cost:    one more pass over the log at the start (at most max_total_wal_size), nothing is kept.
// Limit:   damage in the tables themselves shows up when it is read, by RocksDB's checksums.
// Threads: one owner. Needs: result.hpp; RocksDB.
#ifndef SESHAT_WAL_CHECK_HPP
#define SESHAT_WAL_CHECK_HPP

#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/wal_filter.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "seshat/result.hpp"

namespace seshat {

// Sees each record of the log during recovery, and ends the replay where one does not join.
class WalContinuity final : public rocksdb::WalFilter {
 public:
  enum class Mode : std::uint8_t { kReplay, kLookOnly };

  explicit WalContinuity(Mode mode) : mode_(mode) {}
  // The first record has to join what the tables hold, too.
  void follow(std::uint64_t in_tables) { latest_first_ = in_tables + 1; }

  const char* Name() const override { return "seshat.WalContinuity"; }
  WalProcessingOption LogRecordFound(unsigned long long log_number, const std::string& file,
                                     const rocksdb::WriteBatch& batch, rocksdb::WriteBatch*,
                                     bool*) override;

  // The first change seen, and the one after the last; both 0 if there was none.
  [[nodiscard]] std::uint64_t first_sequence() const { return first_sequence_; }
  [[nodiscard]] std::uint64_t next_sequence() const { return next_sequence_; }
  // The file that holds the last good record, or that begins with one that does not join.
  [[nodiscard]] const std::string& file() const { return file_; }
  [[nodiscard]] bool has_gap() const { return has_gap_; }

 private:
  Mode mode_;
  std::uint64_t latest_first_ = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t first_sequence_ = 0;
  std::uint64_t next_sequence_ = 0;
  std::string file_;
  bool has_gap_ = false;
};

struct WalFinding {
  std::uint64_t sequence = 0;   // everything up to this is there
  std::uint64_t in_tables = 0;  // ... of which the tables hold so much
  std::string file;             // of the log: where that ends; empty if there is no log
};

// Looks at the database at `path`, and changes nothing in it.
[[nodiscard]] Result<WalFinding> examine_wal(
    const rocksdb::DBOptions& options, const std::string& path,
    const std::vector<rocksdb::ColumnFamilyDescriptor>& families);

// =================================================================================================
// Bodies
// =================================================================================================

namespace wal_detail {

// A batch begins with its sequence number, 8 bytes little-endian (rocksdb, write_batch.cc).
inline std::uint64_t sequence_of(const rocksdb::WriteBatch& batch) {
  std::uint64_t sequence = 0;
  for (std::size_t i = 8; i > 0; --i) {
    sequence = sequence << 8 | static_cast<unsigned char>(batch.Data()[i - 1]);
  }
  return sequence;
}

}  // namespace wal_detail

inline rocksdb::WalFilter::WalProcessingOption WalContinuity::LogRecordFound(
    unsigned long long, const std::string& file, const rocksdb::WriteBatch& batch,
    rocksdb::WriteBatch*, bool*) {
  const std::uint64_t sequence = wal_detail::sequence_of(batch);
  const std::uint64_t count = batch.Count();
  const bool joins = next_sequence_ == 0 ? sequence <= latest_first_ : sequence == next_sequence_;
  if (count > 0 && !joins) has_gap_ = true;
  if (has_gap_) return WalProcessingOption::kStopReplay;
  file_ = file;
  if (count > 0) {  // RocksDB writes empty ones of its own
    if (first_sequence_ == 0) first_sequence_ = sequence;
    next_sequence_ = sequence + count;
  }
  return mode_ == Mode::kLookOnly ? WalProcessingOption::kIgnoreCurrentRecord
                                  : WalProcessingOption::kContinueProcessing;
}

inline Result<WalFinding> examine_wal(
    const rocksdb::DBOptions& options, const std::string& path,
    const std::vector<rocksdb::ColumnFamilyDescriptor>& families) {
  WalContinuity continuity(WalContinuity::Mode::kLookOnly);
  rocksdb::DBOptions look = options;
  look.create_if_missing = false;
  look.wal_filter = &continuity;
  look.listeners.clear();
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status =
      rocksdb::DB::OpenForReadOnly(look, path, families, &handles, &opened);
  const std::unique_ptr<rocksdb::DB> db(opened);
  if (!status.ok()) return Error{status.ToString()};
  for (rocksdb::ColumnFamilyHandle* handle : handles) {
    db->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
  }
  // No record was replayed: this is how far the tables reach.
  const std::uint64_t in_tables = db->GetLatestSequenceNumber();
  const bool joins = continuity.first_sequence() <= in_tables + 1;
  WalFinding finding{in_tables, in_tables, continuity.file()};
  if (continuity.next_sequence() != 0 && joins) {
    finding.sequence = std::max(in_tables, continuity.next_sequence() - 1);
  }
  return finding;
}

}  // namespace seshat

#endif  // SESHAT_WAL_CHECK_HPP
