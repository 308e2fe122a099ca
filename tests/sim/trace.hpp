// Messages and states as a reader of the Raft paper would write them down.
#ifndef SESHAT_TESTS_SIM_TRACE_HPP
#define SESHAT_TESTS_SIM_TRACE_HPP

#include <string>
#include <variant>

#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "sim/network.hpp"

namespace seshat::sim {

namespace trace_detail {

inline std::string number(std::uint64_t n) { return std::to_string(n); }
inline std::string position(Index index, Term term) {
  return number(index.value) + " (term " + number(term.value) + ")";
}

inline std::string tell(const raft::RequestVote& m) {
  return std::string(m.pre_vote ? "PreVote" : "RequestVote") + " log ends at " +
         position(m.last_log_index, m.last_log_term) + (m.transfer ? ", transfer" : "");
}
inline std::string tell(const raft::RequestVoteReply& m) {
  return std::string(m.pre_vote ? "PreVoteReply" : "RequestVoteReply") +
         (m.granted ? " granted" : " refused");
}
inline std::string tell(const raft::AppendEntries& m) {
  std::string text = "AppendEntries after " + position(m.prev_log_index, m.prev_log_term);
  if (m.entries.empty()) {
    text += ": heartbeat";
  } else {
    text += ": " + position(m.entries.front().index, m.entries.front().term);
    if (m.entries.size() > 1) {
      text += " .. " + position(m.entries.back().index, m.entries.back().term);
    }
  }
  return text + ", commit " + number(m.commit_index.value) + ", round " + number(m.round);
}
inline std::string tell(const raft::AppendEntriesReply& m) {
  std::string text = "AppendEntriesReply ";
  if (m.success) {
    text += "match " + number(m.match_index.value);
  } else {
    text += "refused " + number(m.rejected_index.value) + ", look at " +
            position(m.conflict_index, m.conflict_term);
  }
  return text + ", round " + number(m.round);
}
inline std::string tell(const raft::TimeoutNow&) { return "TimeoutNow"; }
inline std::string tell(const raft::InstallSnapshot& m) {
  return "InstallSnapshot " +
         position(m.snapshot.last_included_index, m.snapshot.last_included_term);
}
inline std::string tell(const raft::Configuration& members) {
  std::string text;
  const auto add = [&text](const char* what, const std::vector<NodeId>& nodes) {
    if (!nodes.empty()) text += what;
    for (const NodeId node : nodes) text += " n" + number(node.value);
  };
  add("voters", members.voters);
  add(", outgoing", members.outgoing);
  add(", learners", members.learners);
  return text;
}

}  // namespace trace_detail

inline std::string describe(const PeerMessage& message) {
  const raft::Message& m = message.message;
  return "n" + std::to_string(m.from.value) + " > n" + std::to_string(m.to.value) + "  group " +
         std::to_string(message.group.value) + " term " + std::to_string(m.term.value) + "  " +
         std::visit([](const auto& body) { return trace_detail::tell(body); }, m.body);
}

inline std::string describe(const SnapshotPiece& piece) {
  std::string text = ", group " + std::to_string(piece.group.value) + ": ";
  if (const auto* offer = std::get_if<SnapshotPiece::Offer>(&piece.body)) {
    const auto& snapshot = std::get<raft::InstallSnapshot>(offer->message.body).snapshot;
    return text + "offer of " +
           trace_detail::position(snapshot.last_included_index, snapshot.last_included_term);
  }
  if (const auto* rows = std::get_if<SnapshotPiece::Rows>(&piece.body)) {
    return text + std::to_string(rows->rows.size()) + (rows->last ? " last rows" : " rows");
  }
  const auto& answer = std::get<SnapshotPiece::Answer>(piece.body);
  return text + (answer.go_on ? "go on" : "has up to " + std::to_string(answer.index.value));
}

inline std::string describe_state(const raft::Raft& raft) {
  std::string text(raft::role_name(raft.role()));
  text += " in term " + std::to_string(raft.current_term().value);
  if (raft.leader() != NodeId{}) text += ", leader n" + std::to_string(raft.leader().value);
  text +=
      ", log ends at " + trace_detail::position(raft.log().last_index(), raft.log().last_term());
  text += ", committed " + std::to_string(raft.commit_index().value);
  text += ", applied " + std::to_string(raft.last_applied().value);
  if (raft.configuration_index() == Index{}) return text;
  return text + ", since " + std::to_string(raft.configuration_index().value) + " " +
         trace_detail::tell(raft.configuration());
}

}  // namespace seshat::sim

#endif  // SESHAT_TESTS_SIM_TRACE_HPP
