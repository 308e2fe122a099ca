// seshat/store_incoming.hpp - a snapshot that comes in: rows into table files, then into a new
// generation of a state.
//
//   rows ──> snapshots/incoming-7/1.sst, 2.sst, ... ── finish(): checked, synced
//                          │
//                   ingest() moves them into a new column family
//
// Threads: see snapshot.hpp: one call at a time, each may wait for the disk.
// Needs:   store_snapshot.hpp; RocksDB.
#ifndef SESHAT_STORE_INCOMING_HPP
#define SESHAT_STORE_INCOMING_HPP

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/options.h>
#include <rocksdb/sst_file_writer.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/codec.hpp"
#include "seshat/records.hpp"
#include "seshat/result.hpp"
#include "seshat/snapshot.hpp"
#include "seshat/store_map.hpp"
#include "seshat/store_snapshot.hpp"

namespace seshat {

class IncomingSnapshot final : public SnapshotWriter {
 public:
  // `directory` is empty, and goes with this object.
  IncomingSnapshot(rocksdb::Env& env, std::string directory, SnapshotMetadata metadata,
                   const rocksdb::ColumnFamilyOptions& family)
      : env_(env),
        directory_(std::move(directory)),
        metadata_(std::move(metadata)),
        options_(rocksdb::DBOptions(), family) {
    options_.env = &env_;
  }
  IncomingSnapshot(const IncomingSnapshot&) = delete;
  IncomingSnapshot& operator=(const IncomingSnapshot&) = delete;
  ~IncomingSnapshot() override {
    table_.reset();
    store_detail::remove_tree(env_, directory_).PermitUncheckedError();
  }

  [[nodiscard]] const SnapshotMetadata& metadata() const override { return metadata_; }
  [[nodiscard]] Result<void> write(std::string_view rows) override;
  [[nodiscard]] const std::string& last_key() const override { return last_key_; }
  [[nodiscard]] Result<void> finish() override;
  [[nodiscard]] bool is_finished() const { return finished_; }

  // Moves the rows into `family`, which is empty. After finish(), once.
  [[nodiscard]] rocksdb::Status ingest(rocksdb::DB& db, rocksdb::ColumnFamilyHandle& family);

 private:
  static constexpr std::uint64_t kTableSizeBytes = 64 << 20;

  [[nodiscard]] rocksdb::Status add(std::string_view key, std::string_view value);
  [[nodiscard]] rocksdb::Status end_table();
  [[nodiscard]] Result<void> check() const;
  [[nodiscard]] Error broken(const std::string& why) const {
    return Error{"the snapshot of group " + std::to_string(metadata_.group.value) +
                 " that came in " + why};
  }

  rocksdb::Env& env_;
  std::string directory_;
  SnapshotMetadata metadata_;
  rocksdb::Options options_;
  std::unique_ptr<rocksdb::SstFileWriter> table_;  // null: none was begun
  std::vector<std::string> tables_;
  store_detail::RowSum sum_;
  std::string last_key_;
  std::string state_;  // the record of where it stands
  bool finished_ = false;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline Result<void> IncomingSnapshot::write(std::string_view rows) {
  std::string_view key;
  std::string_view value;
  while (take_row(rows, key, value)) {
    if (key <= last_key_) return broken("has rows out of order");
    if (const rocksdb::Status status = add(key, value); !status.ok()) {
      return broken("could not be written to " + directory_ + ": " + status.ToString());
    }
    if (key == store_detail::state_key(metadata_.group)) state_ = value;
    last_key_ = key;
  }
  if (!rows.empty()) return broken("has a row that is not whole");
  return {};
}

inline rocksdb::Status IncomingSnapshot::add(std::string_view key, std::string_view value) {
  sum_.add(key, value);
  rocksdb::Status status;
  if (table_ != nullptr && table_->FileSize() >= kTableSizeBytes) status = end_table();
  if (status.ok() && table_ == nullptr) {
    tables_.push_back(directory_ + "/" + std::to_string(tables_.size() + 1) + ".sst");
    table_ = std::make_unique<rocksdb::SstFileWriter>(rocksdb::EnvOptions(), options_);
    status = table_->Open(tables_.back());
  }
  return status.ok() ? table_->Put(StoreMap::slice(key), StoreMap::slice(value)) : status;
}

// Syncs it, too.
inline rocksdb::Status IncomingSnapshot::end_table() {
  rocksdb::Status status = table_->Finish();
  table_.reset();
  return status;
}

inline Result<void> IncomingSnapshot::finish() {
  if (Result<void> right = check(); !right) return right;
  rocksdb::Status status = end_table();
  if (status.ok()) status = store_detail::sync_directory(env_, directory_);
  if (!status.ok()) {
    return broken("could not be written to " + directory_ + ": " + status.ToString());
  }
  finished_ = true;
  return {};
}

inline Result<void> IncomingSnapshot::check() const {
  if (!sum_.matches(metadata_))
    return broken("is not what was announced: rows are missing or wrong");
  if (state_.empty()) return broken("does not say where it stands");
  const Result<MachineState> state = codec::decode_machine_state(state_);
  if (!state) return broken("can't be read: " + state.error().text);
  if (store_detail::snapshot_of(*state) != metadata_.snapshot) {
    return broken("stands at another entry than was announced");
  }
  return {};
}

// The family is empty, so that no row needs a new sequence number: the log's numbers, which the
// durable mark relies on, go on without a gap.
inline rocksdb::Status IncomingSnapshot::ingest(rocksdb::DB& db,
                                                rocksdb::ColumnFamilyHandle& family) {
  rocksdb::IngestExternalFileOptions options;
  options.move_files = true;
  options.snapshot_consistency = false;
  options.allow_global_seqno = false;
  options.allow_blocking_flush = false;
  options.write_global_seqno = false;
  return db.IngestExternalFile(&family, tables_, options);
}

}  // namespace seshat

#endif  // SESHAT_STORE_INCOMING_HPP
