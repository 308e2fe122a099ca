// TLS on real processes: for clients, with the openssl tool's certificates and Redis' own client; and
// between nodes. And the secret of a cluster, without TLS.
#include "seshat/tls.hpp"

#include <openssl/ssl.h>

#include "certificates.hpp"
#include "harness.hpp"

namespace seshat::tests {
namespace {

using Settings = std::map<std::string, std::string>;

std::string quoted(const std::string& text) { return '"' + text + '"'; }

// With one loop, and with two beside the heart.
std::string threads() { return GENERATE("1", "3"); }

// Nodes with a port for TLS each; certificates "node" and "client" of authority "ca", and "stranger"
// of authority "other".
class TlsCluster {
 public:
  explicit TlsCluster(int nodes = 1, Settings settings = {}) : made_(dir_.path()) {
    made_.authority("ca");
    made_.authority("other");
    made_.certificate("node", {});
    made_.certificate("client", {});
    made_.certificate("stranger", {.by = "other"});
    cluster_.emplace(ClusterOptions{.nodes = nodes, .started = false});
    for (const int node : cluster_->nodes()) {
      Settings all = {{"client.tls_port", std::to_string(port(node))},
                      {"client.tls_cert_file", quoted(made_.certificate("node"))},
                      {"client.tls_key_file", quoted(made_.key("node"))},
                      {"client.tls_ca_file", quoted(made_.certificate("ca"))}};
      for (const auto& [name, value] : settings) all[name] = value;
      cluster_->set_settings(node, all);
    }
    cluster_->start_all();
  }

  [[nodiscard]] Cluster& nodes() { return *cluster_; }
  [[nodiscard]] const Certificates& made() const { return made_; }
  [[nodiscard]] Port port(int node) { return ports_[node].number(); }

  // What `redis-cli` prints; it believes authority `ca` and shows the certificate `shown`, if any.
  [[nodiscard]] std::string redis_cli(int node, const Arguments& words,
                                      const std::string& shown = "client",
                                      const std::string& ca = "ca") {
    Arguments command = {"redis-cli", "--tls",
                         "-h",        "127.0.0.1",
                         "-p",        std::to_string(port(node)),
                         "--cacert",  made_.certificate(ca)};
    if (!shown.empty()) {
      command.insert(command.end(),
                     {"--cert", made_.certificate(shown), "--key", made_.key(shown)});
    }
    command.insert(command.end(), words.begin(), words.end());
    std::string output = run(command, 20s).output;
    while (output.ends_with('\n')) output.pop_back();
    return output;
  }

 private:
  TempDir dir_;
  Certificates made_;
  std::map<int, ReservedPort> ports_;
  std::optional<Cluster> cluster_;
};

// One connection by TLS, as Client is without; it shows the certificate "client".
class TlsClient {
 public:
  explicit TlsClient(TlsCluster& cluster, int node = 1, int version = TLS1_3_VERSION)
      : TlsClient(cluster, Client(cluster.port(node)), version) {}
  TlsClient(TlsCluster& cluster, Client socket, int version = TLS1_3_VERSION)
      : socket_(std::move(socket)) {
    const Certificates& made = cluster.made();
    const auto fault = context_.load({{"cert", made.certificate("client")},
                                      {"key", made.key("client")},
                                      {"ca", made.certificate("ca")}},
                                     tls::Role::kClient, tls::Verify::kYes);
    if (fault) throw std::runtime_error(fault->path + ": " + fault->what);
    SSL_CTX_set_max_proto_version(context_.native(), version);
    session_ = std::make_unique<tls::Session>(context_, "localhost");
    std::size_t end = 0;
    (void)session_->open({}, input_, end);
    while (!session_->is_established()) {
      flush();
      read_more();
    }
    flush();
  }

