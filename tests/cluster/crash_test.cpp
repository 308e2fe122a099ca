// kill -9 of one, two and all nodes under load, and a node that lost its disk: what was acknowledged
// is kept, and who cannot be served hears so at once.
#include "harness.hpp"

namespace seshat::tests {
namespace {

const std::vector<std::string> kNone;

// raft.election_timeout_max_ms, and what may come on top: one heartbeat interval for when the last
// answer was counted, and timers that come late.
constexpr Milliseconds kMaxElectionTimeout = 1000ms;
constexpr Milliseconds kMargin = 250ms;

TEST_CASE(
    "kill -9 of the leader under load: writes within 2 s, none lost, the dead one catches up") {
  Cluster cluster;
  Writers writers(cluster);
  Milliseconds longest{0};
  for (int round = 0; round < 3; ++round) {
    const int leader = cluster.leader();
    REQUIRE(writers.await_more(1000));
    const auto killed = SteadyClock::now();
    cluster.kill(leader);
    REQUIRE(cluster.cluster_client().ask("SET", "after", "the kill") == "+OK");
    longest = std::max(longest, since(killed));
    REQUIRE(writers.await_more(1000));
    cluster.start(leader);
    // Under load it comes near; that it gets all is asked below.
    REQUIRE(eventually(10s, [&] {
      const auto raft = cluster.info(leader, "raft");
      return raft && number(*raft, "raft_group_1_applied_index") > 0;
    }));
  }
  writers.stop();
  report("the longest of 3: ", longest.count(), " ms from kill -9 to an acknowledged write; ",
         writers.acknowledged_count(), " writes acknowledged, ", writers.unknown_count(),
         " unknown");
  CHECK(longest < 2s);
  CHECK(writers.surprises() == kNone);
  CHECK(cluster.caught_up());
  CHECK(lost(cluster, writers.acknowledged()) == kNone);
}

TEST_CASE("a node that was dead has everything: the next leader may be it, and nothing is lost") {
  Cluster cluster;
  const int absent = cluster.followers().front();
  cluster.kill(absent);
  Writers writers(cluster);
  REQUIRE(writers.await_more(2000));
  cluster.start(absent);
  REQUIRE(writers.await_more(1000));
  writers.stop();
  REQUIRE(cluster.caught_up());
  // Whoever is left, the returned node is needed for the majority.
  const int leader = cluster.leader();
  cluster.kill(leader);
  CHECK(lost(cluster, writers.acknowledged()) == kNone);
  CHECK(writers.surprises() == kNone);
}

TEST_CASE(
    "all three killed -9 at once under load and started again: every acknowledged write is there") {
  Cluster cluster;
  Writers writers(cluster);
  REQUIRE(writers.await_more(3000));
  cluster.kill(cluster.nodes());
  writers.stop();
  const auto start = SteadyClock::now();
  cluster.start_all();
  REQUIRE(cluster.cluster_client().ask("SET", "after", "the restart") == "+OK");
  report("serves again after ", since(start).count(), " ms; ", writers.acknowledged_count(),
         " writes acknowledged, ", writers.unknown_count(), " unknown");
  CHECK(lost(cluster, writers.acknowledged()) == kNone);
  CHECK(writers.surprises() == kNone);
}

// ---- One of three ---------------------------------------------------------------------------------------

// After the leader lost both others at `cut`, with `in_flight` sent to it since.
void check_leader_alone(Cluster& cluster, int leader, SteadyClock::time_point cut,
                        Client& in_flight) {
  // A read that comes when the lease is over waits for a majority; it must not wait for long.
  Client reader = cluster.client(leader);
  REQUIRE(
      eventually(2s, [&] { return cluster.figure(leader, "raft", "raft_group_1_lease") == 0; }));
  reader.send({"GET", "k"});
  CHECK_THAT(in_flight.receive(), StartsWith("-ERR outcome unknown: "));
  const Milliseconds taken = since(cut);
  CHECK_THAT(in_flight.receive(), StartsWith("-ERR outcome unknown: "));
  CHECK_THAT(reader.receive(), StartsWith("-NOQUORUM "));
  report("'outcome unknown' ", taken.count(), " ms after both others were gone");
  CHECK(taken < kMaxElectionTimeout + kMargin);
  const auto start = SteadyClock::now();
  for (int i = 0; i < 50; ++i) {
    REQUIRE_THAT(in_flight.ask("SET", "k", "later"), StartsWith("-NOQUORUM "));
    REQUIRE_THAT(in_flight.ask("DEL", "k"), StartsWith("-NOQUORUM "));
    REQUIRE_THAT(reader.ask("GET", "k"), StartsWith("-NOQUORUM "));
    REQUIRE_THAT(reader.ask("EXISTS", "k"), StartsWith("-NOQUORUM "));
  }
  report("200 requests refused within ", since(start).count(), " ms");
  CHECK(since(start) < 2s);
  CHECK(reader.ask("PING") == "+PONG");
}

TEST_CASE(
    "a leader whose followers die: in flight 'outcome unknown', then NOQUORUM, until one is back") {
  Cluster cluster;
  const int leader = cluster.leader();
  Client client = cluster.client(leader);
  REQUIRE(client.ask("SET", "k", "before") == "+OK");
  const auto cut = SteadyClock::now();
  cluster.kill(cluster.others(leader));
  client.send({"SET", "k", "in flight"});
  client.send({"DEL", "other"});
  check_leader_alone(cluster, leader, cut, client);
  cluster.start(cluster.others(leader).front());
  ClusterClient after = cluster.cluster_client();
  const std::string value = after.ask("GET", "k");
  CHECK((value == "before" || value == "in flight"));
  CHECK(after.ask("SET", "k", "after") == "+OK");
  CHECK(after.ask("GET", "k") == "after");
}

TEST_CASE("a leader whose followers fall silent: the same, and they go on where they were") {
  Cluster cluster;
  const int leader = cluster.leader();
  Client client = cluster.client(leader);
  REQUIRE(client.ask("SET", "k", "before") == "+OK");
  const auto cut = SteadyClock::now();
  for (const int node : cluster.others(leader)) cluster.pause(node);
  client.send({"SET", "k", "in flight"});
  client.send({"DEL", "other"});
  check_leader_alone(cluster, leader, cut, client);
  for (const int node : cluster.others(leader)) cluster.resume(node);
  CHECK(cluster.cluster_client().ask("SET", "k", "after") == "+OK");
  CHECK(cluster.cluster_client().ask("GET", "k") == "after");
}

TEST_CASE(
    "a follower left alone answers CLUSTERDOWN, and NOQUORUM after one maximum election timeout") {
  Cluster cluster;
  const int follower = cluster.followers().front();
  REQUIRE(cluster.caught_up());
  Client client = cluster.client(follower);
  const auto cut = SteadyClock::now();
  cluster.kill(cluster.others(follower));
  // It may name the dead leader for as long as it has to believe in it.
  REQUIRE(eventually(kMaxElectionTimeout + kMargin,
                     [&] { return !client.ask("SET", "k", "v").starts_with("-MOVED "); }));
  const auto leaderless = SteadyClock::now();
  CHECK(client.ask("SET", "k", "v") == "-CLUSTERDOWN no leader, election in progress");
  CHECK(client.ask("GET", "k") == "-CLUSTERDOWN no leader, election in progress");
  std::string reply;
  REQUIRE(eventually(kMaxElectionTimeout + kMargin, [&] {
    reply = client.ask("SET", "k", "v");
    return !reply.starts_with("-CLUSTERDOWN ");
  }));
  report("MOVED for ", since(cut).count() - since(leaderless).count(), " ms, then CLUSTERDOWN for ",
         since(leaderless).count(), " ms");
  CHECK_THAT(reply, StartsWith("-NOQUORUM "));
  // For good: its own attempts to be elected change nothing.
  CHECK_FALSE(eventually(2s, [&] { return !client.ask("GET", "k").starts_with("-NOQUORUM "); }));
}

// ---- A lost disk ------------------------------------------------------------------------------------------

TEST_CASE(
    "a wiped node is told what to do, has no vote and serves nothing; what it held is not lost") {
  Cluster cluster;
  REQUIRE(cluster.settled());
  Writers writers(cluster);
  REQUIRE(writers.await_more(500));
  const int leader = cluster.leader();
  const int wiped = cluster.others(leader).front();
  cluster.kill(wiped);
  cluster.wipe(wiped);
  cluster.start(wiped);
  CHECK(cluster.log_says(wiped, "put its old data directory back"));
  REQUIRE(writers.await_more(500));
  writers.stop();
  cluster.kill(leader);
  // Two of three run, but one of them could have voted before it was wiped.
  CHECK_FALSE(eventually(3s, [&] { return cluster.leader_now().has_value(); }));
  CHECK(cluster.figure(wiped, "raft", "raft_may_vote") == 0);
  for (const int node : cluster.others(leader)) {
    Client client = cluster.client(node);
    CHECK_THAT(client.ask("GET", "w0-0"), StartsWith("-NOQUORUM "));
    CHECK_THAT(client.ask("SET", "w0-0", "x"), StartsWith("-NOQUORUM "));
  }
  cluster.start(leader);
  CHECK(lost(cluster, writers.acknowledged()) == kNone);
  CHECK(writers.surprises() == kNone);
}

TEST_CASE("a node wiped while all were down does not found a new cluster with the next one") {
  Cluster cluster;
  REQUIRE(cluster.cluster_client().ask("SET", "kept", "yes") == "+OK");
  REQUIRE(cluster.settled());
  cluster.kill(cluster.nodes());
  cluster.wipe(1);
  cluster.start(1);
  cluster.start(2);
  CHECK(cluster.log_says(1, "put its old data directory back"));
  CHECK_FALSE(eventually(3s, [&] { return cluster.leader_now().has_value(); }));
  cluster.start(3);
  CHECK(cluster.cluster_client().ask("GET", "kept") == "yes");
  CHECK(cluster.cluster_client().ask("SET", "goes", "on") == "+OK");
  CHECK(cluster.leader() != 1);
}

}  // namespace
}  // namespace seshat::tests
