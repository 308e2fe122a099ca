// Who may vote, who is turned away, and that a cluster is founded whatever happens on the way.
// Failure classes 10 and 11: the same id that comes back with an empty disk must not vote.
#include "seshat/membership.hpp"

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"

namespace {

using namespace seshat;

using Addresses = std::map<NodeId, std::string>;

Addresses addresses(std::uint64_t size = 3) {
  Addresses addresses;
  for (std::uint64_t id = 1; id <= size; ++id) {
    addresses[NodeId{id}] = "node-" + std::to_string(id) + ":7379";
  }
  return addresses;
}

Membership::Self self_of(std::uint64_t id, std::uint64_t incarnation = 0) {
  Membership::Self self;
  self.id = NodeId{id};
  self.incarnation = incarnation != 0 ? incarnation : 100 + id;
  self.client_addr = "node-" + std::to_string(id) + ":6379";
  self.new_at_start = true;
  return self;
}

Membership node(std::uint64_t id, std::uint64_t incarnation = 0) {
  return {self_of(id, incarnation), addresses()};
}

// What a node says that has no log and no vote.
Hello hello_of(std::uint64_t id, std::uint64_t incarnation = 0) {
  return node(id, incarnation).hello(true, false);
}

// A record that knows these nodes; the others' incarnations are 0, never heard from.
ClusterMembership record_of(std::initializer_list<std::uint64_t> known) {
  ClusterMembership record;
  record.cluster_id = "c1";
  record.membership_version = 1;
  for (const auto& [id, addr] : addresses()) {
    NodeInfo& info = record.members[id];
    info.id = id;
    info.addr = addr;
  }
  for (const std::uint64_t id : known) {
    record.members[NodeId{id}].incarnation = 100 + id;
    record.members[NodeId{id}].client_addr = "node-" + std::to_string(id) + ":6379";
  }
  return record;
}

// A record of a running cluster, with its nodes in these states.
ClusterMembership with_states(const std::map<std::uint64_t, MemberState>& states) {
  ClusterMembership record;
  record.cluster_id = "c1";
  record.membership_version = 7;
  for (const auto& [id, state] : states) {
    NodeInfo& info = record.members[NodeId{id}];
    info.id = NodeId{id};
    info.incarnation = 100 + id;
    info.addr = "node-" + std::to_string(id) + ":7379";
    info.client_addr = "node-" + std::to_string(id) + ":6379";
    info.state = state;
    info.max_record_version = kRecordVersion;
    info.max_operation_version = kOperationVersion;
  }
  return record;
}

// What a node says of itself that has no founders.
Hello joiner(std::uint64_t id, std::uint64_t incarnation = 0) {
  Membership::Self self = self_of(id, incarnation);
  self.addr = "node-" + std::to_string(id) + ":7379";
  return Membership(self, {}).hello(true, false);
}

// ---- A small cluster: what node.hpp does with Membership, with elections in one step ------------

struct Founder {
  std::unique_ptr<Membership> membership;  // null: it is down
  // On its disk
  std::uint64_t incarnation = 0;
  std::uint64_t log = 0;  // how many entries
  std::uint64_t term = 0;
  std::uint64_t vote = 0;  // in that term
  std::optional<ClusterMembership> record;
  // In its process
  bool has_voted = false;
};

class Town {
 public:
  explicit Town(std::uint64_t size) : size_(size), founders_(size + 1) {}

  Founder& at(std::uint64_t id) { return founders_[id]; }
  [[nodiscard]] bool up(std::uint64_t id) const { return founders_[id].membership != nullptr; }

  void start(std::uint64_t id) {
    Founder& founder = at(id);
    if (founder.incarnation == 0) founder.incarnation = next_incarnation_++;
    Membership::Self self = self_of(id, founder.incarnation);
    self.new_at_start = founder.log == 0 && founder.vote == 0;
    founder.membership = std::make_unique<Membership>(self, addresses(size_));
    founder.has_voted = false;
    if (founder.record) founder.membership->set_record(*founder.record);
    for (std::uint64_t peer = 1; peer <= size_; ++peer) connect(id, peer);
  }
  void crash(std::uint64_t id) {
    at(id).membership.reset();
    if (leader_ == id) leader_ = 0;
  }
  void wipe(std::uint64_t id) {
    crash(id);
    at(id) = Founder{};
  }

