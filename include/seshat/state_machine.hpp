// seshat/state_machine.hpp - what committed entries do: the deterministic half of a replica.
//
//   entries, in order ──> StateMachine::apply(batch, entries) ──> one Outcome an entry
//                              │
//                         OrderedMap / Batch        <- interfaces; RocksDB or a simulated disk
//
// Every replica applies the same entries to the same state and reads nothing else: no clock, no
// setting, no random number. How far it is (MachineState) is written in the batch it belongs to, so
// that no entry is ever applied twice or skipped; so is the configuration of the group, once an
// entry has changed it.
//
// Keys of the data group (column family data_kv). The slot comes first, so that slots can be moved,
// counted and scanned; the hash gives SCAN a cursor that stays valid.
//
//   00                                  MachineState
//   10  SS SS  HH HH HH HH HH HH  key   StoredValue; SS = slot, big-endian; HH = hash of the key
//
//   foo, of slot 12182, is at:  10  2f 96  75 18 fe d9 d5 77  66 6f 6f
//
// The system group (system_data) keeps three records: "applied", "membership", "shardmap".
//
// Threads: apply runs on the one thread that owns the batch; reading runs wherever the map allows.
// Needs:   replica.hpp (Outcome), codec.hpp, slots.hpp.
#ifndef SESHAT_STATE_MACHINE_HPP
#define SESHAT_STATE_MACHINE_HPP

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/codec.hpp"
#include "seshat/fnv1a.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/replica.hpp"
#include "seshat/result.hpp"
#include "seshat/slots.hpp"

namespace seshat {

// ---- The ordered map it lives in ----------------------------------------------------------------

enum class Lookup : std::uint8_t {
  kFound,
  kAbsent,
  kNotInMemory,  // only a read of the disk could tell; ask a map that may wait for it
  kFailed,       // the disk failed, or what it holds is damaged
};

class OrderedMap {
 public:
  virtual ~OrderedMap() = default;
  [[nodiscard]] virtual Lookup get(std::string_view key, std::string& value) const = 0;
};

// Changes that become visible, and durable, together. Reads see the changes made so far.
class Batch : public OrderedMap {
 public:
  virtual void put(std::string_view key, std::string_view value) = 0;
  virtual void erase(std::string_view key) = 0;
};

// ---- State machines -----------------------------------------------------------------------------

class StateMachine {
 public:
  virtual ~StateMachine() = default;
  // Applies entries that follow the last applied one. An error changes nothing here, and what is in
  // `batch` must not count. It is for ever (the same entries would fail again, here and on every
  // other replica that has the same bytes), unless the batch could not read.
  [[nodiscard]] virtual Result<std::vector<Outcome>> apply(
      Batch& batch, const std::vector<raft::Entry>& entries) = 0;
  // Where `map` stands; all zero in an empty one.
  [[nodiscard]] virtual Result<MachineState> restore(const OrderedMap& map) = 0;
};

// The data group: keys and values.
class KeyValueMachine final : public StateMachine {
 public:
  [[nodiscard]] Result<std::vector<Outcome>> apply(
      Batch& batch, const std::vector<raft::Entry>& entries) override;
  [[nodiscard]] Result<MachineState> restore(const OrderedMap& map) override;

 private:
  [[nodiscard]] Result<Outcome> apply_one(Batch& batch, const raft::Entry& entry);
  [[nodiscard]] Result<Outcome> set(Batch& batch, const Operation& operation, Index index);
  [[nodiscard]] Result<Outcome> del(Batch& batch, const Operation& operation);

  MachineState state_;
  std::string key_scratch_;
  std::string value_scratch_;
};

// The system group: who is in the cluster, and which group has which slots.
class SystemMachine final : public StateMachine {
 public:
  [[nodiscard]] Result<std::vector<Outcome>> apply(
      Batch& batch, const std::vector<raft::Entry>& entries) override;
  [[nodiscard]] Result<MachineState> restore(const OrderedMap& map) override;
  // What the map held when it was restored. What changes later is read from the map.
  [[nodiscard]] const std::optional<ClusterMembership>& restored_membership() const {
    return restored_membership_;
  }
  [[nodiscard]] const std::optional<ShardMap>& restored_shard_map() const {
    return restored_shard_map_;
  }

