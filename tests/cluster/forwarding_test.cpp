// Clients of nodes that do not lead: commands that are forwarded, and reads on followers.
#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "harness.hpp"

namespace seshat::tests {
namespace {

ClusterOptions forwarding() { return {.settings = {{"client.on_follower", "\"forward\""}}}; }

// A node that follows, and hears its leader.
int follower_of(Cluster& cluster) { return cluster.others(cluster.leader()).front(); }

bool is_refusal(const std::string& reply) {
  return reply.starts_with("-MOVED") || reply.starts_with("-CLUSTERDOWN") ||
         reply.starts_with("-NOQUORUM");
}

std::optional<Client> connected(Cluster& cluster, int node) {
  try {
    return cluster.client(node);
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

// Until it is served: nodes that just started know no leader yet.
std::string ask_until_served(Client& client, const Arguments& request) {
  std::string reply;
  (void)eventually(20s, [&] { return !is_refusal(reply = client.pipeline({request}).front()); });
  return reply;
}

}  // namespace

TEST_CASE("where commands are forwarded, a plain client works on any node") {
  Cluster cluster(forwarding());
  (void)cluster.leader();
  for (const int node : cluster.nodes()) {
    Client client = cluster.client(node);
    const std::string key = "{" + std::to_string(node) + "}";
    CHECK(ask_until_served(client, {"SET", key, "1"}) == "+OK");
    CHECK(client.ask("GET", key) == "1");
    CHECK(client.ask("INCRBY", key, "41") == ":42");
    CHECK(client.ask("MSET", key + "a", "1", key + "b", std::string(65'536, 'b')) == "+OK");
    CHECK(client.ask("STRLEN", key + "b") == ":65536");
    CHECK(client.ask("GET", key + "b") == std::string(65'536, 'b'));
    CHECK(client.ask("DEL", key + "a", key + "b", key + "c") == ":2");
    CHECK(client.ask("SET", key, "x", "GET") == "42");
    CHECK(client.ask("INCR", key) == "-ERR value is not an integer or out of range");
    CHECK(client.ask("SET", key + "t", "v", "PX", "100") == "+OK");
    CHECK(eventually(5s, [&] { return client.ask("GET", key + "t") == "(nil)"; }));
    CHECK(client.ask("WATCH", key) == "+OK");
    CHECK(client.ask("MULTI") == "+OK");
    CHECK(client.ask("SET", key, "y") == "+QUEUED");
    CHECK(client.ask("PING") == "+QUEUED");
    CHECK(client.ask("GET", key) == "+QUEUED");
    CHECK(client.ask("EXEC") == "+OK +PONG y");
    CHECK(client.ask("WATCH", key) == "+OK");
    Client other = cluster.client(cluster.others(node).front());
    CHECK(other.ask("SET", key, "z") == "+OK");
    CHECK(client.ask("MULTI") == "+OK");
    CHECK(client.ask("SET", key, "lost") == "+QUEUED");
    CHECK(client.ask("EXEC") == "(nil)");
    CHECK(client.ask("GET", key) == "z");
  }
  Client client = cluster.client(follower_of(cluster));
  CHECK(eventually(5s, [&] { return client.ask("DBSIZE") == ":3"; }));  // not the expired ones
  CHECK(client.ask("FLUSHALL") == "+OK");
  CHECK(client.ask("DBSIZE") == ":0");
}

TEST_CASE("a pipeline that is forwarded is served in order, each read after the writes before it") {
  Cluster cluster(forwarding());
  Client client = cluster.client(follower_of(cluster));
  REQUIRE(ask_until_served(client, {"SET", "n", "0"}) == "+OK");
  std::vector<Arguments> requests;
  std::vector<std::string> expected;
  for (int i = 1; i <= 500; ++i) {
    requests.push_back({"INCR", "n"});
    expected.push_back(":" + std::to_string(i));
    requests.push_back({"GET", "n"});
    expected.push_back(std::to_string(i));
    requests.push_back({"SET", "k", std::to_string(i)});
    expected.emplace_back("+OK");
    requests.push_back({"MGET", "n", "k"});
    expected.push_back(std::to_string(i) + " " + std::to_string(i));
  }
  CHECK(client.pipeline(requests) == expected);
}

TEST_CASE("what is forwarded while leaders are killed is done once, or nobody knows") {
  Cluster cluster(forwarding());
  std::atomic<bool> stopping{false};
  std::atomic<int> acknowledged{0};
  std::atomic<int> unknown{0};
  std::vector<std::thread> clients;
  for (const int node : cluster.nodes()) {
    clients.emplace_back([&, node] {
      std::optional<Client> client;
      while (!stopping) {
        if (!client) client = connected(cluster, node);
        if (!client) continue;
        try {
          const std::string reply = client->ask("INCR", "counter");
          acknowledged += reply.starts_with(":") ? 1 : 0;
          unknown += reply.starts_with("-ERR ") ? 1 : 0;
        } catch (const std::exception&) {
          client.reset();
          ++unknown;
        }
      }
    });
  }
  for (int round = 0; round < 3; ++round) {
    const int before = acknowledged;
    CHECK(eventually(20s, [&] { return acknowledged > before + 500; }));
    const int leader = cluster.leader();
    cluster.kill(leader);
    const int killed = acknowledged;
    CHECK(eventually(20s, [&] { return acknowledged > killed + 100; }));
    cluster.start(leader);
  }
  stopping = true;
  for (std::thread& client : clients) client.join();
  Client client = cluster.client(cluster.leader());
  const int counter = std::stoi(client.ask("GET", "counter"));
  report(acknowledged.load(), " acknowledged, ", unknown.load(), " unknown, ", counter, " counted");
  CHECK(counter >= acknowledged);
  CHECK(counter <= acknowledged + unknown);
}

TEST_CASE("what was forwarded to a leader that stands still is a timeout, in time") {
  ClusterOptions options = forwarding();
  options.settings["limits.raft_rpc_timeout_secs"] = "1";
  options.settings["raft.election_timeout_min_ms"] = "3000";
  options.settings["raft.election_timeout_max_ms"] = "4000";
  Cluster cluster(options);
  const int leader = cluster.leader();
  Client client = cluster.client(cluster.others(leader).front());
  REQUIRE(ask_until_served(client, {"SET", "k", "1"}) == "+OK");
  cluster.pause(leader);
  const auto began = SteadyClock::now();
  const std::string reply = client.ask("SET", "k", "2");
  CHECK(SteadyClock::now() - began < 3s);
  CHECK((reply == "-ERR timeout" || reply.starts_with("-ERR outcome unknown")));
  cluster.resume(leader);
  CHECK(ask_until_served(client, {"SET", "k", "3"}) == "+OK");
  CHECK(client.ask("GET", "k") == "3");
}

TEST_CASE("READONLY on a follower: its own copy, and never less than was acknowledged") {
  Cluster cluster;
  const int leader = cluster.leader();
  Client writer = cluster.client(leader);
  REQUIRE(writer.ask("SET", "k", "0") == "+OK");
  std::vector<Client> readers;
  for (const int follower : cluster.others(leader)) {
    Client reader = cluster.client(follower);
    CHECK_THAT(reader.ask("GET", "k"), StartsWith("-MOVED "));
    CHECK(reader.ask("READONLY") == "+OK");
    CHECK(ask_until_served(reader, {"GET", "k"}) == "0");
    readers.push_back(std::move(reader));
  }
  for (int i = 1; i <= 300; ++i) {
    const std::string value = std::to_string(i);
    REQUIRE(writer.ask("SET", "k", value) == "+OK");
    for (Client& reader : readers) REQUIRE(reader.ask("GET", "k") == value);
  }
  for (Client& reader : readers) {
    CHECK(reader.ask("DBSIZE") == ":1");
    CHECK(reader.ask("KEYS", "*") == "k");
    CHECK_THAT(reader.ask("SET", "k", "x"), StartsWith("-MOVED "));
    CHECK(reader.ask("READWRITE") == "+OK");
    CHECK_THAT(reader.ask("GET", "k"), StartsWith("-MOVED "));
  }
}

TEST_CASE("a key whose time is over is over on every follower") {
  Cluster cluster;
  const int leader = cluster.leader();
  Client writer = cluster.client(leader);
  Client reader = cluster.client(cluster.others(leader).front());
  CHECK(reader.ask("READONLY") == "+OK");
  for (int i = 0; i < 40; ++i) {
    const std::string key = "k" + std::to_string(i);
    REQUIRE(writer.ask("SET", key, "v", "PX", "20") == "+OK");
    // Whoever says first that it is gone: nobody returns it after that.
    Client& first = i % 2 == 0 ? writer : reader;
    Client& second = i % 2 == 0 ? reader : writer;
    CHECK(eventually(5s, [&] { return ask_until_served(first, {"GET", key}) == "(nil)"; }));
    CHECK(second.ask("GET", key) == "(nil)");
    CHECK(second.ask("PTTL", key) == ":-2");
  }
}

TEST_CASE("a follower that does not hear the leader serves no linearizable read, and a stale one") {
  for (const bool stale : {false, true}) {
    Cluster cluster(
        {.settings = {{"client.follower_reads", stale ? "\"stale\"" : "\"linearizable\""}}});
    const int leader = cluster.leader();
    REQUIRE(cluster.client(leader).ask("SET", "k", "v") == "+OK");
    Client reader = cluster.client(cluster.others(leader).front());
    CHECK(reader.ask("READONLY") == "+OK");
    CHECK(eventually(10s, [&] { return reader.ask("GET", "k") == "v"; }));
    cluster.kill({leader, cluster.others(leader).back()});
    if (stale) {
      for (int i = 0; i < 20; ++i) CHECK(reader.ask("GET", "k") == "v");
      CHECK_FALSE(reader.ask("SET", "k", "w").starts_with("+"));
      CHECK(reader.ask("READWRITE") == "+OK");
    }
    CHECK(eventually(10s, [&] { return reader.ask("GET", "k").starts_with("-NOQUORUM"); }));
  }
}

TEST_CASE("with follower reads off, READONLY changes nothing") {
  Cluster cluster({.settings = {{"client.follower_reads", "\"off\""}}});
  Client reader = cluster.client(follower_of(cluster));
  CHECK(reader.ask("READONLY") == "+OK");
  CHECK(eventually(10s, [&] { return reader.ask("GET", "k").starts_with("-MOVED "); }));
}

}  // namespace seshat::tests
