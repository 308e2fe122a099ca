// What the Raft paper leaves open: the disk, leases, hand-over, flow control, a bad network. The
// paper's own claims are in raft_paper_test.cpp.
#include "catch.hpp"
#include "raft_harness.hpp"
#include "raft_random.hpp"

namespace seshat::raft::test {
namespace {

// A follower of node 2 in term 1 whose hard state is on disk.
Solo follower_of_2(const Terms& log = {}, const Tweak& tweak = {}) {
  Solo node(3, left_with(log, 1, 2), tweak);
  node.from(2, 1, append(0, 0));
  node.sync();
  node.outbox.clear();
  return node;
}

// A leader of three whose no-op has committed, with a lease from round 1.
Solo leader_of_3(const Restored& restored = {}, const Tweak& tweak = {}) {
  Solo node(3, restored, tweak);
  node.lead();
  node.ack(2, node.raft.log().last_index().value, 1);
  node.drain();
  node.outbox.clear();
  return node;
}

}  // namespace

// ---- Durability --------------------------------------------------------------------------------------

TEST_CASE("no vote leaves before it is on disk", "[raft]") {
  Solo node(3, left_with({}, 1));  // the term is saved already, the vote is not
  node.now += 300;
  node.from(2, 1, ask_vote(0, 0));
  CHECK(node.sent<RequestVoteReply>().empty());
  REQUIRE(node.writes.size() == 1);
  CHECK(node.writes[0].hard_state == HardState{Term{1}, NodeId{2}, Index{0}});
  node.sync();
  CHECK(node.sent<RequestVoteReply>().at(0).second.granted);
}

TEST_CASE("no RequestVote leaves, and no own vote counts, before that vote is on disk", "[raft]") {
  Solo node;
  while (node.raft.role() != Role::kPreCandidate) node.tick_for(kTickMs);
  node.outbox.clear();
  node.from(2, 1, RequestVoteReply{true, true});
  REQUIRE(node.raft.role() == Role::kCandidate);
  for (const auto& [message, request] : node.sent<RequestVote>()) CHECK(request.pre_vote);
  node.from(2, 1, RequestVoteReply{true, false});
  CHECK(node.raft.role() == Role::kCandidate);  // one of three
  node.sync();
  CHECK(node.raft.is_leader());
}

TEST_CASE("entries are acknowledged once they are on disk, and no further", "[raft]") {
  Solo follower = follower_of_2();
  follower.from(2, 1, append(0, 0, {entry(1, 1)}));
  follower.drain();
  follower.from(2, 1, append(1, 1, {entry(2, 1)}));
  CHECK(follower.sent<AppendEntriesReply>().empty());
  REQUIRE(follower.writes.size() == 2);
  follower.raft.synced(follower.now, follower.writes[0].id);
  CHECK(follower.sent<AppendEntriesReply>().at(0).second.match_index == Index{1});
  follower.raft.synced(follower.now, follower.writes[1].id);
  CHECK(follower.sent<AppendEntriesReply>().at(0).second.match_index == Index{2});
}

TEST_CASE("a leader counts itself only after its own sync", "[raft]") {
  Solo leader = leader_of_3();
  REQUIRE(leader.raft.propose(leader.now, payload("x")).status == ProposeStatus::kAccepted);
  leader.drain();
  leader.ack(2, 2);
  CHECK(leader.raft.commit_index() == Index{1});
  leader.sync();
  CHECK(leader.raft.commit_index() == Index{2});
}

TEST_CASE("a commit by the others' disks is not applied before it is on ours", "[raft]") {
  Solo leader = leader_of_3();
  REQUIRE(leader.raft.propose(leader.now, payload("x")).status == ProposeStatus::kAccepted);
  leader.drain();
  leader.ack(2, 2);
  leader.ack(3, 2);
  leader.drain();
  CHECK(leader.raft.commit_index() == Index{2});
  CHECK(leader.committed.size() == 1);
  leader.sync();
  CHECK(leader.committed.size() == 2);
}

TEST_CASE("proposals leave at once, together, before the own disk has them", "[raft]") {
  Solo leader = leader_of_3();
  for (int i = 0; i < 3; ++i) static_cast<void>(leader.raft.propose(leader.now, payload("x")));
  const auto appends = leader.sent<AppendEntries>();
  REQUIRE(appends.size() == 1);  // node 3 has not answered yet: it is being probed
  CHECK(appends[0].second.entries.size() == 3);
  CHECK(leader.raft.durable_index() == Index{1});
}

TEST_CASE("what is proposed waits while it is gathered, and then leaves together", "[raft]") {
  Solo leader = leader_of_3();
  leader.sync();
  leader.writes.clear();
  leader.raft.gather_proposals(true);
  for (int i = 0; i < 2; ++i) static_cast<void>(leader.raft.propose(leader.now, payload("x")));
  leader.tick_for(200);  // heartbeats go on ...
  leader.ack(2, 1, 2);   // ... and so do their answers
  leader.ack(3, 1, 2);
  const auto before = leader.sent<AppendEntries>();
  CHECK_FALSE(before.empty());
  for (const auto& [message, request] : before) CHECK(request.entries.empty());
  CHECK(leader.writes.empty());
  CHECK(leader.raft.left_index() == Index{1});
  CHECK(leader.raft.log().last_index() == Index{3});

  leader.raft.gather_proposals(false);
  const auto after = leader.sent<AppendEntries>();
  REQUIRE(after.size() == 2);
  for (const auto& [message, request] : after) CHECK(request.entries.size() == 2);
  REQUIRE(leader.writes.size() == 1);
  CHECK(leader.writes[0].entries.size() == 2);
  CHECK(leader.raft.left_index() == Index{3});
}

TEST_CASE("nothing is gathered while leadership is handed over, nor once it is lost", "[raft]") {
  for (const bool hands_over : {true, false}) {
    Solo leader = leader_of_3();
    leader.ack(3, 1);
    leader.sync();
    leader.writes.clear();
    leader.raft.gather_proposals(true);
    static_cast<void>(leader.raft.propose(leader.now, payload("x")));
    leader.drain();
    REQUIRE(leader.writes.empty());
    leader.outbox.clear();
    if (hands_over) {
      leader.raft.transfer_leadership(leader.now, NodeId{2});
      const auto appends = leader.sent<AppendEntries>();
      REQUIRE(appends.size() == 2);
      for (const auto& [message, request] : appends) CHECK(request.entries.size() == 1);
      CHECK(leader.sent<TimeoutNow>().empty());  // the entry first
    } else {
      leader.from(2, 7, append(1, 1, {}));
      leader.drain();
    }
    REQUIRE(leader.writes.size() == 1);
    CHECK(leader.writes[0].entries.size() == 1);
  }
}

TEST_CASE("a crash at any point around the save never gives two votes in one term", "[raft]") {
  for (const bool saved : {false, true}) {
    Solo before;
    before.now += 300;
    before.from(2, 1, ask_vote(0, 0));
    before.drain();
    if (saved) before.sync();
    const bool first = !before.sent<RequestVoteReply>().empty();
    Restored disk;
    if (saved) disk.hard_state = *before.writes.at(0).hard_state;
    Solo after(3, disk);
    after.now += 300;
    after.from(3, 1, ask_vote(0, 0));
    after.sync();
    const bool second = after.sent<RequestVoteReply>().at(0).second.granted;
    CHECK(first != second);
  }
}

TEST_CASE("heartbeats are answered while an fsync is pending", "[raft]") {
  Solo follower = follower_of_2();
  follower.from(2, 1, append(0, 0, {entry(1, 1)}));
  follower.from(2, 1, append(1, 1, {}, 0, 2));
  const AppendEntriesReply reply = follower.sent<AppendEntriesReply>().at(0).second;
  CHECK(reply.success);
  CHECK(reply.round == 2);
  CHECK(reply.match_index == Index{0});
}

// Its disk stands still meanwhile, so that it neither leads nor asks for votes again.
TEST_CASE("a candidate that gave up answers the leader of its term with that one's rounds",
          "[raft]") {
  Solo node = follower_of_2();
  node.from(2, 1, append(0, 0, {}, 0, 243));
  node.from(2, 1, TimeoutNow{});
  REQUIRE(node.raft.role() == Role::kCandidate);
  node.drain();  // its vote is on its way to the disk
  node.tick_for(5'000);
  REQUIRE(node.raft.role() == Role::kFollower);
  REQUIRE(node.raft.current_term() == Term{2});
  node.from(3, 2, append(0, 0, {}, 0, 1));
  node.drain();
  node.sync();
  const auto replies = node.sent<AppendEntriesReply>();
  REQUIRE(!replies.empty());
  CHECK(replies.back().first.to == NodeId{3});
  CHECK(replies.back().second.round == 1);
}

TEST_CASE("an answer to a round that was never sent confirms no read", "[raft]") {
  Solo leader(3, {}, [](Config& config) { config.lease_reads = false; });
  leader.lead();
  REQUIRE(leader.raft.read(leader.now, 7));  // round 2 goes out for it
  leader.ack(2, 1, 243);
  leader.drain();
  CHECK(leader.reads.empty());
  leader.ack(2, 1, 2);
  leader.drain();
  CHECK(leader.reads.size() == 1);
}

TEST_CASE("slow disks delay writes, not heartbeats: no election", "[raft]") {
  Cluster cluster(3);
  REQUIRE(cluster.elect(1));
  for (std::uint64_t id = 1; id <= 3; ++id) cluster.node(id).sync_ms = 400;
  for (int i = 0; i < 100; ++i) {
    cluster.propose(1);
    cluster.advance(50);
  }
  cluster.advance(1'000);
  CHECK(cluster.elections() == 1);
  CHECK(cluster.committed() == 101);
}

TEST_CASE("a late sync of entries that a conflict removed makes nothing durable", "[raft]") {
  Solo follower = follower_of_2({1});
  follower.from(2, 1, append(1, 1, {entry(2, 1), entry(3, 1)}));
  follower.drain();  // this write is on its way
  const std::uint64_t late = follower.writes.back().id;
  follower.from(3, 2, append(1, 1, {entry(2, 2)}));
  follower.drain();
  follower.raft.synced(follower.now, late);
  CHECK(follower.raft.durable_index() == Index{1});
  CHECK(follower.sent<AppendEntriesReply>().empty());
  follower.sync();
  CHECK(follower.raft.durable_index() == Index{2});
  CHECK(follower.sent<AppendEntriesReply>().back().second.match_index == Index{2});
}

TEST_CASE("entries on disk that a conflict removed are not durable any more", "[raft]") {
  Solo follower = follower_of_2({1, 1, 1});
  follower.from(3, 2, append(1, 1, {entry(2, 2)}));
  CHECK(follower.raft.durable_index() == Index{1});
  follower.drain();
  REQUIRE(follower.writes.back().entries.size() == 1);
  CHECK(follower.writes.back().entries[0].index == Index{2});
}

TEST_CASE("a follower does not acknowledge a tail that its leader has not confirmed", "[raft]") {
  Solo follower(3, left_with({1, 1, 1}, 2, 2));
  follower.from(2, 2, append(1, 1));
  CHECK(follower.sent<AppendEntriesReply>().at(0).second.match_index == Index{1});
}

TEST_CASE("a crash keeps any part of the unsynced writes, and nothing acknowledged is lost",
          "[raft]") {
  for (std::size_t kept = 0; kept <= 3; ++kept) {
    Cluster cluster(3);
    REQUIRE(cluster.elect(1));
    cluster.node(1).sync_ms = kNever;
    for (int i = 0; i < 3; ++i) cluster.propose(1);
    REQUIRE(cluster.committed() == 4);  // by the two others
    cluster.crash(1, kept);
    cluster.node(1).sync_ms = 0;
    cluster.start(1);
    REQUIRE(cluster.elect(2));
    cluster.advance(300);
    CHECK(cluster.node(1).applied.size() == 5);
  }
}

// ---- Withholding and leases ----------------------------------------------------------------------------

TEST_CASE("votes are withheld after a leader's message, and the term stays", "[raft]") {
  for (const bool pre_vote : {false, true}) {
    Solo node = follower_of_2();
    const RequestVote request{Index{9}, Term{9}, pre_vote, false};
    node.now += 299;
    node.from(3, 5, request);
    node.sync();
    for (const auto& [m, reply] : node.sent<RequestVoteReply>()) CHECK_FALSE(reply.granted);
    CHECK(node.raft.current_term() == Term{1});
    node.now += 1;
    node.from(3, 5, request);
    node.sync();
    CHECK(node.sent<RequestVoteReply>().at(0).second.granted);
  }
}

TEST_CASE("votes are withheld after a start: the promise to a lease was forgotten", "[raft]") {
  for (const bool pre_vote : {false, true}) {
    Solo node(3, left_with({}, 4));
    node.now += 299;
    node.from(3, 5, RequestVote{Index{9}, Term{9}, pre_vote, false});
    node.sync();
    for (const auto& [m, reply] : node.sent<RequestVoteReply>()) CHECK_FALSE(reply.granted);
    CHECK(node.raft.current_term() == Term{4});
  }
}

TEST_CASE("the transfer flag alone overrides withholding", "[raft]") {
  Solo node = follower_of_2();
  node.from(3, 2, RequestVote{Index{0}, Term{0}, false, true});
  node.sync();
  CHECK(node.sent<RequestVoteReply>().at(0).second.granted);
}

TEST_CASE("a lease runs from when the acknowledged round was sent", "[raft]") {
  Solo leader;
  leader.lead();  // round 1 leaves now
  const std::uint64_t sent_ms = leader.now;
  leader.now += 90;
  leader.ack(2, 1, 1);
  CHECK(leader.raft.lease_until_ms() == sent_ms + 250);
  CHECK(leader.raft.lease_read(sent_ms + 249) == Index{1});
  CHECK_FALSE(leader.raft.lease_read(sent_ms + 250));
}

TEST_CASE("a lease is 0.85 of the shortest withholding that was acknowledged", "[raft]") {
  Solo leader(5);
  leader.lead();
  leader.ack(2, 1, 1, 300);
  leader.ack(3, 1, 1, 200);
  CHECK(leader.raft.lease_until_ms() == leader.now + 170);
  leader.tick_for(100);  // round 2
  const std::uint64_t sent_ms = leader.now;
  leader.ack(4, 1, 2, 300);
  leader.ack(2, 1, 2, 300);
  CHECK(leader.raft.lease_until_ms() == sent_ms + 170);
}

TEST_CASE("an old acknowledgement does not bring back a longer withholding", "[raft]") {
  Solo leader = leader_of_3();
  leader.tick_for(100);      // round 2
  leader.ack(3, 1, 2, 100);  // it restarted with a shorter one
  leader.ack(3, 1, 1, 300);  // and this came late
  leader.tick_for(100);      // round 3
  const std::uint64_t sent_ms = leader.now;
  leader.ack(2, 1, 3, 300);
  CHECK(leader.raft.lease_until_ms() == sent_ms + 85);
}

TEST_CASE("an answer to a former term's message costs a new leader neither lease nor peer",
          "[raft]") {
  Solo leader = leader_of_3(left_with({1, 1, 1}, 1));
  static_cast<void>(leader.raft.propose(leader.now, payload("x")));
  leader.drain();
  Solo stale(3, left_with({1, 1, 1}, leader.raft.current_term().value, 1));
  stale.from(2, 1, append(3, 1, {}, 0, 9));  // of term 1
  AppendEntriesReply reply = stale.sent<AppendEntriesReply>().at(0).second;
  leader.from(3, leader.raft.current_term().value, reply);
  CHECK(leader.raft.peers()[1].next_index == Index{4});
  leader.tick_for(100);
  leader.ack(2, 4, 2);
  CHECK(leader.raft.has_lease(leader.now));
}

TEST_CASE("a paused leader has no lease when it wakes up", "[raft]") {
  Solo leader = leader_of_3();
  leader.now += 30'000;
  CHECK_FALSE(leader.raft.lease_read(leader.now));
  REQUIRE(leader.raft.read(leader.now, 1));
  leader.drain();
  CHECK(leader.reads.empty());
}

TEST_CASE("one lost node of three, and the lease goes on; two, and it ends", "[raft]") {
  Cluster cluster(3);
  REQUIRE(cluster.elect(1));
  cluster.isolate(3);
  cluster.advance(1'000);
  CHECK(cluster[1].lease_read(cluster.clock(cluster.node(1))).has_value());
  cluster.isolate(2);
  cluster.advance(300);
  CHECK_FALSE(cluster[1].lease_read(cluster.clock(cluster.node(1))).has_value());
}

// ---- Hand-over --------------------------------------------------------------------------------------------

TEST_CASE("after TimeoutNow there is no lease for the rest of the term", "[raft]") {
  Solo leader = leader_of_3();
  leader.raft.transfer_leadership(leader.now, NodeId{2});
  REQUIRE(leader.sent<TimeoutNow>().size() == 1);
  CHECK_FALSE(leader.raft.has_lease(leader.now));
  for (std::uint64_t round = 2; round <= 20; ++round) {
    leader.tick_for(100);
    leader.ack(3, 1, round);
    CHECK_FALSE(leader.raft.has_lease(leader.now));
  }
  REQUIRE(leader.raft.is_leader());
  CHECK_FALSE(leader.raft.transferring());
}

TEST_CASE("a TimeoutNow of another term is dropped", "[raft]") {
  for (const std::uint64_t term : {std::uint64_t{0}, std::uint64_t{2}, std::uint64_t{9}}) {
    Solo node = follower_of_2();
    node.from(2, term, TimeoutNow{});
    CHECK(node.raft.role() == Role::kFollower);
    CHECK(node.raft.current_term() == Term{1});
  }
}

TEST_CASE("a TimeoutNow of the own leader starts an election with the transfer flag", "[raft]") {
  Solo node = follower_of_2();
  node.from(3, 1, TimeoutNow{});  // doesn't lead
  REQUIRE(node.raft.role() == Role::kFollower);
  node.from(2, 1, TimeoutNow{});
  node.sync();
  const auto requests = node.sent<RequestVote>();
  REQUIRE(requests.size() == 2);
  CHECK((requests[0].second.transfer && !requests[0].second.pre_vote));
  CHECK(requests[0].first.term == Term{2});
}

TEST_CASE("proposals are refused during a transfer, until an election timeout has passed",
          "[raft]") {
  Solo leader = leader_of_3();
  leader.raft.transfer_leadership(leader.now, NodeId{3});  // which has not answered yet
  for (std::uint64_t ms = 0; ms < 1'000; ms += kTickMs) {
    CHECK(leader.raft.propose(leader.now, payload("x")).status == ProposeStatus::kTransferring);
    leader.tick_for(kTickMs);
    leader.ack(2, 1, 1 + ms / 100);
  }
  CHECK(leader.sent<TimeoutNow>().empty());
  CHECK(leader.raft.propose(leader.now, payload("x")).status == ProposeStatus::kAccepted);
  CHECK(leader.raft.has_lease(leader.now));  // no TimeoutNow, nothing forfeited
}

TEST_CASE("a transfer to nobody in particular takes the most advanced peer; to a stranger, none",
          "[raft]") {
  Solo leader = leader_of_3();
  leader.raft.transfer_leadership(leader.now, NodeId{77});
  leader.raft.transfer_leadership(leader.now, NodeId{1});
  REQUIRE_FALSE(leader.raft.transferring());
  leader.raft.transfer_leadership(leader.now);
  CHECK(leader.sent<TimeoutNow>().at(0).first.to == NodeId{2});
}

// ---- Elections ----------------------------------------------------------------------------------------------

TEST_CASE("a cluster of one leads by itself, and its writes wait for its disk", "[raft]") {
  Solo node(1);
  node.tick_for(kTickMs);
  CHECK_FALSE(node.raft.is_leader());  // its vote is not on disk yet
  node.sync();
  REQUIRE(node.raft.is_leader());
  CHECK(node.committed.empty());
  node.sync();
  CHECK(node.committed.size() == 1);
  CHECK(node.raft.lease_read(node.now + 99'999) == Index{1});
}

TEST_CASE("a leader that no majority answers steps down within the longest timeout", "[raft]") {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    Solo leader = leader_of_3({}, [&](Config& config) { config.seed = seed; });
    REQUIRE(leader.raft.read(leader.now + 400, 5));
    leader.tick_for(475);
    CHECK(leader.raft.is_leader());
    leader.tick_for(525);
    CHECK_FALSE(leader.raft.is_leader());
    CHECK(leader.raft.lost_quorum());
    leader.drain();
    REQUIRE(leader.reads.size() == 1);
    CHECK_FALSE(leader.reads[0].ok);
  }
}

TEST_CASE("timeouts keep time where each tick is a little late", "[raft]") {
  Solo leader = leader_of_3();
  for (int tick = 0; tick < 25; ++tick) leader.raft.tick(leader.now += 40);
  CHECK(leader.raft.lost_quorum());
}

TEST_CASE("a broken stream to the leader gives an early pre-vote, after the withholding",
          "[raft]") {
  Solo node = follower_of_2({}, [](Config& config) { config.election_timeout_min_ms = 900; });
  node.tick_for(25);
  node.raft.unreachable(node.now, NodeId{3});  // does not lead
  node.raft.unreachable(node.now, NodeId{2});
  CHECK(node.raft.leader() == NodeId{0});
  node.tick_for(250);
  CHECK_FALSE(asks_for_votes(node));
  node.tick_for(25 + 225 + 25);  // with the spread, still well before 900
  const auto requests = node.sent<RequestVote>();
  REQUIRE(requests.size() == 2);
  CHECK(requests[0].second.pre_vote);
}

TEST_CASE("a leader that is heard again takes the early pre-vote back", "[raft]") {
  Solo node = follower_of_2();
  node.raft.unreachable(node.now, NodeId{2});
  node.from(2, 1, append(0, 0));
  node.tick_for(475);
  CHECK_FALSE(asks_for_votes(node));
}

TEST_CASE("a late tick counts once", "[raft]") {
  Solo node = follower_of_2();
  node.now += 60'000;
  node.raft.tick(node.now);
  CHECK_FALSE(asks_for_votes(node));
  node.tick_for(400);
  CHECK_FALSE(asks_for_votes(node));
  Solo leader = leader_of_3();
  leader.now += 60'000;
  leader.raft.tick(leader.now);
  CHECK(leader.raft.is_leader());
}

TEST_CASE("an empty node that may not vote neither votes nor campaigns", "[raft]") {
  Solo node;
  node.raft.set_may_vote(false);
  node.tick_for(5'000);
  CHECK_FALSE(asks_for_votes(node));
  node.from(2, 3, RequestVote{Index{9}, Term{3}, true, false});
  node.from(2, 3, ask_vote(9, 3));
  node.sync();
  for (const auto& [message, reply] : node.sent<RequestVoteReply>()) CHECK_FALSE(reply.granted);
  node.from(2, 3, append(0, 0));
  node.from(2, 3, TimeoutNow{});
  CHECK(node.raft.role() == Role::kFollower);
}

TEST_CASE("a longer log of a lower term and a shorter of a higher find a leader (etcd#8501)",
          "[raft]") {
  Cluster cluster(3);
  cluster.start_with(1, {1, 1, 1, 1}, 3);
  cluster.start_with(2, {1, 2}, 7);
  cluster.crash(3);
  cluster.advance(5'000);
  CHECK(cluster.leader() == 2);
}

TEST_CASE("a candidate of a higher term that was cut off does not stay outside", "[raft]") {
  Cluster cluster(3);
  cluster.start_with(3, {}, 20);
  REQUIRE(cluster.elect(1));
  cluster.advance(5'000);
  REQUIRE(cluster.leader() != 0);
  cluster.propose(cluster.leader());
  cluster.advance(200);
  CHECK(cluster[3].last_applied() == Index{cluster.committed()});
}

TEST_CASE("a deaf leader, a deaf follower and a bridge each leave a leader that commits",
          "[raft]") {
  const std::vector<std::vector<std::pair<std::uint64_t, std::uint64_t>>> cuts = {
      {{2, 1}, {3, 1}}, {{1, 3}, {2, 3}}, {{1, 2}, {2, 1}}};
  for (const auto& links : cuts) {
    Cluster cluster(3);
    REQUIRE(cluster.elect(1));
    for (const auto& [from, to] : links) cluster.cut(from, to);
    cluster.advance(8'000);
    const std::size_t committed = cluster.committed();
    REQUIRE(cluster.leader() != 0);
    cluster.propose(cluster.leader());
    cluster.advance(300);
    CHECK(cluster.committed() > committed);
    CHECK(cluster.elections() <= 4);
  }
}

// ---- A disk that stands still ----------------------------------------------------------------------------------

TEST_CASE("a leader whose disk stands still hands over", "[raft]") {
  Cluster cluster(3);
  REQUIRE(cluster.elect(1));
  cluster.node(1).sync_ms = kNever;
  cluster.propose(1);
  cluster.advance(950);
  CHECK(cluster.leader() == 1);
  cluster.advance(300);
  CHECK(cluster.leader() != 1);
  CHECK(cluster.leader() != 0);
}

TEST_CASE("... or steps down when nobody takes over, and does not campaign", "[raft]") {
  Solo leader = leader_of_3();
  static_cast<void>(leader.raft.propose(leader.now, payload("x")));
  leader.drain();
  for (std::uint64_t round = 1; leader.now < 6'000; ++round) {
    leader.tick_for(100);
    leader.ack(2, 1, round);  // alive, but it never gets the entry
  }
  CHECK(leader.raft.role() == Role::kFollower);
  leader.sent<RequestVote>();
  leader.tick_for(5'000);
  CHECK_FALSE(asks_for_votes(leader));
}

TEST_CASE("a pause of the process is not a stall of the disk", "[raft]") {
  Solo leader = leader_of_3();
  static_cast<void>(leader.raft.propose(leader.now, payload("x")));
  leader.drain();
  leader.ack(2, 2, 1);
  leader.now += 60'000;
  leader.raft.tick(leader.now);
  CHECK_FALSE(leader.raft.transferring());
}

// ---- Flow control -----------------------------------------------------------------------------------------------

TEST_CASE("bytes in flight to a peer are bounded", "[raft]") {
  Solo leader = leader_of_3({}, [](Config& config) {
    config.max_append_size_bytes = 1'000;
    config.max_inflight_size_bytes = 4'000;
  });
  std::size_t sent_bytes = 0;
  for (int i = 0; i < 100; ++i) {
    static_cast<void>(leader.raft.propose(leader.now, payload(std::string(100, 'x'))));
    for (const auto& [message, request] : leader.sent<AppendEntries>()) {
      if (message.to != NodeId{2}) continue;
      for (const Entry& e : request.entries) sent_bytes += e.size_bytes();
    }
  }
  CHECK((sent_bytes >= 4'000 && sent_bytes < 5'000));
  leader.ack(2, 11);
  CHECK_FALSE(leader.sent<AppendEntries>().empty());  // there is room again
}

TEST_CASE("a peer that does not answer gets heartbeats, not the same entries over and over",
          "[raft]") {
  Solo leader = leader_of_3();
  std::size_t entries = 0;
  for (int i = 0; i < 10; ++i) {
    static_cast<void>(leader.raft.propose(leader.now, payload("x")));
    leader.tick_for(100);
    leader.ack(2, 1, static_cast<std::uint64_t>(i) + 2);
    for (const auto& [message, request] : leader.sent<AppendEntries>()) {
      entries += message.to == NodeId{3} ? request.entries.size() : 0;
    }
  }
  CHECK(entries <= 2);
}

TEST_CASE("late answers after a loss do not make a storm of messages", "[raft]") {
  Solo leader = leader_of_3({}, [](Config& config) { config.max_append_size_bytes = 1; });
  for (int i = 0; i < 10; ++i) static_cast<void>(leader.raft.propose(leader.now, payload("x")));
  REQUIRE(leader.sent<AppendEntries>().size() == 10);
  for (std::uint64_t rejected = 3; rejected < 10; ++rejected) {  // the first one was lost
    AppendEntriesReply refusal;
    refusal.round = 1;
    refusal.rejected_index = Index{rejected};
    refusal.conflict_index = Index{2};
    leader.from(2, leader.raft.current_term().value, refusal);
    leader.ack(2, 1, 1);  // to a heartbeat before
  }
  CHECK(leader.sent<AppendEntries>().size() == 1);  // the probe
  leader.ack(2, 2, 1);
  CHECK(leader.sent<AppendEntries>().size() == 9);
}

TEST_CASE("lost entries are found by the next heartbeat, lost acknowledgements too", "[raft]") {
  for (const bool lose_acks : {false, true}) {
    Cluster cluster(3);
    REQUIRE(cluster.elect(1));
    cluster.isolate(3);
    cluster.cut(lose_acks ? 2 : 1, lose_acks ? 1 : 2);
    for (int i = 0; i < 5; ++i) cluster.propose(1);
    cluster.heal();
    cluster.isolate(3);
    CHECK(cluster.committed() == 1);
    cluster.advance(150);
    CHECK(cluster.committed() == 6);
  }
}

TEST_CASE("doubled and reordered messages change nothing", "[raft]") {
  Solo follower = follower_of_2();
  const AppendEntries first = append(0, 0, {entry(1, 1), entry(2, 1)}, 0, 1);
  const AppendEntries second = append(2, 1, {entry(3, 1)}, 2, 2);
  for (const AppendEntries& request : {second, first, second, first, append(0, 0), second}) {
    follower.from(2, 1, request);
    follower.sync();
  }
  CHECK(terms_of(follower.raft.log()) == Terms{1, 1, 1});
  CHECK(follower.raft.commit_index() == Index{2});
  CHECK(follower.sent<AppendEntriesReply>().back().second.match_index == Index{3});
}

TEST_CASE("an old AppendEntries does not cut off what came after it", "[raft]") {
  Solo follower = follower_of_2({1, 1, 1});
  follower.from(2, 1, append(0, 0, {entry(1, 1)}));
  CHECK(follower.raft.log().last_index() == Index{3});
}

TEST_CASE("a full log refuses proposals until something has been applied", "[raft]") {
  Solo leader = leader_of_3({}, [](Config& config) {
    config.max_log_memory_size_bytes = 1'000;
    config.applied_tail_size_bytes = 0;
  });
  std::uint64_t accepted = 0;
  while (leader.raft.propose(leader.now, payload("x")).status == ProposeStatus::kAccepted) {
    ++accepted;
  }
  CHECK((accepted > 10 && accepted < 20));
  leader.sync();
  leader.ack(2, 1 + accepted);
  leader.drain();
  CHECK(leader.raft.propose(leader.now, payload("x")).status == ProposeStatus::kAccepted);
}

TEST_CASE("a follower whose apply is behind takes no more than its memory holds", "[raft]") {
  Solo follower = follower_of_2({}, [](Config& config) {
    config.max_log_memory_size_bytes = 1'000;
    config.applied_tail_size_bytes = 0;
  });
  follower.apply = false;
  for (std::uint64_t i = 0; i < 100; ++i) {
    follower.from(2, 1, append(i, i == 0 ? 0 : 1, {entry(i + 1, 1)}, i));
    follower.sync();
  }
  CHECK(follower.raft.log().size_bytes() < 1'200);
  follower.apply = true;
  const std::uint64_t last = follower.raft.log().last_index().value;
  follower.raft.applied(follower.now, follower.committed.back().index);
  follower.sync();
  follower.from(2, 1, append(last, 1, {entry(last + 1, 1)}, last));
  CHECK(follower.raft.log().last_index() == Index{last + 1});
}

TEST_CASE("entries that are no longer in memory are fetched from disk", "[raft]") {
  Cluster cluster(3, [](Config& config) { config.applied_tail_size_bytes = 200; });
  REQUIRE(cluster.elect(1));
  cluster.isolate(3);
  for (int i = 0; i < 50; ++i) cluster.propose(1);
  REQUIRE(cluster[1].log().base_index() > Index{40});
  cluster.heal();
  cluster.advance(300);
  CHECK(cluster.node(3).applied.size() == 51);
}

TEST_CASE("a conflict below the leader's memory is followed on disk", "[raft]") {
  Restored restored = left_with(Terms(20, 2), 2);
  restored.entries.erase(restored.entries.begin(), restored.entries.begin() + 10);
  restored.base_index = restored.applied_index = Index{10};
  restored.base_term = Term{2};
  Solo leader(3, restored);
  leader.lead();
  AppendEntriesReply refusal;
  refusal.rejected_index = Index{20};
  refusal.conflict_index = Index{6};  // the follower: 1 1 1 1 1
  leader.from(2, 3, refusal);
  leader.drain();
  leader.raft.fetched(leader.now, NodeId{2}, Term{2}, {entry(6, 2)});
  refusal.rejected_index = Index{5};
  refusal.conflict_index = Index{1};
  refusal.conflict_term = Term{1};
  leader.from(2, 3, refusal);
  leader.drain();
  REQUIRE(leader.fetches.size() == 2);
  CHECK((leader.fetches[0].from == Index{6} && leader.fetches[1].from == Index{1}));
}

TEST_CASE("an answer to an abandoned fetch is not taken for the new one's", "[raft]") {
  Solo leader = leader_of_3(left_with({1, 1, 1, 1, 1, 1}, 1),
                            [](Config& config) { config.applied_tail_size_bytes = 0; });
  AppendEntriesReply refusal;
  refusal.rejected_index = Index{6};
  refusal.conflict_index = Index{4};
  const std::uint64_t term = leader.raft.current_term().value;
  leader.from(3, term, refusal);
  leader.drain();
  REQUIRE(leader.fetches.size() == 1);
  CHECK((leader.fetches[0].from == Index{4} && leader.fetches[0].to == Index{7}));
  leader.raft.unreachable(leader.now, NodeId{3});
  static_cast<void>(leader.raft.propose(leader.now, payload("x")));
  leader.drain();
  REQUIRE(leader.fetches.size() == 2);
  CHECK(leader.fetches[1].from == Index{1});
  leader.raft.fetched(leader.now, NodeId{3}, Term{1}, {entry(4, 1)});
  leader.sent<AppendEntries>();
  leader.raft.fetched(leader.now, NodeId{3}, Term{0}, {entry(1, 1), entry(2, 1)});
  const auto appends = leader.sent<AppendEntries>();
  REQUIRE(appends.size() == 1);
  CHECK(appends[0].second.entries.size() == 2);
}

TEST_CASE("of fetched entries only those that can't change any more are sent", "[raft]") {
  Solo leader = leader_of_3(left_with({1, 1, 1}, 1),
                            [](Config& config) { config.applied_tail_size_bytes = 0; });
  AppendEntriesReply refusal;
  refusal.rejected_index = Index{3};
  refusal.conflict_index = Index{3};
  leader.from(3, leader.raft.current_term().value, refusal);
  leader.sent<AppendEntries>();
  REQUIRE(leader.fetches.size() == 1);  // 3 and the no-op, 4
  leader.raft.fetched(leader.now, NodeId{3}, Term{1}, {entry(3, 1), entry(4, 2), entry(5, 2)});
  const auto appends = leader.sent<AppendEntries>();
  REQUIRE(appends.size() == 1);
  CHECK(appends[0].second.entries.back().index == Index{4});
}

// ---- Restored state, determinism, random runs ----------------------------------------------------------------

TEST_CASE("a log that can't be believed is refused, and the text says why", "[raft]") {
  CHECK_FALSE(check_restored(left_with({1, 1, 2}, 2)));
  Restored hole = left_with({1, 1, 2}, 2);
  hole.entries.erase(hole.entries.begin() + 1);
  CHECK_THAT(*check_restored(hole), ContainsSubstring("hole before entry 3"));
  CHECK_THAT(*check_restored(left_with({2, 1}, 2)), ContainsSubstring("term falls at log entry 2"));
  CHECK_THAT(*check_restored(left_with({1, 3}, 2)), ContainsSubstring("above the saved"));
  Restored ahead = left_with({1, 1}, 1);
  ahead.applied_index = Index{3};
  CHECK_THAT(*check_restored(ahead), ContainsSubstring("applied entry 3, but the log ends at 2"));
  Restored behind = left_with({}, 1);
  behind.base_index = Index{5};
  behind.applied_index = Index{4};
  CHECK_THAT(*check_restored(behind), ContainsSubstring("begins after"));
}

TEST_CASE("the same seed and inputs give the same outputs, byte for byte", "[raft]") {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    const RunResult once = random_run(seed, {.size = 5, .traced = true});
    CHECK(once.trace.size() > 1'000);
    CHECK(once.trace == random_run(seed, {.size = 5, .traced = true}).trace);
  }
}

TEST_CASE("2,000 random runs keep Figure 3, promises and leases, and heal", "[raft][random]") {
  RunResult total;
  for (std::uint64_t seed = 1; seed <= 2'000; ++seed) {
    INFO("seed " << seed);
    const std::size_t size = seed % 8 == 0 ? 7 : seed % 4 == 1 ? 5 : 3;
    const RunResult result = random_run(seed, {.size = size});
    total.committed += result.committed;
    total.elections += result.elections;
    total.reads += result.reads;
  }
  INFO(total.committed << " entries, " << total.elections << " leaders, " << total.reads);
  CHECK(total.committed > 2'000 * 10);
  CHECK(total.elections > 2'000 * 2);
  CHECK(total.reads > 2'000 * 5);
}

}  // namespace seshat::raft::test
