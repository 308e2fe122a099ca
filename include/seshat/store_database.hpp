// seshat/store_database.hpp - a node's RocksDB, opened: whose it is, and that nothing promised is
// missing.
//
//   lock the directory ──> read the durable mark ──> look at the WAL ──> open ──> identity
//        ──> generations in force; drop the orphans
//
// Keeps:   what is refused stays as it is. An Error says what is wrong and what to do.
// Threads: open() and the destructor: one owner. After open() nothing here changes but through
//          RocksDB, which may be called from any thread; mark() to one at a time.
// Needs:   data_dir.hpp, durable_mark.hpp, wal_check.hpp, wal_room.hpp, store_generation.hpp,
//          store_log_cut.hpp, codec.hpp; RocksDB.
#ifndef SESHAT_STORE_DATABASE_HPP
#define SESHAT_STORE_DATABASE_HPP

#include <rocksdb/db.h>
#include <rocksdb/iterator.h>
#include <rocksdb/listener.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include "seshat/codec.hpp"
#include "seshat/data_dir.hpp"
#include "seshat/durable_mark.hpp"
#include "seshat/records.hpp"
#include "seshat/result.hpp"
#include "seshat/store_generation.hpp"
#include "seshat/store_log_cut.hpp"
#include "seshat/store_options.hpp"
#include "seshat/wal_check.hpp"
#include "seshat/wal_room.hpp"

namespace seshat {

class StoreDatabase {
 public:
  static constexpr const char* kIdentityKey = "identity";
  // The families that are not a state.
  static constexpr std::array<store_detail::Family, 5> kFixed{
      store_detail::kDefault, store_detail::kSystemLog, store_detail::kSystemState,
      store_detail::kDataLog, store_detail::kDataState};

  // What RocksDB's own threads (flush, compaction) could not do.
  using OnFailure = std::function<void(const std::string&)>;

  explicit StoreDatabase(StoreOptions options) : options_(std::move(options)) {
    if (options_.env == nullptr) options_.env = rocksdb::Env::Default();
  }
  StoreDatabase(const StoreDatabase&) = delete;
  StoreDatabase& operator=(const StoreDatabase&) = delete;
  ~StoreDatabase() { close(); }

  [[nodiscard]] Result<void> open(OnFailure on_failure);
  // Nothing of it may be used after this; its threads are gone.
  void close();

  [[nodiscard]] const StoreOptions& options() const { return options_; }
  [[nodiscard]] const std::string& path() const {  // as it was given, until it is open
    return dir_ ? dir_->path() : options_.data_dir;
  }
  [[nodiscard]] const DataDir& dir() const { return *dir_; }
  [[nodiscard]] bool is_open() const { return db_ != nullptr; }
  [[nodiscard]] rocksdb::DB& db() const { return *db_; }
  [[nodiscard]] DurableMark& mark() { return *mark_; }
  [[nodiscard]] const NodeIdentity& identity() const { return identity_; }
  // Not of the families of a state, which have generations.
  [[nodiscard]] rocksdb::ColumnFamilyHandle& family(store_detail::Family family) const {
    return *families_[family];
  }
  [[nodiscard]] std::vector<rocksdb::ColumnFamilyHandle*> fixed_families() const;
  // What `families` take: tables on disk, and what waits in memory to become one.
  [[nodiscard]] std::uint64_t size_bytes(
      const std::vector<rocksdb::ColumnFamilyHandle*>& families) const;
  [[nodiscard]] std::shared_ptr<LogFloor> floor(store_detail::Family log) const {
    return log == store_detail::kSystemLog ? system_floor_ : data_floor_;
  }
  // The family of a state that was found in force. To be taken once, and destroyed before the
  // database is.
  [[nodiscard]] rocksdb::ColumnFamilyHandle* take_generation(store_detail::Family family) {
    return std::exchange(families_[family], nullptr);
  }
  // A new family for a state: empty, and not in force. May be called by any thread, and waits for
  // the disk.
  [[nodiscard]] Result<rocksdb::ColumnFamilyHandle*> make_generation(store_detail::Family family);
  // Any thread. While families come and go nobody writes: with unordered_write, a batch looks for its
  // families without a lock of RocksDB's.
  [[nodiscard]] rocksdb::Status write(const rocksdb::WriteOptions& options,
                                      rocksdb::WriteBatch& batch) {
    const std::shared_lock lock(families_mutex_);
    return db_->Write(options, &batch);
  }
  void drop(rocksdb::ColumnFamilyHandle& family) {
    const std::unique_lock lock(families_mutex_);
    db_->DropColumnFamily(&family).PermitUncheckedError();
  }
  [[nodiscard]] const rocksdb::ColumnFamilyOptions& state_options(
      store_detail::Family family) const {
    return family == store_detail::kSystemData ? system_options_ : data_options_;
  }
  // Whether no group has a log, a vote or applied entries. Before any generation is taken.
  [[nodiscard]] bool holds_nothing() const;

