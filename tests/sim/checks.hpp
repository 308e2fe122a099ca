// What must hold at every moment, seen from outside: the paper's Figure 3 and what Seshat adds.
//
//   Election Safety · Leader Append-Only · Log Matching · Leader Completeness · State Machine Safety
//   + nothing is promised that is not durable; nothing is committed that a majority has not on disk;
//     applied <= min(committed, durable); one lease at a time, and none that misses what is
//     committed; terms and commit indexes never fall; one vote a term, over restarts too;
//     who hears "done" is told of the entry that he proposed
//   + members: majorities are those of the configuration(s) in force; one change at a time, and none
//     before the leader's no-op; who is no voter asks for no vote and never leads
//   + a snapshot is what the log gives at its index, with the members who took part there
//   + time: what a leader's clock shows never goes back, jumps or stands still within a term; keys that
//     expire and their index belong together
//
// A broken one throws Violation. What is checked at each step looks only at what may have changed.
#ifndef SESHAT_TESTS_SIM_CHECKS_HPP
#define SESHAT_TESTS_SIM_CHECKS_HPP

#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "seshat/kv.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/state_machine.hpp"
#include "sim/disk.hpp"
#include "sim/world.hpp"

namespace seshat::sim {

class Checks {
 public:
  Checks(World& world, std::size_t founders) : world_(world) {
    for (std::size_t node = 1; node <= founders; ++node) founders_.voters.push_back(NodeId{node});
  }

  // The disks, for majorities. Before anything else.
  void know_disk(NodeId node, const Disk& disk) { disks_[node] = &disk; }
  // Its disk is about to be lost. What was on it counted for what has committed before.
  void wiped(NodeId node);

  // A process starts with this.
  void started(NodeId node, GroupId group, const raft::Raft& raft);
  void ended(NodeId node);
  // After every turn of a process.
  void look(NodeId node, GroupId group, const raft::Raft& raft);
  // At the end of a turn, when all that follows from its inputs has been done.
  static void pumped(NodeId node, const raft::Raft& raft) {
    const bool removed = !raft.configuration().is_joint() && !raft.configuration().is_voter(node) &&
                         raft.commit_index() >= raft.configuration_index();
    must(!raft.is_leader() || !removed, "a removed node leads on", [&] { return name(node); });
  }
  // What a leader lets be cut off, each member that it can reach has.
  static void may_be_cut(NodeId node, const raft::Raft& raft) {
    for (const raft::PeerStatus& peer : raft.peers()) {
      if (!raft.is_leader() || !peer.reachable || peer.needs_snapshot) continue;
      must(raft.compactable_index() <= peer.match_index, "log cut too far",
           [&] { return name(node) + " would cut off what " + name(peer.id) + " needs"; });
    }
  }
  // Of a message, as it leaves.
  void promised(GroupId group, const raft::Message& message);
  // A client hears that what it proposed was done.
  void answered(NodeId node, GroupId group, Index index, const std::string& proposed) const;
  // Its state machine's records, as they now are on disk, written or found at a start.
  void state_written(NodeId node, GroupId group, Index applied, std::uint64_t hash);
  // It took a snapshot, and what it put in the place of its log and state.
  void snapshot_taken(NodeId node, GroupId group, const SnapshotImage& image) const;
  void installed(NodeId node, GroupId group, const SnapshotImage& image);
  // The members as the last committed change says, or the founders.
  [[nodiscard]] const raft::Configuration& members(GroupId group) const {
    const auto found = groups_.find(group);
    if (found == groups_.end() || found->second.changes.empty()) return founders_;
    return found->second.changes.rbegin()->second;
  }
  [[nodiscard]] Index members_since(GroupId group) const {
    const auto found = groups_.find(group);
    if (found == groups_.end() || found->second.changes.empty()) return {};
    return found->second.changes.rbegin()->first;
  }
  // What a leader's clock shows (leader_clock.hpp): to those who stamp entries, and who read.
  struct Stamp {
    NodeId node;
    std::uint64_t life;
    Term term;
    std::uint64_t local_ms;    // of the clock that never goes back
    std::uint64_t wall_ms;     // now
    std::uint64_t applied_ms;  // the state's time
    std::uint64_t stamp_ms;
  };
  void stamped(const Stamp& stamp);
  // Keys and the index of what expires belong together; counts are right.
  static void check_index_of(GroupId group, const Records& records);
  // The leases that are held now.
  struct Lease {
    NodeId node;
    std::optional<Index> readable;  // what a read under it would wait for
  };
  void leases(GroupId group, const std::vector<Lease>& held);

