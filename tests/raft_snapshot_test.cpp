// Logs that are cut, and snapshots for those who still needed what is gone (§7, Figure 13).
#include <cstdint>
#include <memory>
#include <vector>

#include "catch.hpp"
#include "raft_harness.hpp"
#include "seshat/raft.hpp"

namespace seshat::raft::test {

namespace {

Snapshot snapshot_at(std::uint64_t index, std::uint64_t term, std::size_t members = 3) {
  return {Index{index}, Term{term}, {config_of(1, members).voters, {}, {}}, Index{1}};
}

// Node 1 of three, leading in term 2, with ten entries applied; all of its memory is trimmed, and
// its log is cut behind entry 7.
Solo cut_leader() {
  Restored restored = left_with(Terms(9, 1), 1);
  restored.applied_index = Index{9};
  Solo node(3, restored, [](Config& config) { config.applied_tail_size_bytes = 0; });
  node.lead();
  node.ack(2, 10, 1);
  node.drain();
  node.raft.compacted(Index{8});
  node.outbox.clear();
  return node;
}

void refuse(Solo& leader, std::uint64_t peer, std::uint64_t rejected, std::uint64_t conflict) {
  AppendEntriesReply reply;
  reply.rejected_index = Index{rejected};
  reply.conflict_index = Index{conflict};
  reply.round = 1;
  leader.from(peer, leader.raft.current_term().value, reply);
  leader.drain();
}

}  // namespace

// ---- The leader --------------------------------------------------------------------------------------

TEST_CASE("a peer that needs what was cut off gets a snapshot, once, and only heartbeats meanwhile",
          "[raft][snapshot]") {
  Solo leader = cut_leader();
  refuse(leader, 3, 9, 4);
  REQUIRE(leader.snapshots == std::vector{NodeId{3}});
  leader.raft.sending_snapshot(NodeId{3}, Index{10});
  leader.outbox.clear();
  for (int i = 0; i < 10; ++i) {
    leader.tick_for(100);
    leader.ack(2, 10, 2 + i);
    leader.ack(3, 0, 2 + i);
    leader.drain();
  }
  CHECK(leader.snapshots.size() == 1);
  CHECK(leader.fetches.empty());
  for (const auto& [message, request] : leader.sent<AppendEntries>()) {
    if (message.to == NodeId{3}) CHECK(request.entries.empty());
  }
  leader.raft.snapshot_ended(leader.now, NodeId{3}, Index{10});
  static_cast<void>(leader.raft.propose(leader.now, payload("x")));
  leader.ack(3, 10, 20);
  bool sent = false;
  for (const auto& [message, request] : leader.sent<AppendEntries>()) {
    sent = sent || (message.to == NodeId{3} && !request.entries.empty());
    if (message.to == NodeId{3} && !request.entries.empty()) {
      CHECK(request.prev_log_index == Index{10});
    }
  }
  CHECK(sent);
}

TEST_CASE("a snapshot that did not arrive is asked for again", "[raft][snapshot]") {
  Solo leader = cut_leader();
  refuse(leader, 3, 9, 4);
  REQUIRE(leader.snapshots.size() == 1);
  leader.raft.snapshot_ended(leader.now, NodeId{3}, {});
  leader.tick_for(100);
  leader.drain();
  leader.ack(3, 0, 5);
  leader.drain();
  CHECK(leader.snapshots.size() == 2);
}

TEST_CASE("what the disk still has is fetched: the entry before it counts too",
          "[raft][snapshot]") {
  Solo leader = cut_leader();
  refuse(leader, 3, 9, 9);  // needs entry 9; 8 is there, for its term
  CHECK(leader.snapshots.empty());
  REQUIRE(leader.fetches.size() == 1);
  CHECK(leader.fetches[0].from == Index{9});
  Solo other = cut_leader();
  refuse(other, 3, 9, 8);  // the term of entry 7 is known to nobody any more
  CHECK(other.fetches.empty());
  CHECK(other.snapshots.size() == 1);
}

TEST_CASE("the log is kept for whoever can be reached, and for nobody else", "[raft][snapshot]") {
  Solo leader = cut_leader();
  leader.tick_for(500);
  leader.ack(2, 10, 3);
  leader.ack(3, 8, 3);
  leader.drain();
  CHECK(leader.raft.compactable_index() == Index{7});  // 8 stays, for its term
  for (int i = 0; i < 102; ++i) {                      // node 3 is not heard of any more
    leader.tick_for(100);
    leader.ack(2, 10, 4 + i);
    leader.drain();
  }
  CHECK(leader.raft.compactable_index() == Index{9});
}

TEST_CASE("what follows a snapshot under way is kept for its receiver", "[raft][snapshot]") {
  Solo leader = cut_leader();
  refuse(leader, 3, 9, 4);
  REQUIRE(leader.snapshots.size() == 1);
  CHECK(leader.raft.compactable_index() == Index{9});
  leader.raft.sending_snapshot(NodeId{3}, Index{8});  // one that was there already
  CHECK(leader.raft.compactable_index() == Index{7});
}

TEST_CASE("followers learn from heartbeats what they may cut off", "[raft][snapshot]") {
  Cluster cluster(3);
  REQUIRE(cluster.elect(1));
  for (int i = 0; i < 10; ++i) static_cast<void>(cluster.propose(1));
  cluster.advance(500);
  CHECK(cluster[1].compactable_index() == Index{10});
  CHECK(cluster[2].compactable_index() == Index{10});
  cluster.node(3).sync_ms = kNever;
  static_cast<void>(cluster.propose(1));
  cluster.advance(500);
  CHECK(cluster[1].compactable_index() == Index{10});
  CHECK(cluster[2].compactable_index() == Index{10});
}

// ---- The follower ------------------------------------------------------------------------------------

TEST_CASE("a snapshot replaces a log that ends before it", "[raft][snapshot]") {
  Solo node(3, left_with({1, 1}, 1));
  const Snapshot snapshot = snapshot_at(20, 3);
  node.from(2, 3, InstallSnapshot{snapshot});
  node.sync();
  CHECK(node.raft.leader() == NodeId{2});
  REQUIRE(node.raft.begin_install(node.now, snapshot));
  node.raft.installed(node.now);
  CHECK(node.raft.log().last_index() == Index{20});
  CHECK(node.raft.log().last_term() == Term{3});
  CHECK(node.raft.last_applied() == Index{20});
  CHECK(node.raft.durable_index() == Index{20});
  CHECK(node.raft.configuration_index() == Index{1});
  const auto acks = node.sent<AppendEntriesReply>();
  REQUIRE_FALSE(acks.empty());
  CHECK(acks.back().second.match_index == Index{20});
  node.from(2, 3, append(20, 3, {entry(21, 3)}, 21));
  node.sync();
  CHECK(node.raft.last_applied() == Index{21});
}

TEST_CASE("a conflicting log goes with it, at once (class 12, hashicorp/raft#697)",
          "[raft][snapshot]") {
  Solo node(3, left_with(Terms(30, 2), 2));  // nothing of it has committed
  const Snapshot snapshot = snapshot_at(20, 3);
  node.from(2, 3, InstallSnapshot{snapshot});
  node.sync();
  REQUIRE(node.raft.begin_install(node.now, snapshot));
  node.raft.installed(node.now);
  CHECK(node.raft.log().last_index() == Index{20});
  node.from(2, 3, append(20, 3, {entry(21, 3)}, 21));
  node.sync();
  CHECK(node.raft.last_applied() == Index{21});
}

TEST_CASE("a log that holds the snapshot's end keeps what follows: it may be promised",
          "[raft][snapshot]") {
  Solo node(3, left_with(Terms(30, 3), 3));
  const Snapshot snapshot = snapshot_at(20, 3);
  node.from(2, 3, InstallSnapshot{snapshot});
  node.sync();
  CHECK_FALSE(node.raft.begin_install(node.now, snapshot));
  CHECK(node.raft.commit_index() == Index{20});
  CHECK(node.raft.log().last_index() == Index{30});
}

TEST_CASE("an old snapshot changes nothing", "[raft][snapshot]") {
  Restored restored = left_with(Terms(30, 3), 3);
  restored.applied_index = Index{25};
  Solo node(3, restored);
  CHECK_FALSE(node.raft.needs(snapshot_at(25, 3)));
  CHECK_FALSE(node.raft.needs(snapshot_at(7, 2)));
  CHECK(node.raft.needs(snapshot_at(31, 3)));
}

TEST_CASE("while a snapshot is put in place nothing is appended, applied or campaigned for",
          "[raft][snapshot]") {
  Solo node(3, left_with({1, 1}, 3));
  const Snapshot snapshot = snapshot_at(20, 3);
  node.from(2, 3, InstallSnapshot{snapshot});
  node.sync();
  REQUIRE(node.raft.begin_install(node.now, snapshot));
  node.writes.clear();
  node.from(2, 3, append(0, 0, log_of({1, 1, 3}), 3));
  node.from(2, 3, append(2, 1, {}, 2));
  node.sync();
  CHECK(node.raft.log().last_index() == Index{2});
  CHECK(node.raft.last_applied() == Index{});
  CHECK(node.writes.empty());
  const auto acks = node.sent<AppendEntriesReply>();  // yet it is there, for leases
  CHECK(acks.size() >= 2);
  node.tick_for(10'000);
  CHECK_FALSE(asks_for_votes(node));
  node.from(2, 3, append(2, 1));
  node.from(2, 3, TimeoutNow{});
  CHECK_FALSE(asks_for_votes(node));
  node.raft.installed(node.now);
  node.tick_for(10'000);
  CHECK(asks_for_votes(node));
}

TEST_CASE("a node with nothing but a snapshot refuses a stale candidate (class 17, NuRaft#668)",
          "[raft][snapshot]") {
  Restored restored;
  restored.hard_state.term = Term{3};
  restored.base_index = restored.applied_index = Index{20};
  restored.base_term = Term{3};
  restored.first_index = Index{21};
  Solo node(3, restored);
  node.now += 300;
  node.from(2, 4, ask_vote(25, 2));
  node.from(2, 5, ask_vote(19, 3));
  node.sync();
  for (const auto& [message, reply] : node.sent<RequestVoteReply>()) CHECK_FALSE(reply.granted);
  node.from(2, 6, ask_vote(20, 3));
  node.sync();
  const auto votes = node.sent<RequestVoteReply>();
  REQUIRE(votes.size() == 1);
  CHECK(votes[0].second.granted);
}

TEST_CASE("AppendEntries that reach below the snapshot are taken from its end on (class 18)",
          "[raft][snapshot]") {
  Restored restored;
  restored.hard_state.term = Term{1};
  restored.base_index = restored.applied_index = Index{5};
  restored.base_term = Term{1};
  restored.first_index = Index{6};
  Solo node(3, restored);
  std::vector<Entry> entries = log_of(Terms(8, 1));
  entries.erase(entries.begin(), entries.begin() + 2);
  for (int i = 0; i < 2; ++i) {
    node.from(2, 1, append(2, 1, entries, 8));
    node.sync();
    CHECK(node.raft.last_applied() == Index{8});
    CHECK(node.raft.log().base_index() == Index{5});
  }
}

TEST_CASE("founders stay the members where no change was ever recorded, also behind a snapshot",
          "[raft][snapshot][members]") {
  Solo node(3);
  const Snapshot snapshot{Index{9}, Term{1}, {}, {}};
  node.from(2, 1, InstallSnapshot{snapshot});
  node.sync();
  REQUIRE(node.raft.begin_install(node.now, snapshot));
  node.raft.installed(node.now);
  CHECK(node.raft.configuration().voters == node.raft.config().voters);
  node.tick_for(10'000);
  CHECK(asks_for_votes(node));
}

// ---- Together -----------------------------------------------------------------------------------------

TEST_CASE("a node that was away while the log was cut comes back by a snapshot, and takes part",
          "[raft][snapshot]") {
  Cluster cluster(3, [](Config& config) {
    config.applied_tail_size_bytes = 0;
    config.keep_log_for_ms = 1'000;
  });
  REQUIRE(cluster.elect(1));
  cluster.isolate(3);
  for (int i = 0; i < 50; ++i) static_cast<void>(cluster.propose(1));
  cluster.advance(2'000);
  cluster.compact(1);
  cluster.compact(2);
  CHECK(cluster.node(1).log_first == 51);
  cluster.snapshots_arrive = false;
  cluster.heal();
  cluster.advance(1'000);
  CHECK(cluster.snapshots > 1);
  CHECK(cluster[3].last_applied() == Index{});
  cluster.snapshots_arrive = true;
  cluster.advance(1'000);
  CHECK(cluster[3].last_applied() == cluster[1].last_applied());
  CHECK(cluster.node(3).log_first == 52);
  cluster.isolate(2);
  const Proposed proposed = cluster.propose(1);
  cluster.advance(100);
  CHECK(cluster[1].commit_index() == proposed.index);
}

TEST_CASE("a learner that begins with nothing gets a snapshot, with the members in it",
          "[raft][snapshot][members]") {
  Cluster cluster(4, [](Config& config) {
    config.voters.resize(config.id.value <= 3 ? 3 : 0);
    config.applied_tail_size_bytes = 0;
  });
  REQUIRE(cluster.elect(1));
  for (int i = 0; i < 20; ++i) static_cast<void>(cluster.propose(1));
  cluster.advance(500);
  cluster.compact(1);
  CHECK(cluster.change(1, {1, 2, 3}, {4}) == ProposeStatus::kAccepted);
  cluster.advance(1'000);
  CHECK(cluster.snapshots >= 1);
  CHECK(cluster[4].configuration() == cluster[1].configuration());
  CHECK(cluster[4].last_applied() == cluster[1].last_applied());
}

}  // namespace seshat::raft::test
