// seshat/store_snapshot.hpp - the snapshots that a node keeps, and how one is built and read.
//
//   snapshots/building-3/                      being built; after a crash: litter
//   snapshots/1-00000000000000012345/          of group 1, as of its entry 12345; ...12345-2/, while
//                                              somebody still reads an older one of that name
//       checkpoint/                            a RocksDB checkpoint: hard links, so that it takes
//                                              seconds and little space at first
//       family                                 the name of the family in it that holds the state
//       metadata                               SnapshotMetadata
//   snapshots/removing-...                     on its way out
//   snapshots/incoming-7/                      store_incoming.hpp
//
// A checkpoint holds everything, the logs and the votes too: only the group's state is read from it.
// A part of that may be in RocksDB's write-ahead log, which is linked like the tables and is synced
// for it. It appears under its name by a rename, after all of it was synced; a crash leaves it whole, or as
// litter that the next start removes. A newer one replaces the older ones of its group; whoever
// reads one of these keeps its files until then.
//
// Threads: newest(): any, and it never waits. All else waits for the disk, as does letting go of a
//          reader; calls may come from several threads, but one build at a time.
// Limits:  a checkpoint also keeps tables of the logs from being deleted while it is there.
// Needs:   snapshot.hpp, codec.hpp, store_generation.hpp; RocksDB.
#ifndef SESHAT_STORE_SNAPSHOT_HPP
#define SESHAT_STORE_SNAPSHOT_HPP

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/iterator.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/utilities/checkpoint.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/codec.hpp"
#include "seshat/fnv1a.hpp"
#include "seshat/records.hpp"
#include "seshat/result.hpp"
#include "seshat/snapshot.hpp"
#include "seshat/state_machine.hpp"
#include "seshat/store_generation.hpp"
#include "seshat/store_map.hpp"
#include "seshat/store_options.hpp"
#include "seshat/wal_check.hpp"

namespace seshat {

namespace store_detail {

// What SnapshotMetadata says about the rows: row_count, size_bytes, checksum.
class RowSum {
 public:
  void add(std::string_view key, std::string_view value) {
    row_.clear();
    append_row(key, value, row_);
    ++row_count_;
    size_bytes_ += row_.size();
    checksum_ = fnv1a(row_, checksum_);
  }
  void fill(SnapshotMetadata& metadata) const {
    metadata.row_count = row_count_;
    metadata.size_bytes = size_bytes_;
    metadata.checksum = checksum_;
  }
  [[nodiscard]] std::uint64_t row_count() const { return row_count_; }
  [[nodiscard]] bool matches(const SnapshotMetadata& metadata) const {
    return metadata.row_count == row_count_ && metadata.size_bytes == size_bytes_ &&
           metadata.checksum == checksum_;
  }

 private:
  std::uint64_t row_count_ = 0;
  std::uint64_t size_bytes_ = 0;
  std::uint64_t checksum_ = kFnv1aStart;
  std::string row_;
};

// Where `state` stands, as a snapshot says it.
[[nodiscard]] inline raft::Snapshot snapshot_of(const MachineState& state) {
  return {state.applied_index, state.applied_term, state.configuration, state.configuration_index};
}

// A directory with all that is in it.
rocksdb::Status remove_tree(rocksdb::Env& env, const std::string& path);
rocksdb::Status sync_directory(rocksdb::Env& env, const std::string& path);

// A checkpoint, open for reading: one family of it.
class OpenCheckpoint {
 public:
  [[nodiscard]] static Result<std::unique_ptr<OpenCheckpoint>> open(rocksdb::Env& env,
                                                                    const std::string& path,
                                                                    const std::string& family);
  OpenCheckpoint(const OpenCheckpoint&) = delete;
  OpenCheckpoint& operator=(const OpenCheckpoint&) = delete;
  ~OpenCheckpoint();

  [[nodiscard]] rocksdb::DB& db() const { return *db_; }
  [[nodiscard]] rocksdb::ColumnFamilyHandle& family() const { return *handles_.back(); }
  [[nodiscard]] std::unique_ptr<rocksdb::Iterator> iterate() const;

 private:
  OpenCheckpoint() = default;

  // A log that is copied while it is written may have a hole, which RocksDB would pass over.
  WalContinuity continuity_{WalContinuity::Mode::kReplay};
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> handles_;
};

// The files of one snapshot, for as long as anybody needs them.
struct KeptSnapshot {
  KeptSnapshot(rocksdb::Env& on, std::string at) : env(on), path(std::move(at)) {}
  KeptSnapshot(const KeptSnapshot&) = delete;
  KeptSnapshot& operator=(const KeptSnapshot&) = delete;
  ~KeptSnapshot();

