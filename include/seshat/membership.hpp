// seshat/membership.hpp - who is in the cluster, who may vote, and who is turned away.
//
//   initial_members ─┐
//   handshakes ──────┼──> Membership ──> judge(hello): accepted, or refused with what to do
//   system group ────┘              ├──> may_vote(): an empty node might have voted before a wipe
//                                   ├──> proposal(): what the system leader should record
//                                   └──> roles(): who votes and who learns in every group
//
// The record says what is wanted; the leader of each group brings Raft's own configuration there
// (cluster_changes.hpp):
//
//   join ──> joining ── caught up ──> active ── leave ──> leaving ── out of all groups ──> removed
//            (learner)                (voter)             (goes)       its id may join again, empty
//
// Every data directory has a random incarnation. The system leader records it with the node
// (NodeInfo); from then on a node that comes back with another one has lost what it had promised
// to keep, its votes among it, and is turned away.
//
// Keeps:    a wiped node never votes (failure class "the same id comes back after a wipe").
// Threads:  none inside; the loop.
// Needs:    records.hpp. No clock, no I/O: the simulator can use it as it is.
#ifndef SESHAT_MEMBERSHIP_HPP
#define SESHAT_MEMBERSHIP_HPP

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/fnv1a.hpp"
#include "seshat/records.hpp"

namespace seshat {

class Membership {
 public:
  struct Self {
    NodeId id;
    std::uint64_t incarnation = 0;
    std::string cluster_id;             // as the data directory has it; empty: not known yet
    std::string client_addr;            // what MOVED shall name
    std::string addr;                   // where peers shall dial it
    bool new_at_start = false;          // the data directory had no log and no vote
    std::uint16_t client_tls_port = 0;  // for clients that speak TLS; 0: none
  };

  // `addresses`: initial_members, this node among them; empty on a node that joins.
  Membership(Self self, std::map<NodeId, std::string> addresses);

  // ---- handshakes
  // What this node says of itself; `log_is_empty` and `voted_for_another` as of now.
  [[nodiscard]] Hello hello(bool log_is_empty, bool voted_for_another) const;
  // nullopt: welcome. Else what is wrong with it and what to do.
  [[nodiscard]] std::optional<std::string> judge(const Hello& hello) const;
  // Whether it was removed, with this data directory: it has no place here any more.
  [[nodiscard]] bool was_removed(const Hello& hello) const;
  // A peer was accepted and said this of itself.
  void note_peer(const Hello& hello);
  // A peer answered, with a refusal: it has a past that this node has no part in.
  void note_refusal(NodeId id) { refused_by_.insert(id); }
  void note_acceptance(NodeId id) { refused_by_.erase(id); }
  void forget_peer(NodeId id) { peers_.erase(id); }
  // What it said last; nullopt: it was not accepted since the start.
  [[nodiscard]] std::optional<Hello> peer(NodeId id) const;

  // ---- the system group
  // What it holds now.
  void set_record(ClusterMembership record);
  [[nodiscard]] const std::optional<ClusterMembership>& record() const { return record_; }
  // Leader: what should be recorded instead, nullopt if all is as it should be. `fresh_cluster_id`
  // is taken for a cluster that has none yet.
  [[nodiscard]] std::optional<ClusterMembership> proposal(const std::string& fresh_cluster_id,
                                                          std::uint64_t time_ms) const;

  // ---- members
  // Those who take part or are about to, this node among them, with what peers dial.
  [[nodiscard]] std::map<NodeId, std::string> members() const;
  [[nodiscard]] std::optional<MemberState> state(NodeId id) const;
  // What the configuration of every group should be.
  struct Roles {
    std::vector<NodeId> voters;
    std::vector<NodeId> learners;
  };
  [[nodiscard]] Roles roles() const;
  // Whether all members know records of this version; who leaves doesn't matter any more.
  [[nodiscard]] bool all_know_record_version(std::uint32_t version) const;
  [[nodiscard]] bool all_know_operation_version(std::uint32_t version) const;
  // The system leader's answer to a node that asks to be let in.
  [[nodiscard]] CallReply judge_join(const Hello& hello) const;
  // The record with that node in it; nullopt: it is there already.
  [[nodiscard]] std::optional<ClusterMembership> joined(const Hello& hello,
                                                        std::uint64_t time_ms) const;
  // The record with a member in another state.
  [[nodiscard]] ClusterMembership with_state(NodeId id, MemberState state,
                                             std::uint64_t time_ms) const;
  // On the node that was let in: who its peers are, until it has the record itself.
  void set_joined(const ClusterMembership& membership);