  [[nodiscard]] Index committed(GroupId group) const {
    const auto found = groups_.find(group);
    return found == groups_.end() ? Index{} : Index{found->second.committed.size()};
  }

 private:
  struct Committed {
    raft::Entry entry;
    Term in_term;  // of the node that was first seen to know it
  };
  using Changes = std::map<Index, raft::Configuration>;
  struct View {                    // of one node, as it was looked at last
    std::vector<raft::Entry> log;  // from index 1, whatever was cut off
    Changes changes;               // in it
    Term term;
    Index commit;
    Index applied;
    Term leads_in;  // 0: does not lead
    Term led_in;    // the time before
  };
  struct Known {
    raft::Payload data;
    Term prev;
    std::shared_ptr<const raft::Configuration> configuration;
  };
  struct Group {
    std::map<Term, NodeId> leaders;
    std::map<std::pair<Index, Term>, Known> entries;
    std::vector<Committed> committed;
    Changes changes;  // committed
    // A replica of our own, that applies each entry once, alone, as soon as it is committed.
    std::unique_ptr<StateMachine> machine;
    Records records;
    std::vector<std::uint64_t> states;  // hashes, by index
    std::map<NodeId, View> views;
    std::map<NodeId, Term> promised_terms;
    std::map<std::pair<NodeId, Term>, NodeId> votes;
    std::map<std::pair<NodeId, Term>, raft::RequestVote> candidacies;
  };

  void check_vote(Group& group, const raft::Message& message);
  void look_at_log(Group& group, NodeId node, const raft::Raft& raft);
  void know_entry(Group& group, const raft::Entry& entry, const std::vector<raft::Entry>& log);
  void look_at_commit(Group& group, GroupId id, NodeId node, const raft::Raft& raft);
  void look_at_leader(Group& group, GroupId id, NodeId node, const raft::Raft& raft);
  void look_at_durable(Group& group, GroupId id, NodeId node, const raft::Raft& raft);
  void look_at_members(const Group& group, NodeId node, const raft::Raft& raft) const;
  void check_change(const View& view, NodeId node, const raft::Raft& raft) const;
  void check_candidate(const Group& group, NodeId node, const char* what) const;
  void check_majority(GroupId id, const raft::Entry& entry, NodeId node,
                      const raft::Configuration& members) const;
  void check_image(NodeId node, GroupId id, const SnapshotImage& image) const;
  [[nodiscard]] std::pair<Index, const raft::Configuration*> newest(const Changes& changes) const {
    if (changes.empty()) return {Index{}, &founders_};
    return {changes.rbegin()->first, &changes.rbegin()->second};
  }
  static void append(View& view, const raft::Entry& entry) {
    view.log.push_back(entry);
    if (entry.configuration) view.changes[entry.index] = *entry.configuration;
  }
  static void truncate(View& view, std::size_t size) {
    view.log.resize(size);
    view.changes.erase(view.changes.upper_bound(Index{size}), view.changes.end());
  }
  static void fill(const Group& group, View& view, Index to);
  static void apply(Group& group, GroupId id, const raft::Entry& entry);
  [[nodiscard]] static bool same(const raft::Entry& a, const raft::Entry& b);
  [[nodiscard]] const GroupImage& durable(NodeId node, GroupId group) const {
    return disks_.at(node)->durable().groups.at(group);
  }
  [[nodiscard]] static std::string name(NodeId node) { return "n" + std::to_string(node.value); }

