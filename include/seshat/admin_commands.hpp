// seshat/admin_commands.hpp - SESHAT.*: how the cluster does, and changes of it while it serves.
//
//   MEMBERS, STATUS                               local: answered at once, from Site::cluster_status
//   LEAVE, PROMOTE, TRANSFER-LEADER, SNAPSHOT     arguments ──> AdminRequest ──> Database::administer
//                                                 CallReply ──> +OK, or an error that says what to do
//
// Any node takes them. Those that change something are refused, while there is no password, to
// clients that did not come from the node's own machine: denial().
//
// Threads: the loop. Needs: command.hpp.
#ifndef SESHAT_ADMIN_COMMANDS_HPP
#define SESHAT_ADMIN_COMMANDS_HPP

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/command.hpp"

namespace seshat::admin_commands {

// An array with a map for each member: id, addr, client-addr, state, incarnation (16 hex digits),
// joined-at-ms (since 1970), max-record-version, max-operation-version, connected, self.
void members(const Call& call);

// An array with a map for each member and group: node, address, group, role, term, leader, commit,
// applied, lag, log-entries, log-bytes, snapshot, state, version, heard-ms-ago. What is not known
// is null. Names are only ever added.
void status(const Call& call);

[[nodiscard]] std::optional<std::string> leave(Args args, AdminRequest& request);
[[nodiscard]] std::optional<std::string> promote(Args args, AdminRequest& request);
[[nodiscard]] std::optional<std::string> transfer_leader(Args args, AdminRequest& request);
[[nodiscard]] std::optional<std::string> snapshot(Args args, AdminRequest& request);

// Why this client may not have it done; nullopt: it may.
[[nodiscard]] std::optional<std::string> denial(const Command& command, const Session& session);

// What a client hears of what it asked for.
void reply_call(const CallReply& reply, resp::Writer& writer);

// One row of STATUS.
struct StatusRow {
  const MemberStatus* member = nullptr;
  GroupId group;
  std::optional<GroupStatus> status = {};  // nullopt: never heard of
  std::optional<std::uint64_t> lag = {};   // entries behind the leader's commit
  std::string_view role = "unknown";       // ... while the node is not connected
  std::string_view state = "unknown";
};

// Every member with every group that any of them has, by node and then by group.
[[nodiscard]] std::vector<StatusRow> status_rows(const ClusterStatus& cluster);

[[nodiscard]] std::string_view state_name(MemberState state);

// =================================================================================================
// Bodies
// =================================================================================================

inline std::string_view state_name(MemberState state) {
  switch (state) {
    case MemberState::kActive:
      return "active";
    case MemberState::kJoining:
      return "joining";
    case MemberState::kLeaving:
      return "leaving";
    case MemberState::kRemoved:
      return "removed";
  }
  return "unknown";
}

namespace detail {

inline void text(resp::Writer& reply, std::string_view name, std::string_view value) {
  reply.bulk(name);
  reply.bulk(value);
}

inline void number(resp::Writer& reply, std::string_view name, std::uint64_t value) {
  reply.bulk(name);
  reply.integer(static_cast<std::int64_t>(value));
}

inline void number_if(resp::Writer& reply, std::string_view name,
                      std::optional<std::uint64_t> value) {
  if (value) return number(reply, name, *value);
  reply.bulk(name);
  reply.null();
}

inline void truth(resp::Writer& reply, std::string_view name, bool value) {
  reply.bulk(name);
  reply.boolean(value);
}

inline std::string hex_16(std::uint64_t value) {
  std::string digits;
  for (int shift = 60; shift >= 0; shift -= 4) digits += "0123456789abcdef"[(value >> shift) & 0xf];
  return digits;
}

}  // namespace detail

// ---- MEMBERS ------------------------------------------------------------------------------------

inline void members(const Call& call) {
  const ClusterStatus cluster = call.site.cluster_status();
  resp::Writer reply = call.reply();
  reply.array(cluster.members.size());
  for (const MemberStatus& member : cluster.members) {
    reply.map(10);
    detail::number(reply, "id", member.info.id.value);
    detail::text(reply, "addr", member.info.addr);
    detail::text(reply, "client-addr", member.info.client_addr);
    detail::text(reply, "state", state_name(member.info.state));
    detail::text(reply, "incarnation", detail::hex_16(member.info.incarnation));
    detail::number(reply, "joined-at-ms", member.info.joined_at_ms);
    detail::number(reply, "max-record-version", member.info.max_record_version);
    detail::number(reply, "max-operation-version", member.info.max_operation_version);
    detail::truth(reply, "connected", member.connected);
    detail::truth(reply, "self", member.is_self);
  }
}

// ---- STATUS -------------------------------------------------------------------------------------

namespace detail {

// The commit index that others are behind: the leader's; without one, the highest that was heard.
inline Index commit_of(const ClusterStatus& cluster, GroupId group) {
  Index commit;
  Index of_leader;
  Term term_of_leader;
  for (const MemberStatus& member : cluster.members) {
    if (!member.status) continue;
    for (const GroupStatus& status : member.status->groups) {
      if (status.group != group) continue;
      commit = std::max(commit, status.commit_index);
      if (!member.connected || status.role != raft::Role::kLeader) continue;
      if (status.term < term_of_leader) continue;
      term_of_leader = status.term;
      of_leader = status.commit_index;
    }
  }
  return term_of_leader == Term{} ? commit : of_leader;
}

// What a node that is gone last said of its role is no longer true.
inline std::string_view role_of(const MemberStatus& member, const GroupStatus& status) {
  if (!member.connected) return "unknown";
  const bool learns = member.info.state == MemberState::kJoining;
  if (learns && status.role == raft::Role::kFollower) return "learner";
  return raft::role_name(status.role);
}

inline StatusRow row_of(const MemberStatus& member, GroupId group, Index commit) {
  StatusRow row{&member, group};
  row.state = member.connected ? state_name(member.info.state) : "down";
  if (!member.status) return row;
  const std::vector<GroupStatus>& groups = member.status->groups;
  const auto found = std::find_if(groups.begin(), groups.end(),
                                  [&](const GroupStatus& g) { return g.group == group; });
  if (found == groups.end()) return row;
  row.status = *found;
  row.lag = commit > found->applied_index ? commit.value - found->applied_index.value : 0;
  row.role = role_of(member, *found);
  if (member.connected && found->restoring) row.state = "restoring";
  return row;
}

inline void write_row(const StatusRow& row, resp::Writer& reply) {
  const MemberStatus& member = *row.member;
  const std::optional<GroupStatus>& status = row.status;
  const auto known = [&](auto value_of) {
    return status ? std::optional<std::uint64_t>(value_of(*status)) : std::nullopt;
  };
  reply.map(15);
  number(reply, "node", member.info.id.value);
  text(reply, "address",
       member.info.client_addr.empty() ? member.info.addr : member.info.client_addr);
  number(reply, "group", row.group.value);
  text(reply, "role", row.role);
  number_if(reply, "term", known([](const GroupStatus& s) { return s.term.value; }));
  number_if(reply, "leader", known([](const GroupStatus& s) { return s.leader.value; }));
  number_if(reply, "commit", known([](const GroupStatus& s) { return s.commit_index.value; }));
  number_if(reply, "applied", known([](const GroupStatus& s) { return s.applied_index.value; }));
  number_if(reply, "lag", row.lag);
  number_if(reply, "log-entries", known([](const GroupStatus& s) {
              return s.last_index < s.first_index ? 0
                                                  : s.last_index.value - s.first_index.value + 1;
            }));
  number_if(reply, "log-bytes", known([](const GroupStatus& s) { return s.log_size_bytes; }));
  number_if(reply, "snapshot", known([](const GroupStatus& s) { return s.snapshot_index.value; }));
  text(reply, "state", row.state);
  text(reply, "version", member.status ? member.status->version : "");
  number_if(reply, "heard-ms-ago",
            member.status ? std::optional(member.heard_ms_ago) : std::nullopt);
}

}  // namespace detail

inline std::vector<StatusRow> status_rows(const ClusterStatus& cluster) {
  std::map<GroupId, Index> commits;
  for (const MemberStatus& member : cluster.members) {
    if (!member.status) continue;
    for (const GroupStatus& status : member.status->groups) commits[status.group] = {};
  }
  // Nobody was heard yet: at least every member is shown.
  if (commits.empty()) commits = {{kSystemGroup, {}}, {kFirstDataGroup, {}}};
  for (auto& [group, commit] : commits) commit = detail::commit_of(cluster, group);
  std::vector<StatusRow> rows;
  for (const MemberStatus& member : cluster.members) {
    if (member.info.state == MemberState::kRemoved) continue;
    for (const auto& [group, commit] : commits) {
      rows.push_back(detail::row_of(member, group, commit));
    }
  }
  return rows;
}

inline void status(const Call& call) {
  const ClusterStatus cluster = call.site.cluster_status();
  const std::vector<StatusRow> rows = status_rows(cluster);
  resp::Writer reply = call.reply();
  reply.array(rows.size());
  for (const StatusRow& row : rows) detail::write_row(row, reply);
}

// ---- Changes ------------------------------------------------------------------------------------

namespace detail {

// What comes from the client stays short in an answer.
inline std::string quoted(std::string_view text) {
  return "'" + std::string(text.substr(0, 128)) + "'";
}

// COMMAND id, or COMMAND id FORCE where `may_force`.
inline std::optional<std::string> node_request(Args args, AdminAction action, bool may_force,
                                               AdminRequest& request) {
  request.action = action;
  const auto id = resp::parse_integer(args[1]);
  if (!id || *id < 1) {
    return "ERR invalid node id " + quoted(args[1]) + ": must be a number from 1 to " +
           std::to_string(std::numeric_limits<std::int64_t>::max()) +
           "; SESHAT.MEMBERS lists the members";
  }
  request.node = NodeId{static_cast<std::uint64_t>(*id)};
  if (args.size() == 2) return std::nullopt;
  request.force = may_force && args.size() == 3 && equals_ignoring_case(args[2], "force");
  if (request.force) return std::nullopt;
  const bool forced = equals_ignoring_case(args[2], "force");
  return "ERR syntax error at " + quoted(args[forced && args.size() > 3 ? 3 : 2]) + ": " +
         to_upper(args[0]) + (may_force ? " node-id [FORCE]" : " node-id");
}

}  // namespace detail

inline std::optional<std::string> leave(Args args, AdminRequest& request) {
  return detail::node_request(args, AdminAction::kLeave, true, request);
}

inline std::optional<std::string> promote(Args args, AdminRequest& request) {
  return detail::node_request(args, AdminAction::kPromote, true, request);
}

inline std::optional<std::string> transfer_leader(Args args, AdminRequest& request) {
  return detail::node_request(args, AdminAction::kTransferLeader, false, request);
}

inline std::optional<std::string> snapshot(Args, AdminRequest& request) {
  request.action = AdminAction::kSnapshot;
  return std::nullopt;
}

inline std::optional<std::string> denial(const Command& command, const Session& session) {
  if (command.admin == nullptr || session.gave_password) return std::nullopt;
  if (comes_from_here(session.address, session.local_address)) return std::nullopt;
  return "DENIED " + to_upper(command.name) +
         " is allowed from this machine only while no password is set: log in to the machine of "
         "any node and send it from there, to an address of that machine";
}

inline void reply_call(const CallReply& reply, resp::Writer& writer) {
  switch (reply.status) {
    case CallStatus::kAccepted:
      return writer.simple_string(reply.reason.empty() ? "OK" : reply.reason);
    case CallStatus::kNotLeader:
      return writer.error("CLUSTERDOWN no leader, election in progress");
    case CallStatus::kNotReady:
      return writer.error("TRYAGAIN " + reply.reason);
    case CallStatus::kDuplicateId:
    case CallStatus::kWrongCluster:
    case CallStatus::kRefused:
      break;
  }
  writer.error("ERR " + (reply.reason.empty() ? std::string("refused") : reply.reason));
}

}  // namespace seshat::admin_commands

#endif  // SESHAT_ADMIN_COMMANDS_HPP
