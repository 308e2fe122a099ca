// The door of a node, with real processes: passwords, idle clients, kills, pauses, settings, and the
// end by SHUTDOWN.
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "harness.hpp"

namespace seshat::tests {
namespace {

// With one loop, and with two beside the heart.
std::string threads() { return GENERATE("1", "3"); }

const std::string kDenied = "-NOAUTH Authentication required.";

// A connection to the first node, once it serves.
Client client_of(const Cluster& cluster, int node = 1) {
  std::optional<Client> client;
  REQUIRE(eventually(10s, [&] {
    try {
      client.emplace(cluster.port(node));
      const std::string reply = client->ask("PING");
      return reply == "+PONG" || reply == kDenied;
    } catch (const ConnectionError&) {
      return false;
    }
  }));
  return std::move(*client);
}

// Of a client that may write.
void await_leader(Client& client) {
  REQUIRE(eventually(10s, [&] { return client.ask("SET", "first", "1") == "+OK"; }));
}

TEST_CASE("with a password, a node does nothing for who does not say it") {
  const Cluster cluster(
      {.nodes = 1,
       .settings = {{"client.requirepass", "\"s3 cret\""}, {"node.threads", threads()}}});
  Client client = client_of(cluster);
  CHECK(client.ask("SET", "k", "v") == kDenied);
  CHECK(client.ask("SHUTDOWN") == kDenied);
  CHECK(client.ask("CONFIG", "SET", "requirepass", "") == kDenied);
  CHECK_THAT(client.ask("AUTH", "wrong"), StartsWith("-WRONGPASS "));
  CHECK(client.ask("AUTH", "s3 cret") == "+OK");
  await_leader(client);
  CHECK(client.ask("GET", "first") == "1");
  // A hostile one: in few bytes, many arguments, and large ones.
  Client hostile = client_of(cluster);
  hostile.send_raw("*1000000\r\n");
  CHECK(hostile.receive() == "-ERR Protocol error: unauthenticated multibulk length");
  CHECK(hostile.is_closed());
  CHECK(client.ask("PING") == "+PONG");
}

TEST_CASE("subcommands say the password that the environment or the configuration has") {
  const Cluster cluster({.nodes = 1, .settings = {{"client.requirepass", "\"s3cret\""}}});
  Client client = client_of(cluster);
  const auto members = [&](const Arguments& flags, const Process::Variables& variables) {
    Arguments command = {required_variable("SESHAT_BIN"), "members"};
    command.insert(command.end(), flags.begin(), flags.end());
    return run(command, 30s, variables);
  };
  const Arguments addr = {"--addr", cluster.client_addr(1)};
  const Finished without = members(addr, {});
  CHECK(without.status == ExitStatus{3, 0});
  CHECK_THAT(without.output,
             ContainsSubstring("it asks for a password: SESHAT_CLIENT_REQUIREPASS"));
  const Finished wrong = members(addr, {{"SESHAT_CLIENT_REQUIREPASS", "wrong"}});
  CHECK(wrong.status == ExitStatus{3, 0});
  CHECK_THAT(wrong.output, ContainsSubstring("the password is wrong"));
  CHECK(members(addr, {{"SESHAT_CLIENT_REQUIREPASS", "s3cret"}}).status == ExitStatus{0, 0});
  CHECK(members({"--config", cluster.config_file(1).string()}, {}).status == ExitStatus{0, 0});
}

TEST_CASE(
    "the password changes while a node runs: who is in stays in, who comes needs the new one") {
  const Cluster cluster({.nodes = 1, .settings = {{"node.threads", threads()}}});
  Client first = client_of(cluster);
  CHECK(first.ask("CONFIG", "SET", "requirepass", "one", "timeout", "x") ==
        "-ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be "
        "parsed into an integer");
  CHECK(client_of(cluster).ask("PING") == "+PONG");
  CHECK(first.ask("CONFIG", "SET", "requirepass", "one") == "+OK");
  CHECK(first.ask("CONFIG", "GET", "requirepass") == "requirepass one");
  CHECK(first.ask("PING") == "+PONG");
  Client second = client_of(cluster);
  CHECK(second.ask("PING") == kDenied);
  CHECK_THAT(second.ask("AUTH", ""), StartsWith("-WRONGPASS "));
  CHECK(second.ask("AUTH", "one") == "+OK");
  CHECK(second.ask("CONFIG", "SET", "requirepass", "two") == "+OK");
  Client third = client_of(cluster);
  CHECK_THAT(third.ask("AUTH", "one"), StartsWith("-WRONGPASS "));
  CHECK(first.ask("CONFIG", "SET", "requirepass", "") == "+OK");
  CHECK(third.ask("PING") == "+PONG");  // nobody is asked any more
}

TEST_CASE("a node that other machines can reach without a password says what that means") {
  Cluster cluster({.nodes = 1, .started = false});
  cluster.set_settings(
      1, {{"node.client_addr", "\"0.0.0.0:" + std::to_string(cluster.port(1)) + "\""}});
  cluster.start(1);
  CHECK(cluster.log_says(1, "without a password only clients of this machine are served"));
  CHECK(client_of(cluster).ask("PING") == "+PONG");
}

// A connection from own_address() to the node's on loopback: for the node, a machine that is not its
// own. What it answers to `request`, or says without one; up to its end, if it is closed then.
std::string answer_to_elsewhere(sockaddr_in from, Port port, std::string_view request) {
  const Socket socket = client_detail::make_socket();
  from.sin_port = 0;
  const sockaddr_in to = client_detail::loopback(port);
  if (::bind(socket.fd(), reinterpret_cast<const sockaddr*>(&from), sizeof from) != 0 ||
      ::connect(socket.fd(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
    throw ConnectionError("can't connect from an own address");
  }
  if (!request.empty()) (void)::send(socket.fd(), request.data(), request.size(), MSG_NOSIGNAL);
  std::string received;
  while (request.empty() || !received.ends_with("\r\n")) {
    pollfd readable{socket.fd(), POLLIN, 0};
    if (::poll(&readable, 1, 5000) <= 0) return received + "<silence>";
    std::array<char, 4096> bytes{};
    const ssize_t got = ::recv(socket.fd(), bytes.data(), bytes.size(), 0);
    if (got <= 0) return received + "<closed>";
    received.append(bytes.data(), static_cast<std::size_t>(got));
  }
  return received;
}

TEST_CASE("protected mode tells who comes from elsewhere why not, until there is a password") {
  const std::optional<sockaddr_in> elsewhere = own_address();
  if (skips(elsewhere ? std::nullopt
                      : std::optional<std::string>("this machine has loopback alone"))) {
    return;
  }
  const Cluster cluster({.nodes = 1});
  Client client = client_of(cluster);
  const auto answer = [&](std::string_view request) {
    return answer_to_elsewhere(*elsewhere, cluster.port(1), request);
  };
  const std::string denied = answer("");
  CHECK_THAT(denied,
             StartsWith("-DENIED Seshat is running in protected mode") && EndsWith("\r\n<closed>"));
  CHECK(cluster.figure(1, "stats", "rejected_connections") == 1);
  CHECK(client.ask("CONFIG", "SET", "requirepass", "s3cret") == "+OK");
  CHECK(answer("PING\r\n") == kDenied + "\r\n");
  CHECK(answer("AUTH s3cret\r\n") == "+OK\r\n");
  CHECK(client.ask("CONFIG", "SET", "requirepass", "") == "+OK");
  CHECK(client.ask("CONFIG", "SET", "protected-mode", "no") == "+OK");
  CHECK(answer("PING\r\n") == "+PONG\r\n");
}

// ---- Who has to go --------------------------------------------------------------------------------------

TEST_CASE("idle clients are disconnected, and nobody else") {
  const Cluster cluster({.nodes = 1, .settings = {{"node.threads", threads()}}});
  Client busy = client_of(cluster);
  await_leader(busy);
  const std::string value(65'536, 'v');
  REQUIRE(busy.ask("SET", "large", value) == "+OK");
  Client idle = client_of(cluster);
  // Asks for more than all buffers on the way hold, and takes nothing.
  Client silent = client_of(cluster);
  silent.set_timeout(500ms);
  const std::string get = Client::encoded({"GET", "large"});
  std::string gets;
  for (int i = 0; i < 2000; ++i) gets += get;
  silent.send_raw(gets);
  // Asks for as much, and takes a little at a time.
  Client slow = client_of(cluster);
  slow.send_raw(gets);
  CHECK(busy.ask("CONFIG", "SET", "timeout", "1") == "+OK");
  const auto connected = [&] { return cluster.figure(1, "clients", "connected_clients"); };
  std::size_t taken = 0;
  CHECK(eventually(15s, [&] {  // busy, slow, and the one that asks
    if (taken < 2000) taken += slow.receive() == value ? 1 : 0;
    return busy.ask("PING") == "+PONG" && connected() == 3;
  }));
  CHECK(idle.is_closed());
  for (; taken < 2000; ++taken) REQUIRE(slow.receive() == value);
  CHECK(busy.ask("PING") == "+PONG");
}

TEST_CASE("who waits for a pause to end is not idle") {
  const Cluster cluster({.nodes = 1, .settings = {{"client.timeout", "1"}}});
  Client client = client_of(cluster);
  await_leader(client);
  CHECK(client.ask("CLIENT", "PAUSE", "3000") == "+OK");
  CHECK(client.ask("GET", "first") == "1");
}

TEST_CASE(
    "CLIENT KILL closes others at once, whatever they have under way, and oneself after the "
    "reply") {
  const Cluster cluster({.nodes = 1, .settings = {{"node.threads", threads()}}});
  Client killer = client_of(cluster);
  await_leader(killer);
  Client victim = client_of(cluster);
  const std::string id = victim.ask("CLIENT", "ID").substr(1);
  CHECK_THAT(killer.ask("CLIENT", "LIST", "ID", id), StartsWith("id=" + id + " "));
  for (int i = 0; i < 1000; ++i) victim.send({"SET", "k", "v"});
  CHECK(killer.ask("CLIENT", "KILL", "ID", id) == ":1");
  CHECK_THROWS_AS(
      [&] {
        for (int i = 0; i <= 1000; ++i) (void)victim.receive();
      }(),
      ConnectionError);
  CHECK(killer.ask("CLIENT", "LIST", "ID", id).empty());
  CHECK(killer.ask("CLIENT", "KILL", "ID", id) == ":0");
  CHECK(killer.ask("SET", "k", "w") == "+OK");
  CHECK(killer.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no") == ":1");
  CHECK(killer.is_closed());
}

TEST_CASE("the number of clients is bounded as was set last") {
  const Cluster cluster({.nodes = 1});
  Client first = client_of(cluster);
  CHECK(first.ask("CONFIG", "SET", "maxclients", "2") == "+OK");
  std::optional<Client> second;
  REQUIRE(eventually(5s, [&] {  // until those of client_of() are gone
    second.emplace(cluster.port(1));
    return second->ask("PING") == "+PONG";
  }));
  Client third(cluster.port(1));
  CHECK(third.receive() == "-ERR max number of clients reached");
  CHECK(first.ask("CONFIG", "SET", "maxclients", "3") == "+OK");
  CHECK(Client(cluster.port(1)).ask("PING") == "+PONG");
  CHECK_THAT(first.ask("CONFIG", "SET", "maxclients", "0"), StartsWith("-ERR CONFIG SET failed"));
}

// ---- Pauses ---------------------------------------------------------------------------------------------

TEST_CASE("CLIENT PAUSE WRITE holds writes of all clients back until it ends by itself") {
  const Cluster cluster({.nodes = 1, .settings = {{"node.threads", threads()}}});
  Client one = client_of(cluster);
  await_leader(one);
  Client two = client_of(cluster);
  CHECK(one.ask("CLIENT", "PAUSE", "1000", "WRITE") == "+OK");
  const auto start = SteadyClock::now();
  two.send({"SET", "k", "v"});
  two.send({"GET", "k"});
  CHECK(eventually(900ms, [&] { return cluster.figure(1, "clients", "blocked_clients") == 1; }));
  CHECK(one.ask("GET", "k") == "(nil)");
  CHECK(two.receive() == "+OK");
  CHECK(since(start) >= 950ms);
  CHECK(two.receive() == "v");
  CHECK(cluster.figure(1, "clients", "blocked_clients") == 0);
}

TEST_CASE("CLIENT UNPAUSE ends a pause of writes at once") {
  const Cluster cluster({.nodes = 1});
  Client one = client_of(cluster);
  await_leader(one);
  Client two = client_of(cluster);
  CHECK(one.ask("CLIENT", "PAUSE", "600000", "WRITE") == "+OK");
  two.send({"SET", "k", "v"});
  CHECK(eventually(5s, [&] { return cluster.figure(1, "clients", "blocked_clients") == 1; }));
  CHECK(one.ask("CLIENT", "UNPAUSE") == "+OK");
  CHECK(two.receive() == "+OK");
}

// ---- What operators see ---------------------------------------------------------------------------------

TEST_CASE("INFO, the slow log and the statistics tell what was done") {
  const Cluster cluster({.nodes = 1});
  Client client = client_of(cluster);
  await_leader(client);
  CHECK(client.ask("CONFIG", "SET", "slowlog-log-slower-than", "0") == "+OK");
  CHECK(client.ask("CONFIG", "RESETSTAT") == "+OK");
  CHECK(client.ask("SET", "key", "value") == "+OK");
  CHECK(client.ask("GET", "key") == "value");
  CHECK(is_error(client.ask("NOSUCH")));
  const Info info = parse_info(client.ask("INFO", "all"));
  CHECK(number(info, "connected_clients") == 1);
  CHECK(number(info, "total_error_replies") == 1);
  CHECK(number(info, "keyspace_hits") == 1);
  CHECK(number(info, "keyspace_misses") == 0);
  CHECK(info.at("errorstat_ERR") == "count=1");
  CHECK_THAT(info.at("cmdstat_set"), StartsWith("calls=1,usec="));
  CHECK_THAT(info.at("cmdstat_get"), StartsWith("calls=1,usec="));
  const std::uint64_t asked =
      Client::encoded({"SET", "key", "value"}).size() + Client::encoded({"GET", "key"}).size() +
      Client::encoded({"NOSUCH"}).size() + Client::encoded({"INFO", "all"}).size();
  CHECK(number(info, "total_net_input_bytes") == asked);
  CHECK(number(info, "total_net_output_bytes") > 5 + 11);
  CHECK(number(info, "used_memory") <= number(info, "used_memory_rss"));
  CHECK(number(info, "used_memory") <= number(info, "used_memory_peak"));
  CHECK(number(info, "used_memory") > 1'000'000);
  CHECK(std::stod(info.at("used_cpu_user")) > 0);
  CHECK(info.at("role") == "master");
  CHECK(number(info, "master_repl_offset") > 0);
  client.send({"SLOWLOG", "GET", "-1"});
  const resp::Value log = client.receive_value();
  REQUIRE(log.elements.size() == 5);  // INFO, NOSUCH not, GET, SET, RESETSTAT, CONFIG SET
  const std::vector<resp::Value>& set = log.elements[2].elements;
  CHECK(text_of(set[3]) == "set key ... (1 more arguments)");
  CHECK(set[2].integer > 0);
  CHECK(std::abs(set[1].integer - std::time(nullptr)) < 60);
}

TEST_CASE("WAIT counts the voters that have all writes, and no others") {
  Cluster cluster;
  REQUIRE(cluster.caught_up());
  const int leader = cluster.leader();
  Client client = cluster.client(leader);
  CHECK(client.ask("SET", "k", "v") == "+OK");
  CHECK(eventually(10s, [&] { return client.ask("WAIT", "2", "1000") == ":2"; }));
  const int follower = cluster.others(leader).front();
  CHECK_THAT(cluster.client(follower).ask("WAIT", "0", "0"),
             StartsWith("-ERR WAIT cannot be used with replica instances."));
  cluster.pause(follower);
  const std::vector<std::string> replies =
      client.pipeline({{"SET", "k", "w"}, {"WAIT", "2", "0"}, {"PING"}});
  CHECK(replies == std::vector<std::string>{"+OK", ":1", "+PONG"});
  cluster.resume(follower);
  CHECK(eventually(10s, [&] { return client.ask("WAIT", "2", "0") == ":2"; }));
}

TEST_CASE("SHUTDOWN ends a node in good order: exit 0, leadership handed over, nothing lost") {
  Cluster cluster;
  REQUIRE(cluster.caught_up());
  const int leader = cluster.leader();
  Client client = cluster.client(leader);
  CHECK(client.ask("SHUTDOWN", "ABORT") == "-ERR No shutdown in progress.");
  REQUIRE(client.ask("SET", "k", "v") == "+OK");
  client.send({"SHUTDOWN", "NOSAVE"});
  CHECK(client.is_closed());  // without a reply, as Redis
  CHECK(cluster.process(leader).wait(5s) == ExitStatus{0, 0});
  CHECK(cluster.leader_after(leader) != leader);
  CHECK(cluster.cluster_client().ask("GET", "k") == "v");
}

}  // namespace
}  // namespace seshat::tests
