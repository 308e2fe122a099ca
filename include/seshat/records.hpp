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
#include <variant>
#include <vector>

#include "seshat/raft.hpp"
#include "seshat/slots.hpp"

namespace seshat {

using raft::GroupId;
using raft::Index;
using raft::NodeId;
using raft::Term;

// The newest that this program reads and applies. Each record is written with the lowest version
// that can express it: 2 came with configurations in the log, 3 with keys that expire and are
// watched (docs/compatibility.md).
inline constexpr std::uint32_t kRecordVersion = 3;
inline constexpr std::uint32_t kConfigurationRecordVersion = 2;
inline constexpr std::uint32_t kKeyspaceRecordVersion = 3;
// 2 came with commands and transactions.
inline constexpr std::uint32_t kOperationVersion = 2;
inline constexpr std::uint32_t kCommandOperationVersion = 2;
// Of the peer channel: what this program speaks, from and to. 2 has snapshots and calls, 3 forwards
// what clients ask.
inline constexpr std::uint32_t kMinProtocolVersion = 1;
inline constexpr std::uint32_t kProtocolVersion = 3;
inline constexpr std::uint32_t kForwardingProtocolVersion = 3;

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
  // Who takes part, as the last applied change of it says; index 0: none was.
  Index configuration_index = {};
  raft::Configuration configuration = {};
  std::uint64_t expiring_count = 0;  // of the keys, those that have a time to live
  // The entry that last removed a key, or all: a key that was absent and is may have been there in
  // between, but not if this stayed the same.
  Index last_removal = {};

  friend bool operator==(const MachineState&, const MachineState&) = default;
};

// ---- Operations: what a log entry does to the state machine -------------------------------------

// Numbers are for ever: they stand in logs.
enum class OperationType : std::uint8_t {
  kSet = 1,            // arguments: key, value
  kDelete = 2,         // arguments: keys
  kSetMembership = 3,  // system group; arguments: ClusterMembership record
  kSetShardMap = 4,    // system group; arguments: ShardMap record
  kCommand = 5,        // arguments: a command of kv.hpp by its name, and its arguments
  kTransaction = 6,    // arguments: see transaction.hpp
  kTime = 7,           // no arguments: the state's time is what it is stamped with
  kRemoveExpired = 8,  // arguments: keys, which are removed if their time has come
};

[[nodiscard]] constexpr std::uint32_t operation_version_of(OperationType type) {
  return type <= OperationType::kSetShardMap ? 1 : kCommandOperationVersion;
}

// The arguments are views, as with StoredValue. All that matters to apply is in here: no clock and
// no setting of the node that applies it.
struct Operation {
  OperationType type = OperationType::kSet;
  std::uint64_t time_ms = 0;  // since 1970, stamped by the leader
  std::vector<std::string_view> arguments;
  // What values may grow to, by the setting of the node that proposed it; of a SET, it was checked.
  std::uint64_t max_value_size_bytes = 0;
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
  std::uint64_t promoted_at_ms = 0;  // since when it votes; 0: never, or since before this was kept
  std::uint32_t max_record_version = 0;
  std::uint32_t max_operation_version = 0;
  // For clients that speak TLS, at the host of client_addr. 0: none, or a version that knows no TLS.
  std::uint16_t client_tls_port = 0;

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

// Beside a snapshot on disk, and the first thing that is sent of it.
struct SnapshotMetadata {
  GroupId group;
  raft::Snapshot snapshot;
  ClusterMembership membership;  // as the node knew it that took the snapshot
  std::uint64_t created_at_ms = 0;
  std::uint64_t size_bytes = 0;  // of its rows
  std::uint64_t row_count = 0;
  std::uint64_t checksum = 0;  // over all rows, see snapshot.hpp

  friend bool operator==(const SnapshotMetadata&, const SnapshotMetadata&) = default;
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
  // From and to; each side then speaks the highest that both do. (Nodes of version 0.1 send only
  // the first of the two, and want it to be 1.)
  std::uint32_t min_protocol_version = kMinProtocolVersion;
  std::uint32_t max_protocol_version = kProtocolVersion;
  std::string cluster_id;          // empty: not known yet
  std::uint64_t members_hash = 0;  // of initial_members: compared while a cluster id is unknown
  NodeId node_id;
  std::uint64_t incarnation = 0;
  bool empty = false;  // has no log and no vote: new, or wiped
  std::string client_addr;
  std::string addr;                      // where peers dial it
  std::uint64_t membership_version = 0;  // of the record that it has; 0: none
  std::uint32_t max_record_version = kRecordVersion;
  std::uint32_t max_operation_version = kOperationVersion;
  std::uint16_t client_tls_port = 0;  // as in NodeInfo

  friend bool operator==(const Hello&, const Hello&) = default;
};

struct HelloReply {
  bool accepted = false;
  std::string reason;    // of a refusal: what is wrong and what to do
  Hello self;            // who answers
  bool removed = false;  // ... because whoever asks was removed from the cluster

  friend bool operator==(const HelloReply&, const HelloReply&) = default;
};

struct PeerMessage {
  GroupId group;
  raft::Message message;
};

// How one group does on one node.
struct GroupStatus {
  GroupId group;
  raft::Role role = raft::Role::kFollower;
  Term term;
  NodeId leader;
  Index commit_index;
  Index applied_index;
  Index first_index;  // of the log on disk
  Index last_index;
  std::uint64_t log_size_bytes = 0;  // on disk
  Index snapshot_index;              // of the newest snapshot that is kept; 0: none
  bool restoring = false;            // a snapshot is being received or installed