  bool may_vote(std::uint64_t id) {
    Founder& founder = at(id);
    const bool may = founder.membership->may_vote(kSystemGroup, founder.has_voted);
    founder.has_voted = founder.has_voted || (may && founder.vote != 0);
    return may;
  }
  bool connected(std::uint64_t a, std::uint64_t b) {
    if (!up(a) || !up(b)) return false;
    return !at(a).membership->judge(hello(b)) && !at(b).membership->judge(hello(a));
  }

  // `id` asks everyone it reaches; whoever answers keeps its vote on disk.
  std::uint64_t campaign(std::uint64_t id, const std::vector<std::uint64_t>& deaf = {}) {
    Founder& candidate = at(id);
    if (!up(id) || !may_vote(id)) return 0;
    const std::uint64_t term = ++candidate.term;
    candidate.vote = id;
    candidate.has_voted = true;
    std::uint64_t votes = 1;
    for (std::uint64_t peer = 1; peer <= size_; ++peer) {
      const bool reached = std::find(deaf.begin(), deaf.end(), peer) == deaf.end();
      if (peer != id && reached && connected(id, peer)) votes += vote(peer, id, term) ? 1 : 0;
    }
    return votes;
  }
  // An election as Raft would hold it: the first that gets a majority leads.
  bool elect() {
    for (int round = 0; round < 3; ++round) {
      for (std::uint64_t id = 1; id <= size_; ++id) {
        if (campaign(id) < size_ / 2 + 1) continue;
        leader_ = id;
        ++at(id).log;
        replicate();
        return true;
      }
    }
    return false;
  }
  // Entries from the leader to all that talk to it; its term's vote goes to it (raft.hpp).
  void replicate() {
    for (std::uint64_t id = 1; id <= size_; ++id) {
      if (id == leader_ || !connected(leader_, id)) continue;
      at(id).log = at(leader_).log;
      at(id).term = at(leader_).term;
      at(id).vote = leader_;
      (void)may_vote(id);
    }
  }
  // The leader records what it knows, until there is nothing to record.
  void settle() {
    for (int round = 0; round < 10; ++round) {
      const auto next = at(leader_).membership->proposal("c1", 5);
      if (!next) return;
      ++at(leader_).log;
      replicate();
      for (std::uint64_t id = 1; id <= size_; ++id) {
        if (!connected(leader_, id)) continue;
        at(id).record = *next;
        at(id).membership->set_record(*next);
      }
      at(leader_).record = *next;
      at(leader_).membership->set_record(*next);
    }
  }
  [[nodiscard]] std::uint64_t leader() const { return leader_; }

 private:
  Hello hello(std::uint64_t id) {
    const Founder& founder = at(id);
    return founder.membership->hello(founder.log == 0, founder.vote != 0 && founder.vote != id);
  }
  void connect(std::uint64_t a, std::uint64_t b) {
    if (a == b || !connected(a, b)) return;
    at(a).membership->note_peer(hello(b));
    at(b).membership->note_peer(hello(a));
  }
  bool vote(std::uint64_t id, std::uint64_t candidate, std::uint64_t term) {
    Founder& voter = at(id);
    if (!may_vote(id) || term < voter.term || at(candidate).log < voter.log) return false;
    if (term > voter.term) voter.vote = 0;
    voter.term = term;
    if (voter.vote != 0 && voter.vote != candidate) return false;
    voter.vote = candidate;
    return true;
  }

  std::uint64_t size_;
  std::vector<Founder> founders_;
  std::uint64_t leader_ = 0;
  std::uint64_t next_incarnation_ = 100;
};

// Three nodes, founded, everybody recorded.
Town founded() {
  Town town(3);
  for (std::uint64_t id = 1; id <= 3; ++id) town.start(id);
  REQUIRE(town.elect());
  town.settle();
  return town;
}

}  // namespace

// ---- Handshakes ---------------------------------------------------------------------------------

TEST_CASE("founders with the same list welcome each other", "[membership]") {
  CHECK_FALSE(node(1).judge(hello_of(2)));
  CHECK_FALSE(node(1).judge(hello_of(3)));
}

TEST_CASE("a handshake says who a node is", "[membership]") {
  const Hello hello = node(2).hello(true, false);
  CHECK(hello.max_protocol_version == kProtocolVersion);
  CHECK(hello.node_id == NodeId{2});
  CHECK(hello.incarnation == 102);
  CHECK(hello.client_addr == "node-2:6379");
  CHECK(hello.cluster_id.empty());
  CHECK(hello.empty);
  CHECK_FALSE(node(2).hello(false, false).empty);
  CHECK_FALSE(node(2).hello(true, true).empty);
}

