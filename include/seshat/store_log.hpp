// seshat/store_log.hpp - one group's Raft log and hard state in RocksDB.
//
//   family of the log     log:00000000000000000042   VersionedLogEntry
//   family of the state   state                      RaftHardState
//
// Threads: add() belongs to the thread that writes; reading may happen anywhere, and of what is
//          applied (it never changes) also beside a write.
// Needs:   codec.hpp, result.hpp; RocksDB.
#ifndef SESHAT_STORE_LOG_HPP
#define SESHAT_STORE_LOG_HPP

#include <rocksdb/db.h>
#include <rocksdb/iterator.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/codec.hpp"
#include "seshat/raft.hpp"
#include "seshat/result.hpp"

namespace seshat {

class StoreLog {
 public:
  struct Fetched {
    Term prev_log_term;
    std::vector<raft::Entry> entries;
  };

  StoreLog() = default;
  StoreLog(rocksdb::DB& db, rocksdb::ColumnFamilyHandle& log, rocksdb::ColumnFamilyHandle& state)
      : db_(&db), log_(&log), state_(&state) {}

  // Finds the ends of the log. Before anything else.
  [[nodiscard]] Result<void> load();
  [[nodiscard]] Index first_index() const { return first_index_; }  // 1 until the log is cut
  [[nodiscard]] Index last_index() const { return last_index_; }    // 0: empty

  // Adds `write` to `batch`, what it replaces included. The batch must then be written: the end of
  // the log moves at once.
  [[nodiscard]] rocksdb::Status add(const raft::Write& write, rocksdb::WriteBatch& batch);

  [[nodiscard]] Result<std::optional<raft::HardState>> hard_state() const;
  // What Raft needs in memory: all that follows `applied`, and up to `tail_size_bytes` of what
  // comes before, for followers that are a little behind.
  [[nodiscard]] Result<raft::Restored> restore(Index applied, std::size_t tail_size_bytes) const;
  // Entries from `fetch.from` on, within the bounds of `fetch`, and the term before them. No entries
  // if the log does not reach back that far any more.
  [[nodiscard]] Result<Fetched> read(const raft::Fetch& fetch) const;

 private:
  static constexpr std::string_view kPrefix = "log:";
  static constexpr std::string_view kStateKey = "state";
  static constexpr std::size_t kDigits = 20;

  [[nodiscard]] static std::string key_of(Index index);
  [[nodiscard]] static std::optional<Index> index_of(rocksdb::Slice key);
  [[nodiscard]] std::unique_ptr<rocksdb::Iterator> iterate() const;
  [[nodiscard]] Result<std::optional<raft::Entry>> entry(Index index) const;
  [[nodiscard]] static Result<raft::Entry> entry_at(const rocksdb::Iterator& at, Index expected);
  [[nodiscard]] Result<Index> tail_before(Index applied, std::size_t size_bytes) const;