  [[nodiscard]] std::string checkpoint() const { return path + "/checkpoint"; }

  rocksdb::Env& env;
  std::string path;
  std::string family;
  SnapshotMetadata metadata;
  std::atomic<bool> doomed{false};  // the last one who lets go of it removes it
};

class CheckpointReader final : public SnapshotReader {
 public:
  CheckpointReader(std::shared_ptr<const KeptSnapshot> kept,
                   std::unique_ptr<OpenCheckpoint> checkpoint)
      : kept_(std::move(kept)), checkpoint_(std::move(checkpoint)) {}

  [[nodiscard]] const SnapshotMetadata& metadata() const override { return kept_->metadata; }
  [[nodiscard]] Result<SnapshotRows> read(std::string_view after_key,
                                          std::size_t max_size_bytes) override;

 private:
  void sum_up(std::string_view key, std::string_view value);
  [[nodiscard]] Error broken(const std::string& why) const {
    return Error{kept_->path + " can't be read: " + why};
  }

  std::shared_ptr<const KeptSnapshot> kept_;
  std::unique_ptr<OpenCheckpoint> checkpoint_;
  std::unique_ptr<rocksdb::Iterator> at_;  // at the row after last_key_
  std::string last_key_;
  // Of all rows up to summed_key_, if reading began with the first.
  RowSum sum_;
  std::string summed_key_;
  bool sums_ = true;
};

}  // namespace store_detail

class SnapshotShelf {
 public:
  SnapshotShelf(rocksdb::Env& env, std::string path) : env_(env), path_(std::move(path)) {}

  // Removes what a crash left, and finds what is kept.
  [[nodiscard]] Result<void> open();

  // Makes what was written to the database's log durable; false: it could not.
  using Sync = std::function<bool()>;
  // Takes a snapshot of the state of `group`, which is `generation` of `db`. If its newest one is as
  // of the same entry, that one is the answer. Ends early, with an Error, once `stop` is true.
  [[nodiscard]] Result<SnapshotMetadata> build(rocksdb::DB& db, GroupId group,
                                               const StoreGeneration& generation,
                                               const ClusterMembership& membership,
                                               const Sync& sync, const std::atomic<bool>& stop);
  [[nodiscard]] std::optional<SnapshotMetadata> newest(GroupId group) const;
  [[nodiscard]] Result<std::shared_ptr<SnapshotReader>> read(GroupId group, Index index);
  // It is not there any more; its files go when the answer, and whoever reads it, has let go of it.
  [[nodiscard]] std::shared_ptr<const store_detail::KeptSnapshot> take(GroupId group, Index index);

  // A new empty directory, which the next open() removes.
  [[nodiscard]] Result<std::string> make_directory(const char* purpose);

 private:
  using Kept = std::shared_ptr<store_detail::KeptSnapshot>;
  using Id = std::pair<GroupId, Index>;

  [[nodiscard]] static std::string name_of(Id id);
  [[nodiscard]] static bool is_name_of(Id id, std::string_view name);
  [[nodiscard]] std::string free_path(Id id) const;
  [[nodiscard]] Kept load(const std::string& path) const;
  [[nodiscard]] Result<void> fill(const std::string& directory, rocksdb::DB& db, GroupId group,
                                  const std::string& family, const Sync& sync,
                                  const std::atomic<bool>& stop, SnapshotMetadata& metadata);
  [[nodiscard]] Result<void> put_away(const std::string& directory, const Kept& kept);
  void keep(const Kept& kept);
  [[nodiscard]] Error failed(const char* doing, const rocksdb::Status& status) const {
    return Error{std::string("a snapshot could not be ") + doing + " in " + path_ + ": " +
                 status.ToString()};
  }

