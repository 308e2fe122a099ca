// Raft as the paper says it: "In Search of an Understandable Consensus Algorithm" (extended version),
// cited as §n and Figure n, and Ongaro's thesis. What the paper leaves open is in raft_test.cpp.
#include "catch.hpp"
#include "raft_harness.hpp"

namespace seshat::raft::test {
namespace {

// The logs of Figure 7, from the leader of term 8 on top to follower (f).
const std::vector<Terms> kFigure7 = {
    {1, 1, 1, 4, 4, 5, 5, 6, 6, 6},        // leader
    {1, 1, 1, 4, 4, 5, 5, 6, 6},           // (a)
    {1, 1, 1, 4},                          // (b)
    {1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6},     // (c)
    {1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7},  // (d)
    {1, 1, 1, 4, 4, 4, 4},                 // (e)
    {1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3},     // (f)
};

void start_figure_7(Cluster& cluster) {
  for (std::uint64_t id = 1; id <= 7; ++id) cluster.start_with(id, kFigure7[id - 1], 7);
}

// Figure 8 (b) with S5's entry of term 3, just before S1 leads again. One entry a message.
Cluster figure_8() {
  Cluster cluster(5, [](Config& config) { config.max_append_size_bytes = 1; });
  cluster.start_with(1, {1, 2}, 3);
  cluster.start_with(2, {1, 2}, 3);
  cluster.start_with(3, {1}, 3);
  cluster.start_with(4, {1}, 3);
  cluster.start_with(5, {1, 3}, 3);
  cluster.crash(5);
  return cluster;
}

bool grants_vote(const Terms& own_log, std::uint64_t last_index, std::uint64_t last_term) {
  Solo voter(3, left_with(own_log, 7));
  voter.now += 300;  // it has just started
  voter.from(2, 8, ask_vote(last_index, last_term));
  voter.sync();
  return voter.sent<RequestVoteReply>().at(0).second.granted;
}

// After how long without a leader an election begins.
std::uint64_t election_timeout_ms(Solo& node) {
  const std::uint64_t start = node.now;
  node.drain();
  node.outbox.clear();
  while (node.sent<RequestVote>().empty()) node.tick_for(kTickMs);
  return node.now - start;
}

}  // namespace

// ---- Figure 3 ---------------------------------------------------------------------------------------

TEST_CASE("Election Safety: of two candidates of one term a voter takes the first (Figure 3, §5.2)",
          "[raft][paper]") {
  Solo voter;
  voter.now += 300;
  voter.from(2, 1, ask_vote(0, 0));
  voter.from(3, 1, ask_vote(0, 0));
  voter.sync();
  const auto replies = voter.sent<RequestVoteReply>();
  REQUIRE(replies.size() == 2);
  CHECK((replies[0].first.to == NodeId{2} && replies[0].second.granted));
  CHECK((replies[1].first.to == NodeId{3} && !replies[1].second.granted));
}

TEST_CASE("Election Safety: nodes that campaign at once never give two leaders (Figure 3, §5.2)",
          "[raft][paper]") {
  Cluster cluster(5, [](Config& config) { config.seed = 1; });  // equal timeouts: they collide
  cluster.network = [](const Message&) { return std::vector<std::uint64_t>{20}; };
  cluster.advance(5'000);  // the cluster checks after every input
  CHECK(cluster[1].current_term() > Term{});
}

TEST_CASE("Leader Append-Only: a leader keeps its log, whatever followers hold (Figure 3, §5.3)",
          "[raft][paper]") {
  Cluster cluster(7);
  start_figure_7(cluster);
  REQUIRE(cluster.elect(1));
  cluster.propose(1);
  Terms expected = kFigure7[0];
  expected.push_back(cluster[1].current_term().value);
  expected.push_back(cluster[1].current_term().value);
  CHECK(terms_of(cluster[1].log()) == expected);
}

TEST_CASE("Log Matching: logs that agree in one entry agree in all before it (Figure 3, §5.3)",
          "[raft][paper]") {
  Solo follower(3, left_with({1, 1, 2, 2}, 3));
  follower.from(2, 3, append(3, 3, {entry(4, 3)}));  // its entry 3 is of term 2: refused
  CHECK(terms_of(follower.raft.log()) == Terms{1, 1, 2, 2});
  follower.from(2, 3, append(2, 1, {entry(3, 3), entry(4, 3)}));
  CHECK(terms_of(follower.raft.log()) == Terms{1, 1, 3, 3});
}

TEST_CASE("Leader Completeness: a node without a committed entry never leads (Figure 3, §5.4)",
          "[raft][paper]") {
  Cluster cluster(3);
  cluster.isolate(3);
  REQUIRE(cluster.elect(1));
  cluster.propose(1);
  REQUIRE(cluster.committed() == 2);
  cluster.heal();
  cluster.crash(1);
  CHECK_FALSE(cluster.elect(3));
  CHECK(cluster.elect(2));
}

TEST_CASE("State Machine Safety: every node applies the same entries in order (Figure 3, §5.4.3)",
          "[raft][paper]") {
  Cluster cluster(3);
  for (const std::uint64_t id : {1U, 2U, 3U}) {
    REQUIRE(cluster.elect(id));
    cluster.propose(id);
  }
  cluster.advance(200);
  REQUIRE(cluster.committed() == 6);
  for (std::uint64_t id = 1; id <= 3; ++id) CHECK(cluster.node(id).applied.size() == 6);
}

// ---- Figures 7 and 8 ---------------------------------------------------------------------------------

TEST_CASE("a leader brings the followers of Figure 7 into agreement (Figure 7, §5.3)",
          "[raft][paper]") {
  Cluster cluster(7);
  start_figure_7(cluster);
  REQUIRE(cluster.elect(1));
  cluster.advance(200);
  const Terms leader_log = terms_of(cluster[1].log());
  REQUIRE(leader_log.size() == 11);
  for (std::uint64_t id = 2; id <= 7; ++id) {
    CHECK(terms_of(cluster[id].log()) == leader_log);
    CHECK(terms_of(cluster.node(id).log) == leader_log);  // on disk too
    CHECK(cluster[id].commit_index() == Index{11});
  }
}

TEST_CASE("of the logs of Figure 7, (a), (c) and (d) may win, (b), (e) and (f) may not (§5.4.1)",
          "[raft][paper]") {
  const std::vector<bool> may_win = {true, true, false, true, true, false, false};
  for (std::uint64_t id = 1; id <= 7; ++id) {
    Cluster cluster(7);
    start_figure_7(cluster);
    INFO("row " << id << " of the figure");
    CHECK(cluster.elect(id) == may_win[id - 1]);
  }
}

TEST_CASE("an entry of an older term on a majority is not committed by counting (Figure 8 c, d)",
          "[raft][paper]") {
  Cluster cluster = figure_8();
  cluster.network = [](const Message& message) {  // nothing of term 4 gets through
    const auto* append = std::get_if<AppendEntries>(&message.body);
    const bool lost =
        append != nullptr && !append->entries.empty() && append->entries[0].term > Term{3};
    return lost ? std::vector<std::uint64_t>{} : std::vector<std::uint64_t>{0};
  };
  REQUIRE(cluster.elect(1));
  cluster.advance(150);
  REQUIRE(terms_of(cluster.node(3).log) == Terms{1, 2});  // (c): on S1, S2, S3
  CHECK(cluster[1].commit_index() == Index{0});
  cluster.network = nullptr;
  cluster.crash(1);
  cluster.start(5);
  REQUIRE(cluster.elect(5));  // (d): it is overwritten
  CHECK(cluster[3].log().term_at(Index{2}) == Term{3});
}

TEST_CASE("an entry of the current term on a majority commits all before it (Figure 8 e)",
          "[raft][paper]") {
  Cluster cluster = figure_8();
  cluster.cut(1, 4);
  REQUIRE(cluster.elect(1));  // its no-op of term 4 is the figure's entry 3
  CHECK(cluster[1].commit_index() == Index{3});
  cluster.crash(1);
  cluster.start(5);
  CHECK_FALSE(cluster.elect(5));
}

// ---- §5.1, §5.2 ----------------------------------------------------------------------------------------

TEST_CASE("a higher term in any message makes a follower of that term (§5.1)", "[raft][paper]") {
  const std::vector<decltype(Message::body)> bodies = {ask_vote(9, 9), RequestVoteReply{},
                                                       append(0, 0), AppendEntriesReply{}};
  for (const auto& body : bodies) {
    Solo leader;
    leader.lead();
    leader.now += 2'000;
    std::visit([&](const auto& b) { leader.from(2, 5, b); }, body);
    CHECK(leader.raft.current_term() == Term{5});
    CHECK(leader.raft.role() == Role::kFollower);
  }
}

TEST_CASE("a request of an older term is refused, and the answer names the newer one (§5.1)",
          "[raft][paper]") {
  Solo node(3, left_with({1}, 5));
  node.now += 300;
  node.from(2, 4, append(1, 1, {entry(2, 4)}));
  node.from(3, 4, ask_vote(9, 4));
  const auto append_replies = node.sent<AppendEntriesReply>();
  const auto vote_replies = node.sent<RequestVoteReply>();
  CHECK((append_replies.at(0).first.term == Term{5} && !append_replies[0].second.success));
  CHECK((vote_replies.at(0).first.term == Term{5} && !vote_replies[0].second.granted));
  CHECK(node.raft.log().last_index() == Index{1});
}

TEST_CASE("a term and its vote survive a restart (§5.1, Figure 2)", "[raft][paper]") {
  Solo node(3, left_with({}, 5, 2));
  node.now += 300;
  node.from(3, 5, ask_vote(9, 9));
  CHECK_FALSE(node.sent<RequestVoteReply>().at(0).second.granted);
}

TEST_CASE("election timeouts are drawn anew each time, between the two bounds (§5.2)",
          "[raft][paper]") {
  std::set<std::uint64_t> seen;
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    Solo node(3, {}, [&](Config& config) { config.seed = seed; });
    for (int election = 0; election < 2; ++election) {
      const std::uint64_t timeout_ms = election_timeout_ms(node);
      CHECK((timeout_ms >= 500 && timeout_ms <= 1'000 + kTickMs));
      seen.insert(timeout_ms);
    }
  }
  CHECK(seen.size() > 15);
}

TEST_CASE("election timeouts differ by ticks, however near each other the bounds are",
          "[raft][paper]") {
  std::set<std::uint64_t> seen;
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    Solo node(3, {}, [&](Config& config) {
      config.seed = seed;
      config.election_timeout_max_ms = config.election_timeout_min_ms;
    });
    seen.insert(election_timeout_ms(node));
  }
  CHECK(seen.size() > 1);
}

TEST_CASE("a split vote is resolved by the next election (§5.2)", "[raft][paper]") {
  Cluster cluster(3);
  cluster.crash(3);
  for (const std::uint64_t id : {1U, 2U}) {
    cluster.node(id).hard_state = {Term{1}, NodeId{id}, {}};  // each voted for itself
    cluster.start(id);
  }
  cluster.advance(3'000);
  REQUIRE(cluster.leader() != 0);
  CHECK(cluster[cluster.leader()].current_term() > Term{1});
}

TEST_CASE("a candidate that hears from the leader of its term follows it (§5.2)", "[raft][paper]") {
  Solo node;
  while (node.raft.role() != Role::kPreCandidate) node.tick_for(kTickMs);
  node.from(2, 1, RequestVoteReply{true, true});
  REQUIRE(node.raft.role() == Role::kCandidate);
  node.from(3, 1, append(0, 0));
  CHECK(node.raft.role() == Role::kFollower);
  CHECK(node.raft.leader() == NodeId{3});
}

TEST_CASE("a leader's heartbeats prevent elections (§5.2)", "[raft][paper]") {
  Cluster cluster(5);
  REQUIRE(cluster.elect(2));
  cluster.advance(20'000);
  CHECK(cluster.leader() == 2);
  CHECK(cluster.elections() == 1);
}

// ---- §5.3 ------------------------------------------------------------------------------------------------

TEST_CASE("AppendEntries is taken only where the entry before it matches (§5.3)", "[raft][paper]") {
  struct Case {
    std::uint64_t prev_index, prev_term;
    bool success;
    std::uint64_t conflict_index, conflict_term;
  };
  const std::vector<Case> cases = {
      {0, 0, true, 0, 0},  {3, 2, true, 0, 0},  {6, 3, true, 0, 0},  {6, 4, false, 5, 3},
      {4, 3, false, 3, 2}, {2, 2, false, 1, 1}, {7, 3, false, 7, 0}, {99, 4, false, 7, 0},
  };
  for (const Case& c : cases) {
    Solo follower(3, left_with({1, 1, 2, 2, 3, 3}, 4));
    follower.from(2, 5, append(c.prev_index, c.prev_term));
    follower.sync();
    const AppendEntriesReply reply = follower.sent<AppendEntriesReply>().at(0).second;
    INFO("entry " << c.prev_index << " of term " << c.prev_term);
    CHECK(reply.success == c.success);
    CHECK(reply.conflict_index == Index{c.conflict_index});
    CHECK(reply.conflict_term == Term{c.conflict_term});
    if (reply.success) CHECK(reply.match_index == Index{c.prev_index});
  }
}

TEST_CASE("a conflict costs one round for each term, not for each entry (§5.3)", "[raft][paper]") {
  Cluster cluster(3);
  Terms follower_log(300, 2);
  follower_log.insert(follower_log.end(), 300, 3);
  cluster.start_with(1, Terms(600, 4), 4);
  cluster.start_with(2, Terms(600, 4), 4);
  cluster.start_with(3, follower_log, 4);
  int refusals = 0;
  cluster.network = [&](const Message& message) {
    const auto* reply = std::get_if<AppendEntriesReply>(&message.body);
    refusals += reply != nullptr && !reply->success && message.from == NodeId{3} ? 1 : 0;
    return std::vector<std::uint64_t>{0};
  };
  REQUIRE(cluster.elect(1));
  cluster.advance(300);
  CHECK(terms_of(cluster[3].log()) == terms_of(cluster[1].log()));
  CHECK(refusals <= 3);  // heartbeat and no-op once, then one for each term
}

TEST_CASE("a hint's term that the leader has too leads to its last entry of it (§5.3)",
          "[raft][paper]") {
  Solo leader(3, left_with({1, 1, 2, 2, 2, 5, 5}, 5));
  leader.lead();
  AppendEntriesReply refusal;
  refusal.rejected_index = Index{7};
  refusal.conflict_index = Index{3};
  refusal.conflict_term = Term{2};  // the follower: 1 1 2 2 2 2 2
  leader.from(2, leader.raft.current_term().value, refusal);
  CHECK(leader.raft.peers()[0].next_index == Index{6});
}

// ---- §5.4 ------------------------------------------------------------------------------------------------

TEST_CASE("a vote needs a log that is at least as up to date (§5.4.1)", "[raft][paper]") {
  const Terms log = {1, 2, 3};
  CHECK(grants_vote(log, 3, 3));        // the same
  CHECK(grants_vote(log, 4, 3));        // longer
  CHECK_FALSE(grants_vote(log, 2, 3));  // shorter
  CHECK(grants_vote(log, 1, 4));        // shorter, but a later term
  CHECK_FALSE(grants_vote(log, 9, 2));  // longer, but an earlier term
  CHECK(grants_vote({}, 0, 0));
  CHECK_FALSE(grants_vote({1}, 0, 0));
}

TEST_CASE("a leader commits only entries of its own term by counting (§5.4.2)", "[raft][paper]") {
  Solo leader(3, left_with({1, 2}, 2));
  leader.lead();
  leader.ack(2, 2);  // entry 2 is on a majority
  CHECK(leader.raft.commit_index() == Index{0});
  leader.ack(2, 3);  // and now the no-op of this term
  CHECK(leader.raft.commit_index() == Index{3});
}

// ---- §8 and the thesis -----------------------------------------------------------------------------------

TEST_CASE("a leader starts its term with a no-op (§8)", "[raft][paper]") {
  Solo leader(3, left_with({1, 1}, 1));
  leader.lead();
  REQUIRE(leader.raft.log().last_index() == Index{3});
  CHECK(leader.raft.log().at(Index{3}).type == EntryType::kNoOp);
  CHECK(leader.raft.log().at(Index{3}).term == leader.raft.current_term());
}

TEST_CASE("a read waits for the no-op of the term, also with a lease (§8)", "[raft][paper]") {
  Solo leader(3, left_with({1, 1}, 1));
  leader.lead();
  leader.ack(2, 2, 1);  // the round is answered, the no-op is not
  CHECK_FALSE(leader.raft.has_lease(leader.now));
  CHECK_FALSE(leader.raft.lease_read(leader.now));
  REQUIRE(leader.raft.read(leader.now, 7));  // round 2 goes out for it
  leader.ack(2, 2, 2);
  leader.drain();
  REQUIRE(leader.reads.size() == 1);
  CHECK(leader.reads[0].index == Index{3});
  leader.ack(2, 3, 2);
  CHECK(leader.raft.lease_read(leader.now) == Index{3});
}

TEST_CASE("ReadIndex: a read is answered after a round sent later than it came (thesis 6.4)",
          "[raft][paper]") {
  Solo leader(3, {}, [](Config& config) { config.lease_reads = false; });
  leader.lead();
  REQUIRE(leader.raft.read(leader.now, 7));  // round 2 goes out for it
  leader.ack(2, 1, 1);                       // an answer to round 1 says nothing
  REQUIRE(leader.raft.read(leader.now, 8));  // comes after round 2 was sent
  leader.drain();
  CHECK(leader.reads.empty());
  leader.ack(2, 1, 2);
  leader.drain();
  REQUIRE(leader.reads.size() == 1);
  CHECK((leader.reads[0].id == 7 && leader.reads[0].ok && leader.reads[0].index == Index{1}));
  leader.ack(2, 1, 3);
  leader.drain();
  CHECK(leader.reads.size() == 2);
}

TEST_CASE("a deposed leader answers no read (§8, thesis 6.4)", "[raft][paper]") {
  Cluster cluster(3, [](Config& config) { config.lease_reads = false; });
  REQUIRE(cluster.elect(1));
  cluster.isolate(1);
  REQUIRE(cluster.elect(2));
  cluster.propose(2);
  CHECK(cluster.read(1));
  cluster.heal();
  cluster.advance(300);
  REQUIRE(cluster.node(1).reads.size() == 1);
  CHECK_FALSE(cluster.node(1).reads[0].ok);
}

TEST_CASE("pre-vote: a node that was cut off disturbs nobody when it returns (thesis 9.6)",
          "[raft][paper]") {
  Cluster cluster(3);
  REQUIRE(cluster.elect(1));
  const Term term = cluster[1].current_term();
  cluster.isolate(3);
  cluster.advance(10'000);
  CHECK(cluster[3].current_term() == term);
  cluster.heal();
  cluster.advance(2'000);
  CHECK(cluster.leader() == 1);
  CHECK(cluster[1].current_term() == term);
}

TEST_CASE("pre-vote: asking changes nothing in the one who is asked (thesis 9.6)",
          "[raft][paper]") {
  Solo node(3, left_with({1, 1}, 3));
  node.now += 300;
  node.from(2, 9, RequestVote{Index{2}, Term{1}, true, false});
  const auto replies = node.sent<RequestVoteReply>();
  CHECK((replies.at(0).second.granted && replies[0].first.term == Term{9}));
  CHECK(node.raft.current_term() == Term{3});
  CHECK(node.raft.voted_for() == NodeId{});
  CHECK(node.writes.empty());
}

TEST_CASE("pre-vote: one with an older log gets no yes (thesis 9.6)", "[raft][paper]") {
  Solo node(3, left_with({1, 2}, 3));
  node.now += 300;
  node.from(2, 9, RequestVote{Index{9}, Term{1}, true, false});
  CHECK_FALSE(node.sent<RequestVoteReply>().at(0).second.granted);
}

TEST_CASE("transfer: the target catches up, gets TimeoutNow, and leads (thesis 3.10)",
          "[raft][paper]") {
  Cluster cluster(3);
  REQUIRE(cluster.elect(1));
  cluster.cut(1, 2);
  cluster.propose(1);  // node 2 lacks it
  cluster[1].transfer_leadership(cluster.clock(cluster.node(1)), NodeId{2});
  cluster.settle();
  CHECK(cluster.leader() == 1);
  cluster.heal();
  cluster.advance(200);  // far less than an election timeout
  CHECK(cluster.leader() == 2);
  CHECK(cluster[2].log().last_index() == Index{3});
}

}  // namespace seshat::raft::test