  World& world_;
  raft::Configuration founders_;
  std::map<NodeId, const Disk*> disks_;
  std::map<NodeId, DiskImage> lost_;  // of disks that were wiped
  std::map<GroupId, Group> groups_;
  std::map<NodeId, Stamp> stamps_;  // the last of each
};

inline bool Checks::same(const raft::Entry& a, const raft::Entry& b) {
  if (a.term != b.term || a.index != b.index || a.type != b.type) return false;
  if (!a.configuration != !b.configuration) return false;
  if (a.configuration && *a.configuration != *b.configuration) return false;
  if (a.data == b.data) return true;
  return a.data && b.data && *a.data == *b.data;
}

// ---- Lives

// What was cut off, or came as a snapshot, has been committed.
inline void Checks::fill(const Group& group, View& view, Index to) {
  truncate(view, 0);
  for (std::size_t i = 0; i < to.value; ++i) append(view, group.committed[i].entry);
}

inline void Checks::wiped(NodeId node) {
  lost_[node] = disks_.at(node)->written();
  for (auto& [id, group] : groups_) group.promised_terms.erase(node);
}

inline void Checks::started(NodeId node, GroupId id, const raft::Raft& raft) {
  Group& group = groups_[id];
  must(raft.current_term() >= group.promised_terms[node], "term forgotten", [&] {
    return name(node) + " sent messages of term " +
           std::to_string(group.promised_terms[node].value) + " and restarts in " +
           std::to_string(raft.current_term().value);
  });
  const GroupImage& disk = durable(node, id);
  must(disk.first_index <= raft.last_applied() + 1, "log cut too far", [&] {
    return name(node) + " cut its log up to " + std::to_string(disk.first_index.value - 1) +
           " and has applied only " + std::to_string(raft.last_applied().value);
  });
  must(raft.last_applied().value <= group.committed.size(), "State Machine Safety",
       [&] { return name(node) + " restarts with applied entries that were never committed"; });
  View view;
  fill(group, view, disk.first_index - 1);
  for (const raft::Entry& entry : disk.log) append(view, entry);
  view.term = raft.current_term();
  view.commit = raft.last_applied();
  view.applied = raft.last_applied();
  for (std::size_t i = 0; i < view.log.size(); ++i) {
    const auto known = group.entries.find({view.log[i].index, view.log[i].term});
    must(known != group.entries.end(), "Log Matching", [&] {
      return name(node) + " restarts with an entry " + std::to_string(i + 1) + " that nobody wrote";
    });
  }
  group.views[node] = std::move(view);
  look(node, id, raft);
}

inline void Checks::ended(NodeId node) {
  for (auto& [id, group] : groups_) group.views.erase(node);
}

// ---- Every step

inline void Checks::look(NodeId node, GroupId id, const raft::Raft& raft) {
  Group& group = groups_[id];
  View& view = group.views.at(node);
  must(raft.current_term() >= view.term, "term fell", [&] { return name(node); });
  must(raft.commit_index() >= view.commit, "commit index fell", [&] { return name(node); });
  must(raft.last_applied() >= view.applied, "applied index fell", [&] { return name(node); });
  view.applied = raft.last_applied();
  look_at_log(group, node, raft);
  look_at_leader(group, id, node, raft);
  look_at_commit(group, id, node, raft);
  look_at_durable(group, id, node, raft);
  look_at_members(group, node, raft);
  view.term = raft.current_term();
}

// What lies at or below the commit index was compared before, and can't change without being seen.
inline void Checks::look_at_log(Group& group, NodeId node, const raft::Raft& raft) {
  View& view = group.views.at(node);
  const raft::Log& log = raft.log();
  const bool leads_on = raft.is_leader() && view.leads_in == raft.current_term();
  std::size_t i = std::max(log.base_index(), view.commit).value;
  must(i <= view.log.size(), "Log Matching",
       [&] { return name(node) + " has committed what it never had"; });
  while (i < view.log.size() && i < log.last_index().value &&
         same(view.log[i], log.at(Index{i + 1}))) {
    ++i;
  }
  must(!leads_on || i >= view.log.size(), "Leader Append-Only",
       [&] { return name(node) + " changed entry " + std::to_string(i + 1) + " while it led"; });
  truncate(view, i);
  for (; i < log.last_index().value; ++i) {
    append(view, log.at(Index{i + 1}));
    know_entry(group, view.log.back(), view.log);
    const bool own = raft.is_leader() && view.log.back().term == raft.current_term();
    if (own && view.log.back().configuration) check_change(view, node, raft);
  }
}

// §6, and what it left out (class 6): the last change and an entry of this term have committed before
// the next one is begun, and the way leads through a joint configuration.
inline void Checks::check_change(const View& view, NodeId node, const raft::Raft& raft) const {
  const auto now = view.changes.rbegin();
  const raft::Configuration& next = now->second;
  const bool first = view.changes.size() == 1;
  const raft::Configuration& before = first ? founders_ : std::next(now)->second;
  const Index before_index = first ? Index{} : std::next(now)->first;
  const auto tell = [&] {
    return name(node) + " begins with entry " + std::to_string(now->first.value) +
           ", committed is " + std::to_string(raft.commit_index().value) + ", the last change is " +
           std::to_string(before_index.value);
  };
  std::size_t start = now->first.value;
  while (start > 1 && view.log[start - 2].term == raft.current_term()) --start;
  must(raft.commit_index().value >= start, "change before the no-op", tell);
  must(raft.commit_index() >= before_index, "two changes at once", tell);
  const bool leaves = before.is_joint() && !next.is_joint() && next.voters == before.voters;
  const bool enters = !before.is_joint() && next.outgoing == before.voters;
  const bool same_voters = !before.is_joint() && !next.is_joint() && next.voters == before.voters;
  must(leaves || enters || same_voters, "change by no joint configuration", tell);
}

// In force is what the newest entry of the log says, committed or not.
inline void Checks::look_at_members(const Group& group, NodeId node, const raft::Raft& raft) const {
  const auto [index, members] = newest(group.views.at(node).changes);
  const bool founder = founders_.is_voter(node) && !lost_.contains(node);
  must(raft.configuration_index() == index, "wrong members", [&, at = index] {
    return name(node) + " goes by entry " + std::to_string(raft.configuration_index().value) +
           ", its log says " + std::to_string(at.value);
  });
  const bool asks =
      raft.role() == raft::Role::kPreCandidate || raft.role() == raft::Role::kCandidate;
  if (asks) check_candidate(group, node, "a removed node asks for votes");
  must(raft.configuration() == *members || (index == Index{} && !founder), "wrong members",
       [&] { return name(node) + " goes by other members than its log says"; });
}

// Who knows that what has committed removed it asks for no vote; but a later entry of its log, or one
// that it does not know to have committed, may make it a voter (thesis 4.2.2).
inline void Checks::check_candidate(const Group& group, NodeId node, const char* what) const {
  const View& view = group.views.at(node);
  auto at = view.changes.upper_bound(view.commit);
  bool voter =
      at == view.changes.begin() ? founders_.is_voter(node) : std::prev(at)->second.is_voter(node);
  for (; at != view.changes.end(); ++at) voter = voter || at->second.is_voter(node);
  must(voter, what, [&] { return name(node) + " is no voter, nor may it be one"; });
}

// By induction: the same index and term mean the same entry, and the same term before it.
inline void Checks::know_entry(Group& group, const raft::Entry& entry,
                               const std::vector<raft::Entry>& log) {
  const Term prev = entry.index == Index{1} ? Term{} : log[entry.index.value - 2].term;
  const auto known = group.entries.try_emplace({entry.index, entry.term},
                                               Known{entry.data, prev, entry.configuration});
  const Known& first = known.first->second;
  const bool same_data =
      same({entry.term, entry.index, entry.type, first.data, first.configuration}, entry);
  must(same_data && first.prev == prev, "Log Matching", [&] {
    return "two entries " + std::to_string(entry.index.value) + " of term " +
           std::to_string(entry.term.value);
  });
}

inline void Checks::look_at_leader(Group& group, GroupId id, NodeId node, const raft::Raft& raft) {
  View& view = group.views.at(node);
  view.led_in = view.leads_in;
  view.leads_in = raft.is_leader() ? raft.current_term() : Term{};
  if (!raft.is_leader()) return;
  const auto inserted = group.leaders.emplace(raft.current_term(), node);
  const NodeId leader = inserted.first->second;
  must(leader == node, "Election Safety", [&] {
    return "group " + std::to_string(id.value) + ", term " +
           std::to_string(raft.current_term().value) + ": " + name(leader) + " and " + name(node);
  });
  if (!inserted.second) return;
  ++world_.counters().elections;
  check_candidate(group, node, "a removed node leads");
  for (const Committed& committed : group.committed) {
    if (committed.in_term >= raft.current_term()) continue;
    const std::size_t at = committed.entry.index.value;
    must(at <= view.log.size() && same(view.log[at - 1], committed.entry), "Leader Completeness",
         [&] {
           return name(node) + " leads term " + std::to_string(raft.current_term().value) +
                  " without committed entry " + std::to_string(at);
         });
  }
}

inline void Checks::look_at_commit(Group& group, GroupId id, NodeId node, const raft::Raft& raft) {
  View& view = group.views.at(node);
  // §5.4.2: what a leader commits by counting ends with an entry of its own term.
  const bool led = raft.is_leader() && view.led_in == raft.current_term();
  if (led && raft.commit_index() > view.commit) {
    must(view.log.at(raft.commit_index().value - 1).term == raft.current_term(),
         "old term committed", [&] {
           return name(node) + " leads term " + std::to_string(raft.current_term().value) +
                  " and commits up to " + std::to_string(raft.commit_index().value);
         });
  }
  while (view.commit < raft.commit_index()) {
    ++view.commit;
    const std::size_t at = view.commit.value;
    must(at <= view.log.size(), "commit", [&] { return name(node) + " committed beyond its log"; });
    const raft::Entry& entry = view.log[at - 1];
    if (at <= group.committed.size()) {
      must(same(entry, group.committed[at - 1].entry), "State Machine Safety", [&] {
        return "two entries are committed at " + std::to_string(at) + ", seen at " + name(node);
      });
      continue;
    }
    check_majority(id, entry, node, raft.configuration());
    group.committed.push_back({entry, raft.current_term()});
    if (entry.configuration) {
      group.changes[entry.index] = *entry.configuration;
      ++world_.counters().changes;
    }
    for (const auto& [other, theirs] : group.views) {
      if (theirs.leads_in <= raft.current_term()) continue;
      must(at <= theirs.log.size() && same(theirs.log[at - 1], entry), "Leader Completeness",
           [&, rival = other] {
             return name(node) + " commits entry " + std::to_string(at) + ", which " + name(rival) +
                    " lacks, who leads a later term";
           });
    }
    apply(group, id, entry);
    ++world_.counters().entries;
  }
}

// Of the voters in force; of the old and of the new ones while they are joint (§6).
inline void Checks::check_majority(GroupId id, const raft::Entry& entry, NodeId node,
                                   const raft::Configuration& members) const {
  for (const std::vector<NodeId>* voters : {&members.voters, &members.outgoing}) {
    std::size_t holders = 0;
    for (const NodeId voter : *voters) {
      const auto lost = lost_.find(voter);
      const bool held = lost != lost_.end() && lost->second.groups.at(id).holds(entry);
      holders += held || durable(voter, id).holds(entry) ? 1 : 0;
    }
    must(voters->empty() || holders > voters->size() / 2, "committed without a majority", [&] {
      return "entry " + std::to_string(entry.index.value) + " at " + name(node) + " is on " +
             std::to_string(holders) + " disks of " + std::to_string(voters->size());
    });
  }
}

inline void Checks::look_at_durable(Group& group, GroupId id, NodeId node, const raft::Raft& raft) {
  const View& view = group.views.at(node);
  const Index on_disk = raft.durable_index();
  if (on_disk != Index{} && !raft.is_installing()) {
    must(on_disk.value <= view.log.size() && durable(node, id).holds(view.log[on_disk.value - 1]),
         "durable index", [&] {
           return name(node) + " takes entry " + std::to_string(on_disk.value) +
                  " for durable, and it is not";
         });
  }
  must(raft.last_applied() <= raft.commit_index() && raft.last_applied() <= on_disk,
       "applied too early", [&] {
         return name(node) + " applied " + std::to_string(raft.last_applied().value) +
                ", durable " + std::to_string(on_disk.value) + ", committed " +
                std::to_string(raft.commit_index().value);
       });
}

// ---- Messages (Figure 2: "before responding to RPCs")

inline void Checks::promised(GroupId id, const raft::Message& message) {
  const auto* request = std::get_if<raft::RequestVote>(&message.body);
  const auto* vote = std::get_if<raft::RequestVoteReply>(&message.body);
  const auto* ack = std::get_if<raft::AppendEntriesReply>(&message.body);
  const bool is_pre_vote =
      (request != nullptr && request->pre_vote) || (vote != nullptr && vote->pre_vote);
  if (is_pre_vote) return;
  Group& group = groups_[id];
  const GroupImage& disk = durable(message.from, id);
  const std::string who = name(message.from) + ", term " + std::to_string(message.term.value);
  group.promised_terms[message.from] = std::max(group.promised_terms[message.from], message.term);
  must(disk.hard_state.term >= message.term, "promise not durable",
       [&] { return who + ": sent before the term was on disk"; });
  const bool votes = request != nullptr || (vote != nullptr && vote->granted);
  if (votes) {
    const NodeId candidate = request != nullptr ? message.from : message.to;
    must(disk.hard_state.term != message.term || disk.hard_state.vote == candidate,
         "promise not durable", [&] { return who + ": a vote left before it was on disk"; });
    const auto first = group.votes.emplace(std::pair(message.from, message.term), candidate).first;
    must(first->second == candidate, "two votes in one term", [&] { return who; });
    if (request != nullptr) group.candidacies.try_emplace({candidate, message.term}, *request);
    if (vote != nullptr) check_vote(group, message);
  }
  if (ack != nullptr && ack->success) {
    must(ack->match_index <= disk.last_index(), "promise not durable", [&] {
      return who + ": acknowledged " + std::to_string(ack->match_index.value) + ", on disk " +
             std::to_string(disk.last_index().value);
    });
  }
}

// §5.4.1: a vote goes to a log that is at least as up to date. Once somebody leads the term, the
// voter's log may have grown since it voted.
inline void Checks::check_vote(Group& group, const raft::Message& message) {
  const auto asked = group.candidacies.find({message.to, message.term});
  const std::vector<raft::Entry>& log = group.views.at(message.from).log;
  if (asked == group.candidacies.end() || log.empty()) return;
  if (group.leaders.contains(message.term)) return;
  const raft::RequestVote& request = asked->second;
  const std::pair voter(log.back().term, log.back().index);
  must(std::pair(request.last_log_term, request.last_log_index) >= voter,
       "vote for a log that is behind", [&] {
         return name(message.from) + " votes for " + name(message.to) + " in term " +
                std::to_string(message.term.value) + ", its own log ends later";
       });
}

inline void Checks::answered(NodeId node, GroupId id, Index index,
                             const std::string& proposed) const {
  const std::vector<Committed>& committed = groups_.at(id).committed;
  must(index != Index{} && index.value <= committed.size(), "answered too early", [&] {
    return name(node) + " answers for entry " + std::to_string(index.value) + ", not committed";
  });
  const raft::Payload& data = committed[index.value - 1].entry.data;
  must(data && *data == proposed, "answered for another entry", [&] {
    return name(node) + " answers for entry " + std::to_string(index.value) +
           ", where another one was committed";
  });
}

// ---- State machines

inline void Checks::apply(Group& group, GroupId id, const raft::Entry& entry) {
  if (!group.machine && id == kSystemGroup) group.machine = std::make_unique<SystemMachine>();
  if (!group.machine) group.machine = std::make_unique<KeyValueMachine>(&kv::apply_command);
  ChangeBatch batch(group.records);
  const auto outcomes = group.machine->apply(batch, {entry});
  must(bool(outcomes), "apply", [&] { return outcomes ? "" : outcomes.error().text; });
  change(group.records, batch.changes());
  group.states.push_back(hash_of(group.records));
  if (group.states.size() % 8 == 0) check_index_of(id, group.records);
}

inline void Checks::state_written(NodeId node, GroupId id, Index applied, std::uint64_t hash) {
  if (applied == Index{}) return;
  Group& group = groups_[id];
  must(applied.value <= group.committed.size(), "State Machine Safety", [&] {
    return name(node) + " applied " + std::to_string(applied.value) + ", which is not committed";
  });
  must(durable(node, id).holds(group.committed[applied.value - 1].entry), "applied too early", [&] {
    return name(node) + " applied " + std::to_string(applied.value) + " before it was durable here";
  });
  must(group.states[applied.value - 1] == hash, "State Machine Safety", [&] {
    return name(node) + " is in another state after entry " + std::to_string(applied.value);
  });
}

// ---- Snapshots

inline void Checks::check_image(NodeId node, GroupId id, const SnapshotImage& image) const {
  const Group& group = groups_.at(id);
  const raft::Snapshot& snapshot = image.snapshot;
  const std::size_t index = snapshot.last_included_index.value;
  must(index > 0 && index <= group.committed.size(), "State Machine Safety", [&] {
    return name(node) + " has a snapshot of " + std::to_string(index) + ", which is not committed";
  });
  must(group.committed[index - 1].entry.term == snapshot.last_included_term &&
           group.states[index - 1] == hash_of(image.records),
       "State Machine Safety", [&] {
         return name(node) + " has a snapshot of " + std::to_string(index) +
                " that the log does not give";
       });
  auto change = group.changes.upper_bound(snapshot.last_included_index);
  const bool founding = change == group.changes.begin();
  const bool right = founding ? snapshot.configuration_index == Index{}
                              : (--change)->first == snapshot.configuration_index &&
                                    change->second == snapshot.configuration;
  must(right, "wrong members", [&] {
    return name(node) + " has a snapshot of " + std::to_string(index) + " with other members";
  });
}

inline void Checks::snapshot_taken(NodeId node, GroupId id, const SnapshotImage& image) const {
  check_image(node, id, image);
}

inline void Checks::installed(NodeId node, GroupId id, const SnapshotImage& image) {
  check_image(node, id, image);
  Group& group = groups_[id];
  View& view = group.views.at(node);
  const Index index = image.snapshot.last_included_index;
  must(index > view.commit, "commit index fell",
       [&] { return name(node) + " installed a snapshot of what it had"; });
  fill(group, view, index);
  view.commit = view.applied = index;
  ++world_.counters().snapshots;
}

// ---- Time

// Within a term it goes on with the clock that never goes back, whatever the time of day; and from what
// others stamped, where that is later. A term begins with the time of day, or later where that was.
inline void Checks::stamped(const Stamp& stamp) {
  const auto [last, is_first] = stamps_.try_emplace(stamp.node, stamp);
  const Stamp before = std::exchange(last->second, stamp);
  const auto tell = [&] {
    return name(stamp.node) + " shows " + std::to_string(stamp.stamp_ms) + " in term " +
           std::to_string(stamp.term.value) + "; before " + std::to_string(before.stamp_ms) + ", " +
           std::to_string(stamp.local_ms - before.local_ms) + " ms ago; applied " +
           std::to_string(stamp.applied_ms) + ", time of day " + std::to_string(stamp.wall_ms);
  };
  const bool same_life = !is_first && before.life == stamp.life;
  must(stamp.stamp_ms >= stamp.applied_ms, "time goes back", tell);
  if (!same_life || before.term != stamp.term) {
    const std::uint64_t least_ms = std::max(stamp.wall_ms, stamp.applied_ms);
    must(stamp.stamp_ms >= least_ms, "time goes back", tell);
    must(stamp.stamp_ms <= std::max(least_ms, same_life ? before.stamp_ms : 0), "time jumps", tell);
    return;
  }
  const std::uint64_t gone_on_ms = before.stamp_ms + (stamp.local_ms - before.local_ms);
  must(stamp.stamp_ms >= gone_on_ms, "time stands still", tell);
  must(stamp.stamp_ms <= std::max(gone_on_ms, stamp.applied_ms), "time jumps", tell);
}

inline void Checks::check_index_of(GroupId id, const Records& records) {
  if (id == kSystemGroup) return;
  std::size_t keys = 0;
  std::size_t ending = 0;
  std::size_t rows = 0;
  std::string row;
  for (const auto& [key, bytes] : records) {
    rows += key[0] == kExpiryPrefix ? 1 : 0;
    if (key[0] != kValuePrefix) continue;
    ++keys;
    const auto value = codec::decode_stored_value(bytes);
    must(bool(value), "records", "a value can't be read");
    if (!value->expires_at_ms) continue;
    ++ending;
    expiry_key(*value->expires_at_ms, key, row);
    must(records.contains(row), "expiry index", "a key that expires is not in the index");
  }
  const MachineState state = state_of(id, records);
  must(rows == ending && state.expiring_count == ending && state.key_count == keys, "expiry index",
       [&] {
         return std::to_string(keys) + " keys, counted " + std::to_string(state.key_count) + "; " +
                std::to_string(ending) + " of them expire, counted " +
                std::to_string(state.expiring_count) + ", in the index " + std::to_string(rows);
       });
}

// ---- Leases

inline void Checks::leases(GroupId id, const std::vector<Lease>& held) {
  if (held.empty()) return;
  must(held.size() == 1, "two leases", [&] {
    return name(held.front().node) + " and " + name(held.back().node) + ", group " +
           std::to_string(id.value);
  });
  for (const Lease& lease : held) {
    if (!lease.readable) continue;
    must(*lease.readable >= committed(id), "stale lease", [&] {
      return name(lease.node) + " would read at " + std::to_string(lease.readable->value) +
             ", committed is " + std::to_string(committed(id).value);
    });
  }
}

}  // namespace seshat::sim

#endif  // SESHAT_TESTS_SIM_CHECKS_HPP
