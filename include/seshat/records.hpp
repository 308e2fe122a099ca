// seshat/records.hpp - what Seshat stores and what its nodes tell each other, as plain structs.
//
// codec.hpp turns each into bytes and back; proto/seshat.proto holds the field numbers. Every
// stored record and every operation carries a version: a newer one than the program knows is
// refused, an older one is read.
//
// Threads: none inside. Needs: raft.hpp.
#ifndef SESHAT_RECORDS_HPP
#define SESHAT_RECORDS_HPP

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "seshat/raft.hpp"
#include "seshat/slots.hpp"

namespace seshat {

using raft::GroupId;
using raft::Index;
using raft::NodeId;
using raft::Term;

inline constexpr std::uint32_t kRecordVersion = 1;     // the newest this program reads and writes
inline constexpr std::uint32_t kOperationVersion = 1;  // the newest this program can apply
inline constexpr std::uint32_t kProtocolVersion = 1;   // of the peer channel

inline constexpr GroupId kSystemGroup{0};
inline constexpr GroupId kFirstDataGroup{1};

// ---- Values -------------------------------------------------------------------------------------

enum class ValueType : std::uint8_t { kString = 0 };

// `data` is a view: of the stored bytes it was decoded from, or of what is to be encoded.
struct StoredValue {
  ValueType type = ValueType::kString;
  std::string_view data;
  std::uint64_t created_at_ms = 0;  // since 1970, by the leader that proposed it
  std::optional<std::uint64_t> expires_at_ms;
  Index mod_index;  // the log index that last changed it
};

// How far a state machine is; kept in the same batch as what it applied.
struct MachineState {
  Index applied_index;
  Term applied_term;
  std::uint64_t key_count = 0;
  std::uint64_t time_ms = 0;  // the highest stamp applied

  friend bool operator==(const MachineState&, const MachineState&) = default;
};

// ---- Operations: what a log entry does to the state machine -------------------------------------

// Numbers are for ever: they stand in logs.
enum class OperationType : std::uint8_t {
  kSet = 1,            // arguments: key, value
  kDelete = 2,         // arguments: keys
  kSetMembership = 3,  // system group; arguments: ClusterMembership record
  kSetShardMap = 4,    // system group; arguments: ShardMap record
};

// The arguments are views, as with StoredValue. All that matters to apply is in here: no clock and
// no setting of the node that applies it.
struct Operation {
  OperationType type = OperationType::kSet;
  std::uint64_t time_ms = 0;  // since 1970, stamped by the leader
  std::vector<std::string_view> arguments;
};

// ---- The cluster, as the system group keeps it --------------------------------------------------

enum class MemberState : std::uint8_t { kActive = 0, kJoining = 1, kLeaving = 2, kRemoved = 3 };

struct NodeInfo {
  NodeId id;
  std::uint64_t incarnation = 0;  // drawn when its data directory was made; 0: never heard from
  std::string addr;               // where peers dial it
  std::string client_addr;        // what MOVED names; empty: never heard from
  MemberState state = MemberState::kActive;
  std::uint64_t joined_at_ms = 0;
  std::uint32_t max_record_version = 0;
  std::uint32_t max_operation_version = 0;

  friend bool operator==(const NodeInfo&, const NodeInfo&) = default;
};

struct ClusterMembership {
  std::string cluster_id;  // 32 hex digits, drawn by the first system leader
  std::map<NodeId, NodeInfo> members;
  std::uint64_t membership_version = 0;

  friend bool operator==(const ClusterMembership&, const ClusterMembership&) = default;
};

enum class ShardState : std::uint8_t { kActive = 0 };

struct SlotRange {
  Slot first = 0;
  Slot last = 0;  // included

  friend bool operator==(const SlotRange&, const SlotRange&) = default;
};

struct ShardInfo {
  GroupId id;
  std::vector<SlotRange> slots;
  std::vector<NodeId> replicas;
  ShardState state = ShardState::kActive;

  friend bool operator==(const ShardInfo&, const ShardInfo&) = default;
};

struct ShardMap {
  std::vector<ShardInfo> shards;
  std::uint32_t replication_factor = 0;

  friend bool operator==(const ShardMap&, const ShardMap&) = default;
};

// Of the data directory, written once when it is made (the cluster id once it is known).
struct NodeIdentity {
  NodeId id;
  std::uint64_t incarnation = 0;
  std::string cluster_id;

  friend bool operator==(const NodeIdentity&, const NodeIdentity&) = default;
};

// ---- The peer channel ---------------------------------------------------------------------------

// The first message of a stream; the listener answers with its own, or with a refusal.
struct Hello {
  std::uint32_t protocol_version = kProtocolVersion;
  std::string cluster_id;          // empty: not known yet
  std::uint64_t members_hash = 0;  // of initial_members: compared while a cluster id is unknown
  NodeId node_id;
  std::uint64_t incarnation = 0;
  bool empty = false;  // has no log and no vote: new, or wiped
  std::string client_addr;
  std::uint32_t max_record_version = kRecordVersion;
  std::uint32_t max_operation_version = kOperationVersion;

  friend bool operator==(const Hello&, const Hello&) = default;
};

struct HelloReply {
  bool accepted = false;
  std::string reason;  // of a refusal: what is wrong and what to do
  Hello self;          // who answers

  friend bool operator==(const HelloReply&, const HelloReply&) = default;
};

struct PeerMessage {
  GroupId group;
  raft::Message message;
};

// What a node tells its peers about itself every now and then; also a sign of life.
struct NodeStatus {
  bool disk_low = false;  // less than min_free_disk_mb left

  friend bool operator==(const NodeStatus&, const NodeStatus&) = default;
};

// One write on a stream: a handshake message, or all Raft messages that gathered.
struct Frame {
  std::optional<Hello> hello;
  std::optional<HelloReply> hello_reply;
  std::vector<PeerMessage> messages;
  std::optional<NodeStatus> status;
};

}  // namespace seshat

#endif  // SESHAT_RECORDS_HPP