TEST_CASE("what is wrong with a peer is said, and what to do", "[membership]") {
  Hello other_protocol = hello_of(2);
  other_protocol.min_protocol_version = 9;
  other_protocol.max_protocol_version = 9;
  CHECK_THAT(*node(1).judge(other_protocol),
             StartsWith("node 2 speaks peer protocol 9 to 9, this node 1 to 3"));
  CHECK_THAT(*node(1).judge(hello_of(1, 7)), StartsWith("node 1 has this node's own id"));
  CHECK_THAT(*node(1).judge(hello_of(4)), StartsWith("node 4 is not a member of this cluster"));
  const Membership stranger(self_of(2), addresses(5));
  CHECK_THAT(*node(1).judge(stranger.hello(true, false)),
             StartsWith("node 2 was started with other cluster.initial_members"));
}

TEST_CASE("a late founder believes members that it never heard of once a founder vouches for them",
          "[membership]") {
  Membership late = node(3);
  Membership joined(self_of(4), addresses(4));
  ClusterMembership record = record_of({1, 2, 3});
  record.members[NodeId{4}].id = NodeId{4};
  record.members[NodeId{4}].addr = "node-4:7379";
  joined.set_record(record);
  CHECK(late.judge(joined.hello(false, false)));
  Hello founder = hello_of(1);
  founder.cluster_id = "c2";
  late.note_peer(founder);
  CHECK(late.judge(joined.hello(false, false)));
  founder.cluster_id = "c1";
  late.note_peer(founder);
  CHECK_FALSE(late.judge(joined.hello(false, false)));
}

TEST_CASE("nobody joins while a member was never heard from, and that is said", "[membership]") {
  Membership leader = node(1);
  Membership joins(self_of(4), addresses(4));
  Hello hello = joins.hello(true, false);
  hello.addr = "node-4:7379";
  ClusterMembership record = record_of({1, 2});
  for (auto& [id, info] : record.members) info.max_record_version = info.incarnation != 0 ? 2 : 0;
  leader.set_record(record);
  CHECK(leader.judge_join(hello).status == CallStatus::kNotReady);
  CHECK(leader.judge_join(hello).reason ==
        "node 3 was never heard from: start it, or remove it (seshat leave 3)");
  record.members[NodeId{3}].state = MemberState::kLeaving;
  leader.set_record(record);
  CHECK(leader.judge_join(hello).status == CallStatus::kAccepted);
}

TEST_CASE("nodes of two clusters do not talk, whatever their lists say", "[membership]") {
  Membership ours = node(1);
  ours.set_record(record_of({1, 2}));
  Hello theirs = hello_of(2);
  theirs.cluster_id = "c2";
  CHECK(*ours.judge(theirs) ==
        "node 2 belongs to cluster c2, this node to cluster c1: check addresses and data "
        "directories");
  theirs.cluster_id = "c1";
  theirs.members_hash = 0;  // the lists may have changed since
  CHECK_FALSE(ours.judge(theirs));
}

TEST_CASE("a recorded id with another incarnation is turned away (class 11)", "[membership]") {
  Membership leader = node(1);
  leader.set_record(record_of({1, 2}));
  CHECK_FALSE(leader.judge(hello_of(2)));
  CHECK_THAT(*leader.judge(hello_of(2, 999)), ContainsSubstring("it was wiped or replaced"));
  CHECK_THAT(*leader.judge(hello_of(2, 999)), ContainsSubstring("put its old data directory back"));
  CHECK_FALSE(leader.judge(hello_of(3, 999)));  // never heard from: any incarnation is its first
}

TEST_CASE("before there is a record, the incarnation seen first counts", "[membership]") {
  Membership one = node(1);
  one.note_peer(hello_of(2));
  CHECK_FALSE(one.judge(hello_of(2)));
  CHECK(one.judge(hello_of(2, 999)));
  one.forget_peer(NodeId{2});
  CHECK_FALSE(one.judge(hello_of(2, 999)));
}

// ---- What the leader records --------------------------------------------------------------------

TEST_CASE("the first leader draws the cluster id and records whom it has heard", "[membership]") {
  Membership leader = node(1);
  leader.note_peer(hello_of(2));
  const auto record = leader.proposal("fresh", 77);
  REQUIRE(record);
  CHECK(record->cluster_id == "fresh");
  CHECK(record->membership_version == 1);
  REQUIRE(record->members.size() == 3);
  CHECK(record->members.at(NodeId{1}).incarnation == 101);
  CHECK(record->members.at(NodeId{2}).incarnation == 102);
  CHECK(record->members.at(NodeId{2}).client_addr == "node-2:6379");
  CHECK(record->members.at(NodeId{2}).joined_at_ms == 77);
  CHECK(record->members.at(NodeId{3}).incarnation == 0);
  CHECK(record->members.at(NodeId{3}).addr == "node-3:7379");
}

