// Who decides over the members: wants now these voters and learners, now others, and brings every
// group there, the system group first, by asking whoever leads it, again and again.
//
// A node may lose its disk. Until it has been removed from all groups and the system group has
// recorded its new incarnation, nobody wants it; no other node loses its disk meanwhile. It votes
// when it has caught up in all groups and the system group has recorded that.
//
// Keeps: of every configuration that may come into force, a majority has its disks.
#ifndef SESHAT_TESTS_SIM_ADMINISTRATOR_HPP
#define SESHAT_TESTS_SIM_ADMINISTRATOR_HPP

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "sim/checks.hpp"
#include "sim/process.hpp"
#include "sim/scenario.hpp"
#include "sim/world.hpp"

namespace seshat::sim {

// The machines and what runs on them.
class AdministeredCluster {
 public:
  virtual Process* leading(GroupId group) = 0;  // null: nobody
  virtual Machine& machine(NodeId node) = 0;
  virtual Process* process(NodeId node) = 0;  // null: it is down
  virtual void wipe(NodeId node) = 0;

 protected:
  ~AdministeredCluster() = default;
};

class Administrator {
 public:
  Administrator(World& world, const Scenario& scenario, const Checks& checks,
                AdministeredCluster& cluster)
      : world_(world), scenario_(scenario), checks_(checks), cluster_(cluster) {
    for (std::size_t node = 1; node <= scenario.founders; ++node) {
      voters_.push_back(NodeId{node});
    }
    wants_ = scenario.records_founders;
  }

  void start() { step(); }
  void begin(const MemberChange& change);
  // Whether the members of every group are those that are wanted, and that has committed.
  [[nodiscard]] bool done();
  [[nodiscard]] std::string tell() const {
    std::string text = "wanted:";
    for (const NodeId node : voters_) text += " n" + std::to_string(node.value);
    text += "; to learn:";
    for (const NodeId node : learners_) text += " n" + std::to_string(node.value);
    return text;
  }

 private:
  using Nodes = std::vector<NodeId>;

  void step();
  void bring(GroupId group, Process& process);
  [[nodiscard]] bool caught_up(const raft::Raft& raft, NodeId node) const;
  [[nodiscard]] bool may_vote(NodeId node, GroupId group);
  [[nodiscard]] bool reached(const raft::Raft& raft) const;
  void readmit();
  void activate();
  [[nodiscard]] static bool knows_members(const raft::Raft& raft, NodeId node);
  [[nodiscard]] bool may_wipe(NodeId node);
  [[nodiscard]] bool may_wipe(NodeId node, GroupId group);
  void draw_roles(std::uint64_t raw);
  [[nodiscard]] Nodes outsiders() const;
  void take_in(std::uint64_t raw, Nodes& as);
  void leave_out(NodeId node) {
    std::erase(voters_, node);
    std::erase(learners_, node);
  }
  [[nodiscard]] static bool has(const Nodes& nodes, NodeId node) {
    return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
  }

