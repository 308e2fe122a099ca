// seshat/store_log.hpp - one group's Raft log and hard state in RocksDB.
//
//   family of the log     log:00000000000000000042   VersionedLogEntry
//   family of the state   state                      RaftHardState
//                         base                       VersionedLogEntry: the last entry that was cut
//                                                    off, without its data; absent: none was
//
//   │ cut off: as good as gone │ base │ first_index() ... last_index() │
//
// An index below the base never counts again, so that nothing is deleted with a cut: it is one
// small record, and store_log_cut.hpp tells how the bytes go later. The base knows its term: with
// an empty log behind it, after a snapshot, it is the log's last term.
//
// Threads: add(), cut() and restart() belong to the thread that writes; reading may happen anywhere,
//          and of what is applied (it never changes) also beside a write or a cut.
// Needs:   store_log_cut.hpp, store_log_size.hpp, codec.hpp, result.hpp; RocksDB.
#ifndef SESHAT_STORE_LOG_HPP
#define SESHAT_STORE_LOG_HPP

#include <rocksdb/db.h>
#include <rocksdb/iterator.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/codec.hpp"
#include "seshat/raft.hpp"
#include "seshat/result.hpp"
#include "seshat/store_log_cut.hpp"
#include "seshat/store_log_size.hpp"

namespace seshat {

class StoreLog {
 public:
  struct Fetched {
    Term prev_log_term;
    std::vector<raft::Entry> entries;
  };

  // The last entry that is not part of the log any more; all zero before the first cut.
  struct Base {
    Index index;
    Term term;
  };

  StoreLog(rocksdb::DB& db, rocksdb::ColumnFamilyHandle& log, rocksdb::ColumnFamilyHandle& state,
           std::shared_ptr<LogFloor> floor)
      : db_(db), log_(log), state_(state), floor_(std::move(floor)) {}

  // Finds the ends of the log. Before anything else.
  [[nodiscard]] Result<void> load();
  [[nodiscard]] Index first_index() const { return base().index + 1; }
  [[nodiscard]] Index last_index() const {  // first_index() - 1: empty
    const std::lock_guard lock(mutex_);
    return last_index_;
  }
  // Of its entries, roughly.
  [[nodiscard]] std::uint64_t size_bytes() const {
    const std::lock_guard lock(mutex_);
    return size_.size_bytes();
  }
  // Where to cut so that about `keep_size_bytes` remain.
  [[nodiscard]] Index cut_point(std::uint64_t keep_size_bytes) const {
    const std::lock_guard lock(mutex_);
    return size_.cut_point(keep_size_bytes);
  }
  // Of its entries up to and including `last`, roughly.
  [[nodiscard]] std::uint64_t size_until(Index last) const {
    const std::lock_guard lock(mutex_);
    return size_.size_until(last);
  }

  // Adds `write` to `batch`, what it replaces included. The batch must then be written: the end of
  // the log moves at once.
  [[nodiscard]] rocksdb::Status add(const raft::Write& write, rocksdb::WriteBatch& batch);
  // Adds to `batch` that `to` and all before it is gone. The front of the log moves at once; the
  // entries leave the disk after cut_is_durable(). False: there is nothing to cut.
  [[nodiscard]] Result<bool> cut(Index to, rocksdb::WriteBatch& batch);
  // Adds to `batch` that all entries are gone, and the next one follows `base`.
  [[nodiscard]] rocksdb::Status restart(Base base, rocksdb::WriteBatch& batch);
  // Allows the entries below `first` to go.
  void cut_is_durable(Index first) { floor_->raise(key_of(first).slice().ToString()); }
  // Lets go what is allowed to; waits for the disk.
  void reclaim(std::uint64_t worth_compacting_bytes) {
    store_detail::reclaim(db_, log_, floor_->key(), worth_compacting_bytes);
  }

  [[nodiscard]] Result<std::optional<raft::HardState>> hard_state() const;
  // What Raft needs in memory: all that follows `applied`, and up to `tail_size_bytes` of what
  // comes before, for followers that are a little behind.
  [[nodiscard]] Result<raft::Restored> restore(Index applied, std::size_t tail_size_bytes) const;
  // Entries from `fetch.from` on, within the bounds of `fetch`, and the term before them. No entries
  // if the log does not reach back that far any more.
  [[nodiscard]] Result<Fetched> read(const raft::Fetch& fetch) const;

