// The scenarios that a store like this has to survive, each once, on real processes, under the load of
// clients whose every operation is recorded and judged afterwards: nothing acknowledged is lost, no read
// is stale. Faults of disks are in chaos_disk_test.cpp, all at random in chaos_mix_test.cpp.
//
// `make chaos` runs them all; `make check` as well. CHAOS_TELLS=1 prints when each fault came.
#include <ctime>
#include <set>

#include "chaos.hpp"
#include "clocks.hpp"

namespace seshat::tests {
namespace {

// The same when it only falls silent: its followers wait for their election timeouts, and once more
// should the vote be split.
constexpr Milliseconds kSilentFailover = 2 * kMaxElectionTimeout + 2 * kMargin;

// ---- What every scenario asks ---------------------------------------------------------------------------

// A node without a majority promises nothing: its answers say so, for as long as it lasts.
void check_refuses_writes(Chaos& chaos, int node) {
  Client client = chaos.cluster.client(node);
  std::string reply;
  CHECK(eventually(2 * kMaxElectionTimeout + kMargin, [&] {
    reply = client.ask("SET", "minority", "x");
    return reply.starts_with("-NOQUORUM ");
  }));
  INFO("node " << node << " answered " << reply);
  for (int i = 0; i < 20; ++i) {
    REQUIRE_THAT(client.ask("SET", "minority", "x"), StartsWith("-NOQUORUM "));
    REQUIRE_THAT(client.ask("GET", "minority"), StartsWith("-NOQUORUM "));
  }
}

// Another node leads, and writes are acknowledged, in time.
int check_fails_over(Chaos& chaos, int old, SteadyClock::time_point begin,
                     Milliseconds bound = kFailover) {
  const int leader = chaos.cluster.leader_after(old);
  // Not one that the old leader had answered already.
  CHECK(chaos.load->await_writes(1));
  report("a new leader, and a write acknowledged, after ", since(begin).count(), " ms");
  CHECK(since(begin) < bound);
  return leader;
}

std::string role(Chaos& chaos, int node) {
  const std::optional<Info> raft = chaos.cluster.info(node, "raft");
  return raft ? raft->at("raft_group_1_role") : "";
}

// ---- The eleven -------------------------------------------------------------------------------------------

TEST_CASE("chaos 1, leader failure: a new leader within 2 s, the old one joins it", "[chaos]") {
  Chaos chaos;
  chaos.start_transactions();
  for (int round = 0; round < 3; ++round) {
    const int leader = chaos.cluster.leader();
    chaos.fault("leader killed");
    const auto begin = SteadyClock::now();
    chaos.cluster.kill(leader);
    (void)check_fails_over(chaos, leader, begin);
    chaos.cluster.start(leader);
    REQUIRE(chaos.load->await_writes(100));
    REQUIRE(chaos.cluster.settled());
  }
  chaos.finish();
}

TEST_CASE("chaos 2, follower failure: two of three go on as if nothing were", "[chaos]") {
  Chaos chaos;
  chaos.start_transactions();
  for (const int follower : chaos.cluster.followers()) {
    chaos.fault("follower killed");
    Unnoticed unnoticed(chaos);
    chaos.cluster.kill(follower);
    REQUIRE(chaos.load->await_writes(500));
    chaos.cluster.start(follower);
    REQUIRE(chaos.load->await_writes(300));
    unnoticed.check("a follower killed, and back");
    REQUIRE(chaos.cluster.settled());
  }
  chaos.finish();
}

TEST_CASE("chaos 3, partition 2-1: the majority goes on, the minority refuses", "[chaos]") {
  Chaos chaos;
  chaos.start_transactions();
  const int leader = chaos.cluster.leader();
  chaos.fault("the leader on one side, both followers on the other");
  const auto begin = SteadyClock::now();
  chaos.network.split_off({leader});
  (void)check_fails_over(chaos, leader, begin, kSilentFailover);
  check_refuses_writes(chaos, leader);
  chaos.network.heal();
  REQUIRE(chaos.cluster.settled());

  const int follower = chaos.cluster.followers().front();
  chaos.fault("one follower on one side");
  Unnoticed unnoticed(chaos);
  chaos.network.split_off({follower});
  check_refuses_writes(chaos, follower);
  unnoticed.check("one follower split off");
  chaos.finish();
}

TEST_CASE("chaos 4, asymmetric partition: a leader that hears nobody steps down", "[chaos]") {
  Chaos chaos;
  chaos.start_transactions();
  const int leader = chaos.cluster.leader();
  chaos.fault("leader deaf: its heartbeats arrive, no answer comes back");
  const auto begin = SteadyClock::now();
  chaos.network.deafen(leader);
  // It has to notice by itself, and only then do the others' promises to it run out.
  (void)check_fails_over(chaos, leader, begin, kMaxElectionTimeout + kSilentFailover);
  check_refuses_writes(chaos, leader);
  chaos.finish();
}

TEST_CASE("chaos 4, asymmetric partition: a leader that nobody hears is replaced", "[chaos]") {
  Chaos chaos;
  chaos.start_transactions();
  const int leader = chaos.cluster.leader();
  chaos.fault("leader mute");
  const auto begin = SteadyClock::now();
  chaos.network.mute(leader);
  (void)check_fails_over(chaos, leader, begin, kSilentFailover);
  CHECK(eventually(5s, [&] { return role(chaos, leader) == "follower"; }));
  chaos.finish();
}

TEST_CASE("chaos 4, partial partition: with one follower out of reach writes go on", "[chaos]") {
  Chaos chaos;
  chaos.start_transactions();
  const int leader = chaos.cluster.leader();
  const std::vector<int> followers = chaos.cluster.others(leader);
  Unnoticed unnoticed(chaos);
  const auto lasts = [&](const std::string& what) {
    chaos.fault(what);
    REQUIRE(chaos.load->await_writes(800, 10s));
    chaos.network.heal();
  };
  chaos.network.cut(leader, followers[0]);
  lasts("a follower does not hear the leader, and is heard");
  chaos.network.cut(followers[0], leader);
  lasts("a follower hears the leader, and is not heard");
  chaos.network.cut_pair(leader, followers[1]);
  lasts("a follower reaches only the other follower");
  chaos.network.cut_pair(followers[0], followers[1]);
  lasts("the followers don't reach each other");
  unnoticed.check("one link or another cut");
  chaos.finish();
}

TEST_CASE("chaos 5, leader isolation: nothing commits there, another leads elsewhere", "[chaos]") {
  Chaos chaos;
  chaos.start_transactions();
  const int leader = chaos.cluster.leader();
  Client client = chaos.cluster.client(leader);
  chaos.fault("leader isolated");
  const auto begin = SteadyClock::now();
  chaos.network.isolate(leader);
  client.send({"SET", "only there", "x"});
  const int next = check_fails_over(chaos, leader, begin, kSilentFailover);
  CHECK_THAT(client.receive(), StartsWith("-ERR outcome unknown: ") || StartsWith("-NOQUORUM "));
  const std::uint64_t commit = chaos.cluster.figure(leader, "raft", "raft_group_1_commit_index");
  const std::uint64_t next_commit = chaos.cluster.figure(next, "raft", "raft_group_1_commit_index");
  check_refuses_writes(chaos, leader);
  REQUIRE(chaos.load->await_writes(100));
  CHECK(chaos.cluster.figure(leader, "raft", "raft_group_1_commit_index") == commit);
  CHECK(chaos.cluster.figure(next, "raft", "raft_group_1_commit_index") > next_commit);
  CHECK(chaos.cluster.cluster_client().ask("GET", "only there") == "(nil)");
  chaos.network.heal();
  REQUIRE(chaos.cluster.settled());
  CHECK(chaos.cluster.cluster_client().ask("GET", "only there") == "(nil)");
  chaos.finish();
}

TEST_CASE("chaos 6, cascading failures: two gone means NOQUORUM, back means service", "[chaos]") {
  Chaos chaos;
  chaos.start_transactions();
  const int first = chaos.cluster.leader();
  chaos.fault("leader killed");
  auto begin = SteadyClock::now();
  chaos.cluster.kill(first);
  const int second = check_fails_over(chaos, first, begin);
  chaos.fault("the next leader killed");
  chaos.cluster.kill(second);
  const int last = 6 - first - second;
  check_refuses_writes(chaos, last);
  begin = SteadyClock::now();
  chaos.cluster.start(first);
  CHECK(chaos.load->await_writes(1, kFailover + kMaxElectionTimeout - since(begin)));
  report("one is back: writes again after ", since(begin).count(), " ms");
  chaos.cluster.start(second);
  chaos.finish();
}

TEST_CASE("chaos 7, leader killed during writes: every node agrees on what became of each",
          "[chaos]") {
  Chaos chaos;
  chaos.start_transactions();
  for (int round = 0; round < 4; ++round) {
    const int leader = chaos.cluster.leader();
    REQUIRE(chaos.load->await_writes(200));
    chaos.fault("leader killed, and started at once");
    chaos.cluster.kill(leader);
    chaos.cluster.start(leader);
    REQUIRE(chaos.load->await_writes(100));
    REQUIRE(chaos.cluster.settled());
  }
  chaos.finish();
  const auto values = chaos.load->values(chaos.cluster);
  std::set<int> led;
  for (int round = 0; round < 20 && led.size() < 3; ++round) {
    const int leader = chaos.cluster.leader();
    CHECK(chaos.load->values(chaos.cluster) == values);
    led.insert(leader);
    chaos.cluster.kill(leader);
    (void)chaos.cluster.leader_after(leader);
    chaos.cluster.start(leader);
    REQUIRE(chaos.cluster.settled());
  }
  CHECK(led.size() == 3);
  report(values.size(), " keys have the same values whichever node leads");
}

TEST_CASE("chaos 8, full restart: all killed -9 at once under load, all data there", "[chaos]") {
  Chaos chaos;
  chaos.start_transactions();
  for (int round = 0; round < 2; ++round) {
    REQUIRE(chaos.load->await_writes(300));
    chaos.fault("all nodes killed");
    chaos.cluster.kill(chaos.cluster.nodes());
    const auto begin = SteadyClock::now();
    chaos.cluster.start_all();
    CHECK(chaos.load->await_writes(1, 2 * kFailover - since(begin)));
    report("writes again ", since(begin).count(), " ms after the start");
  }
  chaos.finish();
}

TEST_CASE("chaos 9, 100 ms network latency: available, and a leader can be replaced", "[chaos]") {
  Chaos chaos;
  chaos.start_transactions();
  const int leader = chaos.cluster.leader();
  chaos.fault("every message takes 100 ms");
  Unnoticed unnoticed(chaos);
  chaos.network.set_all({.delay = 100ms});
  REQUIRE(chaos.load->await_writes(170));
  unnoticed.check("100 ms each way");
  chaos.fault("leader killed meanwhile");
  const auto begin = SteadyClock::now();
  chaos.cluster.kill(leader);
  // An attempt takes two round trips of 200 ms, and whoever else begins one meanwhile splits the vote.
  constexpr Milliseconds kSeveralElections = 5s;
  (void)check_fails_over(chaos, leader, begin, kSeveralElections);
  chaos.cluster.start(leader);
  chaos.finish();
}

TEST_CASE("chaos 9, a network that loses packets: slower, available", "[chaos]") {
  Chaos chaos;
  chaos.start_transactions();
  chaos.fault("one read of a socket in ten has to be sent again");
  const auto begin = SteadyClock::now();
  chaos.network.set_all({.delay = 5ms, .loss_permille = 100});
  REQUIRE(chaos.load->await_writes(300, 30s));
  check_served(chaos, begin, kFailover, "one read in ten sent again");
  chaos.finish();
}

// When a node wrote its last line, by its own clock.
std::chrono::seconds last_logged(const Cluster& cluster, int node) {
  const std::string log = cluster.log(node);
  const std::string line = log.substr(log.rfind('\n', log.size() - 2) + 1);
  std::tm time{};
  REQUIRE(::strptime(line.c_str(), "%Y-%m-%dT%H:%M:%S", &time) != nullptr);
  return std::chrono::seconds(::timegm(&time));
}

TEST_CASE("chaos 11, clocks 30 s apart, and a leader's that jumps: unaffected", "[chaos]") {
  Chaos chaos({.started = false});
  const Clocks clocks(chaos.cluster);
  for (const int node : chaos.cluster.nodes()) {
    chaos.cluster.set_variables(node, clocks.variables(node));
  }
  clocks.set(1, 30s);
  clocks.set(2, -30s);
  chaos.start();
  chaos.start_transactions(&clocks);
  const auto apart = last_logged(chaos.cluster, 1) - last_logged(chaos.cluster, 2);
  CHECK(apart > 50s);  // the nodes do see those clocks
  const int leader = chaos.cluster.leader();
  Unnoticed unnoticed(chaos);
  for (const auto skew : {30s, -30s, 60s, -3600s, 0s}) {
    chaos.fault("the leader's clock jumps");
    clocks.set(leader, skew);
    REQUIRE(chaos.load->await_writes(150));
  }
  unnoticed.check("clocks that jump");
  chaos.finish();
}

// ---- Beyond the eleven ------------------------------------------------------------------------------------

TEST_CASE("chaos, the leader stands still for longer than its lease: no stale read after",
          "[chaos]") {
  Chaos chaos;
  chaos.start_transactions();
  for (int round = 0; round < 3; ++round) {
    const int leader = chaos.cluster.leader();
    chaos.fault("leader stopped by SIGSTOP");
    const auto begin = SteadyClock::now();
    chaos.cluster.pause(leader);
    (void)check_fails_over(chaos, leader, begin, kSilentFailover);
    REQUIRE(chaos.load->await_writes(200));
    // Requests wait in its sockets, and are the first thing it sees.
    chaos.cluster.resume(leader);
    REQUIRE(chaos.load->await_writes(100));
  }
  chaos.finish();
}

// The leader serves reads by the word of the follower that restarts, and of nobody else: the other one,
// cut off from it, asks for votes all the time. What the follower promised before it died, it keeps.
// Leases are long here, so that a process starts well within one.
TEST_CASE("chaos, a follower restarted within the lease keeps its promise", "[chaos]") {
  constexpr Milliseconds kLease = 1700ms;
  constexpr Milliseconds kLongestElection = 2 * 3000ms + kSilentFailover;
  Chaos chaos({.settings = {{"raft.vote_withhold_ms", "2000"},
                            {"raft.lease_ms", std::to_string(kLease.count())},
                            {"raft.election_timeout_min_ms", "2000"},
                            {"raft.election_timeout_max_ms", "3000"}}});
  for (int round = 0; round < 3; ++round) {
    const int leader = chaos.cluster.leader();
    const std::vector<int> followers = chaos.cluster.others(leader);
    // Without writes: the log of the one who asks for votes is as good as any.
    chaos.load->only_read(true);
    REQUIRE(chaos.cluster.settled());
    chaos.fault("the leader and a follower don't reach each other");
    chaos.network.cut_pair(leader, followers[0]);
    REQUIRE(eventually(10s, [&] { return role(chaos, followers[0]) == "pre-candidate"; }));
    // It asks again 2 to 3 s later: that shall fall into what is left of the lease.
    const auto asked = SteadyClock::now();
    REQUIRE(eventually(2s, [&] { return since(asked) > 1300ms; }));
    chaos.fault("the other follower killed and started, the leader isolated");
    chaos.cluster.kill(followers[1]);
    chaos.network.isolate(leader);
    const auto begin = SteadyClock::now();
    chaos.cluster.start(followers[1]);
    chaos.load->only_read(false);
    REQUIRE(
        eventually(kLease, [&] { return chaos.cluster.info(followers[1], "raft").has_value(); }));
    report("the follower is back after ", since(begin).count(), " ms");
    CHECK(since(begin) < kLease);
    (void)check_fails_over(chaos, leader, begin, kLongestElection);
    CHECK(since(begin) > kLease);
    REQUIRE(chaos.load->await_writes(100));
    chaos.network.heal();
    REQUIRE(chaos.cluster.settled());
  }
  chaos.finish();
}

TEST_CASE("chaos, rolling restarts: each node ends in order and comes back", "[chaos]") {
  Chaos chaos;
  chaos.start_transactions();
  const auto begin = SteadyClock::now();
  for (const int node : chaos.cluster.nodes()) {
    chaos.fault("orderly restart");
    chaos.cluster.process(node).terminate();
    CHECK(chaos.cluster.process(node).wait(10s) == ExitStatus{0, 0});
    chaos.cluster.start(node);
    REQUIRE(chaos.cluster.settled());
    REQUIRE(chaos.load->await_writes(100));
  }
  check_served(chaos, begin, kFailover, "each node restarted in turn");
  chaos.finish();
}

TEST_CASE("chaos, a follower that was cut off for long comes back and deposes nobody", "[chaos]") {
  Chaos chaos;
  chaos.start_transactions();
  const int follower = chaos.cluster.followers().front();
  Unnoticed unnoticed(chaos);
  for (int round = 0; round < 2; ++round) {
    chaos.fault("follower isolated");
    chaos.network.isolate(follower);
    // Until it tries to be elected.
    REQUIRE(eventually(5s, [&] { return role(chaos, follower) == "pre-candidate"; }));
    REQUIRE(chaos.load->await_writes(500));
    chaos.network.heal();
    REQUIRE(chaos.cluster.settled());
  }
  unnoticed.check("a follower cut off twice");
  chaos.finish();
}

TEST_CASE("chaos, links that flap and connections that break: writes go on", "[chaos]") {
  Chaos chaos;
  chaos.start_transactions();
  const auto begin = SteadyClock::now();
  for (int round = 0; round < 6; ++round) {
    chaos.fault("all links of one node off and on");
    chaos.network.isolate(1 + round % 3);
    REQUIRE(chaos.load->await_writes(10));
    chaos.network.heal();
    REQUIRE(chaos.load->await_writes(30));
  }
  for (int round = 0; round < 6; ++round) {
    chaos.fault("all connections reset");
    chaos.network.reset(1, 2);
    chaos.network.reset(2, 3);
    chaos.network.reset(1, 3);
    REQUIRE(chaos.load->await_writes(50));
  }
  check_served(chaos, begin, 2 * kFailover, "links off and on, connections reset");
  chaos.finish();
}

TEST_CASE("chaos, founders that die while they found the cluster: it is founded", "[chaos]") {
  constexpr Milliseconds kFounded = 5s;
  Milliseconds longest{0};
  for (int round = 0; round < 5; ++round) {
    Cluster cluster;
    for (const int node : cluster.nodes()) {
      // Before, during and after the first election, which comes 500 to 1000 ms after the start.
      std::this_thread::sleep_for(150ms + round * 70ms);
      cluster.kill(node);
      cluster.start(node);
    }
    const auto begin = SteadyClock::now();
    CHECK(cluster.cluster_client(kFounded).ask("SET", "k", "v") == "+OK");
    longest = std::max(longest, since(begin));
    CHECK(cluster.settled());
  }
  report("5 clusters, 15 founders killed; serves at most ", longest.count(), " ms after the last");
}

TEST_CASE("chaos, five nodes: two die or are cut off, three go on", "[chaos]") {
  Chaos chaos({.nodes = 5});
  chaos.start_transactions();
  const int leader = chaos.cluster.leader();
  const std::vector<int> others = chaos.cluster.others(leader);
  chaos.fault("the leader and a follower killed");
  auto begin = SteadyClock::now();
  chaos.cluster.kill({leader, others[0]});
  const int next = check_fails_over(chaos, leader, begin);
  chaos.cluster.start(leader);
  chaos.cluster.start(others[0]);
  REQUIRE(chaos.cluster.settled());
  chaos.fault("the leader and a follower split off together");
  begin = SteadyClock::now();
  chaos.network.split_off({next, chaos.cluster.others(next).front()});
  (void)check_fails_over(chaos, next, begin, kSilentFailover);
  check_refuses_writes(chaos, next);
  chaos.finish();
}

}  // namespace
}  // namespace seshat::tests