  void send(const Arguments& arguments) { send_raw(Client::encoded(arguments)); }
  void send_raw(std::string bytes) {
    if (!session_->seal(bytes)) throw ConnectionError(session_->problem());
    socket_.send_raw(bytes);
  }
  [[nodiscard]] std::string receive() {
    for (;;) {
      const resp::Status status = parser_.parse(std::string_view(input_).substr(begin_));
      begin_ += parser_.consumed();
      if (status == resp::Status::kComplete) return text_of(parser_.take());
      input_.erase(0, std::exchange(begin_, 0));
      read_more();
    }
  }
  template <class... Args>
  [[nodiscard]] std::string ask(const Args&... args) {
    send(Arguments{std::string(args)...});
    return receive();
  }
  // By the node: nothing came, and it was not for that it takes long.
  [[nodiscard]] bool is_closed() {
    try {
      (void)receive();
      return false;
    } catch (const ConnectionError& error) {
      return !std::string_view(error.what()).starts_with("nothing came");
    }
  }
  void set_timeout(Milliseconds timeout) { socket_.set_timeout(timeout); }

 private:
  void flush() {
    socket_.send_raw(session_->output());
    session_->output().clear();
  }
  void read_more() {
    const std::string sealed = socket_.receive_bytes();
    const std::size_t before = input_.size();
    std::size_t end = before;
    const auto status = session_->open(sealed, input_, end);
    input_.resize(end);
    if (status == tls::Session::Status::kFailed) throw ConnectionError(session_->problem());
    if (status == tls::Session::Status::kClosed && end == before) throw ConnectionError("closed");
  }

