// Nothing that one client does grows a node without bound or reaches another client.
#include "harness.hpp"

namespace seshat::tests {
namespace {

// With one loop, and with two beside the heart.
std::string threads() { return GENERATE("1", "3"); }

TEST_CASE("the client beyond the maximum is told so, and another gets its place when one leaves") {
  Cluster cluster({.nodes = 1,
                   .settings = {{"limits.max_concurrent_client_connections", "10"},
                                {"node.threads", threads()}}});
  REQUIRE(cluster.cluster_client().ask("SET", "k", "v") == "+OK");
  std::vector<Client> clients;
  REQUIRE(eventually(5s, [&] {  // until the node has seen that the first one left
    clients.push_back(cluster.client(1));
    if (clients.back().ask("PING") != "+PONG") clients.pop_back();
    return clients.size() == 10;
  }));
  Client eleventh = cluster.client(1);
  CHECK(eleventh.receive() == "-ERR max number of clients reached");
  CHECK(eleventh.is_closed());
  for (Client& client : clients) CHECK(client.ask("GET", "k") == "v");
  clients.pop_back();
  CHECK(eventually(5s, [&] {
    try {
      return cluster.client(1).ask("PING") == "+PONG";
    } catch (const ConnectionError&) {
      return false;
    }
  }));
}

// Sends until the node does not take any more for a while, and so neither does the kernel.
std::size_t send_all_it_takes(const Client& client, const std::string& request, int at_most) {
  std::string bytes;
  for (int i = 0; i < at_most; ++i) bytes += request;
  std::size_t sent = 0;
  (void)eventually(2s, [&] {
    const ssize_t some =
        ::send(client.fd(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (some > 0) sent += static_cast<std::size_t>(some);
    return sent == bytes.size();
  });
  return sent;
}

TEST_CASE("clients that do not read their replies hold little of a node's memory and slow nobody") {
  Cluster cluster({.nodes = 1, .settings = {{"node.threads", threads()}}});
  ClusterClient other = cluster.cluster_client();
  const std::string value(65'536, 'v');
  REQUIRE(other.ask("SET", "large", value) == "+OK");
  const std::uint64_t before = cluster.figure(1, "memory", "used_memory_rss");
  std::vector<Client> silent;
  std::size_t sent = 0;
  const std::string get = Client::encoded({"GET", "large"});
  for (int i = 0; i < 5; ++i) {
    silent.push_back(cluster.client(1));
    // Were all replies kept, these would be 1.3 GB each.
    sent += send_all_it_takes(silent.back(), get, 20'000) / get.size();
    const auto start = SteadyClock::now();
    for (int n = 0; n < 20; ++n) REQUIRE(other.ask("SET", "k", "v") == "+OK");
    CHECK(since(start) < 1s);
  }
  const std::uint64_t after = cluster.figure(1, "memory", "used_memory_rss");
  const std::uint64_t grown_mb = after > before ? (after - before) >> 20 : 0;
  report(sent, " requests taken for replies of ", sent >> 4, " MB; the node grew by ", grown_mb,
         " MB");
  CHECK(grown_mb < 48);
  // Who reads at last gets everything, in order.
  for (int i = 0; i < 1000; ++i) REQUIRE(silent.front().receive() == value);
}

TEST_CASE("pipelines with more replies than a client may have waiting are answered to their end") {
  Cluster cluster({.nodes = 1, .settings = {{"node.threads", threads()}}});
  const std::string value(65'536, 'v');
  REQUIRE(cluster.cluster_client().ask("SET", "large", value) == "+OK");
  Client client = cluster.client(1);
  const std::vector<std::string> large =
      client.pipeline(std::vector<Arguments>(1000, {"GET", "large"}));
  CHECK(std::count(large.begin(), large.end(), value) == 1000);
  const std::vector<std::string> echoes =
      client.pipeline(std::vector<Arguments>(1000, {"ECHO", value}));
  CHECK(std::count(echoes.begin(), echoes.end(), value) == 1000);
  const std::vector<std::string> writes =
      client.pipeline(std::vector<Arguments>(1000, {"SET", "large", value}));
  CHECK(std::count(writes.begin(), writes.end(), "+OK") == 1000);
}

TEST_CASE("a client that declares much and sends little takes no memory") {
  Cluster cluster({.nodes = 1, .settings = {{"node.threads", threads()}}});
  REQUIRE(cluster.cluster_client().ask("PING") == "+PONG");
  const std::uint64_t before = cluster.figure(1, "memory", "used_memory_rss");
  std::vector<Client> clients;
  for (int i = 0; i < 200; ++i) {
    clients.push_back(cluster.client(1));
    clients.back().send_raw("*1000000\r\n$8000000\r\nx");
  }
  CHECK(cluster.client(1).ask("PING") == "+PONG");
  const std::uint64_t after = cluster.figure(1, "memory", "used_memory_rss");
  const std::uint64_t grown_mb = after > before ? (after - before) >> 20 : 0;
  report("200 clients that declared 8 MB each: the node grew by ", grown_mb, " MB");
  CHECK(grown_mb < 32);
}

}  // namespace
}  // namespace seshat::tests
