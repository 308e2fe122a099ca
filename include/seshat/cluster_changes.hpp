// seshat/cluster_changes.hpp - how nodes come and go: from what is wanted to what every group does.
//
//   join, leave, promote ──> wishes ──> next_record() ──> the system group's record (membership.hpp)
//   (calls, SESHAT.*)                                             │ what is wanted
//                                  the leader of each group: reconcile()
//                                                                v
//                                       Raft's configurations, system group first
//                                                                │ what is
//                     caught up: active <── next_record() <──────┴──> out of all groups: removed
//
// Everything here is driven by what is, not by what was asked: a leader that takes over in the middle
// of a change looks at the record and at the configurations, and goes on.
//
// Keeps:    one change at a time (raft.hpp sees to it); a data group follows only when the system
//           group has committed its own change; who leaves hands over what it leads first; a change
//           that would leave no live majority is refused unless forced, one that would leave no
//           voter always.
// Threads:  the loop.
// Needs:    membership.hpp, replica.hpp. No I/O: the node asks peers on its behalf.
#ifndef SESHAT_CLUSTER_CHANGES_HPP
#define SESHAT_CLUSTER_CHANGES_HPP

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "seshat/membership.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/replica.hpp"

namespace seshat {

class ClusterChanges {
 public:
  // What it asks of its node.
  class Site {
   public:
    virtual ~Site() = default;
    [[nodiscard]] virtual bool is_connected(NodeId node) const = 0;
    // What `node` said of itself last, unless that is long ago.
    [[nodiscard]] virtual std::optional<NodeStatus> fresh_status(NodeId node) const = 0;
    // A peer's answer, or kNotReady with what is wrong.
    virtual void call(NodeId node, CallRequest request, std::function<void(CallReply)> answer) = 0;
  };
  using Answer = std::function<void(CallReply)>;

  struct Options {
    bool auto_promote = true;
    std::uint64_t answer_timeout_ms = 30'000;  // a change that takes longer goes on unwatched
  };

  ClusterChanges(Options options, Membership& membership, std::map<GroupId, Replica*> replicas,
                 const Clock& clock, Site& site)
      : options_(options),
        membership_(membership),
        replicas_(std::move(replicas)),
        clock_(clock),
        site_(site) {}

  // ---- asked for
  // By an administrator, on this node; goes to whichever node leads.
  void administer(const AdminRequest& request, Answer answer);
  // By a peer: answered from here alone.
  void handle(const CallRequest& request, Answer answer);

  // ---- done
  // Every tick: brings the groups that are led here to what the record says, answers whoever waits.
  void tick();
  // Peers say that this node was removed: whoever waits here for that hears so.
  void removed();
  // System leader: what should be recorded next; nullopt: nothing.
  [[nodiscard]] std::optional<ClusterMembership> next_record(std::uint64_t time_ms);

 private:
  // For how long a learner's way behind is looked back: it has caught up when it has applied what
  // had committed then.
  static constexpr std::uint64_t kLookBackMs = 2'000;

  // Asked: this leader alone knows of it. Recorded: it happens, whoever leads. A transfer is neither,
  // and is given up.
  enum class Progress : std::uint8_t { kAsked, kRecorded, kHandingOver, kDone, kGivenUp };
  struct Waiting {
    NodeId about;
    std::uint64_t deadline_ms;
    std::function<Progress()> progress;
    Answer answer;
  };
  struct CommittedAt {
    std::uint64_t at_ms;
    Index index;
  };

  [[nodiscard]] Replica& system() const { return *replicas_.at(kSystemGroup); }
  [[nodiscard]] bool leads_system() const { return system().raft().is_leader(); }
  [[nodiscard]] static CallReply reply(CallStatus status, std::string reason = {});
  [[nodiscard]] CallReply not_leader() const;
  void wait_for(NodeId about, std::function<Progress()> progress, Answer answer);
  void forget_wishes(NodeId node);