  World& world_;
  const Scenario& scenario_;
  const Checks& checks_;
  AdministeredCluster& cluster_;
  Nodes voters_;
  Nodes learners_;
  std::optional<NodeId> wiped_;
  std::set<NodeId> joining_;  // let in again with another disk, not yet caught up
  bool wants_ = false;
  std::uint64_t number_ = 0;  // of what is wanted
  bool by_learners_ = false;
  std::uint64_t since_us_ = 0;
};

// ---- What is wanted

inline Administrator::Nodes Administrator::outsiders() const {
  Nodes outside;
  for (std::size_t node = 1; node <= scenario_.nodes; ++node) {
    if (!has(voters_, NodeId{node}) && wiped_ != NodeId{node}) outside.push_back(NodeId{node});
  }
  return outside;
}

inline void Administrator::take_in(std::uint64_t raw, Nodes& as) {
  const Nodes outside = outsiders();
  if (outside.empty()) return;
  const NodeId node = outside[raw % outside.size()];
  leave_out(node);
  as.push_back(node);
}

inline void Administrator::draw_roles(std::uint64_t raw) {
  Nodes nodes = outsiders();
  nodes.insert(nodes.end(), voters_.begin(), voters_.end());
  voters_.clear();
  learners_.clear();
  for (const NodeId node : nodes) {
    const std::uint64_t drawn = (raw >> node.value * 2) % 4;
    if (drawn < 2) voters_.push_back(node);
    if (drawn == 2) learners_.push_back(node);
  }
  if (voters_.empty()) voters_.push_back(nodes.front()), std::erase(learners_, nodes.front());
}

inline void Administrator::begin(const MemberChange& change) {
  const std::uint64_t raw = change.raw >> 8;
  const NodeId any = voters_[raw % voters_.size()];
  Process* leader = cluster_.leading(kFirstDataGroup);
  wants_ = true;
  ++number_;
  by_learners_ = change.by_learners;
  since_us_ = world_.now_us();
  switch (change.kind) {
    case ChangeKind::kAdd:
      take_in(raw, voters_);
      break;
    case ChangeKind::kLearn:
      take_in(raw, learners_);
      break;
    case ChangeKind::kRemove:
      if (voters_.size() > 1) leave_out(any);
      break;
    case ChangeKind::kRemoveLeader:
      if (leader != nullptr && voters_.size() > 1) leave_out(leader->id());
      if (voters_.empty()) voters_.push_back(any);
      break;
    case ChangeKind::kSwap:
      for (std::uint64_t i = 0; i <= change.raw % 2; ++i) {
        const NodeId goes = voters_[(raw + i) % voters_.size()];
        take_in(raw >> 8, voters_);
        if (voters_.size() > 1) leave_out(goes);
      }
      break;
    case ChangeKind::kShrink:
      voters_ = {any};
      if (change.raw % 2 == 0) learners_.clear();
      break;
    case ChangeKind::kAny:
      draw_roles(raw);
      break;
    case ChangeKind::kWipe: {
      const NodeId node{1 + raw % scenario_.nodes};
      if (!may_wipe(node)) break;
      wiped_ = node;
      leave_out(node);
      cluster_.wipe(node);
      break;
    }
  }
  std::sort(voters_.begin(), voters_.end());
  std::sort(learners_.begin(), learners_.end());
  if (world_.tracing()) world_.trace("admin", tell());
}

// ---- Disks that are lost

inline bool Administrator::may_wipe(NodeId node) {
  if (wiped_ || voters_ == Nodes{node}) return false;
  return may_wipe(node, kSystemGroup) && may_wipe(node, kFirstDataGroup);
}

// No change is under way anywhere, and the voters can spare one.
inline bool Administrator::may_wipe(NodeId node, GroupId group) {
  const raft::Configuration& members = checks_.members(group);
  const Index since = checks_.members_since(group);
  if (members.is_joint()) return false;
  for (std::size_t each = 1; each <= scenario_.nodes; ++each) {
    const NodeId id{each};
    const Process* process = cluster_.process(id);
    if (process != nullptr && process->replica(group).raft().configuration_index() > since) {
      return false;
    }
    for (const raft::Entry& entry : cluster_.machine(id).disk.written().groups.at(group).log) {
      if (entry.configuration && entry.index > since) return false;
    }
  }
  return !members.is_voter(node) || members.voters.size() >= 3;
}

// Once no group counts on it any more, the cluster takes note of the new disk.
inline void Administrator::readmit() {
  Process* system = cluster_.leading(kSystemGroup);
  Process* data = cluster_.leading(kFirstDataGroup);
  if (!wiped_ || system == nullptr || data == nullptr) return;
  const bool counts = checks_.members(kSystemGroup).has(*wiped_) ||
                      checks_.members(kFirstDataGroup).has(*wiped_) ||
                      system->replica(kSystemGroup).raft().configuration().has(*wiped_) ||
                      data->replica(kFirstDataGroup).raft().configuration().has(*wiped_);
  if (counts) return;
  const std::uint64_t incarnation = cluster_.machine(*wiped_).incarnation(scenario_.seed);
  if (!system->admits(*wiped_, incarnation)) {
    return system->admit(*wiped_, incarnation, MemberState::kJoining);
  }
  if (world_.tracing()) world_.trace("admin", "n" + std::to_string(wiped_->value) + " may come");
  joining_.insert(*wiped_);
  wiped_.reset();
}

// Behind the present members its log can't take it for a voter of the past any more.
inline void Administrator::activate() {
  Process* system = cluster_.leading(kSystemGroup);
  Process* data = cluster_.leading(kFirstDataGroup);
  if (system == nullptr || data == nullptr) return;
  for (const NodeId node : joining_) {
    const std::uint64_t incarnation = cluster_.machine(node).incarnation(scenario_.seed);
    if (system->admits(node, incarnation, MemberState::kActive)) {
      joining_.erase(node);
      return;
    }
    if (!knows_members(system->replica(kSystemGroup).raft(), node) ||
        !knows_members(data->replica(kFirstDataGroup).raft(), node)) {
      continue;
    }
    return system->admit(node, incarnation, MemberState::kActive);
  }
}

inline bool Administrator::knows_members(const raft::Raft& raft, NodeId node) {
  for (const raft::PeerStatus& peer : raft.peers()) {
    if (peer.id == node) return peer.match_index >= raft.configuration_index();
  }
  return node == raft.id();
}

// ---- The way there

inline bool Administrator::reached(const raft::Raft& raft) const {
  const raft::Configuration& now = raft.configuration();
  const bool there = !now.is_joint() && now.voters == voters_ && now.learners == learners_;
  return there && (!wants_ || raft.configuration_index() != Index{});
}

inline bool Administrator::done() {
  for (const GroupId group : kGroups) {
    Process* process = cluster_.leading(group);
    if (process == nullptr) return false;
    const raft::Raft& raft = process->replica(group).raft();
    if (!reached(raft) || raft.commit_index() < raft.configuration_index()) return false;
  }
  return true;
}

inline void Administrator::step() {
  constexpr std::uint64_t kPauseUs = 40 * kMillisecond;
  constexpr std::uint64_t kPatienceUs = kSecond;
  Process* system = cluster_.leading(kSystemGroup);
  Process* data = cluster_.leading(kFirstDataGroup);
  if (system != nullptr) bring(kSystemGroup, *system);
  const bool first_done = system != nullptr && reached(system->replica(kSystemGroup).raft());
  const bool waited = world_.now_us() > since_us_ + kPatienceUs;
  if (data != nullptr && (first_done || waited)) bring(kFirstDataGroup, *data);
  readmit();
  activate();
  world_.after(kPauseUs, [this] { step(); });
}

inline bool Administrator::caught_up(const raft::Raft& raft, NodeId node) const {
  constexpr std::uint64_t kPatienceUs = 4 * kSecond;
  constexpr std::uint64_t kLag = 10;
  if (world_.now_us() > since_us_ + kPatienceUs) return true;
  for (const raft::PeerStatus& peer : raft.peers()) {
    if (peer.id == node) return peer.match_index + kLag >= raft.commit_index();
  }
  return node == raft.id();
}

inline void Administrator::bring(GroupId group, Process& process) {
  const raft::Raft& raft = process.replica(group).raft();
  const raft::Configuration& now = raft.configuration();
  if (!wants_ || reached(raft) || now.is_joint()) return;
  Nodes learners = now.learners;
  bool ready = true;
  for (const NodeId node : voters_) {
    if (has(now.voters, node)) continue;
    const bool learnt = has(now.learners, node) && caught_up(raft, node);
    if (may_vote(node, group) && (learnt || !by_learners_)) continue;
    ready = false;
    if (!has(learners, node)) learners.push_back(node);
  }
  if (!ready && learners == now.learners) return;
  // Whoever takes it late, after a pause, must not do what is not wanted any more.
  const auto wanted = [this, number = number_] { return number == number_; };
  if (ready) return process.change_members(group, voters_, learners_, wanted);
  process.change_members(group, now.voters, learners, wanted);
}

// A new node votes once it has read that the cluster knows it: so long it can only learn, or a leader
// that needs its vote could never come to be.
inline bool Administrator::may_vote(NodeId node, GroupId group) {
  const Process* process = cluster_.process(node);
  const Machine& machine = cluster_.machine(node);
  if (process == nullptr || !process->admits(node, machine.incarnation(scenario_.seed))) {
    return false;
  }
  return machine.wipes == 0 || group == kSystemGroup || process->is_active();
}

}  // namespace seshat::sim

#endif  // SESHAT_TESTS_SIM_ADMINISTRATOR_HPP