  rocksdb::Env& env_;
  const std::string path_;
  std::atomic<std::uint64_t> next_number_{1};
  mutable std::mutex mutex_;  // guards what follows
  std::map<Id, Kept> kept_;
};

// =================================================================================================
// Bodies
// =================================================================================================

namespace store_detail {

inline rocksdb::Status remove_tree(rocksdb::Env& env, const std::string& path) {
  std::vector<std::string> names;
  rocksdb::Status status = env.GetChildren(path, &names);
  for (const std::string& name : names) {
    if (!status.ok()) return status;
    if (name == "." || name == "..") continue;
    const std::string child = std::string(path).append("/").append(name);
    bool is_directory = false;
    const bool known = env.IsDirectory(child, &is_directory).ok();
    status = known && is_directory ? remove_tree(env, child) : env.DeleteFile(child);
  }
  return status.ok() ? env.DeleteDir(path) : status;
}

inline rocksdb::Status sync_directory(rocksdb::Env& env, const std::string& path) {
  std::unique_ptr<rocksdb::Directory> directory;
  const rocksdb::Status status = env.NewDirectory(path, &directory);
  return status.ok() ? directory->Fsync() : status;
}

// Nothing that is read here goes into the block cache, and few of its files are open at a time.
inline Result<std::unique_ptr<OpenCheckpoint>> OpenCheckpoint::open(rocksdb::Env& env,
                                                                    const std::string& path,
                                                                    const std::string& family) {
  rocksdb::DBOptions options;
  options.env = &env;
  options.info_log = std::make_shared<Silence>();
  options.max_open_files = 64;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  rocksdb::BlockBasedTableOptions table;
  table.no_block_cache = true;
  rocksdb::ColumnFamilyOptions family_options;
  family_options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  const std::vector<rocksdb::ColumnFamilyDescriptor> families{
      {rocksdb::kDefaultColumnFamilyName, family_options}, {family, family_options}};
  std::unique_ptr<OpenCheckpoint> checkpoint(new OpenCheckpoint());
  const Result<WalFinding> finding = examine_wal(options, path, families);
  if (!finding) return Error{path + " can't be read: " + finding.error().text};
  checkpoint->continuity_.follow(finding->in_tables);
  options.wal_filter = &checkpoint->continuity_;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status =
      rocksdb::DB::OpenForReadOnly(options, path, families, &checkpoint->handles_, &db);
  checkpoint->db_.reset(db);
  if (!status.ok()) return Error{path + " can't be read: " + status.ToString()};
  return checkpoint;
}

inline OpenCheckpoint::~OpenCheckpoint() {
  for (rocksdb::ColumnFamilyHandle* handle : handles_) {
    db_->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
  }
}

inline std::unique_ptr<rocksdb::Iterator> OpenCheckpoint::iterate() const {
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  options.total_order_seek = true;
  return std::unique_ptr<rocksdb::Iterator>(db_->NewIterator(options, &family()));
}

// Under another name first: half of a snapshot must not pass for one.
inline KeptSnapshot::~KeptSnapshot() {
  if (!doomed) return;
  const std::size_t slash = path.rfind('/');
  const std::string out = path.substr(0, slash) + "/removing-" + path.substr(slash + 1);
  if (env.FileExists(out).ok()) remove_tree(env, out).PermitUncheckedError();
  if (env.RenameFile(path, out).ok()) remove_tree(env, out).PermitUncheckedError();
}

inline Result<SnapshotRows> CheckpointReader::read(std::string_view after_key,
                                                   std::size_t max_size_bytes) {
  if (at_ == nullptr || after_key.empty() || after_key != last_key_) {
    at_ = checkpoint_->iterate();
    at_->Seek(StoreMap::slice(after_key));
    if (!after_key.empty() && at_->Valid() && at_->key() == StoreMap::slice(after_key)) at_->Next();
    last_key_ = after_key;
    sums_ = sums_ && after_key <= summed_key_;
  }
  SnapshotRows rows;
  while (at_->Valid() && (rows.rows.empty() || rows.rows.size() < max_size_bytes)) {
    append_row(at_->key().ToStringView(), at_->value().ToStringView(), rows.rows);
    sum_up(at_->key().ToStringView(), at_->value().ToStringView());
    last_key_.assign(at_->key().data(), at_->key().size());
    at_->Next();
  }
  if (!at_->status().ok()) return broken(at_->status().ToString());
  rows.last_key = last_key_;
  rows.last = !at_->Valid();
  if (rows.last && sums_ && !sum_.matches(kept_->metadata)) {
    return broken("its rows are not those that it was built of");
  }
  return rows;
}

// Each row once: after a broken connection some are read again.
inline void CheckpointReader::sum_up(std::string_view key, std::string_view value) {
  if (!sums_ || (sum_.row_count() > 0 && key <= summed_key_)) return;
  sum_.add(key, value);
  summed_key_ = key;
}

}  // namespace store_detail

// "1-00000000000000012345"
inline std::string SnapshotShelf::name_of(Id id) {
  const std::string index = std::to_string(id.second.value);
  return std::to_string(id.first.value) + "-" + std::string(20 - index.size(), '0') + index;
}

// Also with a number behind it.
inline bool SnapshotShelf::is_name_of(Id id, std::string_view name) {
  const std::string plain = name_of(id);
  if (!name.starts_with(plain)) return false;
  name.remove_prefix(plain.size());
  if (name.empty()) return true;
  return name.size() > 1 && name.front() == '-' &&
         name.find_first_not_of("0123456789", 1) == std::string_view::npos;
}

inline std::string SnapshotShelf::free_path(Id id) const {
  const std::string plain = path_ + "/" + name_of(id);
  std::string path = plain;
  for (int number = 2; env_.FileExists(path).ok(); ++number) {
    path = plain + "-" + std::to_string(number);
  }
  return path;
}

inline Result<void> SnapshotShelf::open() {
  std::vector<std::string> names;
  const rocksdb::Status listed = env_.GetChildren(path_, &names);
  if (listed.IsNotFound()) return {};
  if (!listed.ok()) return failed("looked for", listed);
  for (const std::string& name : names) {
    if (name == "." || name == "..") continue;
    const std::string path = path_ + "/" + name;
    const Kept kept = load(path);
    if (kept != nullptr &&
        is_name_of({kept->metadata.group, kept->metadata.snapshot.last_included_index}, name)) {
      keep(kept);
      continue;
    }
    bool is_directory = false;
    const bool known = env_.IsDirectory(path, &is_directory).ok();
    const rocksdb::Status removed =
        known && is_directory ? store_detail::remove_tree(env_, path) : env_.DeleteFile(path);
    if (!removed.ok()) return failed("removed", removed);
  }
  return {};
}

// Null: it is not one, or can't be read. Then it is of no use: another can be built.
inline SnapshotShelf::Kept SnapshotShelf::load(const std::string& path) const {
  auto kept = std::make_shared<store_detail::KeptSnapshot>(env_, path);
  std::string record;
  if (!rocksdb::ReadFileToString(&env_, path + "/metadata", &record).ok()) return nullptr;
  if (!rocksdb::ReadFileToString(&env_, path + "/family", &kept->family).ok()) return nullptr;
  Result<SnapshotMetadata> metadata = codec::decode_snapshot_metadata(record);
  if (!metadata) return nullptr;
  kept->metadata = std::move(*metadata);
  return kept;
}

inline Result<std::string> SnapshotShelf::make_directory(const char* purpose) {
  const std::string path = path_ + "/" + purpose + "-" + std::to_string(next_number_.fetch_add(1));
  rocksdb::Status status = env_.CreateDirIfMissing(path_);
  if (status.ok()) status = store_detail::sync_directory(env_, path_.substr(0, path_.rfind('/')));
  if (status.ok()) status = env_.CreateDir(path);
  if (!status.ok()) return failed("begun", status);
  return path;
}

inline Result<SnapshotMetadata> SnapshotShelf::build(rocksdb::DB& db, GroupId group,
                                                     const StoreGeneration& generation,
                                                     const ClusterMembership& membership,
                                                     const Sync& sync,
                                                     const std::atomic<bool>& stop) {
  const Result<MachineState> state =
      detail::read_state(generation.on_disk(), store_detail::state_key(group));
  if (!state) return state.error();
  std::optional<SnapshotMetadata> before = newest(group);
  if (before && before->snapshot.last_included_index == state->applied_index) return *before;
  const Result<std::string> directory = make_directory("building");
  if (!directory) return directory.error();
  const std::string family = generation.family().GetName();
  SnapshotMetadata metadata;
  metadata.group = group;
  metadata.membership = membership;
  Result<void> built = fill(*directory, db, group, family, sync, stop, metadata);
  if (!built) {
    store_detail::remove_tree(env_, *directory).PermitUncheckedError();
    return built.error();
  }
  auto kept = std::make_shared<store_detail::KeptSnapshot>(
      env_, free_path({group, metadata.snapshot.last_included_index}));
  kept->family = family;
  kept->metadata = metadata;
  if (Result<void> done = put_away(*directory, kept); !done) return done.error();
  keep(kept);
  return metadata;
}

// The checkpoint, and what is to be known about its rows: one pass over them.
inline Result<void> SnapshotShelf::fill(const std::string& directory, rocksdb::DB& db,
                                        GroupId group, const std::string& family, const Sync& sync,
                                        const std::atomic<bool>& stop, SnapshotMetadata& metadata) {
  rocksdb::Checkpoint* maker = nullptr;
  rocksdb::Status status = rocksdb::Checkpoint::Create(&db, &maker);
  const std::unique_ptr<rocksdb::Checkpoint> checkpoint(maker);
  if (status.ok()) status = checkpoint->CreateCheckpoint(directory + "/checkpoint");
  if (!status.ok()) return failed("built", status);
  if (!sync()) return Error{"the storage has failed: no snapshot is built"};
  const auto opened = store_detail::OpenCheckpoint::open(env_, directory + "/checkpoint", family);
  if (!opened) return opened.error();
  const StoreMap map((*opened)->db(), (*opened)->family(), ReadFrom::kDisk);
  const Result<MachineState> state = detail::read_state(map, store_detail::state_key(group));
  if (!state) return state.error();
  store_detail::RowSum sum;
  const auto at = (*opened)->iterate();
  for (at->SeekToFirst(); at->Valid() && !stop; at->Next()) {
    sum.add(at->key().ToStringView(), at->value().ToStringView());
  }
  if (stop) return Error{"the node stops: no snapshot is built"};
  if (!at->status().ok()) return failed("read", at->status());
  sum.fill(metadata);
  metadata.snapshot = store_detail::snapshot_of(*state);
  metadata.created_at_ms =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                     std::chrono::system_clock::now().time_since_epoch())
                                     .count());
  return {};
}