TEST_CASE("a record that is as it should be is left alone", "[membership]") {
  Membership leader = node(1);
  leader.note_peer(hello_of(2));
  leader.set_record(*leader.proposal("fresh", 77));
  CHECK(leader.cluster_id() == "fresh");
  CHECK_FALSE(leader.proposal("another", 99));
}

TEST_CASE("a late founder and a moved client address are recorded, on the record that stands",
          "[membership]") {
  Membership leader = node(1);
  leader.set_record(*leader.proposal("fresh", 77));
  leader.note_peer(hello_of(3));
  auto record = leader.proposal("another", 99);
  REQUIRE(record);
  CHECK(record->cluster_id == "fresh");
  CHECK(record->membership_version == 2);
  CHECK(record->members.at(NodeId{3}).incarnation == 103);
  CHECK(record->members.at(NodeId{3}).joined_at_ms == 77);
  leader.set_record(*record);
  Hello moved = hello_of(3);
  moved.client_addr = "elsewhere:6379";
  moved.client_tls_port = 6380;
  leader.note_peer(moved);
  record = leader.proposal("another", 99);
  REQUIRE(record);
  CHECK(record->members.at(NodeId{3}).client_addr == "elsewhere:6379");
  CHECK(record->members.at(NodeId{3}).client_tls_port == 6380);
}

TEST_CASE("an incarnation once recorded is never replaced", "[membership]") {
  Membership leader = node(1);
  leader.set_record(record_of({1, 2, 3}));
  leader.note_peer(hello_of(2, 999));
  const auto record = leader.proposal("fresh", 1);
  if (record) CHECK(record->members.at(NodeId{2}).incarnation == 102);
}

TEST_CASE("addresses: what a node said itself, else what was recorded, never a guess",
          "[membership]") {
  Membership one = node(1);
  CHECK(one.client_addr(NodeId{1}) == "node-1:6379");
  CHECK(one.client_addr(NodeId{2}).empty());
  one.set_record(record_of({1, 2}));
  CHECK(one.client_addr(NodeId{2}) == "node-2:6379");
  CHECK(one.client_addr(NodeId{3}).empty());
  Hello moved = hello_of(2);
  moved.client_addr = "elsewhere:6379";
  moved.client_tls_port = 6380;
  CHECK(one.client_tls_port(NodeId{2}) == 0);
  one.note_peer(moved);
  CHECK(one.client_addr(NodeId{2}) == "elsewhere:6379");
  CHECK(one.client_tls_port(NodeId{2}) == 6380);
  CHECK(one.client_tls_port(NodeId{3}) == 0);
  CHECK(one.addr(NodeId{3}) == "node-3:7379");
  CHECK(one.addr(NodeId{9}).empty());
}

// ---- Who may vote -------------------------------------------------------------------------------

TEST_CASE("a new node votes as long as everybody who answers is new too", "[membership]") {
  Membership fresh = node(1);
  CHECK(fresh.may_vote(kSystemGroup, false));
  fresh.note_peer(hello_of(2));
  CHECK(fresh.may_vote(kSystemGroup, false));
  fresh.note_peer(node(3).hello(false, false));
  CHECK_FALSE(fresh.may_vote(kSystemGroup, false));
  CHECK(fresh.may_vote(kSystemGroup, true));  // it voted before that: it goes on
}

TEST_CASE("a node with a past votes, until the record says it is another", "[membership]") {
  Membership::Self self = self_of(1);
  self.new_at_start = false;
  Membership node(self, addresses());
  node.note_peer(hello_of(2));
  CHECK(node.may_vote(kSystemGroup, false));
  node.set_record(record_of({1, 2, 3}));
  CHECK(node.may_vote(kSystemGroup, false));
  ClusterMembership other = record_of({1, 2, 3});
  other.members[NodeId{1}].incarnation = 5;
  node.set_record(other);
  CHECK_FALSE(node.may_vote(kSystemGroup, true));
  CHECK(node.was_wiped());
}