  void join(const JoinRequest& request, Answer answer);
  void change(const AdminRequest& request, Answer answer);
  [[nodiscard]] std::optional<std::string> why_not_leave(NodeId node, bool force) const;
  [[nodiscard]] std::optional<std::string> why_not_promote(NodeId node, bool force) const;
  [[nodiscard]] std::optional<std::string> why_not_lead(NodeId node) const;
  [[nodiscard]] std::vector<NodeId> voters_to_be() const;
  [[nodiscard]] std::optional<std::string> lacks_live_majority(
      const std::vector<NodeId>& voters) const;
  void transfer(NodeId to, bool everywhere, Answer answer);
  void pass_on_transfer(NodeId leader, NodeId to);

  void reconcile(GroupId group, Replica& replica);
  [[nodiscard]] bool has_heard_since_it_leads(GroupId group, const raft::Raft& raft);
  void hand_over_to_who_stays(Replica& replica);
  [[nodiscard]] bool system_follows_record() const;
  template <class IndexOf>
  [[nodiscard]] bool has_applied(NodeId node, IndexOf index_of) const;
  [[nodiscard]] bool knows_members(NodeId node) const;
  [[nodiscard]] bool has_caught_up(NodeId node) const;
  [[nodiscard]] bool is_voter_everywhere(NodeId node) const;
  [[nodiscard]] bool is_out_everywhere(NodeId node) const;
  void note_commits();
  void answer_waiting();

  Options options_;
  Membership& membership_;
  std::map<GroupId, Replica*> replicas_;
  // What a group's leader knew of the system group when its term began.
  struct Led {
    Term term;
    Term system_term;
    std::uint64_t system_round = 0;
  };
  std::map<GroupId, Led> led_;
  const Clock& clock_;
  Site& site_;

