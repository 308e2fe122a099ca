// SIGTERM: a node that leaves in good order is hardly noticed.
#include "harness.hpp"

namespace seshat::tests {
namespace {

const std::vector<std::string> kNone;

// With one loop, and with two beside the heart.
std::string threads() { return GENERATE("1", "3"); }

TEST_CASE(
    "SIGTERM to the leader under load: exit 0, leadership handed over, every write has an end") {
  Cluster cluster({.settings = {{"node.threads", threads()}}});
  REQUIRE(cluster.caught_up());
  const int leader = cluster.leader();
  Writers writers(cluster);
  REQUIRE(writers.await_more(1000));
  const auto start = SteadyClock::now();
  cluster.process(leader).terminate();
  CHECK(cluster.process(leader).wait(5s) == ExitStatus{0, 0});
  const Milliseconds exited = since(start);
  CHECK(cluster.leader_after(leader) != leader);
  const Milliseconds led = since(start);
  REQUIRE(writers.await_more(500));
  report("exit after ", exited.count(), " ms, another leader seen after ", led.count(),
         " ms, 500 more writes after ", since(start).count(), " ms");
  // An election that nobody was asked to start takes 500 ms and more.
  CHECK(led < 1s);
  writers.stop();
  CHECK(writers.unknown_count() == 0);
  CHECK(writers.surprises() == kNone);
  CHECK(lost(cluster, writers.acknowledged()) == kNone);
}

TEST_CASE("SIGTERM to a follower disturbs no write and no leader") {
  Cluster cluster;
  const int leader = cluster.leader();
  REQUIRE(cluster.caught_up());
  const std::uint64_t term = cluster.figure(leader, "raft", "raft_group_1_term");
  const int follower = cluster.others(leader).front();
  Writers writers(cluster);
  REQUIRE(writers.await_more(500));
  cluster.process(follower).terminate();
  CHECK(cluster.process(follower).wait(5s) == ExitStatus{0, 0});
  REQUIRE(writers.await_more(500));
  writers.stop();
  CHECK(cluster.leader() == leader);
  CHECK(cluster.figure(leader, "raft", "raft_group_1_term") == term);
  CHECK(writers.unknown_count() == 0);
  CHECK(writers.surprises() == kNone);
}

TEST_CASE("a pipeline under way at SIGTERM: what was done is told, the rest was not done") {
  Cluster cluster({.settings = {{"node.threads", threads()}}});
  REQUIRE(cluster.caught_up());
  const int leader = cluster.leader();
  Client client = cluster.client(leader);
  constexpr int kRequests = 20'000;
  std::string bytes;
  for (int i = 0; i < kRequests; ++i) {
    bytes += Client::encoded({"SET", "p" + std::to_string(i), "v"});
  }
  client.send_raw(bytes);
  REQUIRE(client.receive() == "+OK");
  cluster.process(leader).terminate();
  std::vector<std::string> replies = {"+OK"};
  try {
    while (replies.size() < kRequests) replies.push_back(client.receive());
  } catch (const ConnectionError&) {  // it may leave before it has read all of this
  }
  CHECK(cluster.process(leader).wait(5s) == ExitStatus{0, 0});
  const auto is_done = [](const std::string& reply) { return reply == "+OK"; };
  const auto first_refused = std::find_if_not(replies.begin(), replies.end(), is_done);
  const auto done = static_cast<int>(first_refused - replies.begin());
  for (auto reply = first_refused; reply != replies.end(); ++reply) {
    REQUIRE((reply->starts_with("-CLUSTERDOWN ") || reply->starts_with("-MOVED ")));
  }
  report(done, " of ", kRequests, " were done, ", replies.size() - static_cast<std::size_t>(done),
         " refused, ", kRequests - replies.size(), " not answered");
  ClusterClient after = cluster.cluster_client();
  CHECK(after.ask("GET", "p" + std::to_string(done - 1)) == "v");
  CHECK(after.ask("EXISTS", "p" + std::to_string(done)) == ":0");
}

TEST_CASE("a node alone that gets SIGTERM keeps what it acknowledged") {
  Cluster cluster({.nodes = 1, .settings = {{"node.threads", threads()}}});
  Writers writers(cluster);
  REQUIRE(writers.await_more(500));
  cluster.process(1).terminate();
  CHECK(cluster.process(1).wait(5s) == ExitStatus{0, 0});
  writers.stop();
  cluster.start(1);
  CHECK(lost(cluster, writers.acknowledged()) == kNone);
}

}  // namespace
}  // namespace seshat::tests