TEST_CASE("a node that the record doesn't know yet waits to be admitted", "[membership]") {
  Membership late = node(3);
  late.set_record(record_of({1, 2}));
  CHECK_FALSE(late.may_vote(kSystemGroup, false));
  CHECK_FALSE(late.was_wiped());
  late.set_record(record_of({1, 2, 3}));
  CHECK(late.may_vote(kSystemGroup, false));
}

TEST_CASE("a new node that a member has refused does not vote until that member takes it in",
          "[membership]") {
  Membership fresh = node(1);
  fresh.note_peer(hello_of(2));
  fresh.note_refusal(NodeId{3});
  CHECK_FALSE(fresh.may_vote(kSystemGroup, false));
  fresh.note_acceptance(NodeId{3});
  CHECK(fresh.may_vote(kSystemGroup, false));
}

// ---- Members ------------------------------------------------------------------------------------

TEST_CASE("who takes part: the founders, then whoever is recorded and not removed",
          "[membership]") {
  Membership one = node(1);
  CHECK(one.members() == addresses());
  CHECK_FALSE(one.state(NodeId{2}));
  CHECK(one.roles().voters.empty());  // nothing is wanted yet
  one.set_record(with_states({{1, MemberState::kActive},
                              {2, MemberState::kJoining},
                              {3, MemberState::kLeaving},
                              {4, MemberState::kRemoved}}));
  const std::map<NodeId, std::string> members = one.members();
  CHECK(members.size() == 3);
  CHECK(members.at(NodeId{3}) == "node-3:7379");
  CHECK_FALSE(members.contains(NodeId{4}));
  CHECK(one.state(NodeId{4}) == MemberState::kRemoved);
  CHECK_FALSE(one.state(NodeId{5}));
}

TEST_CASE("active nodes vote, joining ones learn, the others are in no group", "[membership]") {
  Membership one = node(1);
  one.set_record(with_states({{1, MemberState::kActive},
                              {2, MemberState::kJoining},
                              {3, MemberState::kLeaving},
                              {4, MemberState::kRemoved},
                              {5, MemberState::kActive}}));
  CHECK(one.roles().voters == std::vector<NodeId>{{1}, {5}});
  CHECK(one.roles().learners == std::vector<NodeId>{{2}});
}

TEST_CASE("a change of members waits for those who stay, not for those who go", "[membership]") {
  Membership one = node(1);
  CHECK_FALSE(one.all_know_record_version(1));  // no record
  ClusterMembership record = with_states({{1, MemberState::kActive},
                                          {2, MemberState::kJoining},
                                          {3, MemberState::kLeaving},
                                          {4, MemberState::kRemoved}});
  record.members[NodeId{3}].max_record_version = 1;
  record.members[NodeId{4}].max_record_version = 1;
  one.set_record(record);
  CHECK(one.all_know_record_version(2));
  CHECK_FALSE(one.all_know_record_version(kRecordVersion + 1));
  for (const std::uint64_t stays : {1, 2}) {
    ClusterMembership older = record;
    older.members[NodeId{stays}].max_record_version = 1;
    one.set_record(older);
    CHECK_FALSE(one.all_know_record_version(2));
  }
}

TEST_CASE("a member in another state, and a newer version of the record", "[membership]") {
  Membership one = node(1);
  one.set_record(with_states({{1, MemberState::kActive}, {2, MemberState::kJoining}}));
  const ClusterMembership next = one.with_state(NodeId{2}, MemberState::kActive, 9);
  CHECK(next.members.at(NodeId{2}).state == MemberState::kActive);
  CHECK(next.membership_version == one.record()->membership_version + 1);
  CHECK(next.members.at(NodeId{2}).incarnation == 102);
}

TEST_CASE("the address of a peer is recorded anew from what it says, unless it says nothing",
          "[membership]") {
  Membership leader = node(1);
  leader.set_record(with_states({{1, MemberState::kActive}, {2, MemberState::kActive}}));
  Hello silent = joiner(2);
  silent.addr.clear();  // as version 0.1
  leader.note_peer(silent);
  auto record = leader.proposal("fresh", 1);
  if (record) CHECK(record->members.at(NodeId{2}).addr == "node-2:7379");
  Hello moved = joiner(2);
  moved.addr = "elsewhere:7379";
  leader.note_peer(moved);
  record = leader.proposal("fresh", 1);
  REQUIRE(record);
  CHECK(record->members.at(NodeId{2}).addr == "elsewhere:7379");
  leader.set_record(*record);
  CHECK(leader.addr(NodeId{2}) == "elsewhere:7379");
}