// Everything in it durable first, then its name.
inline Result<void> SnapshotShelf::put_away(const std::string& directory, const Kept& kept) {
  using store_detail::sync_directory;
  const auto write = [&](const char* name, const std::string& content) {
    return rocksdb::WriteStringToFile(&env_, content, directory + "/" + name, /*sync=*/true);
  };
  rocksdb::Status status = write("family", kept->family);
  if (status.ok()) status = write("metadata", codec::encode(kept->metadata));
  if (status.ok()) status = sync_directory(env_, directory);
  if (status.ok()) status = env_.RenameFile(directory, kept->path);
  if (status.ok()) status = sync_directory(env_, path_);
  if (status.ok()) return {};
  store_detail::remove_tree(env_, directory).PermitUncheckedError();
  return failed("put away", status);
}

inline void SnapshotShelf::keep(const Kept& kept) {
  std::vector<Kept> old;  // goes after the lock: the last one to let go waits for the disk
  const std::lock_guard lock(mutex_);
  const GroupId group = kept->metadata.group;
  Kept& same = kept_[{group, kept->metadata.snapshot.last_included_index}];
  if (same != nullptr) same->doomed = true;
  old.push_back(std::exchange(same, kept));
  const auto last = std::prev(kept_.upper_bound({group, Index{UINT64_MAX}}));
  for (auto at = kept_.lower_bound({group, Index{}}); at != last;) {
    at->second->doomed = true;
    old.push_back(at->second);
    at = kept_.erase(at);
  }
}