  // ---- voting
  // Whether this node's vote may count in `group`. `has_voted`: it did, in this process, while it
  // was allowed.
  [[nodiscard]] bool may_vote(GroupId group, bool has_voted) const;
  // The record knows this node id with another incarnation: its data directory was lost.
  [[nodiscard]] bool was_wiped() const;

  // ---- addresses
  // What peers dial, and what clients dial (empty: not known).
  [[nodiscard]] std::string addr(NodeId id) const;
  [[nodiscard]] std::string client_addr(NodeId id) const;
  // Of the same host, for clients that speak TLS; 0: not known to have one.
  [[nodiscard]] std::uint16_t client_tls_port(NodeId id) const;
  [[nodiscard]] const std::map<NodeId, std::string>& initial_members() const { return addresses_; }
  [[nodiscard]] const Self& self() const { return self_; }
  // 32 hex digits; empty: not known yet.
  [[nodiscard]] const std::string& cluster_id() const { return self_.cluster_id; }

 private:
  [[nodiscard]] static bool knows_record_version(const NodeInfo& info, std::uint32_t version);
  [[nodiscard]] std::uint64_t known_incarnation(NodeId id) const;
  [[nodiscard]] std::optional<std::string> judge_cluster(const Hello& hello) const;
  [[nodiscard]] bool knows_better(const Hello& hello) const;
  void set_addresses(std::map<NodeId, std::string> addresses);

