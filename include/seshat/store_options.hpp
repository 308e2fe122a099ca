// seshat/store_options.hpp - what a store can be told, and how it sets RocksDB up.
//
// One database a node, seven column families (system_data and data_kv change their names when a
// snapshot is installed, see store_generation.hpp):
//
//   default             who this node is, which generations are in force
//   system_raft_log     the log of the system group       data_raft_log     ... of the data group
//   system_raft_state   its term and vote                 data_raft_state
//   system_data         what its state machine keeps      data_kv
//
// Threads: none inside. Needs: records.hpp; RocksDB.
#ifndef SESHAT_STORE_OPTIONS_HPP
#define SESHAT_STORE_OPTIONS_HPP

#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_buffer_manager.h>

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "seshat/records.hpp"

namespace seshat {

struct StoreOptions {
  std::string data_dir;  // made if absent; one node's alone
  NodeId node_id;
  std::vector<GroupId> groups;                   // kSystemGroup and data groups; today {0, 1}
  std::size_t row_cache_size_bytes = 16u << 20;  // of each group's state
  std::size_t block_cache_size_bytes = 256u << 20;
  std::uint64_t min_free_disk_mb = 512;  // less than this is disk_low()
  // Other nodes have the same data: better that one of them serves than this one with damage.
  bool ends_on_damage = true;

  // How long what was applied waits in memory for more of the same keys, up to half of it more or less
  // (store_writer.hpp): a start after a crash applies so much again.
  std::uint64_t write_behind_ms = 1000;

  // For tests: small buffers, so that flushes happen; a disk that fails or forgets.
  std::size_t write_buffer_size_bytes = 64u << 20;
  rocksdb::Env* env = nullptr;  // null: RocksDB's own, for this platform
};

namespace store_detail {

enum Family : std::size_t {
  kDefault,
  kSystemLog,
  kSystemState,
  kSystemData,
  kDataLog,
  kDataState,
  kDataKv,
};

inline constexpr std::array<const char*, 7> kFamilyNames{
    "default",         "system_raft_log", "system_raft_state", "system_data", "data_raft_log",
    "data_raft_state", "data_kv"};

// RocksDB's own log file is not written: some of its lines are written under the lock that reads
// take too, so that a disk that stands still would stop the loop; and after a line that did not fit
// on a full disk the next one fails an assertion (7.8.3, as Debian builds it). What matters comes
// back in a Status.
class Silence final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char*, std::va_list) override {}
};

// LZ4 if this RocksDB was built with it, else none: what was written without it can still be read.
[[nodiscard]] inline rocksdb::CompressionType compression() {
  const auto supported = rocksdb::GetSupportedCompressions();
  const bool has_lz4 =
      std::find(supported.begin(), supported.end(), rocksdb::kLZ4Compression) != supported.end();
  return has_lz4 ? rocksdb::kLZ4Compression : rocksdb::kNoCompression;
}

// RocksDB reserves a little more than a write buffer for each new WAL, and where less is left, all of
// that: a disk with little space would be full at once. It is asked once, at the start: a disk that
// fills up later is what min_free_disk_mb watches over.
inline constexpr std::uint64_t kRoomToReserveBytes = 512u << 20;

[[nodiscard]] inline rocksdb::DBOptions database_options(const StoreOptions& options) {
  rocksdb::DBOptions db;
  if (options.env != nullptr) db.env = options.env;
  std::uint64_t free_bytes = 0;
  const bool known = db.env->GetFreeSpace(options.data_dir, &free_bytes).ok();
  db.allow_fallocate = !known || free_bytes >= kRoomToReserveBytes;
  // Stops at the first damage; the durable mark says whether anything promised lay behind it.
  db.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  // What was replayed at the start is flushed, and so on disk, before the database is open: Raft
  // takes everything it is given then as durable.
  db.avoid_flush_during_recovery = false;

  // 96 MB of write buffers over all families. A WAL is pinned by the quietest of them: at 48 MB all
  // are flushed, so that it takes no more disk than a log window, nor longer to replay.
  db.write_buffer_manager = std::make_shared<rocksdb::WriteBufferManager>(
      options.write_buffer_size_bytes + options.write_buffer_size_bytes / 2);
  // Each node somewhat earlier than the next one: all have the same to write, and while one of them
  // flushes, which holds up its syncs, the others are a majority.
  db.max_total_wal_size = options.write_buffer_size_bytes / 4 * 3 -
                          options.node_id.value % 3 * (options.write_buffer_size_bytes / 16);
  db.max_background_jobs = 2;
  // A batch of the writer does not hold up the log, but where a memtable or a WAL is full: else only
  // the order in the WAL is common to both. It gives up that a snapshot of RocksDB is whole while a
  // batch is under way; a checkpoint is, for it flushes, and that waits for such batches.
  db.unordered_write = true;
  // A flush writes as it goes, so that its fsync at the end does not hold up SyncWAL.
  db.bytes_per_sync = 1 << 20;
  // 32 GB of data before a read of a cold table has to open a file. Bounded, since running out of
  // descriptors would fail a write.
  db.max_open_files = 512;
  // Obsolete files are deleted in the background, not by a thread that happens to read.
  db.avoid_unnecessary_blocking_io = true;

  // A failed write, flush or sync ends the node: nothing is tried again (rocksdb would resume by
  // itself after "no space left").
  db.max_bgerror_resume_count = 0;
  db.paranoid_checks = true;

  db.info_log = std::make_shared<Silence>();
  db.stats_dump_period_sec = 0;
  db.stats_persist_period_sec = 0;
  return db;
}

[[nodiscard]] inline rocksdb::ColumnFamilyOptions family_options(
    Family family, const StoreOptions& options, const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::ColumnFamilyOptions cf;
  cf.write_buffer_size = options.write_buffer_size_bytes;
  cf.max_write_buffer_number = 3;
  cf.target_file_size_base = 64u << 20;
  cf.compaction_style = rocksdb::kCompactionStyleLevel;
  cf.level_compaction_dynamic_level_bytes = true;
  cf.compression = compression();

  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  // Index and filter blocks count against the cache too: memory stays bounded as the data grows.
  table.cache_index_and_filter_blocks = true;
  table.cache_index_and_filter_blocks_with_high_priority = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  if (family == kDataKv) {
    // Keys are spread by their hash, so that each compaction of level 0 writes the level below it
    // anew: half as often, for filters to ask in up to twice as many tables.
    cf.level0_file_num_compaction_trigger = 8;
    // Point reads of keys that may be absent: SET asks for the key before it writes it.
    table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
    table.whole_key_filtering = true;
    cf.memtable_prefix_bloom_size_ratio = 0.2;
    cf.memtable_whole_key_filtering = true;
  }
  cf.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return cf;
}

[[nodiscard]] inline std::vector<rocksdb::ColumnFamilyDescriptor> families(
    const StoreOptions& options) {
  const auto cache = rocksdb::NewLRUCache(options.block_cache_size_bytes);
  std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
  for (std::size_t i = 0; i < kFamilyNames.size(); ++i) {
    descriptors.emplace_back(kFamilyNames[i],
                             family_options(static_cast<Family>(i), options, cache));
  }
  return descriptors;
}

}  // namespace store_detail

}  // namespace seshat

#endif  // SESHAT_STORE_OPTIONS_HPP
