// seshat/store_writer.hpp - moves what was applied from the buffers to RocksDB.
//
//   applied: 1 ... written ... applied        after a crash: from `written` on, once more
//                          └── in the buffer, for interval_ms or limit_bytes ──> one batch, in order
//
// A batch holds all that changed up to an applied index, and that index: whatever of it a crash
// leaves is whole. It is written on a thread of its own, beside the storage thread's log writes.
//
// Threads: note_applied(): whoever applies. begin_due(), make_room() and finish(): the storage
//          thread. write_out(): any other. give_up(): any. start() and stop(): the owner. write_now():
//          whoever alone applies no more, after finish(). The callbacks: any of them.
// Needs:   store_database.hpp, store_group.hpp, store_buffer.hpp, work_pool.hpp; RocksDB.
#ifndef SESHAT_STORE_WRITER_HPP
#define SESHAT_STORE_WRITER_HPP

#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/row_table.hpp"
#include "seshat/store_buffer.hpp"
#include "seshat/store_database.hpp"
#include "seshat/store_generation.hpp"
#include "seshat/store_group.hpp"
#include "seshat/store_map.hpp"
#include "seshat/work_pool.hpp"

namespace seshat {

class StoreWriter {
 public:
  using Clock = std::chrono::steady_clock;
  struct Options {
    std::uint64_t interval_ms = 0;  // how long a change waits for others: half of it more, or less
    std::size_t limit_bytes = 0;    // of changes: so many do not wait for the interval
  };
  struct Callbacks {
    std::function<void()> ask;  // begin_due() is to be called
    // Some group's `written` moved on.
    std::function<void(std::size_t rows)> on_written;
    std::function<void(const rocksdb::Status&)> on_failed;
  };
  static constexpr std::chrono::hours kNever{24};

  void start(Options options, Callbacks callbacks) {
    options_ = options;
    callbacks_ = std::move(callbacks);
    pool_.start(1, "seshat-writer");
  }
  // Writes what was begun.
  void stop() { pool_.stop(); }

  // `group` has just applied.
  void note_applied(StoreGroup& group);
  // What `group` has applied is due now. Any thread.
  void ask(StoreGroup& group);
  // Whether so much waits that whoever applies has to wait, too: for a disk that is slower than the
  // clients.
  [[nodiscard]] bool is_full(const StoreGroup& group) const {
    return group.data.now()->buffer().size_bytes() >= kPatience * options_.limit_bytes;
  }
  void make_room(StoreDatabase& database, StoreGroup& group);
  // Begins to write what has waited long enough. Gives when to call again, at the latest.
  [[nodiscard]] Clock::time_point begin_due(StoreDatabase& database,
                                            std::deque<StoreGroup>& groups);
  // Waits until nothing of `group` is being written.
  void finish(const StoreGroup& group);
  // Waits until all that `group` has applied by now is written. False: the writer gave up.
  [[nodiscard]] bool write_out(StoreGroup& group);
  // A snapshot was put in force: there is nothing to write up to `index`.
  void set_written(StoreGroup& group, Index index);
  // Whoever waits, waits no longer: the store has failed, or ends.
  void give_up();
  [[nodiscard]] rocksdb::Status write_now(StoreDatabase& database, StoreGroup& group);

  // When, from now on, what has `waited` is due: once in each interval, and on each node at a time of
  // its own in it, by the `wall` clock that nodes have in common. All have the same to write, and while
  // one of them does, the others are a majority. Negative: it is over.
  [[nodiscard]] static std::chrono::nanoseconds time_left(std::chrono::nanoseconds waited,
                                                          std::chrono::nanoseconds interval,
                                                          std::chrono::nanoseconds wall,
                                                          NodeId node);

 private:
  // So many times the limit may gather while the batch before is written.
  static constexpr std::size_t kPatience = 4;
  static constexpr std::size_t kRowHeadBytes = 16;  // in a batch, at most

