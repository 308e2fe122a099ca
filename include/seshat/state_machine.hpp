// seshat/state_machine.hpp - what committed entries do: the deterministic half of a replica.
//
//   entries, in order ──> StateMachine::apply(batch, entries) ──> one Outcome an entry
//                              │
//                         OrderedMap / Batch        <- keyspace.hpp; RocksDB or a simulated disk
//
// Every replica applies the same entries to the same state and reads nothing else: no clock, no
// setting, no random number. How far it is (MachineState) is written in the batch it belongs to, so
// that no entry is ever applied twice or skipped; so is the configuration of the group, once an
// entry has changed it.
//
// The rows of the data group (column family data_kv) are in keyspace.hpp.
// The system group (system_data) keeps three records: "applied", "membership", "shardmap".
//
// Threads: apply runs on the one thread that owns the batch; reading runs wherever the map allows.
// Needs:   replica.hpp (Outcome), keyspace.hpp, transaction.hpp, codec.hpp.
#ifndef SESHAT_STATE_MACHINE_HPP
#define SESHAT_STATE_MACHINE_HPP

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/codec.hpp"
#include "seshat/keyspace.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/replica.hpp"
#include "seshat/result.hpp"
#include "seshat/transaction.hpp"

namespace seshat {

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
  // What was applied since is visible to readers.
  virtual void committed() {}
};

// Applies one command to `keys` and appends its reply, in RESP3: kv.hpp's table. False: there is no
// such command here.
struct CommandToApply {
  Keyspace& keys;
  std::span<const std::string_view> args;  // the command's name first
  std::uint64_t max_value_size_bytes = 0;
  std::string& reply;
};
using ApplyCommand = bool (*)(const CommandToApply& command);

// The data group: keys and values.
class KeyValueMachine final : public StateMachine {
 public:
  explicit KeyValueMachine(ApplyCommand apply_command = nullptr) : apply_command_(apply_command) {}

  [[nodiscard]] Result<std::vector<Outcome>> apply(
      Batch& batch, const std::vector<raft::Entry>& entries) override;
  [[nodiscard]] Result<MachineState> restore(const OrderedMap& map) override;
  void committed() override { publish(); }
  // The state's time, and how many keys will expire, as last committed: a reader that sees a newer
  // state with an older time waits for the time, the other way round it would miss keys. Any thread.
  [[nodiscard]] std::uint64_t time_ms() const { return time_ms_; }
  [[nodiscard]] std::uint64_t expiring_count() const { return expiring_count_; }
  // When the first of the keys expires that were given a time since these were forgotten last.
  [[nodiscard]] std::uint64_t soonest_given_ms() const { return soonest_given_ms_; }
  void forget_given_times() { soonest_given_ms_ = Keyspace::kNever; }

 private:
  [[nodiscard]] Result<Outcome> apply_one(Batch& batch, const raft::Entry& entry);
  [[nodiscard]] Result<Outcome> apply_operation(const Operation& operation, Keyspace& keys);
  [[nodiscard]] Outcome set(const Operation& operation, Keyspace& keys);
  [[nodiscard]] Outcome del(const Operation& operation, Keyspace& keys);
  [[nodiscard]] Result<Outcome> run(const Operation& operation,
                                    std::span<const std::string_view> args, Keyspace& keys);
  [[nodiscard]] Result<Outcome> transact(const Operation& operation, Keyspace& keys);
  [[nodiscard]] static Outcome remove_expired(const Operation& operation, Keyspace& keys);
  void publish();
  void release_excess();

  static constexpr std::size_t kKeptArguments = 1024;
  const ApplyCommand apply_command_;
  MachineState state_;
  // Kept from one entry to the next, for their memory.
  Operation operation_;
  Keyspace::Scratch scratch_;
  std::atomic<std::uint64_t> time_ms_{0};
  std::atomic<std::uint64_t> expiring_count_{0};
  std::uint64_t next_given_ms_ = Keyspace::kNever;  // not committed yet
  std::atomic<std::uint64_t> soonest_given_ms_{Keyspace::kNever};
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

// ---- Reads --------------------------------------------------------------------------------------

inline constexpr std::string_view kSystemStateKey = "applied";
inline constexpr std::string_view kMembershipKey = "membership";
inline constexpr std::string_view kShardMapKey = "shardmap";

// nullopt: not there yet. An error: it is there and can't be read.
[[nodiscard]] Result<std::optional<ClusterMembership>> read_membership(const OrderedMap& map);
[[nodiscard]] Result<std::optional<ShardMap>> read_shard_map(const OrderedMap& map);

// =================================================================================================
// Bodies
// =================================================================================================

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
    outcomes.push_back(*std::move(outcome));
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
  if (!state) return state;
  state_ = *state;
  next_given_ms_ = Keyspace::kNever;
  publish();
  return state;
}

