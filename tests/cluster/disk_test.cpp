// A disk that is slow, and one that fails. Shims stand in for both: slow_fsync_shim.c and
// failing_fsync_shim.c.
#include "harness.hpp"
#include "stall_watch.hpp"

namespace seshat::tests {
namespace {

const std::vector<std::string> kNone;

constexpr Milliseconds kDelay = 200ms;

Process::Variables slow_disk() {
  return {{"LD_PRELOAD", shim("slow_fsync")},
          {"SESHAT_FSYNC_DELAY_MS", std::to_string(kDelay.count())}};
}

// Three nodes whose disks become slow, under load: the longest turn of any loop, in microseconds.
std::uint64_t longest_turn_with_slow_disks() {
  constexpr int kClients = 32;
  constexpr int kWrites = 600;
  const TempDir dir;
  const std::filesystem::path slow = dir.path() / "disks-are-slow";
  Process::Variables variables = slow_disk();
  variables["SESHAT_FSYNC_DELAY_WHILE"] = slow.string();
  Cluster cluster({.variables = variables});
  const int leader = cluster.leader();
  REQUIRE(cluster.settled());
  const std::uint64_t term = cluster.figure(leader, "raft", "raft_group_1_term");
  write_text(slow, "");
  const auto start = SteadyClock::now();
  Writers writers(cluster, kClients);
  REQUIRE(writers.await_more(kWrites, 30s));
  const Milliseconds taken = since(start);
  writers.stop();
  CHECK(taken > (kWrites / kClients - 1) * kDelay);  // the disks were slow indeed
  CHECK(cluster.leader() == leader);
  CHECK(cluster.figure(leader, "raft", "raft_group_1_term") == term);
  CHECK(writers.unknown_count() == 0);
  CHECK(writers.surprises() == kNone);
  std::uint64_t longest_us = 0;
  for (const int node : cluster.nodes()) {
    longest_us = std::max(longest_us, cluster.figure(node, "stats", "longest_loop_turn_us"));
  }
  report(kClients, " clients: ", writers.acknowledged_count(), " writes in ", taken.count(),
         " ms; the longest turn of a loop took ", longest_us, " us");
  return longest_us;
}

// A loop that waited for a disk would do so each time; one that waited for a processor, because other
// programs had them all, hardly three times in a row, or when a thread that only slept came as late.
TEST_CASE("with every fsync 200 ms late, no turn of a loop takes 20 ms and nobody is deposed") {
  StallWatch stalls(StallWatch::Where::kOnEach);
  bool under_20_ms = false;
  int counted = 0;
  for (int i = 0; i < 10 && counted < 3 && !under_20_ms; ++i) {
    (void)stalls.take();
    const std::uint64_t longest_us = longest_turn_with_slow_disks();
    const Milliseconds late = stalls.take();
    report("the machine stood still for at most ", late.count(), " ms");
    under_20_ms = longest_us < 20'000;
    if (late < std::chrono::microseconds(longest_us)) ++counted;
  }
  CHECK(under_20_ms);
}

TEST_CASE("a follower whose fsync is 200 ms late slows nobody: the others are a majority") {
  Cluster cluster;
  const int leader = cluster.leader();
  const int slow = cluster.others(leader).front();
  cluster.kill(slow);
  cluster.set_variables(slow, slow_disk());
  cluster.start(slow);
  REQUIRE(cluster.caught_up());
  Client client = cluster.client(leader);
  const auto start = SteadyClock::now();
  for (int i = 0; i < 100; ++i) {
    REQUIRE(client.ask("SET", "k" + std::to_string(i), "v") == "+OK");
  }
  const Milliseconds taken = since(start);
  report("100 writes after each other: ", taken.count(), " ms");
  CHECK(taken < 100 * 100ms);
  CHECK(cluster.caught_up());
}

// ---- A disk that fails ----------------------------------------------------------------------------------

// The disk of `node` fails once this file exists.
std::filesystem::path failure_of(const TempDir& dir, int node) {
  return dir.path() / ("disk-of-node-" + std::to_string(node) + "-fails");
}

void give_failing_disks(Cluster& cluster, const TempDir& dir) {
  for (const int node : cluster.nodes()) {
    cluster.set_variables(node, {{"LD_PRELOAD", shim("failing_fsync")},
                                 {"SESHAT_FSYNC_FAILS_IF", failure_of(dir, node).string()}});
  }
  cluster.start_all();
}

TEST_CASE(
    "a node whose fsync fails ends with code 1 and says why; the others go on, nothing is lost") {
  const TempDir dir;
  Cluster cluster({.started = false});
  give_failing_disks(cluster, dir);
  const int leader = cluster.leader();
  const bool leader_fails = GENERATE(true, false);
  const int failing = leader_fails ? leader : cluster.others(leader).front();
  Writers writers(cluster);
  REQUIRE(writers.await_more(500));
  const auto start = SteadyClock::now();
  write_text(failure_of(dir, failing), "");
  CHECK(cluster.process(failing).wait(5s) == ExitStatus{1, 0});
  const Milliseconds ended = since(start);
  CHECK_THAT(cluster.log(failing),
             ContainsSubstring("storage failure") && ContainsSubstring("Input/output error"));
  REQUIRE(cluster.cluster_client().ask("SET", "after", "the failure") == "+OK");
  report(leader_fails ? "the leader" : "a follower", " ended after ", ended.count(),
         " ms; writes were acknowledged again after ", since(start).count(), " ms");
  REQUIRE(writers.await_more(500));
  writers.stop();
  CHECK(lost(cluster, writers.acknowledged()) == kNone);
  CHECK(writers.surprises() == kNone);
  // With a disk that works it comes back and catches up.
  cluster.set_variables(failing, {});
  cluster.start(failing);
  CHECK(cluster.caught_up());
}

TEST_CASE("a write that is in flight when the disk fails gets 'outcome unknown', no '+OK'") {
  // A sync that takes a second, and fails at its end.
  const TempDir dir;
  const std::filesystem::path slow = dir.path() / "disk-is-slow";
  const std::string threads = GENERATE("1", "3");  // one loop; two beside the heart
  Cluster cluster({.nodes = 1, .started = false, .settings = {{"node.threads", threads}}});
  cluster.set_variables(1, {{"LD_PRELOAD", shim("slow_fsync") + ":" + shim("failing_fsync")},
                            {"SESHAT_FSYNC_DELAY_MS", "1000"},
                            {"SESHAT_FSYNC_DELAY_WHILE", slow.string()},
                            {"SESHAT_FSYNC_FAILS_IF", failure_of(dir, 1).string()}});
  cluster.start_all();
  REQUIRE(cluster.cluster_client().ask("SET", "before", "the failure") == "+OK");
  Client client = cluster.client(1);
  write_text(slow, "");
  client.send({"SET", "in", "flight"});
  REQUIRE(eventually(
      2s, [&] { return cluster.figure(1, "raft", "raft_group_1_waiting_requests") == 1; }));
  write_text(failure_of(dir, 1), "");
  CHECK_THAT(client.receive(), StartsWith("-ERR outcome unknown: "));
  CHECK(client.is_closed());
  CHECK(cluster.process(1).wait(5s) == ExitStatus{1, 0});
  cluster.set_variables(1, {});
  cluster.start(1);
  CHECK(cluster.cluster_client().ask("GET", "before") == "the failure");
}

}  // namespace
}  // namespace seshat::tests
