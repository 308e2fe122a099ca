// seshat/node_info.hpp - what a node says of its groups and its disk: in INFO, and to its peers.
//
// Threads: none inside; the loop. Needs: replica.hpp, store_events.hpp, records.hpp.
#ifndef SESHAT_NODE_INFO_HPP
#define SESHAT_NODE_INFO_HPP

#include <cstdint>
#include <string>
#include <string_view>

#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/replica.hpp"
#include "seshat/store_events.hpp"
#include "seshat/store_group.hpp"

namespace seshat::node_info {

// A "key:value" line, as INFO has them.
void line(std::string& out, std::string_view key, std::string_view value);
void line(std::string& out, std::string_view key, std::uint64_t value);

// The lines of one group in section "raft".
void append_group(std::string& out, const Replica& replica, const LogStats& log,
                  std::uint64_t now_ms);
// The lines of the disk in section "persistence".
void append_store(std::string& out, const StoreStats& stats, bool disk_low);
[[nodiscard]] GroupStatus status_of(GroupId group, const raft::Raft& raft, const LogStats& log,
                                    Index snapshot_index, bool restoring);

// =================================================================================================
// Bodies
// =================================================================================================

inline void line(std::string& out, std::string_view key, std::string_view value) {
  out.append(key).append(":").append(value).append("\r\n");
}

inline void line(std::string& out, std::string_view key, std::uint64_t value) {
  line(out, key, std::to_string(value));
}

inline std::string numbers(const std::vector<NodeId>& nodes) {
  std::string text;
  for (const NodeId node : nodes) text += (text.empty() ? "" : ",") + std::to_string(node.value);
  return text;
}

inline void append_group(std::string& out, const Replica& replica, const LogStats& log,
                         std::uint64_t now_ms) {
  const raft::Raft& raft = replica.raft();
  const bool lease = raft.has_lease(now_ms);
  const std::string prefix = "raft_group_" + std::to_string(replica.group().value) + "_";
  const auto add = [&](std::string_view key, std::uint64_t value) {
    line(out, prefix + std::string(key), value);
  };
  line(out, prefix + "role", raft::role_name(raft.role()));
  add("term", raft.current_term().value);
  add("leader", raft.leader().value);
  add("vote", raft.voted_for().value);
  line(out, prefix + "voters", numbers(raft.configuration().voters));
  line(out, prefix + "outgoing", numbers(raft.configuration().outgoing));
  line(out, prefix + "learners", numbers(raft.configuration().learners));
  add("configuration_index", raft.configuration_index().value);
  add("first_index", log.first_index.value);
  add("last_index", raft.log().last_index().value);
  add("commit_index", raft.commit_index().value);
  add("durable_index", raft.durable_index().value);
  add("applied_index", raft.last_applied().value);
  add("applied_durable_index", log.applied_durable.value);
  add("apply_lag", raft.commit_index() - raft.last_applied());
  add("compactable_index", raft.compactable_index().value);
  add("log_disk_bytes", log.size_bytes);
  add("log_memory_bytes", raft.log().size_bytes());
  add("waiting_requests", replica.waiting());
  add("lease", lease ? 1 : 0);
  const bool counts_down = lease && raft.lease_until_ms() > now_ms;
  add("lease_left_ms", counts_down ? raft.lease_until_ms() - now_ms : 0);
  if (!raft.is_leader()) return;
  for (const raft::PeerStatus& peer : raft.peers()) {
    line(out, prefix + "peer_" + std::to_string(peer.id.value),
         "match_index=" + std::to_string(peer.match_index.value) +
             ",lag=" + std::to_string(raft.log().last_index() - peer.match_index) +
             ",needs_snapshot=" + (peer.needs_snapshot ? "1" : "0"));
  }
}

inline void append_store(std::string& out, const StoreStats& stats, bool disk_low) {
  line(out, "store_size_bytes", stats.size_bytes);
  line(out, "store_free_disk_bytes", stats.free_disk_bytes);
  line(out, "store_disk_low", disk_low ? 1 : 0);
  line(out, "store_unsynced_age_ms", stats.unsynced_age_ms);
  line(out, "store_batches", stats.batches);
  line(out, "store_syncs", stats.syncs);
  line(out, "store_held_writes", stats.held_writes);
  line(out, "store_written_rows", stats.written_rows);
  line(out, "store_row_cache_bytes", stats.row_cache_bytes);
  line(out, "store_log_cuts", stats.log_cuts);
  line(out, "store_snapshots_built", stats.snapshots_built);
  line(out, "store_snapshots_received", stats.snapshots_received);
  line(out, "store_snapshots_installed", stats.snapshots_installed);
  line(out, "store_last_snapshot_ms", stats.last_build_ms);
}

inline GroupStatus status_of(GroupId group, const raft::Raft& raft, const LogStats& log,
                             Index snapshot_index, bool restoring) {
  GroupStatus status;
  status.group = group;
  status.role = raft.role();
  status.term = raft.current_term();
  status.leader = raft.leader();
  status.commit_index = raft.commit_index();
  status.applied_index = raft.last_applied();
  status.first_index = log.first_index;
  status.last_index = raft.log().last_index();
  status.log_size_bytes = log.size_bytes;
  status.snapshot_index = snapshot_index;
  status.restoring = restoring;
  return status;
}

}  // namespace seshat::node_info

#endif  // SESHAT_NODE_INFO_HPP
