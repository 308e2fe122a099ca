// seshat/store_group.hpp - one group's part of the store: its log, its state, how far it is.
//
// Threads: log: see store_log.hpp, where "the thread that writes" is who has the queue's turn. data: any
//          thread reads, the storage thread switches. applied is written by whoever applies,
//          written by the writer and the storage thread, applied_durable by whoever syncs; any reads.
//          reclaim_queued: any. The rest: the owner's, before threads start.
// Needs:   store_database.hpp, store_generation.hpp, store_log.hpp; RocksDB.
#ifndef SESHAT_STORE_GROUP_HPP
#define SESHAT_STORE_GROUP_HPP

#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/result.hpp"
#include "seshat/row_table.hpp"
#include "seshat/state_machine.hpp"
#include "seshat/store_database.hpp"
#include "seshat/store_generation.hpp"
#include "seshat/store_log.hpp"

namespace seshat {

struct LogStats {
  Index first_index{1};
  Index last_index;
  Index applied_durable;         // applied, and would be there after a power cut
  std::uint64_t size_bytes = 0;  // of its entries, roughly
};

class StoreGroup {
 public:
  // Takes its generation out of `database`. `on_damage`: what a read of the state found.
  StoreGroup(GroupId group, StoreDatabase& database, StoreMap::OnDamage on_damage);

  [[nodiscard]] Result<void> load();
  [[nodiscard]] Result<raft::Restored> restore(StateMachine& state_machine,
                                               std::size_t tail_size_bytes);
  [[nodiscard]] LogStats log_stats() const;

  // A new generation, empty and not in force.
  [[nodiscard]] Result<std::shared_ptr<const StoreGeneration>> make_generation();
  // Adds to `batch` that `generation`, whose state stands at `state`, is in force, and the log empty.
  [[nodiscard]] rocksdb::Status put_in_force(const StoreGeneration& generation,
                                             const MachineState& state, rocksdb::WriteBatch& batch);

  const GroupId id;
  StoreLog log;
  GenerationMap data;
  // Whoever applies
  StateMachine* machine = nullptr;
  RowTable changes;  // of one batch: empty between two

  std::atomic<std::uint64_t> applied{0};
  std::atomic<std::uint64_t> written{0};  // ... and in RocksDB (store_writer.hpp)
  std::atomic<std::uint64_t> applied_durable{0};
  std::atomic<bool> reclaim_queued{false};  // what was cut off is about to leave the disk

  // The StoreWriter's
  std::atomic<std::int64_t> unwritten_since_ns{0};  // of the steady clock; 0: all is written
  std::atomic<bool> write_asked{false};
  bool writing = false;

 private:
  [[nodiscard]] static store_detail::Family log_family(GroupId group) {
    return group == kSystemGroup ? store_detail::kSystemLog : store_detail::kDataLog;
  }
  [[nodiscard]] static store_detail::Family state_family(GroupId group) {
    return group == kSystemGroup ? store_detail::kSystemState : store_detail::kDataState;
  }
  [[nodiscard]] Error refused(const std::string& why) const {
    return database_.refused("group " + std::to_string(id.value) + ": " + why);
  }
  [[nodiscard]] Error inconsistent(const std::string& why) const {
    return refused(why + ". " + StoreDatabase::rebuild_advice(database_.path()));
  }

  StoreDatabase& database_;
  StoreMap::OnDamage on_damage_;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline StoreGroup::StoreGroup(GroupId group, StoreDatabase& database, StoreMap::OnDamage on_damage)
    : id(group),
      log(database.db(), database.family(log_family(group)), database.family(state_family(group)),
          database.floor(log_family(group))),
      database_(database),
      on_damage_(std::move(on_damage)) {
  rocksdb::ColumnFamilyHandle* family = database.take_generation(store_detail::data_family(group));
  data.switch_to(std::make_shared<const StoreGeneration>(
      database.db(), *family, database.options().row_cache_size_bytes, on_damage_));
}

inline Result<void> StoreGroup::load() {
  if (Result<void> loaded = log.load(); !loaded) return refused(loaded.error().text);
  return {};
}

inline Result<raft::Restored> StoreGroup::restore(StateMachine& state_machine,
                                                  std::size_t tail_size_bytes) {
  const Result<MachineState> state = state_machine.restore(data.now()->on_disk());
  if (!state) return refused(state.error().text);
  Result<std::optional<raft::HardState>> hard_state = log.hard_state();
  if (!hard_state) return refused(hard_state.error().text);
  Result<raft::Restored> restored = log.restore(state->applied_index, tail_size_bytes);
  if (!restored) return inconsistent(restored.error().text);
  if (*hard_state) restored->hard_state = **hard_state;
  restored->configuration = state->configuration;
  restored->configuration_index = state->configuration_index;
  if (const auto why = raft::check_restored(*restored)) return inconsistent(*why);
  const std::uint64_t applied_at = state->applied_index - restored->base_index;
  const Term applied_term =
      applied_at == 0 ? restored->base_term : restored->entries[applied_at - 1].term;
  if (applied_term != state->applied_term) {
    return inconsistent("the state machine applied another entry " +
                        std::to_string(state->applied_index.value) + " than the log holds");
  }
  machine = &state_machine;
  applied = written = applied_durable = state->applied_index.value;  // as read from the disk
  return restored;
}

inline LogStats StoreGroup::log_stats() const {
  return {log.first_index(), log.last_index(), Index{applied_durable}, log.size_bytes()};
}

inline Result<std::shared_ptr<const StoreGeneration>> StoreGroup::make_generation() {
  const auto family = database_.make_generation(store_detail::data_family(id));
  if (!family) return family.error();
  return std::make_shared<const StoreGeneration>(
      database_.db(), **family, database_.options().row_cache_size_bytes, on_damage_);
}

inline rocksdb::Status StoreGroup::put_in_force(const StoreGeneration& generation,
                                                const MachineState& state,
                                                rocksdb::WriteBatch& batch) {
  rocksdb::Status status = batch.Put(&database_.family(store_detail::kDefault),
                                     store_detail::generation_key(store_detail::data_family(id)),
                                     generation.family().GetName());
  if (!status.ok()) return status;
  return log.restart({state.applied_index, state.applied_term}, batch);
}

}  // namespace seshat

#endif  // SESHAT_STORE_GROUP_HPP