  rocksdb::DB* db_ = nullptr;
  rocksdb::ColumnFamilyHandle* log_ = nullptr;
  rocksdb::ColumnFamilyHandle* state_ = nullptr;
  Index first_index_{1};
  Index last_index_;
  std::string scratch_;
};

// =================================================================================================
// Bodies
// =================================================================================================

// Numbers of a fixed width: in the order of the keys, entries stand in the order of their indexes.
inline std::string StoreLog::key_of(Index index) {
  const std::string digits = std::to_string(index.value);
  std::string key(kPrefix);
  key.append(kDigits - digits.size(), '0').append(digits);
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
  return std::unique_ptr<rocksdb::Iterator>(db_->NewIterator(options, log_));
}

inline Result<void> StoreLog::load() {
  const auto at = iterate();
  at->SeekToFirst();
  if (!at->status().ok()) return Error{"the log can't be read: " + at->status().ToString()};
  if (!at->Valid()) return {};
  const std::optional<Index> first = index_of(at->key());
  at->SeekToLast();
  if (!at->status().ok()) return Error{"the log can't be read: " + at->status().ToString()};
  const std::optional<Index> last = index_of(at->key());
  if (!first || !last) return Error{"the log holds a key that is not a log entry's"};
  first_index_ = *first;
  last_index_ = *last;
  if (first_index_ != Index{1}) {  // nothing cuts logs yet
    return Error{"the log begins at entry " + std::to_string(first_index_.value) +
                 ": what comes before is missing"};
  }
  return {};
}

inline rocksdb::Status StoreLog::add(const raft::Write& write, rocksdb::WriteBatch& batch) {
  rocksdb::Status status;
  for (const raft::Entry& entry : write.entries) {
    scratch_.clear();
    codec::encode(entry, scratch_);
    status = batch.Put(log_, key_of(entry.index), scratch_);
    if (!status.ok()) return status;
  }
  if (!write.entries.empty()) {
    const Index from = write.entries.front().index;
    const Index to = write.entries.back().index;
    raft::require(from >= first_index_ && from <= last_index_ + 1, "a write would leave a hole");
    // Conflicts are rare and short, and a range tombstone would slow every later read of the log:
    // so each entry is deleted by itself.
    for (Index old = to + 1; old <= last_index_; ++old) {
      status = batch.Delete(log_, key_of(old));
      if (!status.ok()) return status;
    }
    last_index_ = to;
  }
  if (write.hard_state) {
    status = batch.Put(state_, rocksdb::Slice(kStateKey.data(), kStateKey.size()),
                       codec::encode(*write.hard_state));
  }
  return status;
}

inline Result<std::optional<raft::HardState>> StoreLog::hard_state() const {
  std::string bytes;
  const rocksdb::Status status = db_->Get(
      rocksdb::ReadOptions(), state_, rocksdb::Slice(kStateKey.data(), kStateKey.size()), &bytes);
  if (status.IsNotFound()) return std::optional<raft::HardState>{};
  if (!status.ok()) return Error{"term and vote can't be read: " + status.ToString()};
  Result<raft::HardState> state = codec::decode_hard_state(bytes);
  if (!state) return state.error();
  return std::optional<raft::HardState>{*state};
}

inline Result<std::optional<raft::Entry>> StoreLog::entry(Index index) const {
  std::string bytes;
  const rocksdb::Status status = db_->Get(rocksdb::ReadOptions(), log_, key_of(index), &bytes);
  if (status.IsNotFound()) return std::optional<raft::Entry>{};
  const std::string name = "log entry " + std::to_string(index.value);
  if (!status.ok()) return Error{name + " can't be read: " + status.ToString()};
  Result<raft::Entry> entry = codec::decode_entry(bytes);
  if (!entry) return Error{name + ": " + entry.error().text};
  if (entry->index != index) return Error{name + " is damaged: it names another index"};
  return std::optional<raft::Entry>{std::move(*entry)};
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
  at->SeekForPrev(key_of(applied));
  for (; at->Valid() && index_of(at->key()) == from - 1; at->Prev()) {
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
  const Result<Index> from = tail_before(applied, tail_size_bytes);
  if (!from) return from.error();
  restored.base_index = *from - 1;
  if (restored.base_index != Index{}) {
    const Result<std::optional<raft::Entry>> base = entry(restored.base_index);
    if (!base) return base.error();
    if (!*base) return Error{"log entry " + std::to_string(from->value - 1) + " is missing"};
    restored.base_term = (*base)->term;
  }
  const auto at = iterate();
  at->Seek(key_of(*from));
  for (Index index = *from; index <= last_index_; ++index, at->Next()) {
    Result<raft::Entry> entry = entry_at(*at, index);
    if (!entry) return entry.error();
    restored.entries.push_back(std::move(*entry));
  }
  return restored;
}

inline Result<StoreLog::Fetched> StoreLog::read(const raft::Fetch& fetch) const {
  if (fetch.from < first_index_) return Fetched{};
  Fetched fetched;
  const Index prev = fetch.from - 1;
  if (prev != Index{}) {
    const Result<std::optional<raft::Entry>> before = entry(prev);
    if (!before) return before.error();
    if (!*before) return Error{"log entry " + std::to_string(prev.value) + " is missing"};
    fetched.prev_log_term = (*before)->term;
  }
  std::size_t size_bytes = 0;
  const auto at = iterate();
  at->Seek(key_of(fetch.from));
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
