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
             StartsWith("node 2 speaks peer protocol 9 to 9, this node 1 to 2"));
  CHECK_THAT(*node(1).judge(hello_of(1, 7)), StartsWith("node 1 has this node's own id"));
  CHECK_THAT(*node(1).judge(hello_of(4)), StartsWith("node 4 is not a member of this cluster"));
  const Membership stranger(self_of(2), addresses(5));
  CHECK_THAT(*node(1).judge(stranger.hello(true, false)),
             StartsWith("node 2 was started with other cluster.initial_members"));
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
  leader.note_peer(moved);
  record = leader.proposal("another", 99);
  REQUIRE(record);
  CHECK(record->members.at(NodeId{3}).client_addr == "elsewhere:6379");
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
  one.note_peer(moved);
  CHECK(one.client_addr(NodeId{2}) == "elsewhere:6379");
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