inline std::optional<SnapshotMetadata> SnapshotShelf::newest(GroupId group) const {
  const std::lock_guard lock(mutex_);
  const auto behind = kept_.lower_bound({group + 1, Index{}});
  if (behind == kept_.begin() || std::prev(behind)->first.first != group) return std::nullopt;
  return std::prev(behind)->second->metadata;
}

inline Result<std::shared_ptr<SnapshotReader>> SnapshotShelf::read(GroupId group, Index index) {
  Kept kept;
  {
    const std::lock_guard lock(mutex_);
    const auto found = kept_.find({group, index});
    if (found != kept_.end()) kept = found->second;
  }
  if (kept == nullptr) {
    return Error{"there is no snapshot of group " + std::to_string(group.value) +
                 " as of its entry " + std::to_string(index.value) + " any more"};
  }
  auto checkpoint = store_detail::OpenCheckpoint::open(env_, kept->checkpoint(), kept->family);
  if (!checkpoint) return checkpoint.error();
  return std::shared_ptr<SnapshotReader>(
      std::make_shared<store_detail::CheckpointReader>(std::move(kept), std::move(*checkpoint)));
}

inline std::shared_ptr<const store_detail::KeptSnapshot> SnapshotShelf::take(GroupId group,
                                                                             Index index) {
  const std::lock_guard lock(mutex_);
  const auto found = kept_.find({group, index});
  if (found == kept_.end()) return nullptr;
  found->second->doomed = true;
  Kept kept = std::move(found->second);
  kept_.erase(found);
  return kept;
}

}  // namespace seshat

#endif  // SESHAT_STORE_SNAPSHOT_HPP