TEST_CASE("what a removed node says is not recorded any more", "[membership]") {
  Membership leader = node(1);
  leader.set_record(with_states({{1, MemberState::kActive}, {2, MemberState::kRemoved}}));
  Hello moved = joiner(2);
  moved.addr = "elsewhere:7379";
  leader.note_peer(moved);
  const auto record = leader.proposal("fresh", 1);
  if (record) CHECK(record->members.at(NodeId{2}).addr == "node-2:7379");
}

// ---- Join ---------------------------------------------------------------------------------------

TEST_CASE("who may join: every answer, and what to do", "[membership]") {
  Membership leader = node(1);
  const auto judge = [&](const Hello& hello) { return leader.judge_join(hello); };
  CHECK(judge(joiner(4)).status == CallStatus::kNotReady);
  CHECK(judge(joiner(4)).reason == "the cluster is still being founded");
  leader.set_record(with_states(
      {{1, MemberState::kActive}, {2, MemberState::kActive}, {3, MemberState::kRemoved}}));

  const CallReply welcome = judge(joiner(4));
  CHECK(welcome.status == CallStatus::kAccepted);
  CHECK(welcome.membership == leader.record());
  CHECK(judge(joiner(2)).status == CallStatus::kAccepted);  // it asks again

  Hello stranger = joiner(4);
  stranger.cluster_id = "c2";
  CHECK(judge(stranger).status == CallStatus::kWrongCluster);
  CHECK(judge(stranger).reason ==
        "node 4 has data of cluster c2, this is cluster c1: start it with an empty node.data_dir");

  Hello nowhere = joiner(4);
  nowhere.addr.clear();
  CHECK(judge(nowhere).status == CallStatus::kRefused);
  CHECK_THAT(judge(nowhere).reason, StartsWith("node 4 does not say where peers reach it"));

  CHECK(judge(joiner(2, 999)).status == CallStatus::kDuplicateId);
  CHECK(judge(joiner(2, 999)).reason ==
        "the cluster has a node 2 already, at node-2:7379: take another node.id, or remove that "
        "one first (seshat leave 2)");
  CHECK_FALSE(judge(joiner(2, 999)).membership);

  CHECK(judge(joiner(3)).status == CallStatus::kRefused);
  CHECK_THAT(judge(joiner(3)).reason, ContainsSubstring("start it with an empty one"));
  CHECK(judge(joiner(3, 999)).status == CallStatus::kAccepted);

  Hello older = joiner(4);
  older.max_record_version = 1;
  CHECK(judge(older).status == CallStatus::kNotReady);
  ClusterMembership mixed = *leader.record();
  mixed.members[NodeId{2}].max_record_version = 1;
  leader.set_record(mixed);
  CHECK(judge(joiner(4)).status == CallStatus::kNotReady);
  CHECK_THAT(judge(joiner(4)).reason,
             ContainsSubstring("node 2 runs a version of seshat that knows no changes"));
}

TEST_CASE("a node that joins is recorded as one that joins, once", "[membership]") {
  Membership leader = node(1);
  leader.set_record(with_states({{1, MemberState::kActive}}));
  const auto record = leader.joined(joiner(4), 77);
  REQUIRE(record);
  const NodeInfo& info = record->members.at(NodeId{4});
  CHECK(info.state == MemberState::kJoining);
  CHECK(info.incarnation == 104);
  CHECK(info.addr == "node-4:7379");
  CHECK(info.client_addr == "node-4:6379");
  CHECK(info.joined_at_ms == 77);
  CHECK(info.max_record_version == kRecordVersion);
  CHECK(record->membership_version == leader.record()->membership_version + 1);
  leader.set_record(*record);
  CHECK_FALSE(leader.joined(joiner(4), 99));
  leader.set_record(leader.with_state(NodeId{4}, MemberState::kActive, 9));
  CHECK_FALSE(leader.joined(joiner(4), 99));
}

TEST_CASE("a removed id joins again with another data directory, and with that one only (class 11)",
          "[membership]") {
  Membership leader = node(1);
  leader.set_record(with_states({{1, MemberState::kActive}, {2, MemberState::kRemoved}}));
  CHECK(leader.was_removed(joiner(2)));
  CHECK_THAT(*leader.judge(joiner(2)), ContainsSubstring("was removed from this cluster"));
  CHECK_FALSE(leader.was_removed(joiner(2, 999)));
  CHECK_THAT(*leader.judge(joiner(2, 999)), ContainsSubstring("is not a member"));  // not yet
  leader.set_record(*leader.joined(joiner(2, 999), 1));
  CHECK(leader.state(NodeId{2}) == MemberState::kJoining);
  Hello present = joiner(2, 999);
  Hello past = joiner(2);
  present.cluster_id = past.cluster_id = "c1";
  CHECK_FALSE(leader.judge(present));
  CHECK_FALSE(leader.was_removed(past));
  CHECK_THAT(*leader.judge(past), ContainsSubstring("it was wiped or replaced"));
}