  friend bool operator==(const GroupStatus&, const GroupStatus&) = default;
};

// What a node tells its peers about itself every now and then; also a sign of life.
struct NodeStatus {
  bool disk_low = false;     // less than min_free_disk_mb left
  std::string version = {};  // of its program
  std::vector<GroupStatus> groups = {};

  friend bool operator==(const NodeStatus&, const NodeStatus&) = default;
};

// ---- What clients ask a node that does not lead, on its way to the leader (forwarding.hpp)

struct ForwardedRequest {
  std::uint64_t id = 0;  // drawn by who asks, larger than those before; never 0
  GroupId group;
  std::string operation;       // to be proposed; empty: from where on may be read?
  std::uint64_t after_id = 0;  // of a read: it sees those writes of the same node, up to this id
  Term term;                   // in which the node that is asked leads: in another one it refuses

  friend bool operator==(const ForwardedRequest&, const ForwardedRequest&) = default;
};

struct ForwardedReply {
  std::uint64_t id = 0;
  std::uint32_t refusal = 0;  // 0: done; else a Refusal of replica.hpp
  Index index;                // of a write: its entry; of a read: what must be applied before it
  std::uint64_t time_ms = 0;  // of a read: by the leader's clock
  std::uint32_t outcome = 0;  // of a write: an Outcome's kind, and what it holds
  std::int64_t integer = 0;
  std::string reply = {};

  friend bool operator==(const ForwardedReply&, const ForwardedReply&) = default;
};

using Forwarded = std::variant<ForwardedRequest, ForwardedReply>;

// One write on a stream: a handshake message, or all that gathered.
struct Frame {
  std::optional<Hello> hello;
  std::optional<HelloReply> hello_reply;
  std::vector<PeerMessage> messages;
  std::optional<NodeStatus> status;
  std::vector<ForwardedRequest> forwarded;
  std::vector<ForwardedReply> forwarded_replies;
};

// ---- Calls: a question and an answer, outside the streams ---------------------------------------

// What an administrator may change; numbers are for ever.
enum class AdminAction : std::uint8_t {
  kLeave = 1,           // removes `node`
  kPromote = 2,         // makes the learner `node` a voter
  kTransferLeader = 3,  // hands the leadership of all groups to `node`
  kSnapshot = 4,        // takes snapshots of all groups, on the node that is asked
};

struct AdminRequest {
  AdminAction action = AdminAction::kLeave;
  NodeId node;
  bool force = false;

  friend bool operator==(const AdminRequest&, const AdminRequest&) = default;
};

// "Let me in": from a node that is no member yet.
struct JoinRequest {
  Hello hello;

  friend bool operator==(const JoinRequest&, const JoinRequest&) = default;
};

enum class CallStatus : std::uint8_t {
  kAccepted = 0,
  kNotLeader = 1,     // ask `leader_addr`; empty: there is none at present
  kDuplicateId = 2,   // another node has this id
  kWrongCluster = 3,  // it belongs to another cluster
  kNotReady = 4,      // not now; ask again
  kRefused = 5,       // `reason` says why
};

struct CallRequest {
  NodeId from;
  std::string cluster_id;  // empty: not known, of a node that joins
  std::optional<JoinRequest> join;
  std::optional<AdminRequest> admin;

  friend bool operator==(const CallRequest&, const CallRequest&) = default;
};

struct CallReply {
  CallStatus status = CallStatus::kRefused;
  std::string reason;                           // for people
  std::string leader_addr;                      // kNotLeader: where peers dial it
  std::string client_addr;                      // ... and where clients do
  std::optional<ClusterMembership> membership;  // to a node that joins

  friend bool operator==(const CallReply&, const CallReply&) = default;
};

// ---- Snapshots on their way ---------------------------------------------------------------------

// What is sent first.
struct SnapshotOffer {
  PeerMessage message;  // an InstallSnapshot
  std::string cluster_id;
  SnapshotMetadata metadata;
};

// Some rows of it, in the order of their keys.
struct SnapshotChunk {
  std::uint64_t number = 0;    // 1, 2, 3 ... within one call
  std::string rows;            // see snapshot.hpp
  std::uint64_t checksum = 0;  // of `rows`
  bool last = false;           // nothing follows

  friend bool operator==(const SnapshotChunk&, const SnapshotChunk&) = default;
};

// What a sender sends: first an offer, then chunks.
using SnapshotFrame = std::variant<SnapshotOffer, SnapshotChunk>;

// From the receiver: one to the offer, one to each chunk, and one when it is installed.
struct SnapshotReply {
  enum class Status : std::uint8_t {
    kGoOn = 0,       // send what follows `after_key`
    kInstalled = 1,  // done, or not needed any more: the receiver has all up to `index`
    kRefused = 2,    // `reason` says why
  };
  Status status = Status::kRefused;
  std::string reason;
  std::string after_key;  // to the offer: rows up to this key are there already; empty: none
  Index index;
  std::uint64_t received_chunk = 0;  // its number: the sender may send some more

  friend bool operator==(const SnapshotReply&, const SnapshotReply&) = default;
};

}  // namespace seshat

#endif  // SESHAT_RECORDS_HPP