inline void KeyValueMachine::publish() {
  time_ms_ = state_.time_ms;
  expiring_count_ = state_.expiring_count;
  const std::uint64_t next_ms = std::exchange(next_given_ms_, Keyspace::kNever);
  std::uint64_t soonest_ms = soonest_given_ms_;
  while (next_ms < soonest_ms && !soonest_given_ms_.compare_exchange_weak(soonest_ms, next_ms)) {
  }
}

inline Result<std::vector<Outcome>> KeyValueMachine::apply(
    Batch& batch, const std::vector<raft::Entry>& entries) {
  auto outcomes =
      detail::apply_all(batch, entries, state_, kDataStateKey,
                        [&](const raft::Entry& entry) { return apply_one(batch, entry); });
  release_excess();
  return outcomes;
}

// What one large operation took is not kept for good.
inline void KeyValueMachine::release_excess() {
  if (operation_.arguments.capacity() > kKeptArguments) {
    std::vector<std::string_view>().swap(operation_.arguments);
  }
  scratch_.release_excess();
}

inline Result<Outcome> KeyValueMachine::apply_one(Batch& batch, const raft::Entry& entry) {
  const auto decoded = codec::decode_operation_into(operation_, detail::payload(entry));
  if (!decoded) return decoded.error();
  state_.time_ms = std::max(state_.time_ms, operation_.time_ms);
  Keyspace keys(batch, state_, entry.index, scratch_);
  Result<Outcome> outcome = apply_operation(operation_, keys);
  if (keys.failed()) return Error{"the disk failed"};
  next_given_ms_ = std::min(next_given_ms_, keys.soonest_given_ms());
  return outcome;
}

inline Result<Outcome> KeyValueMachine::apply_operation(const Operation& operation,
                                                        Keyspace& keys) {
  switch (operation.type) {
    case OperationType::kSet:
      if (operation.arguments.size() != 2) return Error{"SET needs a key and a value"};
      return set(operation, keys);
    case OperationType::kDelete:
      return del(operation, keys);
    case OperationType::kCommand:
      return run(operation, operation.arguments, keys);
    case OperationType::kTransaction:
      return transact(operation, keys);
    case OperationType::kTime:
      return Outcome{};
    case OperationType::kRemoveExpired:
      return remove_expired(operation, keys);
    default:
      return Error{"operation type " + std::to_string(static_cast<int>(operation.type)) +
                   " does not belong to a data group"};
  }
}

inline Outcome KeyValueMachine::set(const Operation& operation, Keyspace& keys) {
  keys.put(operation.arguments[0], operation.arguments[1], std::nullopt);
  return Outcome{};
}

// Operations of version 1 leave a state of version 1, as long as nothing newer was applied.
inline Outcome KeyValueMachine::del(const Operation& operation, Keyspace& keys) {
  const bool remembers = state_.last_removal != Index{};
  Outcome outcome{Outcome::Kind::kInteger, 0, {}};
  for (const std::string_view key : operation.arguments) {
    outcome.integer += keys.erase(key) ? 1 : 0;
  }
  if (!remembers) state_.last_removal = {};
  return outcome;
}

inline Result<Outcome> KeyValueMachine::run(const Operation& operation,
                                            std::span<const std::string_view> args,
                                            Keyspace& keys) {
  // From the first command on, removals are remembered.
  if (state_.last_removal == Index{}) state_.last_removal = keys.index();
  Outcome outcome{Outcome::Kind::kReply, 0, {}};
  const bool known = apply_command_ != nullptr && !args.empty() &&
                     apply_command_({keys, args, operation.max_value_size_bytes, outcome.reply});
  if (known) return outcome;
  return Error{"this seshat knows no command '" +
               std::string(args.empty() ? std::string_view() : args[0]) +
               "': run the newer seshat that wrote it"};
}

inline Result<Outcome> KeyValueMachine::transact(const Operation& operation, Keyspace& keys) {
  const std::optional<TransactionRecord> transaction = read_transaction(operation.arguments);
  if (!transaction) return Error{"a transaction is damaged"};
  if (state_.last_removal == Index{}) state_.last_removal = keys.index();
  for (const auto& [key, token] : transaction->watched) {
    if (!keys.is_unchanged(key, token)) return Outcome{Outcome::Kind::kNone, 0, {}};
  }
  Outcome replies{Outcome::Kind::kReply, 0, {}};
  for (const auto& args : transaction->commands) {
    Result<Outcome> outcome = run(operation, args, keys);
    if (!outcome) return outcome;
    replies.reply += outcome->reply;
  }
  return replies;
}

// Those whose time has come by the state's time, which this entry has moved on.
inline Outcome KeyValueMachine::remove_expired(const Operation& operation, Keyspace& keys) {
  Outcome outcome{Outcome::Kind::kInteger, 0, {}};
  for (const std::string_view key : operation.arguments) {
    outcome.integer += keys.remove_if_over(key) ? 1 : 0;
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
  return Outcome{Outcome::Kind::kInteger, follows ? 1 : 0, {}};
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