  // What is wrong with this directory, as a sentence that names it.
  [[nodiscard]] Error refused(const std::string& why) const;
  [[nodiscard]] static std::string rebuild_advice(const std::string& path);

 private:
  class FailureListener final : public rocksdb::EventListener {
   public:
    explicit FailureListener(OnFailure on_failure) : on_failure_(std::move(on_failure)) {}
    void OnBackgroundError(rocksdb::BackgroundErrorReason, rocksdb::Status* error) override {
      // An echo of what another thread has met, and reports with its cause.
      if (error->ToString().find("previous error") != std::string::npos) return;
      on_failure_("the database could not write: " + error->ToString());
    }

   private:
    OnFailure on_failure_;
  };

  [[nodiscard]] Result<void> check_groups() const;
  [[nodiscard]] Result<void> open_dir();
  [[nodiscard]] Result<std::vector<rocksdb::ColumnFamilyDescriptor>> find_families(
      const rocksdb::DBOptions& options);
  [[nodiscard]] Result<void> check_promised(const rocksdb::DBOptions& options);
  [[nodiscard]] Result<void> open_rocksdb(const rocksdb::DBOptions& options);
  [[nodiscard]] Result<void> sort_families();
  [[nodiscard]] rocksdb::ColumnFamilyHandle* take(const std::string& name);
  [[nodiscard]] Result<void> drop_orphans();
  [[nodiscard]] Result<void> open_identity();
  [[nodiscard]] Result<void> make_identity();
  [[nodiscard]] Error missing(std::uint64_t found, const std::string& file) const;

