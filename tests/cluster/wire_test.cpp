// What a client of a three-node cluster sees: replies and errors, word for word, on every node.
#include "harness.hpp"

namespace seshat::tests {
namespace {

// What redis-cli prints; `arguments` as in `redis-cli ARGUMENTS`.
std::string redis_cli(Port port, const Arguments& arguments) {
  Arguments command = {"redis-cli", "--no-auth-warning", "-p", std::to_string(port)};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const Finished finished = run(command, 10s);
  CHECK(finished.status == ExitStatus{0, 0});
  const std::size_t end = finished.output.find_last_not_of('\n');
  return finished.output.substr(0, end + 1);
}

// One cluster for all tests of this file, for none of them harms it: started when it is first asked
// for, every node of it ready.
Cluster& cluster() {
  static Cluster shared;
  static const bool ready = shared.caught_up();
  REQUIRE(ready);
  return shared;
}

TEST_CASE("redis-cli: PING, SET, GET, DEL and EXISTS, PING on each node") {
  for (const int node : cluster().nodes()) {
    CHECK(redis_cli(cluster().port(node), {"PING"}) == "PONG");
    CHECK(redis_cli(cluster().port(node), {"PING", "hello there"}) == "hello there");
  }
  const Port leader = cluster().port(cluster().leader());
  CHECK(redis_cli(leader, {"SET", "cli", "a value"}) == "OK");
  CHECK(redis_cli(leader, {"GET", "cli"}) == "a value");
  CHECK(redis_cli(leader, {"EXISTS", "cli", "cli", "none"}) == "2");
  CHECK(redis_cli(leader, {"DEL", "cli", "none"}) == "1");
  CHECK(redis_cli(leader, {"GET", "cli"}).empty());
}

TEST_CASE("redis-cli -c works on every node, whoever leads") {
  for (const int node : cluster().nodes()) {
    const Port port = cluster().port(node);
    const std::string value = "by way of " + std::to_string(node);
    CHECK_THAT(redis_cli(port, {"-c", "SET", "moved", value}), EndsWith("OK"));
    CHECK_THAT(redis_cli(port, {"-c", "GET", "moved"}), EndsWith(value));
    CHECK_THAT(redis_cli(port, {"-c", "EXISTS", "moved"}), EndsWith("1"));
    CHECK_THAT(redis_cli(port, {"-c", "DEL", "moved"}), EndsWith("1"));
  }
}

TEST_CASE(
    "a follower answers MOVED with the slot and the leader's client address, and nothing else") {
  const int leader = cluster().leader();
  for (const int node : cluster().others(leader)) {
    Client client = cluster().client(node);
    const std::string to = " " + cluster().client_addr(leader);
    // Slots from the specification of Redis Cluster: CRC16 modulo 16384.
    CHECK(client.ask("GET", "foo") == "-MOVED 12182" + to);
    CHECK(client.ask("SET", "bar", "1") == "-MOVED 5061" + to);
    CHECK(client.ask("DEL", "123456789") == "-MOVED 12739" + to);
    CHECK(client.ask("EXISTS", "{foo}bar") == "-MOVED 12182" + to);
    CHECK(client.ask("PING") == "+PONG");
  }
}

TEST_CASE("with client.moved = leader-id a follower answers MOVED with the leader's id") {
  Cluster own({.settings = {{"client.moved", "\"leader-id\""}}});
  const int leader = own.leader();
  REQUIRE(own.caught_up());
  Client client = own.client(own.others(leader).front());
  CHECK(client.ask("GET", "foo") == "-MOVED " + std::to_string(leader));
}

TEST_CASE("keys to 256 and values to 65,536 bytes are taken; beyond, the connection goes on") {
  Client client = cluster().client(cluster().leader());
  const std::string key(256, 'k');
  const std::string value(65'536, 'v');
  CHECK(client.ask("SET", key, value) == "+OK");
  CHECK(client.ask("GET", key) == value);
  CHECK(client.ask("SET", key + "k", "v") == "-ERR key too large");
  CHECK(client.ask("GET", key + "k") == "-ERR key too large");
  CHECK(client.ask("DEL", "a", key + "k") == "-ERR key too large");
  CHECK(client.ask("SET", "k", value + "v") == "-ERR value too large");
  CHECK(client.ask("PING") == "+PONG");
  CHECK(client.ask("GET", "k") == "(nil)");
}

TEST_CASE("unknown commands, wrong arity and bad syntax get Redis' own texts") {
  Client client = cluster().client(cluster().leader());
  CHECK(client.ask("NOSUCH", "a", "b") ==
        "-ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' ");
  CHECK(client.ask("GET") == "-ERR wrong number of arguments for 'get' command");
  CHECK(client.ask("SET", "k") == "-ERR wrong number of arguments for 'set' command");
  CHECK(client.ask("DEL") == "-ERR wrong number of arguments for 'del' command");
  CHECK(client.ask("PING", "a", "b") == "-ERR wrong number of arguments for 'ping' command");
  CHECK(client.ask("SET", "k", "v", "NO") == "-ERR syntax error");
  CHECK(client.ask("SELECT", "1") == "-ERR SELECT is not allowed in cluster mode");
  CHECK(client.ask("PING") == "+PONG");
}

TEST_CASE("malformed RESP gets a protocol error behind the replies before it, then the end") {
  const std::pair<const char*, const char*> cases[] = {
      {"*1\r\n:1\r\n", "-ERR Protocol error: expected '$', got ':'"},
      {"*x\r\n", "-ERR Protocol error: invalid multibulk length"},
      {"*1\r\n$-5\r\n", "-ERR Protocol error: invalid bulk length"},
      {"GET \"a\r\n", "-ERR Protocol error: unbalanced quotes in request"},
  };
  for (const auto& [bytes, error] : cases) {
    Client client = cluster().client(cluster().leader());
    client.send({"SET", "before", "1"});
    client.send_raw(bytes);
    CHECK(client.receive() == "+OK");
    CHECK(client.receive() == error);
    CHECK(client.is_closed());
  }
}

TEST_CASE("a request that is declared larger than the limit is refused before its bytes come") {
  Client client = cluster().client(cluster().leader());
  client.send_raw("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8388609\r\n");
  CHECK(client.receive() == "-ERR request too large");
  CHECK(client.is_closed());
}

TEST_CASE("a transaction is done as one, and one that is broken or discarded not at all") {
  Client client = cluster().client(cluster().leader());
  REQUIRE(client.ask("SET", "tx", "before") == "+OK");
  const std::vector<std::string> replies = client.pipeline({{"MULTI"},
                                                            {"SET", "tx", "within"},
                                                            {"DEL", "tx"},
                                                            {"EXEC"},
                                                            {"GET", "tx"},
                                                            {"MULTI"},
                                                            {"SET", "tx", "within"},
                                                            {"DISCARD"},
                                                            {"MULTI"},
                                                            {"SET", "tx", "within"},
                                                            {"NOSUCH"},
                                                            {"EXEC"},
                                                            {"GET", "tx"}});
  CHECK(replies[0] == "+OK");
  CHECK(replies[1] == "+QUEUED");
  CHECK(replies[3] == "+OK :1");
  CHECK(replies[4] == "(nil)");
  CHECK(replies[7] == "+OK");
  CHECK_THAT(replies[10], StartsWith("-ERR unknown command"));
  CHECK_THAT(replies[11], StartsWith("-EXECABORT "));
  CHECK(replies[12] == "(nil)");
}

TEST_CASE("a pipeline sees its own writes in order: SET 1, GET, SET 2, GET, 10,000 requests") {
  Client client = cluster().client(cluster().leader());
  std::vector<Arguments> requests;
  for (int i = 0; i < 2500; ++i) {
    requests.push_back({"SET", "order", "1"});
    requests.push_back({"GET", "order"});
    requests.push_back({"SET", "order", "2"});
    requests.push_back({"GET", "order"});
  }
  const auto start = SteadyClock::now();
  const std::vector<std::string> replies = client.pipeline(requests);
  report("10,000 requests after ", since(start).count(), " ms");
  const std::vector<std::string> expected = {"+OK", "1", "+OK", "2"};
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < replies.size(); ++i) wrong += replies[i] == expected[i % 4] ? 0 : 1;
  CHECK(wrong == 0);
}

TEST_CASE("10,000 pipelined requests of all kinds are answered in their order") {
  Client client = cluster().client(cluster().leader());
  std::vector<Arguments> requests;
  std::vector<std::string> expected;
  const auto add = [&](Arguments request, std::string reply) {
    requests.push_back(std::move(request));
    expected.push_back(std::move(reply));
  };
  for (int i = 0; i < 2500; ++i) {
    const std::string n = std::to_string(i);
    add({"ECHO", n}, n);
    add({"SET", "pipe-" + n, n}, "+OK");
    add({"NOSUCH"}, "-ERR unknown command 'NOSUCH', with args beginning with: ");
    add({"GET", "pipe-" + n}, n);
  }
  CHECK(client.pipeline(requests) == expected);
}

}  // namespace
}  // namespace seshat::tests