 private:
  static constexpr std::string_view kPrefix = "log:";
  static constexpr const char* kStateKey = "state";
  static constexpr const char* kBaseKey = "base";
  static constexpr std::size_t kDigits = 20;
  static constexpr std::size_t kSizedParts = 64;  // of a log that was found at the start

  struct Key {
    std::array<char, kPrefix.size() + kDigits> bytes;
    [[nodiscard]] rocksdb::Slice slice() const { return {bytes.data(), bytes.size()}; }
  };
  [[nodiscard]] static Key key_of(Index index);
  [[nodiscard]] static std::optional<Index> index_of(rocksdb::Slice key);
  [[nodiscard]] Base base() const {
    const std::lock_guard lock(mutex_);
    return base_;
  }
  [[nodiscard]] Result<void> load_base();
  void load_size();
  [[nodiscard]] rocksdb::Status put_base(Base base, rocksdb::WriteBatch& batch);
  [[nodiscard]] std::unique_ptr<rocksdb::Iterator> iterate() const;
  [[nodiscard]] Result<std::optional<raft::Entry>> entry(Index index) const;
  [[nodiscard]] Result<Term> term_of(Index index) const;
  [[nodiscard]] Result<Fetched> read_from(const raft::Fetch& fetch) const;
  [[nodiscard]] static Result<raft::Entry> entry_at(const rocksdb::Iterator& at, Index expected);
  [[nodiscard]] Result<Index> tail_before(Index applied, std::size_t size_bytes) const;

