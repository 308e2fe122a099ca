// seshat/store_events.hpp - what a store tells its owner, and what it counts.
//
// Threads: StoreEvents are called on the store's threads, or that of write_held(), one call at a time but
//          for on_told: post it and return.
// Needs:   raft.hpp, records.hpp, replica.hpp.
#ifndef SESHAT_STORE_EVENTS_HPP
#define SESHAT_STORE_EVENTS_HPP

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/replica.hpp"

namespace seshat {

class StoreEvents {
 public:
  virtual ~StoreEvents() = default;
  // Every write of `group` up to and including this one is on disk.
  virtual void on_synced(GroupId group, std::uint64_t write_id) = 0;
  // `last` and all before it is applied; an Outcome for each entry that apply() was given.
  virtual void on_applied(GroupId group, Index last, std::vector<Outcome> outcomes) = 0;
  virtual void on_fetched(GroupId group, NodeId peer, Term prev_log_term,
                          std::vector<raft::Entry> entries) = 0;
  // One for each cut_log(), once it is durable: the log begins with `first_index`.
  virtual void on_log_cut(GroupId /*group*/, Index /*first_index*/) {}
  // The snapshot is in force, durably: `state` is what applying goes on from, and the log is empty.
  virtual void on_installed(GroupId /*group*/, const MachineState& /*state*/) {}
  // Once. The node must end: nothing more will be written, synced or reported.
  virtual void on_storage_failed(std::string what) = 0;
  // Follows soon on on_synced and on_applied, on the same thread, which holds no lock then. It may call
  // the store, and if it `has_time` may take a few milliseconds: no write waits behind it.
  virtual void on_told(bool /*has_time*/) {}
};

// For a thread that brings writes and has the time to wait for the disk itself, where nothing else waits
// for it: so no other thread has to wake.
class HeldWrites {
 public:
  // What this thread appends from now on waits for write_held(). False: it does not, as things are.
  [[nodiscard]] virtual bool hold_writes() = 0;
  // After it was true. Writes and syncs what was appended, and tells; or leaves it to the storage thread, if
  // it is much or has company.
  virtual void write_held() = 0;

 protected:
  ~HeldWrites() = default;
};

struct StoreStats {
  std::uint64_t size_bytes = 0;       // tables on disk and what waits in memory to become one
  std::uint64_t free_disk_bytes = 0;  // of the file system; as of the last second, like the above
  std::uint64_t unsynced_age_ms = 0;  // of the oldest write that is not durable yet
  std::uint64_t batches = 0;          // of log writes, since the start
  std::uint64_t syncs = 0;            // ... and the syncs that made them durable
  std::uint64_t held_writes = 0;      // of these batches, by who brought them
  std::uint64_t applied_batches = 0;
  std::uint64_t written_rows = 0;     // ... and how many changes of them went to RocksDB
  std::uint64_t row_cache_bytes = 0;  // as of the last second
  std::uint64_t last_sync_ms = 0;     // how long it took
  std::uint64_t longest_sync_ms = 0;
  std::uint64_t log_cuts = 0;
  std::uint64_t reclaims = 0;  // passes over what they cut off
  std::uint64_t snapshots_built = 0;
  std::uint64_t snapshots_received = 0;  // whole, and then ...
  std::uint64_t snapshots_installed = 0;
  std::uint64_t last_build_ms = 0;  // how long it took to build one
};

// The same, while it is counted; any thread.
struct StoreCounters {
  std::atomic<std::uint64_t> size_bytes{0}, free_disk_bytes{0}, oldest_unsynced_ms{0}, batches{0},
      syncs{0}, held_writes{0}, applied_batches{0}, written_rows{0}, row_cache_bytes{0},
      last_sync_ms{0}, longest_sync_ms{0}, log_cuts{0}, reclaims{0}, snapshots_built{0},
      snapshots_received{0}, snapshots_installed{0}, last_build_ms{0};

  static void count(std::atomic<std::uint64_t>& counter) {
    counter.fetch_add(1, std::memory_order_relaxed);
  }
  [[nodiscard]] StoreStats stats(std::uint64_t now_ms) const;
};

inline StoreStats StoreCounters::stats(std::uint64_t now_ms) const {
  StoreStats stats;
  stats.size_bytes = size_bytes;
  stats.free_disk_bytes = free_disk_bytes;
  stats.batches = batches;
  stats.syncs = syncs;
  stats.held_writes = held_writes;
  stats.applied_batches = applied_batches;
  stats.written_rows = written_rows;
  stats.row_cache_bytes = row_cache_bytes;
  stats.last_sync_ms = last_sync_ms;
  stats.longest_sync_ms = longest_sync_ms;
  stats.log_cuts = log_cuts;
  stats.reclaims = reclaims;
  stats.snapshots_built = snapshots_built;
  stats.snapshots_received = snapshots_received;
  stats.snapshots_installed = snapshots_installed;
  stats.last_build_ms = last_build_ms;
  const std::uint64_t oldest_ms = oldest_unsynced_ms;
  if (oldest_ms != 0) stats.unsynced_age_ms = now_ms - oldest_ms;
  return stats;
}

}  // namespace seshat

#endif  // SESHAT_STORE_EVENTS_HPP