TEST_CASE("who was let in knows its peers, until it has the record itself", "[membership]") {
  Membership::Self self = self_of(4);
  self.addr = "node-4:7379";
  Membership fresh(self, {});
  CHECK(fresh.members().empty());
  CHECK(fresh.judge(hello_of(1)));  // it knows nobody yet
  const ClusterMembership town = with_states(
      {{1, MemberState::kActive}, {2, MemberState::kActive}, {3, MemberState::kRemoved}});
  fresh.set_joined(town);
  CHECK(fresh.cluster_id() == "c1");
  CHECK(fresh.members() == Addresses{{{1}, "node-1:7379"}, {{2}, "node-2:7379"}, {{4}, self.addr}});
  Hello member = hello_of(1);
  member.cluster_id = "c1";
  CHECK_FALSE(fresh.judge(member));
  ClusterMembership record = town;
  record.members.erase(NodeId{2});
  fresh.set_record(record);
  fresh.set_joined(town);  // an answer that comes late
  CHECK(fresh.members().size() == 1);
}

TEST_CASE("a node that joins does not vote before a leader has recorded it (class 11)",
          "[membership]") {
  Membership::Self self = self_of(4);
  self.addr = "node-4:7379";
  Membership fresh(self, {});
  CHECK_FALSE(fresh.may_vote(kSystemGroup, false));
  const ClusterMembership town = with_states({{1, MemberState::kActive}});
  fresh.set_joined(town);
  CHECK_FALSE(fresh.may_vote(kSystemGroup, false));
  Membership leader = node(1);
  leader.set_record(town);
  fresh.set_record(*leader.joined(fresh.hello(true, false), 1));
  CHECK(fresh.may_vote(kSystemGroup, false));
}

// ---- Founding a cluster -------------------------------------------------------------------------

TEST_CASE("three empty nodes found a cluster, and all may vote", "[membership]") {
  Town town = founded();
  for (std::uint64_t id = 1; id <= 3; ++id) CHECK(town.may_vote(id));
  CHECK(town.at(3).record->members.at(NodeId{3}).incarnation == town.at(3).incarnation);
}

TEST_CASE("two founders suffice, and the late third is admitted", "[membership]") {
  Town town(3);
  town.start(1);
  CHECK_FALSE(town.elect());
  town.start(2);
  REQUIRE(town.elect());
  town.settle();
  town.start(3);
  CHECK_FALSE(town.may_vote(3));
  town.replicate();
  town.settle();
  CHECK(town.may_vote(3));
  town.crash(town.leader());
  CHECK(town.elect());
}

TEST_CASE("a founder that crashed after voting for itself keeps nobody from voting",
          "[membership]") {
  Town town(3);
  for (std::uint64_t id = 1; id <= 3; ++id) town.start(id);
  CHECK(town.campaign(1, {2, 3}) == 1);  // nobody hears it
  town.crash(1);
  town.start(1);
  CHECK(town.may_vote(2));
  town.crash(3);
  CHECK(town.elect());
}

TEST_CASE("founders that crashed between vote and victory elect on", "[membership]") {
  for (std::uint64_t down = 1; down <= 3; ++down) {
    Town town(3);
    for (std::uint64_t id = 1; id <= 3; ++id) town.start(id);
    CHECK(town.campaign(1, {3}) == 2);  // 1 and 2 voted for 1, which dies before it knows
    for (std::uint64_t id = 1; id <= 3; ++id) town.crash(id);
    for (std::uint64_t id = 1; id <= 3; ++id) town.start(id);
    REQUIRE(town.elect());
    town.settle();
    town.replicate();
    town.settle();
    town.crash(down);
    if (town.leader() == 0) CHECK(town.elect());
  }
}

TEST_CASE("a crash before the membership was recorded leaves a cluster that goes on",
          "[membership]") {
  Town town(3);
  for (std::uint64_t id = 1; id <= 3; ++id) town.start(id);
  REQUIRE(town.elect());  // a log, but no record
  for (std::uint64_t id = 1; id <= 3; ++id) town.crash(id);
  town.start(2);
  town.start(3);
  REQUIRE(town.elect());
  town.settle();
  town.start(1);
  town.replicate();
  town.settle();
  CHECK(town.may_vote(1));
}