  Self self_;
  std::map<NodeId, std::string> addresses_;
  std::uint64_t members_hash_ = 0;  // of these
  std::map<NodeId, Hello> peers_;   // as last accepted
  std::set<NodeId> refused_by_;     // who has refused this node since it last accepted it
  std::optional<ClusterMembership> record_;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline Membership::Membership(Self self, std::map<NodeId, std::string> addresses)
    : self_(std::move(self)) {
  set_addresses(std::move(addresses));
}

// The hash is FNV-1a over "id=addr,": compared while there is no cluster id yet.
inline void Membership::set_addresses(std::map<NodeId, std::string> addresses) {
  addresses_ = std::move(addresses);
  members_hash_ = kFnv1aStart;
  for (const auto& [id, addr] : addresses_) {
    members_hash_ = fnv1a(std::to_string(id.value) + "=" + addr + ",", members_hash_);
  }
}

inline Hello Membership::hello(bool log_is_empty, bool voted_for_another) const {
  Hello hello;
  hello.cluster_id = self_.cluster_id;
  hello.members_hash = members_hash_;
  hello.node_id = self_.id;
  hello.incarnation = self_.incarnation;
  // A vote for itself alone does not count: a founder that failed to be elected, and restarts, must
  // not keep the other founders from voting.
  hello.empty = log_is_empty && !voted_for_another;
  hello.client_addr = self_.client_addr;
  hello.client_tls_port = self_.client_tls_port;
  hello.addr = self_.addr;
  hello.membership_version = record_ ? record_->membership_version : 0;
  return hello;
}

inline std::optional<std::string> Membership::judge(const Hello& hello) const {
  const std::string who = "node " + std::to_string(hello.node_id.value);
  if (hello.min_protocol_version > kProtocolVersion ||
      hello.max_protocol_version < kMinProtocolVersion) {
    return who + " speaks peer protocol " + std::to_string(hello.min_protocol_version) + " to " +
           std::to_string(hello.max_protocol_version) + ", this node " +
           std::to_string(kMinProtocolVersion) + " to " + std::to_string(kProtocolVersion) +
           ": run versions of seshat that are at most one release apart";
  }
  if (hello.node_id == self_.id) {
    return who + " has this node's own id: give each node another node.id";
  }
  if (knows_better(hello)) return std::nullopt;
  if (was_removed(hello)) {
    return who +
           " was removed from this cluster: to take part again it has to join with an empty " +
           "data directory (seshat join)";
  }
  if (!members().contains(hello.node_id)) {
    return who + " is not a member of this cluster: let it join (seshat join), or see " +
           "cluster.initial_members";
  }
  if (auto problem = judge_cluster(hello)) return problem;
  const std::uint64_t known = known_incarnation(hello.node_id);
  if (known == 0 || known == hello.incarnation) return std::nullopt;
  return who + " has another data directory than the one this cluster knows: it was wiped or " +
         "replaced, and with it went votes and entries that it had promised to keep. It can't " +
         "take part under its old id: put its old data directory back (node.data_dir), or remove "
         "it (seshat leave " +
         std::to_string(hello.node_id.value) + ") and let it join again";
}

inline std::optional<std::string> Membership::judge_cluster(const Hello& hello) const {
  const std::string who = "node " + std::to_string(hello.node_id.value);
  if (!self_.cluster_id.empty() && !hello.cluster_id.empty()) {
    if (self_.cluster_id == hello.cluster_id) return std::nullopt;
    return who + " belongs to cluster " + hello.cluster_id + ", this node to cluster " +
           self_.cluster_id + ": check addresses and data directories";
  }
  if (hello.members_hash == members_hash_) return std::nullopt;
  // A founder that is late hears of its cluster from another one; by now it may have members that
  // no founder knew, and be led by one.
  const bool of_founders =
      !hello.cluster_id.empty() && std::any_of(peers_.begin(), peers_.end(), [&](const auto& peer) {
        return peer.second.cluster_id == hello.cluster_id;
      });
  if (of_founders) return std::nullopt;
  return who + " was started with other cluster.initial_members than this node: make the lists " +
         "the same on every node";
}

// Who has a newer record was let in by whoever made it, and may be the one to bring it here.
inline bool Membership::knows_better(const Hello& hello) const {
  const std::uint64_t ours = record_ ? record_->membership_version : 0;
  return hello.membership_version > ours && !judge_cluster(hello);
}

inline std::uint64_t Membership::known_incarnation(NodeId id) const {
  if (record_) {
    const auto member = record_->members.find(id);
    if (member != record_->members.end() && member->second.incarnation != 0) {
      return member->second.incarnation;
    }
  }
  const auto peer = peers_.find(id);
  return peer == peers_.end() ? 0 : peer->second.incarnation;
}

inline void Membership::note_peer(const Hello& hello) { peers_[hello.node_id] = hello; }

inline std::optional<Hello> Membership::peer(NodeId id) const {
  const auto found = peers_.find(id);
  return found == peers_.end() ? std::nullopt : std::optional(found->second);
}

inline void Membership::set_record(ClusterMembership record) {
  if (self_.cluster_id.empty()) self_.cluster_id = record.cluster_id;
  record_ = std::move(record);
}

inline std::optional<ClusterMembership> Membership::proposal(const std::string& fresh_cluster_id,
                                                             std::uint64_t time_ms) const {
  ClusterMembership next = record_.value_or(ClusterMembership{});
  if (next.cluster_id.empty()) next.cluster_id = fresh_cluster_id;
  if (!record_) {
    for (const auto& [id, addr] : addresses_) {
      NodeInfo& info = next.members[id];
      info.id = id;
      info.addr = addr;
      info.joined_at_ms = time_ms;
    }
  }
  for (auto& [id, info] : next.members) {
    const auto peer = peers_.find(id);
    const bool is_self = id == self_.id;
    if ((!is_self && peer == peers_.end()) || info.state == MemberState::kRemoved) continue;
    const Hello known = is_self ? hello(false, false) : peer->second;
    if (info.incarnation != 0 && info.incarnation != known.incarnation) continue;
    info.incarnation = known.incarnation;
    info.client_addr = known.client_addr;
    info.client_tls_port = known.client_tls_port;
    if (!known.addr.empty()) info.addr = known.addr;  // version 0.1 doesn't say it
    info.max_record_version = known.max_record_version;
    info.max_operation_version = known.max_operation_version;
  }
  if (record_ && next == *record_) return std::nullopt;
  ++next.membership_version;
  return next;
}

// ---- Members --------------------------------------------------------------------------------------

inline std::map<NodeId, std::string> Membership::members() const {
  std::map<NodeId, std::string> members;
  if (!record_) {
    members = addresses_;
  } else {
    for (const auto& [id, info] : record_->members) {
      if (info.state != MemberState::kRemoved) members[id] = info.addr;
    }
  }
  for (const auto& [id, hello] : peers_) {
    if (knows_better(hello) && !hello.addr.empty()) members[id] = hello.addr;
  }
  return members;
}

inline std::optional<MemberState> Membership::state(NodeId id) const {
  if (!record_) return std::nullopt;
  const auto member = record_->members.find(id);
  return member == record_->members.end() ? std::nullopt : std::optional(member->second.state);
}

inline Membership::Roles Membership::roles() const {
  Roles roles;
  if (!record_) return roles;
  for (const auto& [id, info] : record_->members) {
    if (info.state == MemberState::kActive) roles.voters.push_back(id);
    if (info.state == MemberState::kJoining) roles.learners.push_back(id);
  }
  return roles;
}

// Those that were never heard of count as ones that do: they start with what they are given then.
inline bool Membership::all_know_operation_version(std::uint32_t version) const {
  if (!record_) return true;
  return std::all_of(record_->members.begin(), record_->members.end(), [&](const auto& member) {
    const NodeInfo& info = member.second;
    const bool stays = info.state == MemberState::kActive || info.state == MemberState::kJoining;
    return !stays || info.max_operation_version == 0 || info.max_operation_version >= version;
  });
}

inline bool Membership::all_know_record_version(std::uint32_t version) const {
  if (!record_) return false;
  return std::all_of(record_->members.begin(), record_->members.end(), [&](const auto& member) {
    return knows_record_version(member.second, version);
  });
}

// Who is on its way out does not have to.
inline bool Membership::knows_record_version(const NodeInfo& info, std::uint32_t version) {
  const bool stays = info.state == MemberState::kActive || info.state == MemberState::kJoining;
  return !stays || info.max_record_version >= version;
}

inline bool Membership::was_removed(const Hello& hello) const {
  if (!record_) return false;
  const auto member = record_->members.find(hello.node_id);
  return member != record_->members.end() && member->second.state == MemberState::kRemoved &&
         member->second.incarnation == hello.incarnation;
}

inline CallReply Membership::judge_join(const Hello& hello) const {
  const std::string who = "node " + std::to_string(hello.node_id.value);
  const auto refusal = [](CallStatus status, std::string reason) {
    CallReply reply;
    reply.status = status;
    reply.reason = std::move(reason);
    return reply;
  };
  if (!record_) return refusal(CallStatus::kNotReady, "the cluster is still being founded");
  if (!hello.cluster_id.empty() && hello.cluster_id != record_->cluster_id) {
    return refusal(CallStatus::kWrongCluster, who + " has data of cluster " + hello.cluster_id +
                                                  ", this is cluster " + record_->cluster_id +
                                                  ": start it with an empty node.data_dir");
  }
  if (hello.addr.empty() || hello.node_id == NodeId{} || hello.incarnation == 0) {
    return refusal(CallStatus::kRefused, who + " does not say where peers reach it: set " +
                                             "node.internal_addr or node.advertise_addr");
  }
  if (was_removed(hello)) {
    return refusal(CallStatus::kRefused, who + " was removed from this cluster with the data " +
                                             "directory that it has: start it with an empty one");
  }
  const auto member = record_->members.find(hello.node_id);
  if (member != record_->members.end() && member->second.state != MemberState::kRemoved &&
      member->second.incarnation != hello.incarnation) {
    return refusal(CallStatus::kDuplicateId,
                   "the cluster has a " + who + " already, at " + member->second.addr +
                       ": take another node.id, or remove that one first (seshat leave " +
                       std::to_string(hello.node_id.value) + ")");
  }
  if (hello.max_record_version < kConfigurationRecordVersion) {
    return refusal(CallStatus::kNotReady, who + " runs a version of seshat that knows no changes " +
                                              "of members: update it first");
  }
  if (hello.max_operation_version < kCommandOperationVersion &&
      all_know_operation_version(kCommandOperationVersion)) {
    return refusal(CallStatus::kNotReady,
                   who +
                       " runs a version of seshat that can't apply what the others have in "
                       "their logs: update it first");
  }
  for (const auto& [id, info] : record_->members) {
    if (knows_record_version(info, kConfigurationRecordVersion)) continue;
    const std::string which = "node " + std::to_string(id.value);
    return refusal(CallStatus::kNotReady,
                   info.incarnation == 0
                       ? which + " was never heard from: start it, or remove it (seshat leave " +
                             std::to_string(id.value) + ")"
                       : which + " runs a version of seshat that knows no changes of members: " +
                             "update it first");
  }
  CallReply reply;
  reply.status = CallStatus::kAccepted;
  reply.membership = record_;
  return reply;
}

inline std::optional<ClusterMembership> Membership::joined(const Hello& hello,
                                                           std::uint64_t time_ms) const {
  const auto member = record_->members.find(hello.node_id);
  if (member != record_->members.end() && member->second.state != MemberState::kRemoved) {
    return std::nullopt;
  }
  ClusterMembership next = *record_;
  NodeInfo& info = next.members[hello.node_id];
  info.id = hello.node_id;
  info.incarnation = hello.incarnation;
  info.addr = hello.addr;
  info.client_addr = hello.client_addr;
  info.client_tls_port = hello.client_tls_port;
  info.state = MemberState::kJoining;
  info.joined_at_ms = time_ms;
  info.promoted_at_ms = 0;
  info.max_record_version = hello.max_record_version;
  info.max_operation_version = hello.max_operation_version;
  ++next.membership_version;
  return next;
}

inline ClusterMembership Membership::with_state(NodeId id, MemberState state,
                                                std::uint64_t time_ms) const {
  ClusterMembership next = *record_;
  NodeInfo& info = next.members.at(id);
  const bool votes = info.state == MemberState::kActive || state == MemberState::kActive;
  if (votes && info.promoted_at_ms == 0) info.promoted_at_ms = time_ms;
  info.state = state;
  ++next.membership_version;
  return next;
}

inline void Membership::set_joined(const ClusterMembership& membership) {
  if (record_) return;
  self_.cluster_id = membership.cluster_id;
  std::map<NodeId, std::string> addresses;
  for (const auto& [id, info] : membership.members) {
    if (info.state != MemberState::kRemoved) addresses[id] = info.addr;
  }
  addresses[self_.id] = self_.addr;
  set_addresses(std::move(addresses));
}

// ---- Voting ---------------------------------------------------------------------------------------

inline bool Membership::was_wiped() const {
  if (!record_) return false;
  const auto member = record_->members.find(self_.id);
  return member != record_->members.end() && member->second.incarnation != 0 &&
         member->second.incarnation != self_.incarnation;
}

// - Recorded with our incarnation: a leader has admitted us. Under an id that there was before, the
//   log that is replayed here may say that this node was a voter then, perhaps the only one. In the
//   system group the record comes after all that; elsewhere a node votes once it was made a voter,
//   which is when its log has reached the members of the present (cluster_changes.hpp).
// - A record that doesn't know us (yet): a leader exists, it will admit us.
// - No record, and it joins: a leader will admit it.
// - No record: the cluster is being founded. A node that has a past goes on with it; a new one
//   votes as long as everybody who has answered is new too, and nobody has turned it away.
inline bool Membership::may_vote(GroupId group, bool has_voted) const {
  if (record_) {
    const auto member = record_->members.find(self_.id);
    if (member == record_->members.end()) return false;
    const NodeInfo& info = member->second;
    const bool promoted = info.state == MemberState::kActive || info.promoted_at_ms != 0;
    return info.incarnation == self_.incarnation && (group == kSystemGroup || promoted);
  }
  if (!self_.new_at_start || has_voted) return true;
  if (!addresses_.contains(self_.id) || !self_.cluster_id.empty()) return false;  // it joins
  if (!refused_by_.empty()) return false;
  for (const auto& [id, hello] : peers_) {
    if (!hello.empty) return false;
  }
  return true;
}

inline std::string Membership::addr(NodeId id) const {
  const auto known = members();
  const auto found = known.find(id);
  return found == known.end() ? std::string() : found->second;
}

// The newest that is known: what the node said itself, then what the system group recorded.
inline std::string Membership::client_addr(NodeId id) const {
  if (id == self_.id) return self_.client_addr;
  const auto peer = peers_.find(id);
  if (peer != peers_.end()) return peer->second.client_addr;
  if (!record_) return {};
  const auto member = record_->members.find(id);
  return member == record_->members.end() ? std::string() : member->second.client_addr;
}

inline std::uint16_t Membership::client_tls_port(NodeId id) const {
  if (id == self_.id) return self_.client_tls_port;
  const auto peer = peers_.find(id);
  if (peer != peers_.end()) return peer->second.client_tls_port;
  if (!record_) return 0;
  const auto member = record_->members.find(id);
  return member == record_->members.end() ? std::uint16_t{0} : member->second.client_tls_port;
}

}  // namespace seshat

#endif  // SESHAT_MEMBERSHIP_HPP