  rocksdb::DB& db_;
  rocksdb::ColumnFamilyHandle& log_;
  rocksdb::ColumnFamilyHandle& state_;
  std::shared_ptr<LogFloor> floor_;
  mutable std::mutex mutex_;  // guards the three below it; only the thread that writes changes them
  Base base_;
  Index last_index_;
  LogSize size_;
  std::string scratch_;
};

// =================================================================================================
// Bodies
// =================================================================================================

// Numbers of a fixed width: in the order of the keys, entries stand in the order of their indexes.
inline StoreLog::Key StoreLog::key_of(Index index) {
  Key key;
  std::copy(kPrefix.begin(), kPrefix.end(), key.bytes.begin());
  std::uint64_t left = index.value;
  for (std::size_t at = key.bytes.size(); at > kPrefix.size(); left /= 10) {
    key.bytes[--at] = static_cast<char>('0' + left % 10);
  }
  return key;
}

inline std::optional<Index> StoreLog::index_of(rocksdb::Slice key) {
  const std::string_view text(key.data(), key.size());
  if (text.size() != kPrefix.size() + kDigits || !text.starts_with(kPrefix)) return std::nullopt;
  Index index;
  for (const char digit : text.substr(kPrefix.size())) {
    if (digit < '0' || digit > '9') return std::nullopt;
    index.value = index.value * 10 + static_cast<unsigned char>(digit - '0');
  }
  return index;
}

// Scans leave the block cache to what clients read.
inline std::unique_ptr<rocksdb::Iterator> StoreLog::iterate() const {
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  options.total_order_seek = true;
  return std::unique_ptr<rocksdb::Iterator>(db_.NewIterator(options, &log_));
}

inline Result<void> StoreLog::load() {
  if (Result<void> found = load_base(); !found) return found;
  last_index_ = base_.index;
  const auto at = iterate();
  at->Seek(key_of(base_.index + 1).slice());
  if (!at->status().ok()) return Error{"the log can't be read: " + at->status().ToString()};
  if (at->Valid()) {
    const std::optional<Index> first = index_of(at->key());
    at->SeekToLast();
    if (!at->status().ok()) return Error{"the log can't be read: " + at->status().ToString()};
    const std::optional<Index> last = index_of(at->key());
    if (!first || !last) return Error{"the log holds a key that is not a log entry's"};
    if (*first != base_.index + 1) {
      return Error{"the log begins at entry " + std::to_string(first->value) +
                   ": what comes before is missing"};
    }
    last_index_ = *last;
  }
  load_size();
  cut_is_durable(base_.index + 1);  // it was read from the disk
  return {};
}

inline Result<void> StoreLog::load_base() {
  std::string bytes;
  const rocksdb::Status status = db_.Get(rocksdb::ReadOptions(), &state_, kBaseKey, &bytes);
  if (status.IsNotFound()) return {};
  if (!status.ok()) return Error{"the log's base can't be read: " + status.ToString()};
  Result<raft::Entry> base = codec::decode_entry(bytes);
  if (!base) return Error{"the log's base: " + base.error().text};
  base_ = {base->index, base->term};
  return {};
}

// From what the tables say about parts of the log, without reading entries.
inline void StoreLog::load_size() {
  size_ = LogSize(base_.index);
  const std::uint64_t count = last_index_ - base_.index;
  const std::uint64_t parts = std::min<std::uint64_t>(count, kSizedParts);
  rocksdb::SizeApproximationOptions options;
  options.include_files = options.include_memtables = true;
  Index from = base_.index;
  for (std::uint64_t part = 1; part <= parts; ++part) {
    const Index to = base_.index + count / parts * part + count % parts * part / parts;
    const Key begin = key_of(from + 1);
    const Key end = key_of(to + 1);
    const rocksdb::Range range{begin.slice(), end.slice()};
    std::uint64_t size_bytes = 0;
    db_.GetApproximateSizes(options, &log_, &range, 1, &size_bytes).PermitUncheckedError();
    size_.add(to, size_bytes);
    from = to;
  }
}

inline rocksdb::Status StoreLog::add(const raft::Write& write, rocksdb::WriteBatch& batch) {
  rocksdb::Status status;
  if (!write.entries.empty()) {
    const Index from = write.entries.front().index;
    raft::require(from > base_.index && from <= last_index_ + 1, "a write would leave a hole");
    const std::lock_guard lock(mutex_);
    size_.truncate(from - 1);
  }
  for (const raft::Entry& entry : write.entries) {
    scratch_.clear();
    codec::encode(entry, scratch_);
    status = batch.Put(&log_, key_of(entry.index).slice(), scratch_);
    if (!status.ok()) return status;
    const std::lock_guard lock(mutex_);
    size_.add(entry.index, kPrefix.size() + kDigits + scratch_.size());
  }
  if (!write.entries.empty()) {
    const Index to = write.entries.back().index;
    // Conflicts are rare and short, and a range tombstone would slow every later read of the log:
    // so each entry is deleted by itself.
    for (Index old = to + 1; old <= last_index_; ++old) {
      status = batch.Delete(&log_, key_of(old).slice());
      if (!status.ok()) return status;
    }
    const std::lock_guard lock(mutex_);
    last_index_ = to;
  }
  if (write.hard_state) status = batch.Put(&state_, kStateKey, codec::encode(*write.hard_state));
  return status;
}

inline Result<bool> StoreLog::cut(Index to, rocksdb::WriteBatch& batch) {
  to = std::min(to, last_index_);
  if (to <= base_.index) return false;
  const Result<Term> term = term_of(to);
  if (!term) return term.error();
  const Base base{to, *term};
  if (const rocksdb::Status status = put_base(base, batch); !status.ok()) {
    return Error{"the log's base can't be written: " + status.ToString()};
  }
  const std::lock_guard lock(mutex_);
  base_ = base;
  size_.cut(to);
  return true;
}

// Once for each snapshot that is installed: so rare that a range tombstone is no burden.
inline rocksdb::Status StoreLog::restart(Base base, rocksdb::WriteBatch& batch) {
  rocksdb::Status status = put_base(base, batch);
  if (status.ok() && last_index_ > base.index) {
    status =
        batch.DeleteRange(&log_, key_of(base.index + 1).slice(), key_of(last_index_ + 1).slice());
  }
  const std::lock_guard lock(mutex_);
  base_ = base;
  last_index_ = base.index;
  size_ = LogSize(base.index);
  return status;
}

inline rocksdb::Status StoreLog::put_base(Base base, rocksdb::WriteBatch& batch) {
  std::string bytes;
  codec::encode(raft::Entry{base.term, base.index, raft::EntryType::kNoOp, nullptr}, bytes);
  return batch.Put(&state_, kBaseKey, bytes);
}

inline Result<std::optional<raft::HardState>> StoreLog::hard_state() const {
  std::string bytes;
  const rocksdb::Status status = db_.Get(rocksdb::ReadOptions(), &state_, kStateKey, &bytes);
  if (status.IsNotFound()) return std::optional<raft::HardState>{};
  if (!status.ok()) return Error{"term and vote can't be read: " + status.ToString()};
  Result<raft::HardState> state = codec::decode_hard_state(bytes);
  if (!state) return state.error();
  return std::optional<raft::HardState>{*state};
}

inline Result<std::optional<raft::Entry>> StoreLog::entry(Index index) const {
  std::string bytes;
  const rocksdb::Status status =
      db_.Get(rocksdb::ReadOptions(), &log_, key_of(index).slice(), &bytes);
  if (status.IsNotFound()) return std::optional<raft::Entry>{};
  const std::string name = "log entry " + std::to_string(index.value);
  if (!status.ok()) return Error{name + " can't be read: " + status.ToString()};
  Result<raft::Entry> entry = codec::decode_entry(bytes);
  if (!entry) return Error{name + ": " + entry.error().text};
  if (entry->index != index) return Error{name + " is damaged: it names another index"};
  return std::optional<raft::Entry>{std::move(*entry)};
}

inline Result<Term> StoreLog::term_of(Index index) const {
  if (const Base at = base(); index == at.index) return at.term;
  const Result<std::optional<raft::Entry>> found = entry(index);
  if (!found) return found.error();
  if (!*found) return Error{"log entry " + std::to_string(index.value) + " is missing"};
  return (*found)->term;
}

inline Result<raft::Entry> StoreLog::entry_at(const rocksdb::Iterator& at, Index expected) {
  const std::string name = "log entry " + std::to_string(expected.value);
  if (!at.status().ok()) return Error{name + " can't be read: " + at.status().ToString()};
  if (!at.Valid() || index_of(at.key()) != expected) return Error{name + " is missing"};
  const rocksdb::Slice value = at.value();
  Result<raft::Entry> entry = codec::decode_entry(std::string_view(value.data(), value.size()));
  if (!entry) return Error{name + ": " + entry.error().text};
  if (entry->index != expected) return Error{name + " is damaged: it names another index"};
  return entry;
}

// The first index of a piece of the log that ends with `applied` and is about `size_bytes` long.
inline Result<Index> StoreLog::tail_before(Index applied, std::size_t size_bytes) const {
  Index from = applied + 1;
  std::size_t gathered_bytes = 0;
  const auto at = iterate();
  at->SeekForPrev(key_of(applied).slice());
  for (; from > base_.index + 1 && at->Valid() && index_of(at->key()) == from - 1; at->Prev()) {
    gathered_bytes += at->value().size();
    if (gathered_bytes > size_bytes) break;
    from = from - 1;
  }
  if (!at->status().ok()) return Error{"the log can't be read: " + at->status().ToString()};
  return from;
}

inline Result<raft::Restored> StoreLog::restore(Index applied, std::size_t tail_size_bytes) const {
  raft::Restored restored;
  restored.applied_index = applied;
  if (applied > last_index_) {
    return Error{"the state machine has applied entry " + std::to_string(applied.value) +
                 ", but the log ends at " + std::to_string(last_index_.value)};
  }
  if (applied < base_.index) {
    return Error{"the log begins at entry " + std::to_string(base_.index.value + 1) +
                 ", but the state machine has applied only entry " + std::to_string(applied.value)};
  }
  const Result<Index> from = tail_before(applied, tail_size_bytes);
  if (!from) return from.error();
  restored.first_index = base_.index + 1;
  restored.base_index = *from - 1;
  const Result<Term> base_term = term_of(restored.base_index);
  if (!base_term) return base_term.error();
  restored.base_term = *base_term;
  const auto at = iterate();
  at->Seek(key_of(*from).slice());
  for (Index index = *from; index <= last_index_; ++index, at->Next()) {
    Result<raft::Entry> entry = entry_at(*at, index);
    if (!entry) return entry.error();
    restored.entries.push_back(std::move(*entry));
  }
  return restored;
}

inline Result<StoreLog::Fetched> StoreLog::read(const raft::Fetch& fetch) const {
  if (fetch.from < first_index()) return Fetched{};
  Result<Fetched> fetched = read_from(fetch);
  // What was cut off while it was read is not missing.
  if (!fetched && fetch.from < first_index()) return Fetched{};
  return fetched;
}

inline Result<StoreLog::Fetched> StoreLog::read_from(const raft::Fetch& fetch) const {
  Fetched fetched;
  const Result<Term> prev_log_term = term_of(fetch.from - 1);
  if (!prev_log_term) return prev_log_term.error();
  fetched.prev_log_term = *prev_log_term;
  std::size_t size_bytes = 0;
  const auto at = iterate();
  at->Seek(key_of(fetch.from).slice());
  for (Index index = fetch.from; index <= fetch.to; ++index, at->Next()) {
    Result<raft::Entry> entry = entry_at(*at, index);
    if (!entry) return entry.error();
    size_bytes += entry->size_bytes();
    if (size_bytes > fetch.max_size_bytes && !fetched.entries.empty()) break;
    fetched.entries.push_back(std::move(*entry));
  }
  return fetched;
}

}  // namespace seshat

#endif  // SESHAT_STORE_LOG_HPP