 private:
  [[nodiscard]] Result<Outcome> apply_one(Batch& batch, const raft::Entry& entry);
  [[nodiscard]] Result<Outcome> set_membership(Batch& batch, std::string_view record);
  [[nodiscard]] Result<Outcome> set_shard_map(Batch& batch, std::string_view record);

  MachineState state_;
  std::optional<ClusterMembership> restored_membership_;
  std::optional<ShardMap> restored_shard_map_;
};

// ---- Keys and reads -----------------------------------------------------------------------------

inline constexpr std::string_view kDataStateKey{"\x00", 1};
inline constexpr char kValuePrefix = '\x10';
inline constexpr std::string_view kSystemStateKey = "applied";
inline constexpr std::string_view kMembershipKey = "membership";
inline constexpr std::string_view kShardMapKey = "shardmap";

// FNV-1a, 64 bits, of which value keys keep 48. Fixed for ever: it stands in keys on disk.
[[nodiscard]] inline std::uint64_t key_hash(std::string_view key) { return fnv1a(key); }
// The map's key of a user's key, into `out` (replaced). `slot` is slot_of(key), for who knows it.
void value_key(std::string_view key, std::string& out);
void value_key(Slot slot, std::string_view key, std::string& out);

// What reads need room for. Kept from one to the next, it spares them every allocation.
struct ReadScratch {
  std::string map_key;
  std::string record;
};

// The value of a user's key. `value.data` looks into `storage`, or into scratch.record.
[[nodiscard]] Lookup read_value(const OrderedMap& map, std::string_view key, std::string& storage,
                                StoredValue& value);
[[nodiscard]] Lookup read_value(const OrderedMap& map, Slot slot, std::string_view key,
                                ReadScratch& scratch, StoredValue& value);
// nullopt: not there yet. An error: it is there and can't be read.
[[nodiscard]] Result<std::optional<ClusterMembership>> read_membership(const OrderedMap& map);
[[nodiscard]] Result<std::optional<ShardMap>> read_shard_map(const OrderedMap& map);

// =================================================================================================
// Bodies
// =================================================================================================

inline void value_key(std::string_view key, std::string& out) { value_key(slot_of(key), key, out); }

inline void value_key(Slot slot, std::string_view key, std::string& out) {
  const std::uint64_t hash = key_hash(key);
  std::array<char, 9> header = {kValuePrefix, static_cast<char>(slot >> 8),
                                static_cast<char>(slot & 0xff)};
  for (unsigned i = 0; i < 6; ++i) header[3 + i] = static_cast<char>(hash >> (40 - 8 * i));
  out.reserve(header.size() + key.size());
  out.assign(header.data(), header.size());
  out.append(key);
}

namespace detail {

inline Lookup read_value_at(const OrderedMap& map, std::string_view map_key, std::string& storage,
                            StoredValue& value) {
  const Lookup lookup = map.get(map_key, storage);
  if (lookup != Lookup::kFound) return lookup;
  const auto decoded = codec::decode_stored_value(storage);
  if (!decoded) return Lookup::kFailed;
  value = *decoded;
  return Lookup::kFound;
}

}  // namespace detail

inline Lookup read_value(const OrderedMap& map, std::string_view key, std::string& storage,
                         StoredValue& value) {
  std::string map_key;
  value_key(key, map_key);
  return detail::read_value_at(map, map_key, storage, value);
}

inline Lookup read_value(const OrderedMap& map, Slot slot, std::string_view key,
                         ReadScratch& scratch, StoredValue& value) {
  value_key(slot, key, scratch.map_key);
  return detail::read_value_at(map, scratch.map_key, scratch.record, value);
}

namespace detail {

inline Error unreadable(std::string_view key, const std::string& why) {
  return Error{"record '" + std::string(key) + "' can't be read: " + why};
}

inline Result<MachineState> read_state(const OrderedMap& map, std::string_view key) {
  std::string bytes;
  switch (map.get(key, bytes)) {
    case Lookup::kFound:
      return codec::decode_machine_state(bytes);
    case Lookup::kAbsent:
      return MachineState{};
    default:
      return unreadable("applied state", "the disk failed");
  }
}

template <class Record, class Decode>
Result<std::optional<Record>> read_record(const OrderedMap& map, std::string_view key,
                                          Decode decode) {
  std::string bytes;
  const Lookup lookup = map.get(key, bytes);
  if (lookup == Lookup::kAbsent) return std::optional<Record>{};
  if (lookup != Lookup::kFound) return unreadable(key, "the disk failed");
  Result<Record> record = decode(bytes);
  if (!record) return unreadable(key, record.error().text);
  return std::optional<Record>{std::move(*record)};
}

inline std::string_view payload(const raft::Entry& entry) {
  return entry.data ? std::string_view(*entry.data) : std::string_view();
}

inline Result<Outcome> configure(const raft::Entry& entry, MachineState& state) {
  if (entry.configuration == nullptr) return Error{"it changes the configuration, and names none"};
  state.configuration_index = entry.index;
  state.configuration = *entry.configuration;
  return Outcome{};
}

// What both machines do around each entry: the order is checked, no-ops do nothing, a change of the
// configuration is recorded, and the state goes into the same batch.
template <class ApplyOne>
Result<std::vector<Outcome>> apply_all(Batch& batch, const std::vector<raft::Entry>& entries,
                                       MachineState& state, std::string_view state_key,
                                       ApplyOne apply_one) {
  MachineState before = state;
  std::vector<Outcome> outcomes;
  outcomes.reserve(entries.size());
  for (const raft::Entry& entry : entries) {
    if (entry.index != state.applied_index + 1) {
      const MachineState at = std::exchange(state, std::move(before));
      return Error{"log entry " + std::to_string(entry.index.value) + " came after entry " +
                   std::to_string(at.applied_index.value) + " was applied: out of order"};
    }
    Result<Outcome> outcome = Outcome{};
    if (entry.type == raft::EntryType::kNormal) outcome = apply_one(entry);
    if (entry.type == raft::EntryType::kConfigChange) outcome = configure(entry, state);
    if (!outcome) {
      state = std::move(before);
      return Error{"log entry " + std::to_string(entry.index.value) +
                   " can't be applied: " + outcome.error().text};
    }
    outcomes.push_back(*outcome);
    state.applied_index = entry.index;
    state.applied_term = entry.term;
  }
  batch.put(state_key, codec::encode(state));
  return outcomes;
}

}  // namespace detail

inline Result<std::optional<ClusterMembership>> read_membership(const OrderedMap& map) {
  return detail::read_record<ClusterMembership>(map, kMembershipKey, codec::decode_membership);
}

inline Result<std::optional<ShardMap>> read_shard_map(const OrderedMap& map) {
  return detail::read_record<ShardMap>(map, kShardMapKey, codec::decode_shard_map);
}

// ---- KeyValueMachine ----------------------------------------------------------------------------

inline Result<MachineState> KeyValueMachine::restore(const OrderedMap& map) {
  Result<MachineState> state = detail::read_state(map, kDataStateKey);
  if (state) state_ = *state;
  return state;
}

inline Result<std::vector<Outcome>> KeyValueMachine::apply(
    Batch& batch, const std::vector<raft::Entry>& entries) {
  return detail::apply_all(batch, entries, state_, kDataStateKey,
                           [&](const raft::Entry& entry) { return apply_one(batch, entry); });
}

inline Result<Outcome> KeyValueMachine::apply_one(Batch& batch, const raft::Entry& entry) {
  Result<Operation> operation = codec::decode_operation(detail::payload(entry));
  if (!operation) return operation.error();
  state_.time_ms = std::max(state_.time_ms, operation->time_ms);
  switch (operation->type) {
    case OperationType::kSet:
      return set(batch, *operation, entry.index);
    case OperationType::kDelete:
      return del(batch, *operation);
    default:
      return Error{"operation type " + std::to_string(static_cast<int>(operation->type)) +
                   " does not belong to a data group"};
  }
}

inline Result<Outcome> KeyValueMachine::set(Batch& batch, const Operation& operation, Index index) {
  if (operation.arguments.size() != 2) return Error{"SET needs a key and a value"};
  value_key(operation.arguments[0], key_scratch_);
  const Lookup before = batch.get(key_scratch_, value_scratch_);
  if (before != Lookup::kFound && before != Lookup::kAbsent) return Error{"the disk failed"};
  if (before == Lookup::kAbsent) ++state_.key_count;
  StoredValue value;
  value.data = operation.arguments[1];
  value.created_at_ms = state_.time_ms;
  value.mod_index = index;
  codec::encode(value, value_scratch_);
  batch.put(key_scratch_, value_scratch_);
  return Outcome{};
}

inline Result<Outcome> KeyValueMachine::del(Batch& batch, const Operation& operation) {
  Outcome outcome{Outcome::Kind::kInteger, 0};
  for (const std::string_view key : operation.arguments) {
    value_key(key, key_scratch_);
    const Lookup before = batch.get(key_scratch_, value_scratch_);
    if (before == Lookup::kAbsent) continue;
    if (before != Lookup::kFound) return Error{"the disk failed"};
    batch.erase(key_scratch_);
    --state_.key_count;
    ++outcome.integer;
  }
  return outcome;
}

// ---- SystemMachine ------------------------------------------------------------------------------

inline Result<MachineState> SystemMachine::restore(const OrderedMap& map) {
  Result<MachineState> state = detail::read_state(map, kSystemStateKey);
  if (!state) return state;
  Result<std::optional<ClusterMembership>> membership = read_membership(map);
  if (!membership) return membership.error();
  Result<std::optional<ShardMap>> shard_map = read_shard_map(map);
  if (!shard_map) return shard_map.error();
  state_ = *state;
  restored_membership_ = std::move(*membership);
  restored_shard_map_ = std::move(*shard_map);
  return state;
}

inline Result<std::vector<Outcome>> SystemMachine::apply(Batch& batch,
                                                         const std::vector<raft::Entry>& entries) {
  return detail::apply_all(batch, entries, state_, kSystemStateKey,
                           [&](const raft::Entry& entry) { return apply_one(batch, entry); });
}

inline Result<Outcome> SystemMachine::apply_one(Batch& batch, const raft::Entry& entry) {
  Result<Operation> operation = codec::decode_operation(detail::payload(entry));
  if (!operation) return operation.error();
  if (operation->arguments.size() != 1) return Error{"a system operation has one argument"};
  state_.time_ms = std::max(state_.time_ms, operation->time_ms);
  switch (operation->type) {
    case OperationType::kSetMembership:
      return set_membership(batch, operation->arguments[0]);
    case OperationType::kSetShardMap:
      return set_shard_map(batch, operation->arguments[0]);
    default:
      return Error{"operation type " + std::to_string(static_cast<int>(operation->type)) +
                   " does not belong to the system group"};
  }
}

// A change is built on the membership that its proposer knew. One that is built on another (two
// leaders in a row proposed) changes nothing, and is proposed again: Outcome 0 instead of 1.
inline Result<Outcome> SystemMachine::set_membership(Batch& batch, std::string_view record) {
  Result<ClusterMembership> next = codec::decode_membership(record);
  if (!next) return next.error();
  Result<std::optional<ClusterMembership>> now = read_membership(batch);
  if (!now) return now.error();
  const std::uint64_t version = *now ? (*now)->membership_version : 0;
  const bool follows = next->membership_version == version + 1;
  if (follows) batch.put(kMembershipKey, record);
  return Outcome{Outcome::Kind::kInteger, follows ? 1 : 0};
}

// Looked at before it is kept: a record that can't be read would stop every later start.
inline Result<Outcome> SystemMachine::set_shard_map(Batch& batch, std::string_view record) {
  const Result<ShardMap> shard_map = codec::decode_shard_map(record);
  if (!shard_map) return shard_map.error();
  batch.put(kShardMapKey, record);
  return Outcome{};
}

}  // namespace seshat

#endif  // SESHAT_STATE_MACHINE_HPP
