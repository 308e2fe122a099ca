// Members that change while the group serves (§6 of the Raft paper; thesis 4).
#include <cstdint>
#include <string>
#include <vector>

#include "catch.hpp"
#include "raft_harness.hpp"
#include "raft_random.hpp"
#include "seshat/raft.hpp"

namespace seshat::raft::test {

namespace {

std::vector<NodeId> ids(std::initializer_list<std::uint64_t> numbers) {
  std::vector<NodeId> nodes;
  for (const std::uint64_t number : numbers) nodes.push_back(NodeId{number});
  return nodes;
}

// Nodes 1 to `founders` are the group, the others wait to be let in.
Cluster cluster_of(std::size_t founders, std::size_t size, const Tweak& tweak = {}) {
  return Cluster(size, [&](Config& config) {
    config.voters.resize(config.id.value <= founders ? founders : 0);
    if (tweak) tweak(config);
  });
}

// Led by node 1, its no-op committed everywhere.
Cluster led_cluster(std::size_t founders, std::size_t size, const Tweak& tweak = {}) {
  Cluster cluster = cluster_of(founders, size, tweak);
  REQUIRE(cluster.elect(1));
  cluster.advance(200);
  REQUIRE(cluster.leader() == 1);
  return cluster;
}

// Node 1 of three, leading in term 1, its no-op committed.
Solo solo_leader(std::size_t size = 3) {
  Solo node(size);
  node.lead();
  for (const PeerStatus& peer : node.raft.peers()) node.ack(peer.id.value, 1, 1);
  node.drain();
  node.outbox.clear();
  return node;
}

void promise_of_commit(Cluster& cluster, std::initializer_list<std::uint64_t> members) {
  const Proposed last = cluster.propose(cluster.leader());
  REQUIRE(last.status == ProposeStatus::kAccepted);
  cluster.advance(1'000);
  for (const std::uint64_t id : members) CHECK(cluster[id].last_applied() >= last.index);
}

}  // namespace

// ---- Being up to date ----------------------------------------------------------------------------

TEST_CASE("who hears a leader and lacks what has committed is not current", "[raft][members]") {
  Cluster cluster = led_cluster(3, 3);
  for (const std::uint64_t id : {1, 2, 3}) CHECK(cluster[id].is_current());
  cluster.isolate(3);
  REQUIRE(cluster.propose(1).status == ProposeStatus::kAccepted);
  cluster.advance(50);
  CHECK(cluster[1].is_current());
  cluster.advance(3'000);
  CHECK(cluster[3].leader() == NodeId{});
  CHECK_FALSE(cluster[3].is_current());

  Solo follower(3);
  const auto told = [&](Index prev, Index commit, std::vector<Entry> entries) {
    const Term term = prev == Index{} ? Term{} : Term{4};
    follower.from(2, 4, AppendEntries{prev, term, commit, 1, {}, std::move(entries)});
  };
  told({}, {}, {entry(1, 4)});
  CHECK_FALSE(follower.raft.is_current());  // it may lack what the leaders before had committed
  told({1}, {1}, {});
  CHECK(follower.raft.is_current());
  told({5}, {5}, {});  // entries went missing
  CHECK(follower.raft.commit_index() == Index{1});
  CHECK_FALSE(follower.raft.is_current());
}

// ---- The way of a change -------------------------------------------------------------------------

TEST_CASE("a change goes through the joint configuration to the new one", "[raft][members]") {
  Cluster cluster = led_cluster(3, 5);
  CHECK(cluster.change(1, {1, 2, 3, 4, 5}) == ProposeStatus::kAccepted);
  cluster.advance(1'000);
  for (std::uint64_t id = 1; id <= 5; ++id) {
    CHECK(cluster[id].configuration() == Configuration{ids({1, 2, 3, 4, 5}), {}, {}});
    CHECK(cluster[id].commit_index() >= cluster[id].configuration_index());
  }
  // Entry 1 is the no-op, 2 the joint configuration, 3 the new one.
  REQUIRE(cluster.node(5).applied.size() >= 3);
  const Entry& joint = cluster.node(5).applied[1];
  CHECK(joint.type == EntryType::kConfigChange);
  REQUIRE(joint.configuration);
  CHECK(*joint.configuration == Configuration{ids({1, 2, 3, 4, 5}), ids({1, 2, 3}), {}});
}

TEST_CASE("a group grows from one to three to five and back, and serves", "[raft][members]") {
  Cluster cluster = led_cluster(1, 5);
  CHECK(cluster.change(1, {1}, {2, 3}) == ProposeStatus::kAccepted);
  promise_of_commit(cluster, {1, 2, 3});
  CHECK(cluster.change(1, {1, 2, 3}) == ProposeStatus::kAccepted);
  promise_of_commit(cluster, {1, 2, 3});
  CHECK(cluster.change(1, {1, 2, 3}, {4, 5}) == ProposeStatus::kAccepted);
  promise_of_commit(cluster, {1, 2, 3, 4, 5});
  CHECK(cluster.change(1, {1, 2, 3, 4, 5}) == ProposeStatus::kAccepted);
  promise_of_commit(cluster, {1, 2, 3, 4, 5});
  CHECK(cluster.change(1, {3, 4, 5}) == ProposeStatus::kAccepted);  // the leader goes as well
  cluster.advance(2'000);
  REQUIRE(cluster.leader() >= 3);
  promise_of_commit(cluster, {3, 4, 5});
  CHECK(cluster[4].configuration() == Configuration{ids({3, 4, 5}), {}, {}});
}

TEST_CASE("learners get the log and count for nothing", "[raft][members]") {
  Cluster cluster = led_cluster(3, 5);
  REQUIRE(cluster.change(1, {1, 2, 3}, {4, 5}) == ProposeStatus::kAccepted);
  cluster.advance(500);
  CHECK(cluster[4].last_applied() == cluster[1].last_applied());
  cluster.isolate(2);
  cluster.isolate(3);
  const Proposed lost = cluster.propose(1);
  cluster.advance(100);
  CHECK(cluster[4].log().last_index() == lost.index);  // two learners have it, but no majority
  CHECK(cluster[1].commit_index() < lost.index);
  cluster.advance(3'000);
  CHECK(cluster.leader() == 0);  // and no learner stands for election
}

TEST_CASE("in a joint configuration a majority of both the old and the new voters decides (§6)",
          "[raft][members]") {
  Solo leader = solo_leader();
  REQUIRE(leader.raft.change_members(leader.now, ids({1, 4, 5}), {}).status ==
          ProposeStatus::kAccepted);
  CHECK(leader.raft.configuration() == Configuration{ids({1, 4, 5}), ids({1, 2, 3}), {}});
  leader.sync();
  leader.ack(4, 2);
  leader.ack(5, 2);
  CHECK(leader.raft.commit_index() == Index{1});  // no other of the old voters
  leader.ack(2, 2);
  CHECK(leader.raft.commit_index() == Index{2});
  leader.sync();  // brings C_new
  CHECK(leader.raft.configuration() == Configuration{ids({1, 4, 5}), {}, {}});
  leader.ack(2, 3);
  leader.ack(3, 3);
  CHECK(leader.raft.commit_index() == Index{2});  // those don't count any more
  leader.ack(4, 3);
  CHECK(leader.raft.commit_index() == Index{3});
}

TEST_CASE("votes of both majorities are needed as well", "[raft][members]") {
  Restored restored = left_with({1}, 1);
  restored.entries.push_back(
      {Term{1}, Index{2}, EntryType::kConfigChange, nullptr,
       std::make_shared<const Configuration>(Configuration{ids({1, 4, 5}), ids({1, 2, 3}), {}})});
  Solo node(3, restored);
  while (node.raft.role() != Role::kPreCandidate) node.tick_for(kTickMs);
  for (const std::uint64_t peer : {4, 5}) node.from(peer, 2, RequestVoteReply{true, true});
  CHECK(node.raft.role() == Role::kPreCandidate);
  node.from(3, 2, RequestVoteReply{true, true});
  CHECK(node.raft.role() == Role::kCandidate);
  node.sync();
  for (const std::uint64_t peer : {2, 3}) node.from(peer, 2, RequestVoteReply{true, false});
  CHECK(node.raft.role() == Role::kCandidate);
  node.from(4, 2, RequestVoteReply{true, false});
  CHECK(node.raft.is_leader());
}

TEST_CASE("leases and reads count both majorities too", "[raft][members]") {
  Solo leader = solo_leader();
  REQUIRE(leader.raft.has_lease(leader.now));
  REQUIRE(leader.raft.change_members(leader.now, ids({1, 4, 5}), {}).status ==
          ProposeStatus::kAccepted);
  leader.sync();
  leader.tick_for(300);
  leader.drain();
  CHECK_FALSE(leader.raft.has_lease(leader.now));
  CHECK(leader.raft.read(leader.now, 7));
  leader.tick_for(100);
  leader.drain();
  const std::uint64_t round = leader.sent<AppendEntries>().back().second.round;
  leader.ack(2, 1, round);
  leader.ack(3, 1, round);
  leader.drain();
  CHECK(leader.reads.empty());
  CHECK_FALSE(leader.raft.has_lease(leader.now));
  leader.ack(5, 1, round);
  leader.drain();
  CHECK(leader.reads.size() == 1);
  CHECK(leader.raft.has_lease(leader.now));
}

TEST_CASE("no lease before the no-op: who goes by older members may not withhold its vote for long",
          "[raft][members]") {
  Restored restored = left_with({1}, 1);
  restored.entries.push_back(
      {Term{1}, Index{2}, EntryType::kConfigChange, nullptr,
       std::make_shared<const Configuration>(Configuration{ids({1, 2}), ids({2}), {}})});
  Solo leader(2, restored);
  leader.lead();
  // Node 2 lost the change with its unsynced writes and goes on as the only voter that it was.
  AppendEntriesReply refusal;
  refusal.round = 1;
  refusal.withhold_ms = 300;
  refusal.rejected_index = refusal.conflict_index = Index{2};
  leader.from(2, leader.raft.current_term().value, refusal);
  CHECK_FALSE(leader.raft.has_lease(leader.now));
  leader.ack(2, 3, 1);
  CHECK(leader.raft.commit_index() == Index{3});
  CHECK(leader.raft.has_lease(leader.now));
}

// ---- When a change is refused ---------------------------------------------------------------------

TEST_CASE("no change before an entry of this term has committed (class 6, openraft#2051)",
          "[raft][members]") {
  Solo leader(3);
  leader.lead();
  const auto change = [&] {
    return leader.raft.change_members(leader.now, ids({1, 2, 3, 4}), {}).status;
  };
  CHECK(change() == ProposeStatus::kChanging);
  leader.ack(2, 1, 1);
  CHECK(change() == ProposeStatus::kAccepted);
}

TEST_CASE("one change at a time", "[raft][members]") {
  Solo leader = solo_leader();
  const auto add = [&](std::uint64_t learner) {
    return leader.raft.change_members(leader.now, ids({1, 2, 3}), ids({learner})).status;
  };
  CHECK(add(4) == ProposeStatus::kAccepted);
  CHECK(add(5) == ProposeStatus::kChanging);
  leader.sync();
  leader.ack(2, 2);
  CHECK(add(4) == ProposeStatus::kUnchanged);
  CHECK(add(5) == ProposeStatus::kAccepted);
}

TEST_CASE("a follower, a leader that hands over, no voters at all: no change", "[raft][members]") {
  Solo follower(3);
  CHECK(follower.raft.change_members(0, ids({1}), {}).status == ProposeStatus::kNotLeader);
  Solo leader = solo_leader();
  CHECK(leader.raft.change_members(leader.now, {}, ids({1})).status == ProposeStatus::kUnchanged);
  leader.raft.transfer_leadership(leader.now);
  CHECK(leader.raft.change_members(leader.now, ids({1}), {}).status ==
        ProposeStatus::kTransferring);
}

TEST_CASE("the founding members can be recorded as they are, once", "[raft][members]") {
  Solo leader = solo_leader();
  CHECK(leader.raft.configuration_index() == Index{});
  const auto record = [&] {
    return leader.raft.change_members(leader.now, ids({3, 2, 1}), {}).status;
  };
  CHECK(record() == ProposeStatus::kAccepted);
  CHECK(leader.raft.configuration_index() == Index{2});
  CHECK_FALSE(leader.raft.configuration().is_joint());
  leader.sync();
  leader.ack(2, 2);
  CHECK(record() == ProposeStatus::kUnchanged);
}

// ---- What survives ---------------------------------------------------------------------------------

TEST_CASE("a change that never committed is undone with its entry", "[raft][members]") {
  Cluster cluster = led_cluster(3, 4);
  cluster.isolate(1);
  CHECK(cluster.change(1, {1, 4}) == ProposeStatus::kAccepted);
  CHECK(cluster[1].configuration().is_joint());
  REQUIRE(cluster.elect(2));
  cluster.advance(100);
  cluster.heal();
  cluster.advance(2'000);
  CHECK(cluster[1].configuration() == Configuration{ids({1, 2, 3}), {}, {}});
  promise_of_commit(cluster, {1, 2, 3});
}

TEST_CASE("a leader may crash at every point of a change: the next one ends it or undoes it",
          "[raft][members]") {
  for (std::uint64_t at_ms = 0; at_ms <= 60; at_ms += 5) {
    INFO("crash " << at_ms << " ms after the proposal");
    Cluster cluster = led_cluster(3, 5);
    cluster.network = [](const Message&) { return std::vector<std::uint64_t>{5}; };
    CHECK(cluster.change(1, {2, 4, 5}) == ProposeStatus::kAccepted);
    cluster.advance(at_ms);
    cluster.crash(1);
    cluster.advance(5'000);
    REQUIRE(cluster.leader() != 0);
    const Configuration members = cluster[cluster.leader()].configuration();
    CHECK_FALSE(members.is_joint());
    const bool ended = members.voters == ids({2, 4, 5});
    CHECK((ended || members.voters == ids({1, 2, 3})));
    const Proposed last = cluster.propose(cluster.leader());
    cluster.advance(1'000);
    CHECK(cluster[cluster.leader()].commit_index() >= last.index);
  }
}

TEST_CASE("members are known again after a restart, from the state machine and from the log",
          "[raft][members]") {
  Restored restored;
  restored.hard_state.term = Term{3};
  restored.base_index = restored.applied_index = Index{10};
  restored.base_term = Term{3};
  restored.first_index = Index{11};
  restored.configuration = {ids({1, 2}), {}, ids({3})};
  restored.configuration_index = Index{7};
  CHECK(Solo(5, restored).raft.configuration() == restored.configuration);
  restored.entries.push_back(
      {Term{3}, Index{11}, EntryType::kConfigChange, nullptr,
       std::make_shared<const Configuration>(Configuration{ids({1}), {}, {}})});
  const Solo node(5, restored);
  CHECK(node.raft.configuration().voters == ids({1}));
  CHECK(node.raft.configuration_index() == Index{11});
}

// ---- Those who go -----------------------------------------------------------------------------------

TEST_CASE("a leader that is removed leads until that has committed, and makes way at once",
          "[raft][members]") {
  Cluster cluster = led_cluster(3, 3);
  const std::uint64_t begin = cluster.now;
  CHECK(cluster.change(1, {2, 3}) == ProposeStatus::kAccepted);
  for (int i = 0; i < 40 && (cluster.leader() == 0 || cluster.leader() == 1); ++i) {
    cluster.advance(5);
  }
  CHECK(cluster.leader() > 1);
  CHECK(cluster.now - begin < 100);  // no election timeout was waited for
  CHECK_FALSE(cluster[1].is_leader());
  promise_of_commit(cluster, {2, 3});
}

TEST_CASE("a leader that is on its way out does not count itself", "[raft][members]") {
  Solo leader = solo_leader();
  REQUIRE(leader.raft.change_members(leader.now, ids({2, 3}), {}).status ==
          ProposeStatus::kAccepted);
  leader.sync();
  leader.ack(2, 2);
  CHECK(leader.raft.commit_index() == Index{1});  // one of two new voters
  leader.ack(3, 2);
  CHECK(leader.raft.commit_index() == Index{2});
  leader.sync();
  leader.ack(2, 3);
  CHECK(leader.raft.commit_index() == Index{2});
  leader.ack(3, 3);
  CHECK(leader.raft.commit_index() == Index{3});
  leader.sync();
  CHECK_FALSE(leader.raft.is_leader());
}

TEST_CASE("a removed node can't disturb: no vote is lost to it and no term rises (class 10)",
          "[raft][members]") {
  Cluster cluster = led_cluster(4, 4);
  cluster.isolate(4);  // it never hears of its removal
  CHECK(cluster.change(1, {1, 2, 3}) == ProposeStatus::kAccepted);
  cluster.advance(3'000);
  const Term term = cluster[1].current_term();
  cluster.heal();
  cluster.advance(10'000);
  CHECK(cluster.leader() == 1);
  CHECK(cluster[1].current_term() == term);
  CHECK(cluster[4].current_term() <= term);
}

TEST_CASE("a node that knows that it was removed never campaigns", "[raft][members]") {
  Restored restored;
  restored.configuration = {ids({2, 3}), {}, {}};
  restored.configuration_index = Index{5};
  restored.base_index = restored.applied_index = Index{5};
  restored.first_index = Index{6};
  restored.base_term = restored.hard_state.term = Term{1};
  Solo node(3, restored);
  node.tick_for(20'000);
  CHECK_FALSE(asks_for_votes(node));
  CHECK(node.raft.role() == Role::kFollower);
}

TEST_CASE("a node that has not heard of its group yet votes when asked (thesis 4.1)",
          "[raft][members]") {
  Solo node(0);
  node.now += 300;
  node.from(2, 4, ask_vote(9, 3));
  node.sync();
  const auto votes = node.sent<RequestVoteReply>();
  REQUIRE(votes.size() == 1);
  CHECK(votes[0].second.granted);
}

TEST_CASE("hand-over goes to voters only", "[raft][members]") {
  Solo leader = solo_leader();
  REQUIRE(leader.raft.change_members(leader.now, ids({1, 2, 3}), ids({4})).status ==
          ProposeStatus::kAccepted);
  leader.sync();
  leader.ack(4, 2);
  leader.ack(2, 2);
  leader.raft.transfer_leadership(leader.now, NodeId{4});
  CHECK(leader.sent<TimeoutNow>().empty());
  leader.raft.transfer_leadership(leader.now);
  const auto sent = leader.sent<TimeoutNow>();
  REQUIRE(sent.size() == 1);
  CHECK(sent[0].first.to == NodeId{2});
}

TEST_CASE("1500 random runs with changes of members, cut logs and snapshots keep Figure 3",
          "[raft][members][random]") {
  RunResult total;
  for (std::uint64_t seed = 1; seed <= 1'500; ++seed) {
    INFO("seed " << seed);
    const RunResult result = random_run(seed, {.size = 3 + seed % 4, .members_change = true});
    total.committed += result.committed;
    total.elections += result.elections;
    total.changes += result.changes;
    total.snapshots += result.snapshots;
  }
  INFO(total.committed << " entries, " << total.elections << " leaders, " << total.changes
                       << " changes, " << total.snapshots << " snapshots");
  CHECK(total.committed > 1'500 * 10);
  CHECK(total.elections > 1'500 * 2);
  CHECK(total.changes > 1'500);
  CHECK(total.snapshots > 1'500);
}

}  // namespace seshat::raft::test
