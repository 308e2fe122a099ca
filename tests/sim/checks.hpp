// What must hold at every moment, seen from outside: the paper's Figure 3 and what Seshat adds.
//
//   Election Safety · Leader Append-Only · Log Matching · Leader Completeness · State Machine Safety
//   + nothing is promised that is not durable; nothing is committed that a majority has not on disk;
//     applied <= min(committed, durable); one lease at a time, and none that misses what is
//     committed; terms and commit indexes never fall; one vote a term, over restarts too;
//     who hears "done" is told of the entry that he proposed
//
// A broken one throws Violation. What is checked at each step looks only at what may have changed.
#ifndef SESHAT_TESTS_SIM_CHECKS_HPP
#define SESHAT_TESTS_SIM_CHECKS_HPP

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/state_machine.hpp"
#include "sim/disk.hpp"
#include "sim/world.hpp"

namespace seshat::sim {

class Checks {
 public:
  Checks(World& world, std::size_t nodes) : world_(world), nodes_(nodes) {}

  // The disks, for majorities. Before anything else.
  void know_disk(NodeId node, const Disk& disk) { disks_[node] = &disk; }

  // A process starts with this.
  void started(NodeId node, GroupId group, const raft::Raft& raft);
  void ended(NodeId node);
  // After every turn of a process.
  void look(NodeId node, GroupId group, const raft::Raft& raft);
  // Of a message, as it leaves.
  void promised(GroupId group, const raft::Message& message);
  // A client hears that what it proposed was done.
  void answered(NodeId node, GroupId group, Index index, const std::string& proposed) const;
  // Its state machine's records, as they now are on disk, written or found at a start.
  void state_written(NodeId node, GroupId group, Index applied, std::uint64_t hash);
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
  struct View {  // of one node, as it was looked at last
    std::vector<raft::Entry> log;
    Term term;
    Index commit;
    Index applied;
    Term leads_in;  // 0: does not lead
    Term led_in;    // the time before
  };
  struct Known {
    raft::Payload data;
    Term prev;
  };
  struct Group {
    std::map<Term, NodeId> leaders;
    std::map<std::pair<Index, Term>, Known> entries;
    std::vector<Committed> committed;
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
  static void apply(Group& group, GroupId id, const raft::Entry& entry);
  [[nodiscard]] static bool same(const raft::Entry& a, const raft::Entry& b);
  [[nodiscard]] const GroupImage& durable(NodeId node, GroupId group) const {
    return disks_.at(node)->durable().groups.at(group);
  }
  [[nodiscard]] static std::string name(NodeId node) { return "n" + std::to_string(node.value); }

  World& world_;
  std::size_t nodes_;
  std::map<NodeId, const Disk*> disks_;
  std::map<GroupId, Group> groups_;
};

inline bool Checks::same(const raft::Entry& a, const raft::Entry& b) {
  if (a.term != b.term || a.index != b.index || a.type != b.type) return false;
  if (a.data == b.data) return true;
  return a.data && b.data && *a.data == *b.data;
}

// ---- Lives

inline void Checks::started(NodeId node, GroupId id, const raft::Raft& raft) {
  Group& group = groups_[id];
  must(raft.current_term() >= group.promised_terms[node], "term forgotten", [&] {
    return name(node) + " sent messages of term " +
           std::to_string(group.promised_terms[node].value) + " and restarts in " +
           std::to_string(raft.current_term().value);
  });
  View view;
  view.log = durable(node, id).log;
  view.term = raft.current_term();
  view.commit = raft.last_applied();
  view.applied = raft.last_applied();
  for (std::size_t i = 0; i < view.log.size(); ++i) {
    const auto known = group.entries.find({view.log[i].index, view.log[i].term});
    must(known != group.entries.end(), "Log Matching", [&] {
      return name(node) + " restarts with an entry " + std::to_string(i + 1) + " that nobody wrote";
    });
  }
  must(raft.last_applied().value <= group.committed.size(), "State Machine Safety",
       [&] { return name(node) + " restarts with applied entries that were never committed"; });
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
  view.log.resize(i);
  for (; i < log.last_index().value; ++i) {
    view.log.push_back(log.at(Index{i + 1}));
    know_entry(group, view.log.back(), view.log);
  }
}

// By induction: the same index and term mean the same entry, and the same term before it.
inline void Checks::know_entry(Group& group, const raft::Entry& entry,
                               const std::vector<raft::Entry>& log) {
  const Term prev = entry.index == Index{1} ? Term{} : log[entry.index.value - 2].term;
  const auto known = group.entries.try_emplace({entry.index, entry.term}, Known{entry.data, prev});
  const Known& first = known.first->second;
  const bool same_data =
      first.data == entry.data || (first.data && entry.data && *first.data == *entry.data);
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
    std::size_t holders = 0;
    for (const auto& [other, disk] : disks_) holders += durable(other, id).holds(entry) ? 1 : 0;
    must(holders > nodes_ / 2, "committed without a majority", [&] {
      return "entry " + std::to_string(at) + " at " + name(node) + " is on " +
             std::to_string(holders) + " disks";
    });
    group.committed.push_back({entry, raft.current_term()});
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

inline void Checks::look_at_durable(Group& group, GroupId id, NodeId node, const raft::Raft& raft) {
  const View& view = group.views.at(node);
  const Index on_disk = raft.durable_index();
  if (on_disk != Index{}) {
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
    must(ack->match_index.value <= disk.log.size(), "promise not durable", [&] {
      return who + ": acknowledged " + std::to_string(ack->match_index.value) + ", on disk " +
             std::to_string(disk.log.size());
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
  if (!group.machine) group.machine = std::make_unique<KeyValueMachine>();
  ChangeBatch batch(group.records);
  const auto outcomes = group.machine->apply(batch, {entry});
  must(bool(outcomes), "apply", [&] { return outcomes ? "" : outcomes.error().text; });
  change(group.records, batch.changes());
  group.states.push_back(hash_of(group.records));
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