  [[nodiscard]] static std::int64_t now_ns();
  void begin(StoreDatabase& database, StoreGroup& group);
  void write(StoreDatabase& database, StoreGroup& group, const StoreGeneration& generation,
             const StoreBuffer::Frozen& frozen);
  [[nodiscard]] static std::uint64_t sort_prefix(std::string_view key);
  // What is written is found below the buffer from then on, and `rows` are gone.
  [[nodiscard]] static rocksdb::Status put(StoreDatabase& database,
                                           const StoreGeneration& generation,
                                           const StoreBuffer::Frozen& frozen);

  Options options_;
  Callbacks callbacks_;
  std::mutex mutex_;  // guards the two below it, and each group's `writing`
  std::condition_variable changed_;
  bool gave_up_ = false;
  WorkPool pool_;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline std::int64_t StoreWriter::now_ns() {
  return std::chrono::nanoseconds(Clock::now().time_since_epoch()).count();
}

inline void StoreWriter::note_applied(StoreGroup& group) {
  bool due = false;
  if (group.unwritten_since_ns == 0) {
    group.unwritten_since_ns = now_ns();
    due = true;  // it has to be known when
  }
  if (due) callbacks_.ask();
  if (group.data.now()->buffer().size_bytes() >= options_.limit_bytes) ask(group);
}

inline void StoreWriter::ask(StoreGroup& group) {
  if (!group.write_asked.exchange(true)) callbacks_.ask();
}

inline void StoreWriter::make_room(StoreDatabase& database, StoreGroup& group) {
  if (!is_full(group)) return;
  finish(group);
  begin(database, group);
}

// The system group changes rarely, and what it says is asked for before a log is replayed.
inline StoreWriter::Clock::time_point StoreWriter::begin_due(StoreDatabase& database,
                                                             std::deque<StoreGroup>& groups) {
  const Clock::time_point now = Clock::now();
  Clock::time_point next = now + kNever;
  for (StoreGroup& group : groups) {
    const std::int64_t since_ns = group.unwritten_since_ns;
    if (since_ns == 0) continue;
    const bool at_once = group.id == kSystemGroup || group.write_asked;
    const Clock::time_point since{std::chrono::nanoseconds(since_ns)};
    const Clock::time_point due =
        at_once ? since
                : now + time_left(now - since, std::chrono::milliseconds(options_.interval_ms),
                                  std::chrono::system_clock::now().time_since_epoch(),
                                  database.options().node_id);
    if (now < due) {
      next = std::min(next, due);
    } else {
      begin(database, group);
    }
  }
  return next;
}

inline std::chrono::nanoseconds StoreWriter::time_left(std::chrono::nanoseconds waited,
                                                       std::chrono::nanoseconds interval,
                                                       std::chrono::nanoseconds wall, NodeId node) {
  if (interval.count() == 0) return -waited;
  const std::chrono::nanoseconds soonest = interval / 2 - waited;
  const std::chrono::nanoseconds into =
      (wall + soonest - interval / 3 * static_cast<int>(node.value % 3)) % interval;
  return soonest + (interval - into) % interval;
}

// Not while the batch before is being written: its end makes the storage thread look again.
inline void StoreWriter::begin(StoreDatabase& database, StoreGroup& group) {
  {
    const std::lock_guard lock(mutex_);
    if (group.writing) return;
    group.writing = true;
  }
  group.unwritten_since_ns = 0;
  group.write_asked = false;
  const std::shared_ptr<const StoreGeneration> generation = group.data.now();
  const auto frozen = generation->buffer().freeze();
  if (!frozen) {  // a freeze took it between its merge and its note
    const std::lock_guard lock(mutex_);
    group.writing = false;
    return;
  }
  pool_.post([this, &database, &group, generation, frozen] {
    write(database, group, *generation, *frozen);
  });
}

inline void StoreWriter::write(StoreDatabase& database, StoreGroup& group,
                               const StoreGeneration& generation,
                               const StoreBuffer::Frozen& frozen) {
  const std::size_t rows_count = frozen.rows->size();
  const rocksdb::Status status = put(database, generation, frozen);
  if (status.ok()) {
    group.written = frozen.last.value;
  } else {
    callbacks_.on_failed(status);
  }
  {
    const std::lock_guard lock(mutex_);
    group.writing = false;
  }
  changed_.notify_all();
  if (status.ok()) callbacks_.on_written(rows_count);
}

// As numbers compare, so do the first bytes of keys, which decide nearly always: slot and hash are
// among them (state_machine.hpp).
inline std::uint64_t StoreWriter::sort_prefix(std::string_view key) {
  std::uint64_t prefix = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    prefix = prefix << 8 | (i < key.size() ? static_cast<unsigned char>(key[i]) : 0U);
  }
  return prefix;
}

// In order: each key is put beside the last one.
inline rocksdb::Status StoreWriter::put(StoreDatabase& database, const StoreGeneration& generation,
                                        const StoreBuffer::Frozen& frozen) {
  const RowTable& rows = *frozen.rows;
  std::vector<std::pair<std::uint64_t, const RowTable::Row*>> sorted;
  sorted.reserve(rows.size());
  std::size_t size_bytes = 0;
  for (const RowTable::Row& row : rows) {
    sorted.emplace_back(sort_prefix(row.key()), &row);
    size_bytes += row.size_bytes() + kRowHeadBytes;
  }
  std::sort(sorted.begin(), sorted.end(), [](const auto& left, const auto& right) {
    if (left.first != right.first) return left.first < right.first;
    return left.second->key() < right.second->key();
  });
  rocksdb::WriteBatch batch(size_bytes);
  rocksdb::Status status;
  if (frozen.erases_below) {
    status = batch.DeleteRange(&generation.family(), rocksdb::Slice(), rocksdb::Slice("\xff"));
    if (!status.ok()) return status;
  }
  for (const auto& [prefix, row] : sorted) {
    const rocksdb::Slice key = StoreMap::slice(row->key());
    status = row->erased() ? batch.Delete(&generation.family(), key)
                           : batch.Put(&generation.family(), key, StoreMap::slice(row->value()));
    if (!status.ok()) return status;
  }
  rocksdb::WriteOptions options;
  // RocksDB (7.8.3) takes the place of a key as a hint for that of an erased range, which is in another
  // list, and aborts.
  options.memtable_insert_hint_per_batch = !frozen.erases_below;
  status = database.write(options, batch);
  if (!status.ok()) return status;
  generation.cache().wrote(rows,
                           frozen.erases_below);  // while readers still find them in the buffer
  generation.buffer().written();
  return status;
}

inline void StoreWriter::finish(const StoreGroup& group) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !group.writing || gave_up_; });
}

inline bool StoreWriter::write_out(StoreGroup& group) {
  const std::uint64_t target = group.applied;
  if (group.written >= target) return true;
  group.write_asked = true;
  callbacks_.ask();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return group.written >= target || gave_up_; });
  return group.written >= target;
}

inline void StoreWriter::set_written(StoreGroup& group, Index index) {
  {
    const std::lock_guard lock(mutex_);
    group.unwritten_since_ns = 0;
    group.written = index.value;
  }
  changed_.notify_all();
}

inline void StoreWriter::give_up() {
  {
    const std::lock_guard lock(mutex_);
    gave_up_ = true;
  }
  changed_.notify_all();
}

inline rocksdb::Status StoreWriter::write_now(StoreDatabase& database, StoreGroup& group) {
  const std::shared_ptr<const StoreGeneration> generation = group.data.now();
  const auto frozen = generation->buffer().freeze();
  if (!frozen) return {};
  rocksdb::Status status = put(database, *generation, *frozen);
  if (status.ok()) set_written(group, frozen->last);
  return status;
}

}  // namespace seshat

#endif  // SESHAT_STORE_WRITER_HPP
