// Transactions, watched keys and times to live on real processes, while leaders are killed.
#include <atomic>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "clocks.hpp"
#include "harness.hpp"

namespace seshat::tests {
namespace {

// A client at the leader; after a lost connection or a refusal, at the next one.
class AtLeader {
 public:
  explicit AtLeader(Cluster& cluster) : cluster_(cluster) {}

  // nullopt: it was not served, or nobody can say.
  std::optional<std::vector<std::string>> pipeline(const std::vector<Arguments>& requests) {
    try {
      if (!client_) client_.emplace(cluster_.client(cluster_.leader()));
      return client_->pipeline(requests);
    } catch (const std::exception&) {
      client_.reset();
      return std::nullopt;
    }
  }
  void move_on() { client_.reset(); }

 private:
  Cluster& cluster_;
  std::optional<Client> client_;
};

constexpr int kAccounts = 8;
constexpr int kStart = 1000;

std::string account(int number) { return "account:" + std::to_string(number); }

// Reads two accounts under WATCH and moves 1 from one to the other. True: it was acknowledged.
bool transfer(AtLeader& leader, int from, int to) {
  const auto read = leader.pipeline(
      {{"WATCH", account(from), account(to)}, {"GET", account(from)}, {"GET", account(to)}});
  if (!read || (*read)[0] != "+OK" || (*read)[1].starts_with("-") || (*read)[2].starts_with("-")) {
    leader.move_on();
    return false;
  }
  const auto written =
      leader.pipeline({{"MULTI"},
                       {"SET", account(from), std::to_string(std::stoi((*read)[1]) - 1)},
                       {"SET", account(to), std::to_string(std::stoi((*read)[2]) + 1)},
                       {"EXEC"}});
  if (!written || (*written)[3].starts_with("-")) {
    leader.move_on();
    return false;
  }
  return (*written)[3].find("OK") != std::string::npos;
}

}  // namespace

TEST_CASE("money that is moved under WATCH is neither made nor lost, whoever is killed") {
  Cluster cluster;
  {
    ClusterClient client = cluster.cluster_client();
    for (int i = 0; i < kAccounts; ++i) {
      REQUIRE(client.ask("SET", account(i), std::to_string(kStart)) == "+OK");
    }
  }
  std::atomic<bool> stopping{false};
  std::atomic<int> moved{0};
  std::vector<std::thread> tellers;
  for (int teller = 0; teller < 4; ++teller) {
    tellers.emplace_back([&, teller] {
      AtLeader leader(cluster);
      for (int i = teller; !stopping; ++i) {
        if (transfer(leader, i % kAccounts, (i + 1 + teller % 3) % kAccounts)) ++moved;
      }
    });
  }
  for (int round = 0; round < 3; ++round) {
    const int before = moved;
    CHECK(eventually(20s, [&] { return moved > before + 100; }));
    const int leader = cluster.leader();
    cluster.kill(leader);
    const int killed = moved;
    CHECK(eventually(20s, [&] { return moved > killed + 20; }));
    cluster.start(leader);
  }
  stopping = true;
  for (std::thread& teller : tellers) teller.join();
  ClusterClient client = cluster.cluster_client();
  int total = 0;
  for (int i = 0; i < kAccounts; ++i) total += std::stoi(client.ask("GET", account(i)));
  report(moved.load(), " transfers acknowledged");
  CHECK(total == kAccounts * kStart);
}

TEST_CASE("increments are counted once each, whoever is killed") {
  Cluster cluster;
  std::atomic<bool> stopping{false};
  std::atomic<int> acknowledged{0};
  std::atomic<int> unknown{0};
  std::vector<std::thread> clients;
  for (int number = 0; number < 4; ++number) {
    clients.emplace_back([&] {
      ClusterClient client = cluster.cluster_client();
      while (!stopping) {
        const auto reply = client.try_once({"INCR", "counter"});
        if (!reply) {
          ++unknown;
        } else if (!reply->starts_with("-")) {
          ++acknowledged;
        }
      }
    });
  }
  for (int round = 0; round < 2; ++round) {
    const int before = acknowledged;
    CHECK(eventually(20s, [&] { return acknowledged > before + 500; }));
    const int leader = cluster.leader();
    cluster.kill(leader);
    cluster.start(leader);
  }
  stopping = true;
  for (std::thread& client : clients) client.join();
  const int counter = std::stoi(cluster.cluster_client().ask("GET", "counter"));
  report(acknowledged.load(), " acknowledged, ", unknown.load(), " unknown, ", counter, " counted");
  CHECK(counter >= acknowledged);
  CHECK(counter <= acknowledged + unknown);
}

TEST_CASE(
    "what has expired stays gone under the next leader, and under one whose clock is behind") {
  for (const auto skew : {0s, -30s}) {
    Cluster cluster({.started = false});
    const Clocks clocks(cluster);
    for (const int node : cluster.nodes()) cluster.set_variables(node, clocks.variables(node));
    cluster.start_all();
    ClusterClient client = cluster.cluster_client();
    REQUIRE(client.ask("SET", "short", "1", "PX", "300") == "+OK");
    REQUIRE(client.ask("SET", "long", "1", "EX", "1000") == "+OK");
    REQUIRE(eventually(10s, [&] { return client.ask("GET", "short") == "(nil)"; }));
    const int leader = cluster.leader();
    for (const int node : cluster.others(leader)) clocks.set(node, skew);
    cluster.kill(leader);
    CHECK(client.ask("GET", "short") == "(nil)");
    CHECK(client.ask("PTTL", "short") == ":-2");
    CHECK(client.ask("GET", "long") == "1");
    const std::string left = client.ask("TTL", "long");
    REQUIRE(left.starts_with(":"));
    CHECK(std::stoi(left.substr(1)) > 900);
    CHECK(std::stoi(left.substr(1)) <= 1030);
    REQUIRE(client.ask("SET", "short", "2", "PX", "300", "NX") == "+OK");
    CHECK(eventually(10s, [&] { return client.ask("EXISTS", "short") == ":0"; }));
  }
}

TEST_CASE("SCAN returns what is there all the while, across a change of leader") {
  Cluster cluster;
  ClusterClient client = cluster.cluster_client();
  constexpr int kKeys = 300;
  for (int i = 0; i < kKeys; ++i) {
    REQUIRE(client.ask("SET", "stays:" + std::to_string(i), "1") == "+OK");
  }
  std::set<std::string> seen;
  std::string cursor = "0";
  for (int call = 0; call == 0 || cursor != "0"; ++call) {
    REQUIRE(call < 200);
    if (call == 5) cluster.kill(cluster.leader());
    REQUIRE(client.ask("SET", "comes:" + std::to_string(call), "1") == "+OK");
    Client at_leader = cluster.client(cluster.leader());
    at_leader.send({"SCAN", cursor, "COUNT", "20", "MATCH", "stays:*"});
    const resp::Value reply = at_leader.receive_value();
    REQUIRE(reply.elements.size() == 2);
    cursor = reply.elements[0].text;
    for (const resp::Value& key : reply.elements[1].elements) {
      CHECK(seen.insert(key.text).second);  // nothing moved, so nothing comes twice
    }
  }
  CHECK(seen.size() == kKeys);
}

}  // namespace seshat::tests