  StoreOptions options_;
  std::optional<DataDir> dir_;
  std::optional<DurableMark> mark_;
  WalContinuity continuity_{WalContinuity::Mode::kReplay};  // the database points to it
  std::shared_ptr<LogFloor> system_floor_ = std::make_shared<LogFloor>();
  std::shared_ptr<LogFloor> data_floor_ = std::make_shared<LogFloor>();
  std::unique_ptr<rocksdb::Env> wal_env_;  // the database's
  std::unique_ptr<rocksdb::DB> db_;
  std::shared_mutex families_mutex_;
  std::array<rocksdb::ColumnFamilyHandle*, store_detail::kFamilyNames.size()> families_{};
  std::vector<rocksdb::ColumnFamilyHandle*> unused_;
  rocksdb::ColumnFamilyOptions system_options_;
  rocksdb::ColumnFamilyOptions data_options_;
  std::atomic<std::uint64_t> next_generation_{1};  // of any state
  NodeIdentity identity_;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline Result<void> StoreDatabase::open(OnFailure on_failure) {
  if (Result<void> known = check_groups(); !known) return known;
  if (Result<void> ours = open_dir(); !ours) return ours;
  rocksdb::DBOptions options = store_detail::database_options(options_);
  wal_env_ = env_with_wal_room(*options_.env);
  options.env = wal_env_.get();
  options.listeners.push_back(std::make_shared<FailureListener>(std::move(on_failure)));
  if (Result<void> whole = check_promised(options); !whole) return whole;
  if (Result<void> opened = open_rocksdb(options); !opened) return opened;
  return open_identity();
}

inline void StoreDatabase::close() {
  if (db_ == nullptr) return;
  unused_.insert(unused_.end(), families_.begin(), families_.end());
  for (rocksdb::ColumnFamilyHandle* family : unused_) {
    if (family != nullptr) db_->DestroyColumnFamilyHandle(family).PermitUncheckedError();
  }
  unused_.clear();
  db_->Close().PermitUncheckedError();
  db_.reset();
}

inline Result<void> StoreDatabase::check_groups() const {
  for (const GroupId group : options_.groups) {
    if (group <= kFirstDataGroup) continue;
    return Error{"group " + std::to_string(group.value) +
                 " can't be stored: this seshat keeps one data group, " +
                 std::to_string(kFirstDataGroup.value)};
  }
  return {};
}

inline Result<void> StoreDatabase::open_dir() {
  Result<DataDir> dir = DataDir::open(*options_.env, options_.data_dir);
  if (!dir) return dir.error();
  dir_.emplace(std::move(*dir));
  // The mark is made before the database.
  if (dir_->has_database() && options_.env->FileExists(dir_->durable_mark()).IsNotFound()) {
    return Error{dir_->durable_mark() + " is missing, and nothing else says how much of the data " +
                 "in " + dir_->path() + " was promised. " + rebuild_advice(dir_->path())};
  }
  Result<DurableMark> mark = DurableMark::open(*options_.env, dir_->durable_mark());
  if (!mark) return mark.error();
  mark_.emplace(std::move(*mark));
  return {};
}

inline Result<std::vector<rocksdb::ColumnFamilyDescriptor>> StoreDatabase::find_families(
    const rocksdb::DBOptions& options) {
  std::vector<std::string> existing;
  if (dir_->has_database()) {
    const rocksdb::Status status =
        rocksdb::DB::ListColumnFamilies(options, dir_->database(), &existing);
    if (!status.ok()) return refused(status.ToString());
  }
  auto descriptors = store_detail::families(options_, existing);
  for (rocksdb::ColumnFamilyDescriptor& descriptor : descriptors) {
    for (const store_detail::Family log : {store_detail::kSystemLog, store_detail::kDataLog}) {
      if (descriptor.name != store_detail::kFamilyNames[log]) continue;
      descriptor.options.compaction_filter_factory =
          std::make_shared<store_detail::BelowFloorFactory>(floor(log));
    }
    for (const store_detail::Family state : {store_detail::kSystemData, store_detail::kDataKv}) {
      const auto generation = store_detail::generation_of(descriptor.name, state);
      if (!generation) continue;
      (state == store_detail::kSystemData ? system_options_ : data_options_) = descriptor.options;
      if (*generation >= next_generation_) next_generation_ = *generation + 1;
    }
  }
  return descriptors;
}

// Nothing that was promised may be missing. Looks only, and changes nothing.
inline Result<void> StoreDatabase::check_promised(const rocksdb::DBOptions& options) {
  if (mark_->sequence() == 0) return {};  // nothing was promised: new, or not even made to the end
  if (!dir_->has_database()) return missing(0, dir_->database() + "/CURRENT");
  const auto families = find_families(options);
  if (!families) return families.error();
  const Result<WalFinding> finding = examine_wal(options, dir_->database(), *families);
  if (!finding) return refused(finding.error().text);
  if (finding->sequence < mark_->sequence()) return missing(finding->sequence, finding->file);
  continuity_.follow(finding->in_tables);
  return {};
}

inline std::string StoreDatabase::rebuild_advice(const std::string& path) {
  return "Move " + path +
         " away, remove the node from its cluster (seshat leave and its id), start it with an "
         "empty "
         "directory, and let it join again (seshat join): it copies everything from its peers";
}

inline Error StoreDatabase::missing(std::uint64_t found, const std::string& file) const {
  const std::string where = file.empty() ? dir_->database() : file;
  return Error{"synced data is missing or damaged: " + dir_->durable_mark() +
               " says that all changes up to " + std::to_string(mark_->sequence()) +
               " are on disk, but only those up to " + std::to_string(found) + " are there (" +
               where + "). The disk lost what it had promised to keep, so this node could break " +
               "promises of its own. " + rebuild_advice(path())};
}

inline Error StoreDatabase::refused(const std::string& why) const {
  return Error{path() + " can't be used: " + why};
}

inline Result<void> StoreDatabase::open_rocksdb(const rocksdb::DBOptions& options) {
  const auto descriptors = find_families(options);
  if (!descriptors) return descriptors.error();
  rocksdb::DBOptions with_filter = options;
  with_filter.wal_filter = &continuity_;
  with_filter.create_if_missing = true;
  with_filter.create_missing_column_families = true;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status =
      rocksdb::DB::Open(with_filter, dir_->database(), *descriptors, &unused_, &db);
  db_.reset(db);
  if (!status.ok()) return refused(status.ToString());
  if (Result<void> sorted = sort_families(); !sorted) return sorted;
  // Once more, of what was really replayed.
  const std::uint64_t found = db_->GetLatestSequenceNumber();
  if (found < mark_->sequence()) return missing(found, continuity_.file());
  return {};
}

inline Result<void> StoreDatabase::sort_families() {
  for (const store_detail::Family family : kFixed) {
    families_[family] = take(store_detail::kFamilyNames[family]);
  }
  for (const store_detail::Family family : {store_detail::kSystemData, store_detail::kDataKv}) {
    std::string name = store_detail::generation_name(family, 0);
    const rocksdb::Status status =
        db_->Get(rocksdb::ReadOptions(), store_detail::generation_key(family), &name);
    if (!status.ok() && !status.IsNotFound()) return refused(status.ToString());
    if (status.IsNotFound()) name = store_detail::generation_name(family, 0);
    families_[family] = take(name);
    if (families_[family] == nullptr) {
      return refused("the state in " + name + " is missing. " + rebuild_advice(path()));
    }
  }
  return drop_orphans();
}

inline rocksdb::ColumnFamilyHandle* StoreDatabase::take(const std::string& name) {
  const auto found = std::find_if(unused_.begin(), unused_.end(),
                                  [&](const auto* handle) { return handle->GetName() == name; });
  if (found == unused_.end()) return nullptr;
  rocksdb::ColumnFamilyHandle* handle = *found;
  unused_.erase(found);
  return handle;
}

// Generations that a crash left: filled and not in force yet, or not dropped yet.
inline Result<void> StoreDatabase::drop_orphans() {
  for (rocksdb::ColumnFamilyHandle* handle : unused_) {
    const rocksdb::Status status = db_->DropColumnFamily(handle);
    if (!status.ok()) return refused(handle->GetName() + " can't be dropped: " + status.ToString());
  }
  return {};
}

inline Result<rocksdb::ColumnFamilyHandle*> StoreDatabase::make_generation(
    store_detail::Family family) {
  const std::string name = store_detail::generation_name(family, next_generation_.fetch_add(1));
  rocksdb::ColumnFamilyHandle* handle = nullptr;
  const std::unique_lock lock(families_mutex_);
  const rocksdb::Status status = db_->CreateColumnFamily(state_options(family), name, &handle);
  if (!status.ok()) return Error{name + " can't be made: " + status.ToString()};
  return handle;
}

inline Result<void> StoreDatabase::open_identity() {
  std::string bytes;
  const rocksdb::Status status = db_->Get(rocksdb::ReadOptions(), kIdentityKey, &bytes);
  if (status.IsNotFound()) return make_identity();
  if (!status.ok()) return refused("its identity can't be read: " + status.ToString());
  Result<NodeIdentity> found = codec::decode_identity(bytes);
  if (!found) return refused(found.error().text);
  if (found->id != options_.node_id) {
    const std::string theirs = std::to_string(found->id.value);
    return Error{path() + " belongs to node " + theirs + ", but this node is " +
                 std::to_string(options_.node_id.value) +
                 ": give each node its own data directory, or start this one as node " + theirs};
  }
  identity_ = std::move(*found);
  return {};
}

// The incarnation tells this directory from any other that the same node had or will have.
inline Result<void> StoreDatabase::make_identity() {
  if (db_->GetLatestSequenceNumber() != 0) return refused("it holds data, but not whose they are");
  std::random_device random;
  identity_.id = options_.node_id;
  while (identity_.incarnation == 0) {
    identity_.incarnation = std::uint64_t{random()} << 32 | random();
  }
  // No other thread writes yet, so that this one may wait for its own sync.
  rocksdb::WriteOptions synced;
  synced.sync = true;
  const rocksdb::Status status = db_->Put(synced, kIdentityKey, codec::encode(identity_));
  if (!status.ok()) return refused("it can't be written: " + status.ToString());
  if (Result<void> advanced = mark_->advance(db_->GetLatestSequenceNumber()); !advanced) {
    return advanced;
  }
  return mark_->sync();
}

inline std::vector<rocksdb::ColumnFamilyHandle*> StoreDatabase::fixed_families() const {
  std::vector<rocksdb::ColumnFamilyHandle*> families;
  families.reserve(kFixed.size());
  for (const store_detail::Family family : kFixed) families.push_back(families_[family]);
  return families;
}

inline std::uint64_t StoreDatabase::size_bytes(
    const std::vector<rocksdb::ColumnFamilyHandle*>& families) const {
  std::uint64_t size_bytes = 0;
  for (rocksdb::ColumnFamilyHandle* family : families) {
    for (const std::string* property : {&rocksdb::DB::Properties::kLiveSstFilesSize,
                                        &rocksdb::DB::Properties::kSizeAllMemTables}) {
      std::uint64_t part_bytes = 0;
      if (db_->GetIntProperty(family, *property, &part_bytes)) size_bytes += part_bytes;
    }
  }
  return size_bytes;
}

// All families but the one with the identity; those of a group that was not asked for count too.
// First those that hold something soonest: a log may begin with much that is as good as gone.
inline bool StoreDatabase::holds_nothing() const {
  for (const store_detail::Family family :
       {store_detail::kSystemState, store_detail::kDataState, store_detail::kSystemData,
        store_detail::kDataKv, store_detail::kSystemLog, store_detail::kDataLog}) {
    const std::unique_ptr<rocksdb::Iterator> at(
        db_->NewIterator(rocksdb::ReadOptions(), families_[family]));
    at->SeekToFirst();
    if (at->Valid() || !at->status().ok()) return false;
  }
  return true;
}

}  // namespace seshat

#endif  // SESHAT_STORE_DATABASE_HPP