  Client socket_;
  tls::Context context_;
  std::unique_ptr<tls::Session> session_;
  std::string input_;
  std::size_t begin_ = 0;
  resp::ReplyParser parser_;
};

bool cannot_run() { return skips(Certificates::why_not()); }

void await_writes(TlsClient& client) {
  REQUIRE(eventually(10s, [&] { return client.ask("SET", "first", "1") == "+OK"; }));
}

// A connection to the first node, once it serves.
TlsClient client_of(TlsCluster& cluster) {
  REQUIRE(eventually(10s, [&] { return cluster.redis_cli(1, {"PING"}) == "PONG"; }));
  return TlsClient(cluster);
}

// ---- Clients ---------------------------------------------------------------------------------------

TEST_CASE(
    "redis-cli speaks TLS, is sent to the leader's TLS port, and goes on when a leader dies") {
  if (cannot_run()) return;
  TlsCluster cluster(3);
  Cluster& nodes = cluster.nodes();
  const int leader = nodes.leader();
  const int follower = nodes.others(leader).front();
  REQUIRE(nodes.settled());
  CHECK(cluster.redis_cli(leader, {"SET", "k", "v"}) == "OK");
  CHECK(cluster.redis_cli(follower, {"GET", "k"}) ==
        "MOVED 7629 127.0.0.1:" + std::to_string(cluster.port(leader)));
  CHECK(nodes.client(follower).ask("GET", "k") == "-MOVED 7629 " + nodes.client_addr(leader));
  CHECK(cluster.redis_cli(follower, {"-c", "GET", "k"}) == "v");
  // Each kind of client is told of its own ports, of every node.
  for (const int node : nodes.nodes()) {
    const std::string tls_port = std::to_string(cluster.port(node));
    const std::string port = std::to_string(nodes.port(node));
    for (const std::string what : {"SLOTS", "NODES"}) {
      CHECK_THAT(cluster.redis_cli(follower, {"CLUSTER", what}),
                 ContainsSubstring(tls_port) && !ContainsSubstring(port));
      CHECK_THAT(nodes.client(follower).ask("CLUSTER", what),
                 ContainsSubstring(port) && !ContainsSubstring(tls_port));
    }
    CHECK_THAT(cluster.redis_cli(follower, {"CLUSTER", "SHARDS"}),
               ContainsSubstring("tls-port\n" + tls_port));
  }
  nodes.kill(leader);
  CHECK(eventually(15s, [&] {
    return cluster.redis_cli(follower, {"-c", "SET", "k", "w"}) == "OK";
  }));
  CHECK(cluster.redis_cli(follower, {"-c", "GET", "k"}) == "w");
}

TEST_CASE(
    "a TLS port has to do with who shows the right certificate, and tells the log of others") {
  if (cannot_run()) return;
  TlsCluster cluster(1, {{"node.threads", threads()}});
  TlsClient client = client_of(cluster);
  // An authority that the client does not believe, one that the node does not, and none at all.
  CHECK_THAT(cluster.redis_cli(1, {"PING"}, "client", "other"), ContainsSubstring("verify failed"));
  CHECK(eventually(5s, [&] {  // one line a second at most
    CHECK(cluster.redis_cli(1, {"PING"}, "stranger") != "PONG");
    return cluster.nodes().log_says(1, "its certificate is not accepted", 0ms);
  }));
  CHECK(eventually(5s, [&] {
    CHECK(cluster.redis_cli(1, {"PING"}, "") != "PONG");
    return cluster.nodes().log_says(1, "it showed no certificate", 0ms);
  }));
  // Bytes as they come, and an attempt to talk HTTP.
  CHECK(eventually(5s, [&] {
    Client plain(cluster.port(1));
    plain.send({"PING"});
    CHECK(plain.receive_bytes(Client::AtEnd::kStop).find("PONG") == std::string::npos);
    return cluster.nodes().log_says(1, "what came is not TLS", 0ms);
  }));
  Client garbage(cluster.port(1));
  garbage.send_raw(std::string(5000, '\x16'));
  (void)garbage.receive_bytes(Client::AtEnd::kStop);
  CHECK(client.ask("PING") == "+PONG");
  CHECK(cluster.nodes().figure(1, "stats", "tls_handshakes_failed") >= 4);
}

TEST_CASE("where a client's certificate is optional it may be left out, and not be a wrong one") {
  if (cannot_run()) return;
  TlsCluster cluster(1, {{"client.tls_auth_clients", "\"optional\""}});
  (void)client_of(cluster);
  CHECK(cluster.redis_cli(1, {"PING"}, "") == "PONG");
  CHECK(cluster.redis_cli(1, {"PING"}, "stranger") != "PONG");
}

TEST_CASE("a handshake that is never finished ends, and holds nobody up meanwhile") {
  if (cannot_run()) return;
  TlsCluster cluster(1, {{"node.threads", threads()}});
  TlsClient client = client_of(cluster);
  await_writes(client);
  const auto connected = [&] { return cluster.nodes().figure(1, "clients", "connected_clients"); };
  const std::uint64_t before = connected();
  std::vector<Client> silent;
  const auto start = SteadyClock::now();
  for (int i = 0; i < 20; ++i) {
    silent.emplace_back(cluster.port(1));
    // Nothing, or the beginning of a first message.
    if (i % 2 == 1) silent.back().send_raw(std::string("\x16\x03\x01\x02\x00\x01\x00", 7));
  }
  CHECK(eventually(5s, [&] { return connected() == before + silent.size(); }));
  CHECK(client.ask("SET", "k", "v") == "+OK");
  REQUIRE(eventually(15s, [&] { return client.ask("GET", "k") == "v" && connected() == before; }));
  const auto took = std::chrono::duration_cast<Milliseconds>(SteadyClock::now() - start);
  report("20 unfinished handshakes were gone after ", took.count(), " ms");
  CHECK(took >= 9s);
  for (Client& each : silent) CHECK(each.receive_bytes(Client::AtEnd::kStop).empty());
  CHECK(cluster.nodes().log_says(1, "it was not done in time"));
}

TEST_CASE("pipelines and large values go through TLS as they are, in order") {
  if (cannot_run()) return;
  TlsCluster cluster(1, {{"node.threads", threads()}});
  TlsClient client = client_of(cluster);
  await_writes(client);
  std::string requests;
  for (int i = 0; i < 1000; ++i) {
    const std::string number = std::to_string(i);
    requests +=
        Client::encoded({"SET", "k" + number, number}) + Client::encoded({"GET", "k" + number});
  }
  client.send_raw(requests);
  int wrong = 0;
  for (int i = 0; i < 1000; ++i) {
    wrong += client.receive() == "+OK" ? 0 : 1;
    wrong += client.receive() == std::to_string(i) ? 0 : 1;
  }
  CHECK(wrong == 0);
  std::string value(65'536, ' ');
  for (std::size_t i = 0; i < value.size(); ++i) value[i] = static_cast<char>(i * 31 % 251);
  CHECK(client.ask("SET", "large", value) == "+OK");
  CHECK(client.ask("GET", "large") == value);
  // In pieces that are no records' ends: 1 byte, then 2, then 3, ...
  const std::string ping = Client::encoded({"ECHO", "hello"});
  for (std::size_t at = 0, size = 1; at < ping.size(); at += size++) {
    client.send_raw(ping.substr(at, size));
  }
  CHECK(client.receive() == "hello");
}

TEST_CASE("who takes nothing over TLS is not read from, costs bounded memory, and loses nothing") {
  if (cannot_run()) return;
  TlsCluster cluster(1, {{"node.threads", threads()}});
  TlsClient busy = client_of(cluster);
  await_writes(busy);
  const std::string value(65'536, 'v');
  REQUIRE(busy.ask("SET", "large", value) == "+OK");
  const auto figure = [&](const char* section, const char* name) {
    return cluster.nodes().figure(1, section, name);
  };
  const std::uint64_t before = figure("memory", "used_memory");
  constexpr int kGets = 2000;  // 131 MB of replies
  TlsClient slow(cluster);
  std::string gets;
  for (int i = 0; i < kGets; ++i) gets += Client::encoded({"GET", "large"});
  slow.send_raw(gets);
  // Until nothing moves any more.
  std::uint64_t sent = 0;
  CHECK(eventually(10s, [&] {
    std::this_thread::sleep_for(300ms);
    CHECK(busy.ask("PING") == "+PONG");
    const std::uint64_t earlier = std::exchange(sent, figure("stats", "total_net_output_bytes"));
    return earlier + 100'000 > sent;
  }));
  const std::uint64_t grown =
      figure("memory", "used_memory") - std::min(before, figure("memory", "used_memory"));
  report("131 MB of replies that nobody takes: ", grown >> 20, " MB more memory");
  CHECK(grown < (40U << 20));
  int wrong = 0;
  for (int i = 0; i < kGets; ++i) wrong += slow.receive() == value ? 0 : 1;
  CHECK(wrong == 0);
}

TEST_CASE("TLS 1.2 is spoken as well as 1.3") {
  if (cannot_run()) return;
  TlsCluster cluster(1, {{"node.threads", threads()}});
  TlsClient first = client_of(cluster);
  await_writes(first);
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClient client(cluster, 1, version);
    const std::string value(65'536, 'v');
    CHECK(client.ask("SET", "large", value) == "+OK");
    CHECK(client.ask("GET", "large") == value);
  }
}

TEST_CASE("passwords, idle clients, too many clients and CLIENT KILL are as without TLS") {
  if (cannot_run()) return;
  TlsCluster cluster(1, {{"node.threads", threads()}});
  TlsClient admin = client_of(cluster);
  CHECK(admin.ask("CONFIG", "SET", "requirepass", "s3cret") == "+OK");
  {
    TlsClient stranger(cluster);
    CHECK(stranger.ask("GET", "k") == "-NOAUTH Authentication required.");
    CHECK(stranger.ask("AUTH", "s3cret") == "+OK");
    CHECK_THAT(stranger.ask("CLIENT", "INFO"), ContainsSubstring("addr=127.0.0.1:"));
  }
  CHECK(admin.ask("CONFIG", "SET", "requirepass", "") == "+OK");
  TlsClient killed(cluster);
  CHECK(killed.ask("CLIENT", "ID") != admin.ask("CLIENT", "ID"));
  CHECK(admin.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") == ":1");
  CHECK(killed.is_closed());
  TlsClient idle(cluster);
  CHECK(admin.ask("CONFIG", "SET", "timeout", "1") == "+OK");
  CHECK(eventually(10s, [&] {
    return admin.ask("PING") == "+PONG" &&
           cluster.nodes().figure(1, "clients", "connected_clients") == 2;  // with who asks
  }));
  CHECK(idle.is_closed());
  CHECK(admin.ask("CONFIG", "SET", "timeout", "0", "maxclients", "2") == "+OK");
  TlsClient second(cluster);
  CHECK(second.ask("PING") == "+PONG");
  Client third(cluster.port(1));
  third.set_timeout(5s);  // a handshake that does not come is waited for for 10 s
  CHECK(third.receive_bytes(Client::AtEnd::kStop).empty());
  CHECK_THAT(admin.ask("INFO", "stats"), ContainsSubstring("rejected_connections:1\r\n"));
  CHECK(admin.ask("PING") == "+PONG");
}

TEST_CASE("protected mode tells who comes from elsewhere by TLS why not") {
  if (cannot_run()) return;
  const std::optional<sockaddr_in> elsewhere = own_address();
  if (skips(elsewhere ? std::nullopt
                      : std::optional<std::string>("this machine has loopback alone"))) {
    return;
  }
  TlsCluster cluster(1, {{"node.threads", threads()}});
  TlsClient client = client_of(cluster);
  TlsClient denied(cluster, Client(cluster.port(1), *elsewhere));
  CHECK_THAT(denied.ask("SET", "k", "v"),
             StartsWith("-DENIED Seshat is running in protected mode"));
  CHECK(denied.is_closed());
  TlsClient silent(cluster, Client(cluster.port(1), *elsewhere));
  silent.set_timeout(15s);
  CHECK(silent.is_closed());  // it does not ask, and does not stay
  CHECK(client.ask("CONFIG", "SET", "protected-mode", "no") == "+OK");
  TlsClient admitted(cluster, Client(cluster.port(1), *elsewhere));
  CHECK(admitted.ask("PING") == "+PONG");
}

TEST_CASE("a node may serve by TLS alone, and subcommands find it by its configuration") {
  if (cannot_run()) return;
  TlsCluster cluster(1, {{"client.tls_only", "true"}});
  Cluster& nodes = cluster.nodes();
  TlsClient client = client_of(cluster);
  await_writes(client);
  CHECK_THROWS_AS(nodes.client(1), ConnectionError);
  CHECK(client.ask("CONFIG", "GET", "port") == "port 0");
  CHECK_THAT(client.ask("CLUSTER", "SLOTS"), ContainsSubstring(std::to_string(cluster.port(1))));
  const std::string seshat = required_variable("SESHAT_BIN");
  const Finished members = run({seshat, "members", "--config", nodes.config_file(1).string()}, 30s);
  CHECK(members.done());
  CHECK_THAT(members.output, ContainsSubstring("127.0.0.1:" + std::to_string(cluster.port(1))));
  const std::string addr = "127.0.0.1:" + std::to_string(cluster.port(1));
  const Process::Variables shown = {
      {"SESHAT_CLIENT_TLS_CA_FILE", cluster.made().certificate("ca")},
      {"SESHAT_CLIENT_TLS_CERT_FILE", cluster.made().certificate("client")},
      {"SESHAT_CLIENT_TLS_KEY_FILE", cluster.made().key("client")}};
  CHECK(run({seshat, "members", "--tls", "--addr", addr}, 30s, shown).done());
  const Finished without = run({seshat, "members", "--tls", "--addr", addr}, 30s,
                               {{"SESHAT_CLIENT_TLS_CA_FILE", cluster.made().certificate("ca")}});
  CHECK(without.status == ExitStatus{3, 0});
  CHECK_THAT(without.output, ContainsSubstring("it wants to be shown a certificate"));
  const Finished other = run({seshat, "members", "--tls", "--addr", addr}, 30s,
                             {{"SESHAT_CLIENT_TLS_CA_FILE", cluster.made().certificate("other")}});
  CHECK(other.status == ExitStatus{3, 0});
  CHECK_THAT(other.output, ContainsSubstring("its certificate is not accepted"));
}

TEST_CASE("what is wrong with a certificate or a key is said at the start, with key and file") {
  if (cannot_run()) return;
  const TempDir dir;
  const Certificates made(dir.path());
  made.authority("ca");
  made.authority("other");
  made.certificate("node", {});
  made.certificate("another", {});
  made.certificate("old", {.days = -1});
  made.certificate("stranger", {.by = "other"});
  write_text(made.path("text.crt"), "no certificate\n");
  write_text(made.path("short"), "too-short\n");
  write_text(made.path("blanks"), "a secret of several words\n");
  const std::string file = made.path("seshat.toml");
  const auto refused = [&](const Settings& settings) {
    std::string text = "node.data_dir = " + quoted(made.path("data")) + "\n";
    for (const auto& [name, value] : settings) text += name + " = " + value + "\n";
    write_text(file, text);
    const std::string seshat = required_variable("SESHAT_BIN");
    const Finished checked = run({seshat, "--config", file, "--check-config"}, 20s);
    const Finished started = run({seshat, "--config", file}, 20s);
    CHECK(checked.status == ExitStatus{2, 0});
    CHECK(started.status == ExitStatus{2, 0});
    CHECK(checked.output == started.output);
    return started.output;
  };
  const auto client = [&](const std::string& cert, const std::string& key) {
    return refused({{"client.tls_port", "6380"},
                    {"client.tls_cert_file", quoted(made.path(cert))},
                    {"client.tls_key_file", quoted(made.path(key))},
                    {"client.tls_auth_clients", "\"no\""}});
  };
  CHECK_THAT(client("none.crt", "node.key"),
             ContainsSubstring("seshat.toml:3: client.tls_cert_file = ") &&
                 ContainsSubstring("none.crt\": can't be read: No such file or directory"));
  CHECK_THAT(client("old.crt", "old.key"), ContainsSubstring("the certificate has expired, on 20"));
  CHECK_THAT(client("text.crt", "node.key"),
             ContainsSubstring("must be a certificate in PEM form"));
  CHECK_THAT(
      client("node.crt", "another.key"),
      ContainsSubstring("client.tls_key_file") &&
          ContainsSubstring("is not the key of the certificate in " + made.path("node.crt")));
  const auto peer = [&](const std::string& cert, const std::string& ca) {
    return refused({{"peer_tls.cert_file", quoted(made.certificate(cert))},
                    {"peer_tls.key_file", quoted(made.key(cert))},
                    {"peer_tls.ca_file", quoted(made.path(ca))}});
  };
  CHECK_THAT(peer("node", "none.crt"), ContainsSubstring("peer_tls.ca_file = "));
  CHECK_THAT(peer("stranger", "ca.crt"), ContainsSubstring("peer_tls.cert_file") &&
                                             ContainsSubstring("no other node would accept it"));
  CHECK_THAT(refused({{"cluster.secret_file", quoted(made.path("short"))}}),
             ContainsSubstring("cluster.secret_file") && ContainsSubstring("must have 16 to 512") &&
                 !ContainsSubstring("too-short"));
  CHECK_THAT(refused({{"cluster.secret_file", quoted(made.path("blanks"))}}),
             ContainsSubstring("cluster.secret_file") && ContainsSubstring("must have no blanks") &&
                 !ContainsSubstring("several"));
}

// ---- Between nodes ---------------------------------------------------------------------------------

// What a node of a cluster with TLS has to have.
Settings peer_tls(const Certificates& made, const std::string& certificate, const std::string& ca) {
  return {{"peer_tls.cert_file", quoted(made.certificate(certificate))},
          {"peer_tls.key_file", quoted(made.key(certificate))},
          {"peer_tls.ca_file", quoted(made.certificate(ca))}};
}

// A node that asks to be let in, and is not: the reason in its own log.
void check_cannot_join(Cluster& cluster, int node, const std::string& reason) {
  cluster.wipe(node);
  cluster.join(node, 1);
  const auto ended = cluster.process(node).wait(30s);
  CHECK(ended == ExitStatus{1, 0});
  CHECK(cluster.log_says(node, reason));
  CHECK(!cluster.members(1).contains(node));
  cluster.forget(node);
}

TEST_CASE("nodes that speak TLS with each other lose one and go on; strangers get nowhere") {
  if (cannot_run()) return;
  const TempDir dir;
  const Certificates made(dir.path());
  made.authority("ca");
  made.authority("other");
  made.certificate("node", {});
  made.certificate("stranger", {.by = "other"});
  Cluster cluster({.nodes = 3, .spares = 3, .started = false});
  for (const int node : cluster.nodes()) cluster.set_settings(node, peer_tls(made, "node", "ca"));
  cluster.start_all();
  const int leader = cluster.leader();
  CHECK(cluster.settled());
  CHECK(cluster.client(leader).ask("SET", "k", "v") == "+OK");
  // Who is dialed by it and dials it: another authority's, none; both sides say so, in few lines.
  cluster.set_settings(4, peer_tls(made, "stranger", "other"));
  check_cannot_join(cluster, 4, "certificate is not accepted");
  CHECK(cluster.log_says(1, "turned a node away: the TLS handshake failed: it hung up"));
  // It believes the others, and they do not believe it.
  write_text(made.certificate("both"),
             read_text(made.certificate("ca")) + read_text(made.certificate("other")));
  cluster.set_settings(4, peer_tls(made, "stranger", "both"));
  check_cannot_join(cluster, 4, "it can't join the cluster");
  CHECK(cluster.log_says(1,
                         "turned a node away: the TLS handshake failed: the other node's "
                         "certificate is not accepted"));
  check_cannot_join(cluster, 5, "perhaps it speaks TLS: then this node needs peer_tls too");
  CHECK(cluster.log_says(1, "does not speak TLS"));
  CHECK(std::ranges::count(cluster.log(1), '\n') < 30);
  // Who has what it takes.
  cluster.set_settings(6, peer_tls(made, "node", "ca"));
  cluster.join(6, 1);
  CHECK(cluster.has_members({1, 2, 3, 6}));
  cluster.kill(leader);
  const int next = cluster.leader_after(leader);
  CHECK(cluster.cluster_client().ask("GET", "k") == "v");
  CHECK(cluster.client(next).ask("SET", "k", "w") == "+OK");
  const auto start = SteadyClock::now();
  cluster.start(leader);
  CHECK(cluster.caught_up());
  const auto took = std::chrono::duration_cast<Milliseconds>(SteadyClock::now() - start);
  report("a node that was killed had caught up by TLS after ", took.count(), " ms");
}

TEST_CASE("nodes by TLS check names: the host that is dialed, or peer_tls.server_name") {
  if (cannot_run()) return;
  const TempDir dir;
  const Certificates made(dir.path());
  made.authority("ca");
  made.certificate("shared", {.names = "DNS:seshat-node"});
  Cluster cluster({.nodes = 3, .started = false});
  for (const int node : cluster.nodes()) cluster.set_settings(node, peer_tls(made, "shared", "ca"));
  cluster.start_all();
  CHECK(cluster.log_says(1, "does not name the host that was dialed", 15s));
  CHECK(!cluster.leader_now());
  cluster.kill(cluster.nodes());
  for (const int node : cluster.nodes()) {
    Settings settings = peer_tls(made, "shared", "ca");
    settings["peer_tls.server_name"] = "\"seshat-node\"";
    cluster.set_settings(node, settings);
  }
  cluster.start_all();
  CHECK(cluster.client(cluster.leader()).ask("SET", "k", "v") == "+OK");
}

TEST_CASE("a node that does not say the cluster's secret is turned away, and both sides say why") {
  const std::string secret = "the-secret-of-this-cluster";
  const TempDir dir;
  const std::string file = (dir.path() / "secret").string();
  write_text(file, secret + "\n");
  Cluster cluster({.nodes = 3, .spares = 3, .started = false});
  for (const int node : {1, 2}) {
    cluster.set_settings(node, {{"cluster.secret", quoted(secret)}});
  }
  cluster.set_settings(3, {{"cluster.secret_file", quoted(file)}});
  cluster.start_all();
  const int leader = cluster.leader();
  CHECK(cluster.settled());
  CHECK(cluster.client(leader).ask("SET", "k", "v") == "+OK");
  cluster.set_settings(4, {{"cluster.secret", "\"some-other-secret,wrong\""}});
  check_cannot_join(cluster, 4, "says another secret than the node that is called");
  CHECK(cluster.log_says(1, "turned a node away: the node that calls says another secret"));
  check_cannot_join(cluster, 5, "says no secret, and this cluster has one");
  CHECK(cluster.log_says(1, "turned a node away: the node that calls says no secret"));
  cluster.set_settings(6, {{"cluster.secret_file", quoted(file)}});
  cluster.join(6, 1);
  CHECK(cluster.has_members({1, 2, 3, 6}));
  // A member that comes back without it: refused by all, in few lines, and it refuses them.
  const int other = cluster.others(cluster.leader()).front();
  cluster.kill(other);
  cluster.set_settings(other, {{"cluster.secret", "\"\""}});
  cluster.start(other);
  CHECK(cluster.log_says(other, "peer refuses us", 10s));
  CHECK(cluster.log_says(other, "says a secret, and the node that is called has none"));
  CHECK(cluster.cluster_client().ask("SET", "k", "w") == "+OK");
  for (const int node : cluster.nodes()) {
    CHECK(cluster.log(node).find(secret) == std::string::npos);
    CHECK(std::ranges::count(cluster.log(node), '\n') < 40);
  }
  const std::string settings =
      cluster.client(leader == other ? 6 : leader).ask("CONFIG", "GET", "*");
  CHECK_THAT(settings, ContainsSubstring("cluster.secret_file") && !ContainsSubstring(secret));
}

}  // namespace
}  // namespace seshat::tests