  // What was asked of this leader and is not in the record yet.
  std::map<NodeId, Hello> joining_;
  std::map<NodeId, MemberState> states_;
  std::deque<Waiting> waiting_;
  bool removed_ = false;
  std::map<GroupId, std::deque<CommittedAt>> committed_;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline CallReply ClusterChanges::reply(CallStatus status, std::string reason) {
  CallReply reply;
  reply.status = status;
  reply.reason = std::move(reason);
  return reply;
}

inline CallReply ClusterChanges::not_leader() const {
  const NodeId leader = system().raft().leader();
  CallReply refusal = reply(leader == NodeId{} ? CallStatus::kNotReady : CallStatus::kNotLeader,
                            "the cluster has no leader at present");
  if (leader == NodeId{}) return refusal;
  refusal.reason = "node " + std::to_string(leader.value) + " leads";
  refusal.leader_addr = membership_.addr(leader);
  refusal.client_addr = membership_.client_addr(leader);
  return refusal;
}

// ---- Asked for ----------------------------------------------------------------------------------

inline void ClusterChanges::administer(const AdminRequest& request, Answer answer) {
  if (request.action == AdminAction::kTransferLeader) {
    return transfer(request.node, true, std::move(answer));
  }
  const NodeId leader = system().raft().leader();
  if (leads_system() || leader == NodeId{}) return change(request, std::move(answer));
  CallRequest call;
  call.from = membership_.self().id;
  call.cluster_id = membership_.cluster_id();
  call.admin = request;
  site_.call(leader, std::move(call), std::move(answer));
}

inline void ClusterChanges::handle(const CallRequest& request, Answer answer) {
  if (request.join) return join(*request.join, std::move(answer));
  const std::string& cluster_id = membership_.cluster_id();
  // Who asks for nothing wants to know whether this is its cluster; one that is still being founded
  // can't tell.
  const bool can_tell = request.admin || !cluster_id.empty();
  if (can_tell && request.cluster_id != cluster_id) {
    return answer(reply(CallStatus::kWrongCluster, "the request came from another cluster"));
  }
  if (!request.admin) return answer(reply(CallStatus::kRefused, "nothing was asked"));
  if (membership_.state(request.from).value_or(MemberState::kRemoved) == MemberState::kRemoved) {
    return answer(reply(CallStatus::kRefused, "the request did not come from a member"));
  }
  if (request.admin->action == AdminAction::kTransferLeader) {
    return transfer(request.admin->node, false, std::move(answer));
  }
  change(*request.admin, std::move(answer));
}

inline void ClusterChanges::join(const JoinRequest& request, Answer answer) {
  if (!leads_system()) return answer(not_leader());
  const Hello& hello = request.hello;
  CallReply verdict = membership_.judge_join(hello);
  if (verdict.status != CallStatus::kAccepted) return answer(std::move(verdict));
  const bool recorded = !membership_.joined(hello, 0).has_value();
  if (recorded) return answer(std::move(verdict));
  joining_[hello.node_id] = hello;
  wait_for(
      hello.node_id,
      [this, hello] { return membership_.joined(hello, 0) ? Progress::kAsked : Progress::kDone; },
      // Another one that asked under this id may have been first.
      [this, hello, answer = std::move(answer)](CallReply outcome) {
        const bool recorded = outcome.status == CallStatus::kAccepted;
        answer(recorded ? membership_.judge_join(hello) : std::move(outcome));
      });
}

inline void ClusterChanges::change(const AdminRequest& request, Answer answer) {
  const NodeId node = request.node;
  if (!leads_system()) return answer(not_leader());
  const bool leave = request.action == AdminAction::kLeave;
  if (!leave && request.action != AdminAction::kPromote) {
    return answer(reply(CallStatus::kRefused, "this can't be asked of another node"));
  }
  if (leave && membership_.state(node) == MemberState::kRemoved) {
    return answer(reply(CallStatus::kAccepted, "it was removed already"));
  }
  const auto why =
      leave ? why_not_leave(node, request.force) : why_not_promote(node, request.force);
  if (why) return answer(reply(CallStatus::kRefused, *why));
  const MemberState wanted = leave ? MemberState::kLeaving : MemberState::kActive;
  if (states_.try_emplace(node, wanted).first->second != wanted) {
    return answer(reply(CallStatus::kNotReady, std::string("it was asked to ") +
                                                   (leave ? "become a voter" : "leave") +
                                                   ", and that is not recorded yet: ask again"));
  }
  const auto progress = [this, node, wanted] {
    const auto state = membership_.state(node);
    const bool removed = removed_ && node == membership_.self().id;
    if (removed || state == MemberState::kRemoved) return Progress::kDone;
    if (state != wanted) return Progress::kAsked;
    return wanted == MemberState::kActive && is_voter_everywhere(node) ? Progress::kDone
                                                                       : Progress::kRecorded;
  };
  wait_for(node, progress, std::move(answer));
}

// As recorded, and as it will be when what was asked for is recorded, too: two who leave at once must
// not each count on the other.
inline std::vector<NodeId> ClusterChanges::voters_to_be() const {
  std::vector<NodeId> voters = membership_.roles().voters;
  for (const auto& [node, wanted] : states_) {
    std::erase(voters, node);
    if (wanted == MemberState::kActive) voters.push_back(node);
  }
  return voters;
}

inline std::optional<std::string> ClusterChanges::lacks_live_majority(
    const std::vector<NodeId>& voters) const {
  const auto live = std::count_if(voters.begin(), voters.end(), [&](NodeId voter) {
    return voter == membership_.self().id || site_.is_connected(voter);
  });
  const std::size_t needed = voters.size() / 2 + 1;
  if (static_cast<std::size_t>(live) >= needed) return std::nullopt;
  return "of the " + std::to_string(voters.size()) + " voters after it only " +
         std::to_string(live) + " can be reached, too few to go on (" + std::to_string(needed) +
         " are needed): bring nodes back first, or say FORCE";
}

inline std::optional<std::string> ClusterChanges::why_not_leave(NodeId node, bool force) const {
  const std::string who = "node " + std::to_string(node.value);
  const auto state = membership_.state(node);
  if (!state) return who + " is not a member";
  std::vector<NodeId> voters = voters_to_be();
  if (std::erase(voters, node) == 0) return std::nullopt;
  if (voters.empty()) return who + " is the last voter: without it there would be no cluster";
  return force ? std::nullopt : lacks_live_majority(voters);
}

inline std::optional<std::string> ClusterChanges::why_not_promote(NodeId node, bool force) const {
  const std::string who = "node " + std::to_string(node.value);
  const auto state = membership_.state(node);
  if (state == MemberState::kActive) return who + " is a voter already";
  if (state != MemberState::kJoining) return who + " is no learner: it has to join first";
  if (force) return std::nullopt;
  if (!has_caught_up(node)) {
    return who + " has not caught up yet: wait (seshat status shows its lag), or say FORCE";
  }
  std::vector<NodeId> voters = voters_to_be();
  std::erase(voters, node);
  voters.push_back(node);
  return lacks_live_majority(voters);
}

inline std::optional<std::string> ClusterChanges::why_not_lead(NodeId node) const {
  const std::string who = "node " + std::to_string(node.value);
  if (membership_.state(node) != MemberState::kActive) return who + " is no voter: it can't lead";
  if (node == membership_.self().id || site_.is_connected(node)) return std::nullopt;
  return who + " can't be reached from node " + std::to_string(membership_.self().id.value);
}

// Each group's leader is asked, and asked once in its term: a group that has none at present is
// waited for. What is led elsewhere is passed on if `everywhere`; who was passed it does what it
// leads itself.
inline void ClusterChanges::transfer(NodeId to, bool everywhere, Answer answer) {
  if (const auto why = why_not_lead(to)) return answer(reply(CallStatus::kRefused, *why));
  const auto asked = std::make_shared<std::map<GroupId, Term>>();
  const auto progress = [this, to, everywhere, asked] {
    bool leads_all = true;
    for (const auto& [id, replica] : replicas_) {
      const raft::Raft& raft = replica->raft();
      if (raft.leader() == to) continue;
      leads_all = false;
      const bool leads = raft.is_leader();
      if (raft.leader() == NodeId{} || raft.transferring() || (!leads && !everywhere)) continue;
      const bool first = std::exchange((*asked)[id], raft.current_term()) != raft.current_term();
      // For an election timeout nothing was proposed, and it leads on.
      if (leads && !first) return Progress::kGivenUp;
      if (leads) replica->transfer_leadership(to);
      if (!leads && first) pass_on_transfer(raft.leader(), to);
    }
    return leads_all ? Progress::kDone : Progress::kHandingOver;
  };
  progress();
  wait_for(to, progress, std::move(answer));
}

// What it says is not waited for; who leads in the end is.
inline void ClusterChanges::pass_on_transfer(NodeId leader, NodeId to) {
  CallRequest call;
  call.from = membership_.self().id;
  call.cluster_id = membership_.cluster_id();
  call.admin = AdminRequest{AdminAction::kTransferLeader, to, false};
  site_.call(leader, std::move(call), [](const CallReply&) {});
}

// ---- Done ---------------------------------------------------------------------------------------

inline void ClusterChanges::tick() {
  note_commits();
  for (const auto& [id, replica] : replicas_) {
    if (replica->raft().is_leader()) reconcile(id, *replica);
  }
  answer_waiting();
}

// Its own record will not say so: it hears of nothing any more.
inline void ClusterChanges::removed() {
  removed_ = true;
  answer_waiting();
}

inline std::optional<ClusterMembership> ClusterChanges::next_record(std::uint64_t time_ms) {
  if (!membership_.record()) return std::nullopt;
  while (!joining_.empty()) {
    const Hello hello = joining_.begin()->second;
    const bool still_welcome = membership_.judge_join(hello).status == CallStatus::kAccepted;
    auto next = still_welcome ? membership_.joined(hello, time_ms) : std::nullopt;
    if (next) return next;
    joining_.erase(joining_.begin());
  }
  for (auto wish = states_.begin(); wish != states_.end();) {
    const auto [node, wanted] = *wish;
    const auto now = membership_.state(node);
    // The record may have changed since it was asked: by what an earlier leader left in the log.
    const bool is_last = membership_.roles().voters == std::vector<NodeId>{node};
    const bool possible = now && *now != MemberState::kRemoved && *now != wanted &&
                          !(wanted == MemberState::kLeaving && is_last);
    if (!possible) {
      wish = states_.erase(wish);
    } else if (wanted == MemberState::kActive && !knows_members(node)) {
      ++wish;  // in a moment; FORCE goes past a lag, but not past this
    } else {
      return membership_.with_state(node, wanted, time_ms);
    }
  }
  for (const auto& [node, info] : membership_.record()->members) {
    const bool promote = info.state == MemberState::kJoining && options_.auto_promote;
    if (promote && has_caught_up(node)) {
      return membership_.with_state(node, MemberState::kActive, time_ms);
    }
    if (info.state == MemberState::kLeaving && is_out_everywhere(node)) {
      return membership_.with_state(node, MemberState::kRemoved, time_ms);
    }
  }
  return std::nullopt;
}

// A node that has just come to lead `group` may have been cut off from the system group's leader, and not
// know it yet: it waits until it has heard from that one.
inline bool ClusterChanges::has_heard_since_it_leads(GroupId group, const raft::Raft& raft) {
  const raft::Raft& of_system = system().raft();
  if (of_system.is_leader()) return true;
  Led& led = led_[group];
  if (led.term != raft.current_term()) {
    led = {raft.current_term(), of_system.current_term(), of_system.round_received()};
  }
  return of_system.current_term() > led.system_term ||
         of_system.round_received() > led.system_round;
}

// A leader whose own record may be old leaves the members as they are.
inline void ClusterChanges::reconcile(GroupId group, Replica& replica) {
  if (!membership_.all_know_record_version(kConfigurationRecordVersion)) return;
  const raft::Raft& raft = replica.raft();
  if (raft.configuration_index() == Index{}) {
    // From here on the log says who the members are, whatever stands in anybody's file.
    const raft::Configuration& founders = raft.configuration();
    (void)replica.change_members(founders.voters, founders.learners);
    return;
  }
  // Who leaves hands over first: it will not hear how the system group goes on without it.
  const bool leaves = membership_.state(membership_.self().id) == MemberState::kLeaving;
  if (leaves) return hand_over_to_who_stays(replica);
  const raft::Raft& of_system = system().raft();
  const bool up_to_date =
      of_system.is_current() && of_system.last_applied() == of_system.commit_index();
  if (!has_heard_since_it_leads(group, raft)) return;
  if (!up_to_date || (group != kSystemGroup && !system_follows_record())) return;
  Membership::Roles roles = membership_.roles();
  if (roles.voters.empty()) return;
  (void)replica.change_members(std::move(roles.voters), std::move(roles.learners));
}

// Not to one that leaves, too: they would hand it to each other.
inline void ClusterChanges::hand_over_to_who_stays(Replica& replica) {
  const std::vector<raft::PeerStatus> peers = replica.raft().peers();
  const raft::PeerStatus* fittest = nullptr;
  for (const raft::PeerStatus& peer : peers) {
    const bool stays = membership_.state(peer.id) == MemberState::kActive;
    if (!stays || !peer.reachable || !replica.raft().configuration().is_voter(peer.id)) continue;
    if (fittest == nullptr || peer.match_index > fittest->match_index) fittest = &peer;
  }
  if (fittest != nullptr) replica.transfer_leadership(fittest->id);
}

inline bool ClusterChanges::system_follows_record() const {
  const raft::Raft& raft = system().raft();
  const Membership::Roles roles = membership_.roles();
  return raft.configuration_index() <= raft.commit_index() &&
         raft.configuration() == raft::Configuration{roles.voters, {}, roles.learners};
}

inline bool ClusterChanges::is_voter_everywhere(NodeId node) const {
  return std::all_of(replicas_.begin(), replicas_.end(), [&](const auto& group) {
    const raft::Raft& raft = group.second->raft();
    const std::vector<NodeId>& voters = raft.configuration().voters;
    return raft.is_current() && !raft.configuration().is_joint() &&
           raft.configuration_index() <= raft.commit_index() &&
           std::find(voters.begin(), voters.end(), node) != voters.end();
  });
}

inline bool ClusterChanges::is_out_everywhere(NodeId node) const {
  return std::all_of(replicas_.begin(), replicas_.end(), [&](const auto& group) {
    const raft::Raft& raft = group.second->raft();
    return raft.is_current() && raft.configuration_index() <= raft.commit_index() &&
           !raft.configuration().has(node);
  });
}

// Whether `node` has applied, in each group, what `index_of` says; as it says itself, once a second.
template <class IndexOf>
bool ClusterChanges::has_applied(NodeId node, IndexOf index_of) const {
  const auto status = site_.fresh_status(node);
  if (!status) return false;
  return std::all_of(replicas_.begin(), replicas_.end(), [&](const auto& entry) {
    const auto& [id, replica] = entry;
    const std::optional<Index> index = index_of(id, replica->raft());
    return index && std::any_of(status->groups.begin(), status->groups.end(),
                                [&, group_id = id](const GroupStatus& group) {
                                  return group.group == group_id && !group.restoring &&
                                         group.applied_index >= *index;
                                });
  });
}

// Whether it has applied the present configuration of every group, and is a member there. Before that
// it must not vote: under an id that there was before, what it reads on the way there may say that
// it was a voter then, perhaps the only one, and it would elect itself.
inline bool ClusterChanges::knows_members(NodeId node) const {
  return has_applied(node, [node](GroupId, const raft::Raft& raft) -> std::optional<Index> {
    if (!raft.configuration().has(node)) return std::nullopt;
    return raft.configuration_index();
  });
}

// The group goes on meanwhile: what had committed a moment ago is enough.
inline bool ClusterChanges::has_caught_up(NodeId node) const {
  return knows_members(node) &&
         has_applied(node, [this](GroupId group, const raft::Raft&) -> std::optional<Index> {
           const auto past = committed_.find(group);
           if (past == committed_.end() || past->second.empty()) return std::nullopt;
           return past->second.front().index;
         });
}

// The front is the newest that is at least kLookBackMs old, once there is one.
inline void ClusterChanges::note_commits() {
  const std::uint64_t now_ms = clock_.now_ms();
  for (const auto& [id, replica] : replicas_) {
    std::deque<CommittedAt>& past = committed_[id];
    past.push_back({now_ms, replica->raft().commit_index()});
    while (past.size() > 1 && past[1].at_ms + kLookBackMs <= now_ms) past.pop_front();
  }
}

inline void ClusterChanges::wait_for(NodeId about, std::function<Progress()> progress,
                                     Answer answer) {
  waiting_.push_back({about, clock_.now_ms() + options_.answer_timeout_ms, std::move(progress),
                      std::move(answer)});
}

// Who hears "ask again" does: what was asked must not happen hours later beside that.
inline void ClusterChanges::forget_wishes(NodeId node) {
  joining_.erase(node);
  states_.erase(node);
}

inline void ClusterChanges::answer_waiting() {
  const std::uint64_t now_ms = clock_.now_ms();
  if (!leads_system()) {
    joining_.clear();
    states_.clear();
  }
  std::deque<Waiting> still;
  for (Waiting& waiting : std::exchange(waiting_, {})) {
    Progress progress = waiting.progress();
    const bool too_long = now_ms >= waiting.deadline_ms;
    if (progress == Progress::kHandingOver && too_long) progress = Progress::kGivenUp;
    if (progress == Progress::kDone) {
      waiting.answer(reply(CallStatus::kAccepted));
    } else if (progress == Progress::kGivenUp) {
      waiting.answer(reply(CallStatus::kRefused,
                           "it did not take over in time: see whether it answers, and how far it "
                           "lags behind (seshat status)"));
    } else if (progress == Progress::kAsked && !leads_system()) {
      waiting.answer(reply(CallStatus::kNotReady, "leadership changed meanwhile: ask again"));
    } else if (too_long && progress == Progress::kAsked) {
      forget_wishes(waiting.about);
      waiting.answer(reply(CallStatus::kNotReady, "no majority has taken it in yet: ask again"));
    } else if (removed_) {
      waiting.answer(reply(CallStatus::kAccepted, "it is under way; this node has left meanwhile"));
    } else if (too_long) {
      waiting.answer(reply(CallStatus::kAccepted, "it is under way, but takes long"));
    } else {
      still.push_back(std::move(waiting));
    }
  }
  // An answer may have asked for something new.
  for (Waiting& waiting : waiting_) still.push_back(std::move(waiting));
  waiting_ = std::move(still);
}

}  // namespace seshat

#endif  // SESHAT_CLUSTER_CHANGES_HPP