TEST_CASE("the leader crashed before the record, and only those who were led are left",
          "[membership]") {
  Town town(3);
  for (std::uint64_t id = 1; id <= 3; ++id) town.start(id);
  REQUIRE(town.elect());
  town.crash(town.leader());
  CHECK(town.elect());
}

// ---- A wipe -------------------------------------------------------------------------------------

TEST_CASE("a wiped node is refused by all and elects nobody (class 11)", "[membership]") {
  for (std::uint64_t id = 1; id <= 3; ++id) {
    Town town = founded();
    town.wipe(id);
    town.start(id);
    for (std::uint64_t peer = 1; peer <= 3; ++peer) CHECK_FALSE(town.connected(id, peer));
    CHECK(town.campaign(id) <= 1);
    // The others go on without it, and one of them alone does not.
    CHECK(town.elect());
    CHECK(town.leader() != id);
    town.crash(town.leader());
    CHECK_FALSE(town.elect());
  }
}

TEST_CASE("two of three wiped do not found another cluster beside the third", "[membership]") {
  Town town = founded();
  town.wipe(1);
  town.wipe(2);
  town.start(1);
  CHECK_FALSE(town.connected(1, 3));
  // 3 turned it away, which tells it that there is a cluster.
  town.at(1).membership->note_refusal(NodeId{3});
  town.start(2);
  CHECK_FALSE(town.may_vote(1));
  CHECK(town.campaign(2) < 2);
}

TEST_CASE("a node that was wiped before it was recorded does not vote again", "[membership]") {
  Town town(3);
  for (std::uint64_t id = 1; id <= 3; ++id) town.start(id);
  REQUIRE(town.elect());
  const std::uint64_t follower = town.leader() == 1 ? 2 : 1;
  town.wipe(follower);
  town.start(follower);
  CHECK_FALSE(town.connected(follower, town.leader()));
}

// ---- An id that there was before ----------------------------------------------------------------

TEST_CASE("under an old id a node votes in a data group only once it was made a voter",
          "[membership]") {
  Membership::Self self = self_of(2, 999);
  Membership back(self, {});
  ClusterMembership record = record_of({1, 3});
  NodeInfo& info = record.members[NodeId{2}];
  info.incarnation = 999;
  info.state = MemberState::kJoining;
  back.set_record(record);
  CHECK(back.may_vote(kSystemGroup, false));
  CHECK_FALSE(back.may_vote(kFirstDataGroup, false));
  back.set_record(back.with_state(NodeId{2}, MemberState::kActive, 77));
  CHECK(back.may_vote(kFirstDataGroup, false));
  // On its way out it still counts, for until then a majority may need it.
  back.set_record(back.with_state(NodeId{2}, MemberState::kLeaving, 78));
  CHECK(back.record()->members.at(NodeId{2}).promoted_at_ms == 77);
  CHECK(back.may_vote(kFirstDataGroup, false));
}

TEST_CASE("a learner that leaves again never votes in a data group", "[membership]") {
  Membership back(self_of(2, 999), {});
  ClusterMembership record = record_of({1, 3});
  record.members[NodeId{2}].incarnation = 999;
  record.members[NodeId{2}].state = MemberState::kJoining;
  back.set_record(record);
  back.set_record(back.with_state(NodeId{2}, MemberState::kLeaving, 77));
  CHECK_FALSE(back.may_vote(kFirstDataGroup, false));
}

TEST_CASE("a newer record counts for more than what is known here", "[membership]") {
  Membership late = node(1);
  late.set_record(record_of({1, 2, 3}));
  Hello back = hello_of(2, 999);  // it was wiped, and let in again, while this node was away
  back.cluster_id = "c1";
  back.addr = "node-2b:7379";
  CHECK(late.judge(back));
  back.membership_version = 2;
  CHECK_FALSE(late.judge(back));
  late.note_peer(back);
  CHECK(late.addr(NodeId{2}) == "node-2b:7379");
  Hello stranger = hello_of(4);  // joined meanwhile, and may lead by now
  stranger.cluster_id = "c1";
  stranger.addr = "node-4:7379";
  CHECK(late.judge(stranger));
  stranger.membership_version = 2;
  CHECK_FALSE(late.judge(stranger));
  late.note_peer(stranger);
  CHECK(late.members().contains(NodeId{4}));
  stranger.cluster_id = "c2";
  CHECK(late.judge(stranger));
}
