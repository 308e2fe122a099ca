// The subcommands: their arguments, what they print, and how they take whatever a node answers. The
// test is the node, on a socket of this machine.
#include "seshat/cli.hpp"

#include <algorithm>
#include <array>
#include <asio/buffer.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/write.hpp>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "memory_database.hpp"
#include "seshat/connection.hpp"

namespace {

using namespace seshat;
using seshat::tests::call_reply;

using Words = std::vector<std::string>;

// A server that answers HELLO, and everything else with what `answer` gives; with nothing, it hangs
// up. One connection at a time, as the subcommands have it.
class FakeNode {
 public:
  explicit FakeNode(std::function<std::string(const Words&)> answer)
      : answer_(std::move(answer)), thread_([this] { serve(); }) {}
  FakeNode(const FakeNode&) = delete;
  FakeNode& operator=(const FakeNode&) = delete;
  ~FakeNode() {
    stopping_ = true;
    asio::io_context io;
    Tcp::socket waker(io);
    asio::error_code ignored;
    waker.connect(acceptor_.local_endpoint(), ignored);
    waker.close(ignored);
    thread_.join();
  }
  [[nodiscard]] std::string address() const {
    return "127.0.0.1:" + std::to_string(acceptor_.local_endpoint().port());
  }
  // Every request but HELLO, as a line.
  [[nodiscard]] std::vector<std::string> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  using Tcp = asio::ip::tcp;

  void serve() {
    while (!stopping_) {
      asio::error_code error;
      Tcp::socket socket(io_);
      acceptor_.accept(socket, error);
      if (!error && !stopping_) converse(socket);
    }
  }
  void converse(Tcp::socket& socket) {
    std::string input;
    resp::RequestParser parser;
    for (;;) {
      const resp::Status status = parser.parse(input);
      Words words;
      if (status == resp::Status::kComplete) {
        words.assign(parser.args().begin(), parser.args().end());
      }
      input.erase(0, parser.consumed());
      if (status == resp::Status::kError) return;
      asio::error_code error;
      if (status == resp::Status::kIncomplete) {
        std::array<char, 1024> bytes{};
        const std::size_t size = socket.read_some(asio::buffer(bytes), error);
        if (error) return;
        input.append(bytes.data(), size);
        continue;
      }
      const std::string reply = words[0] == "HELLO" ? "%0\r\n" : note(words);
      if (reply.empty()) return;
      asio::write(socket, asio::buffer(reply), error);
    }
  }
  std::string note(const Words& words) {
    std::string line;
    for (const std::string& word : words) line += (line.empty() ? "" : " ") + word;
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(line);
    }
    return answer_(words);
  }

  std::function<std::string(const Words&)> answer_;
  asio::io_context io_;
  Tcp::acceptor acceptor_{io_, Tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
  std::atomic<bool> stopping_ = false;
  mutable std::mutex mutex_;
  std::vector<std::string> requests_;
  std::thread thread_;
};

struct Run {
  std::optional<int> code;
  std::string out;
  std::string err;
};

Run run(Words words, const Environment& environment = {}) {
  std::ostringstream out;
  std::ostringstream err;
  const auto code = cli::run(words, environment, out, err);
  return {code, out.str(), err.str()};
}

Run run_at(const FakeNode& node, Words words) {
  words.insert(words.end(), {"--addr", node.address()});
  return run(std::move(words));
}

// A node that always answers the same.
struct Saying : FakeNode {
  explicit Saying(const std::string& reply) : FakeNode([reply](const Words&) { return reply; }) {}
};

Result<cli::Options> parsed(std::string_view name, const Words& words,
                            const Environment& environment = {}) {
  return cli::parse(*cli::find_subcommand(name), words, environment);
}

std::string problem_of(std::string_view name, const Words& words) {
  const auto options = parsed(name, words);
  return options ? "" : options.error().text;
}

resp::Value value_of(std::string_view bytes) {
  resp::ReplyParser parser;
  REQUIRE(parser.parse(bytes) == resp::Status::kComplete);
  return parser.take();
}

// An answer of a Connection over a database in memory, so that both ends are the real ones.
class Host final : public ConnectionHost {
 public:
  [[nodiscard]] Database& database() override { return db; }
  [[nodiscard]] Site& site() override { return fixed_site; }
  [[nodiscard]] const kv::Limits& limits() const override { return kv_limits; }
  void wants_attention(std::uint64_t) override {}
  void count_command() override {}

  seshat::tests::MemoryDatabase db;
  seshat::tests::FixedSite fixed_site;
  kv::Limits kv_limits;
};

std::string answer_of(Host& host, const Words& words) {
  Session session;
  session.address = "127.0.0.1:50000";
  session.local_address = "127.0.0.1:6379";
  session.protocol = resp::Protocol::kResp3;
  Connection connection(host, resp::Limits{}, session);
  std::string request;
  const std::vector<std::string_view> args(words.begin(), words.end());
  resp::append_command(request, args);
  CHECK(connection.consume(request) == request.size());
  return connection.output();
}

GroupStatus group(std::uint64_t id, raft::Role role, std::uint64_t commit, std::uint64_t applied) {
  GroupStatus status;
  status.group = GroupId{id};
  status.role = role;
  status.term = Term{3};
  status.leader = NodeId{1};
  status.commit_index = Index{commit};
  status.applied_index = Index{applied};
  status.first_index = Index{11};
  status.last_index = Index{commit};
  status.log_size_bytes = 4096;
  status.snapshot_index = Index{id == 1 ? 10U : 0U};
  return status;
}

// Node 1 leads, 2 follows, 3 was never heard of.
ClusterStatus three_nodes() {
  ClusterStatus cluster;
  for (std::uint64_t id = 1; id <= 3; ++id) {
    MemberStatus member;
    member.info.id = NodeId{id};
    member.info.incarnation = id;
    member.info.addr = "10.0.0." + std::to_string(id) + ":7379";
    member.info.client_addr = "10.0.0." + std::to_string(id) + ":6379";
    member.info.joined_at_ms = 1'795'305'181'000;
    member.connected = id != 3;
    cluster.members.push_back(member);
  }
  using raft::Role;
  cluster.members[0].is_self = true;
  cluster.members[0].status = NodeStatus{
      false, "0.2.0", {group(0, Role::kLeader, 20, 20), group(1, Role::kLeader, 100, 100)}};
  cluster.members[1].status = NodeStatus{
      false, "0.2.0", {group(0, Role::kFollower, 20, 20), group(1, Role::kFollower, 99, 98)}};
  return cluster;
}

}  // namespace

// ---- Arguments ----------------------------------------------------------------------------------

TEST_CASE("without a subcommand the daemon starts with the same arguments", "[cli]") {
  for (const Words& words : {Words{}, Words{"--id", "2"}, Words{"--help"}}) {
    Words arguments = words;
    std::ostringstream out;
    CHECK_FALSE(cli::run(arguments, {}, out, out));
    CHECK(arguments == words);
    CHECK(out.str().empty());
  }
}

TEST_CASE("seshat join is the daemon with --join", "[cli]") {
  Words arguments = {"join", "10.0.0.1:7379", "--id", "4"};
  std::ostringstream out;
  CHECK_FALSE(cli::run(arguments, {}, out, out));
  CHECK(arguments == Words{"--join", "10.0.0.1:7379", "--id", "4"});
  const Run without = run({"join", "--id", "4"});
  CHECK(without.code == cli::kBadUsage);
  CHECK(without.err ==
        "seshat join: the HOST:PORT of a member comes first\n"
        "usage: seshat join HOST:PORT [--FLAG VALUE]...; --help tells more\n");
  CHECK(run({"join", "somewhere"}).code == cli::kBadUsage);
}

TEST_CASE("what is given to a subcommand arrives", "[cli]") {
  const auto options = parsed("leave", {"--addr=h:1", "3", "--force", "--json", "--timeout", "2"});
  REQUIRE(options);
  CHECK(options->argument == "3");
  CHECK(options->address == HostPort{"h", 1});
  CHECK(options->force);
  CHECK(options->json);
  CHECK(options->timeout_ms == 2000);
  CHECK_FALSE(options->help);
  CHECK(parsed("status", {"--all"})->all);
}

TEST_CASE("bad usage is told before anybody is asked", "[cli]") {
  CHECK(problem_of("leave", {}) == "the ID is missing");
  CHECK(problem_of("leave", {"3", "4"}) == "'4' is one word too many");
  CHECK(problem_of("members", {"3"}) == "'3' is one word too many");
  CHECK_THAT(problem_of("promote", {"x"}), StartsWith("'x' is no node id"));
  CHECK_THAT(problem_of("promote", {"0"}), StartsWith("'0' is no node id"));
  CHECK_THAT(problem_of("promote", {"1", "--forse"}), StartsWith("unknown flag"));
  CHECK_THAT(problem_of("transfer-leader", {"1", "--force"}), StartsWith("unknown flag"));
  CHECK_THAT(problem_of("members", {"--all"}), StartsWith("unknown flag"));
  CHECK(problem_of("members", {"--addr"}) == "--addr needs a value");
  CHECK_THAT(problem_of("members", {"--addr", "h"}), StartsWith("--addr h: must be HOST:PORT"));
  CHECK_THAT(problem_of("members", {"--timeout", "ten"}), StartsWith("--timeout ten: must be"));
  CHECK_THAT(problem_of("members", {"--timeout=3601"}), StartsWith("--timeout 3601: must be"));
  CHECK_THAT(problem_of("members", {"--config", "/nowhere.toml"}),
             ContainsSubstring("does not exist"));
  CHECK(run({"leave"}).code == cli::kBadUsage);
  CHECK(run({"leave"}).err ==
        "seshat leave: the ID is missing\n"
        "usage: seshat leave ID [--force] [--addr HOST:PORT]; --help tells more\n");
}

TEST_CASE("an unknown subcommand is told with the one that was meant", "[cli]") {
  const Run result = run({"member"});
  CHECK(result.code == cli::kBadUsage);
  CHECK(result.err == "seshat: unknown subcommand 'member'; did you mean members?\n");
}

TEST_CASE("the password: what --config says for the daemon, else the environment, else none",
          "[cli]") {
  const auto path = std::filesystem::temp_directory_path() /
                    ("seshat-cli-" + std::to_string(std::random_device()()) + ".toml");
  const std::string file = path.string();
  std::ofstream(path) << "[client]\nrequirepass = \"in file\"\n";
  const Environment environment = {{"SESHAT_CLIENT_REQUIREPASS", "in environment"}};
  CHECK(parsed("status", {})->password.empty());
  CHECK(parsed("status", {}, environment)->password == "in environment");
  CHECK(parsed("status", {"--config", file})->password == "in file");
  CHECK(parsed("status", {"--addr", "a:1", "--config", file})->password == "in file");
  CHECK(parsed("status", {"--config", file}, environment)->password == "in environment");
  std::filesystem::remove(path);
}

TEST_CASE("the address: --addr, then --config, then SESHAT_ADDR, then this machine", "[cli]") {
  const auto path = std::filesystem::temp_directory_path() /
                    ("seshat-cli-" + std::to_string(std::random_device()()) + ".toml");
  std::ofstream(path) << "[node]\nclient_addr = \"0.0.0.0:7001\"\n";
  const Environment environment = {{"SESHAT_ADDR", "e:7002"}};
  const std::string file = path.string();
  CHECK(parsed("status", {})->address == HostPort{"127.0.0.1", 6379});
  CHECK(parsed("status", {}, environment)->address == HostPort{"e", 7002});
  CHECK(parsed("status", {"--config", file}, environment)->address == HostPort{"127.0.0.1", 7001});
  CHECK(parsed("status", {"--addr", "a:7003", "--config", file}, environment)->address ==
        HostPort{"a", 7003});
  CHECK_FALSE(parsed("status", {}, {{"SESHAT_ADDR", "nonsense"}}));
  std::filesystem::remove(path);
}

TEST_CASE("every subcommand explains itself, and --help of the daemon lists it", "[cli]") {
  for (const cli::Subcommand& subcommand : cli::kSubcommands) {
    const std::string name(subcommand.name);
    const Run help = run({name, "--help"});
    CHECK(help.code == cli::kDone);
    CHECK_THAT(help.out, StartsWith("usage: seshat " + name));
    CHECK_THAT(cli::subcommands_text(), ContainsSubstring("\n  " + name + " "));
    if (!subcommand.command.empty()) CHECK_THAT(help.out, ContainsSubstring("Exit codes: 0 done"));
    std::istringstream lines(help.out);
    for (std::string line; std::getline(lines, line);) CHECK(line.size() <= 100);
  }
}

// ---- What is asked, and what its answer becomes ----------------------------------------------

TEST_CASE("each subcommand sends its command", "[cli]") {
  const Saying node("+OK\r\n");
  CHECK(run_at(node, {"leave", "3"}).out == "node 3 has left the cluster\n");
  CHECK(run_at(node, {"leave", "3", "--force"}).code == cli::kDone);
  CHECK(run_at(node, {"promote", "4", "--force"}).out == "node 4 is a voter\n");
  CHECK(run_at(node, {"transfer-leader", "2"}).out == "node 2 leads\n");
  CHECK(run_at(node, {"snapshot", "--json"}).out ==
        "{\"ok\": true, \"message\": \"a snapshot of every group was taken\"}\n");
  CHECK(node.requests() == Words{"SESHAT.LEAVE 3", "SESHAT.LEAVE 3 FORCE", "SESHAT.PROMOTE 4 FORCE",
                                 "SESHAT.TRANSFER-LEADER 2", "SESHAT.SNAPSHOT"});
}

TEST_CASE("the cluster's own words are passed on", "[cli]") {
  const Saying node("+node 3 is being removed\r\n");
  CHECK(run_at(node, {"leave", "3"}).out == "node 3 is being removed\n");
}

TEST_CASE("a refusal is exit code 1, with its reason", "[cli]") {
  const Saying node("-ERR node 3 is the last voter\r\n");
  const Run result = run_at(node, {"leave", "3"});
  CHECK(result.code == cli::kRefused);
  CHECK(result.out.empty());
  CHECK(result.err == "seshat: node 3 is the last voter\n");
  CHECK(run_at(node, {"leave", "3", "--json"}).out ==
        "{\"ok\": false, \"exit_code\": 1, \"error\": \"node 3 is the last voter\"}\n");
}

TEST_CASE("a server that is no Seshat is told from a refusal", "[cli]") {
  const Saying node("-ERR unknown command 'SESHAT.LEAVE', with args beginning with: '3' \r\n");
  const Run result = run_at(node, {"leave", "3"});
  CHECK(result.code == cli::kRefused);
  CHECK_THAT(result.err, EndsWith("does not know it: it is no Seshat, or an older one\n"));
}

TEST_CASE("while the cluster is not ready it is asked again", "[cli]") {
  std::atomic<int> asked = 0;
  const FakeNode node([&](const Words&) -> std::string {
    const std::array<std::string, 4> replies = {"-LOADING restoring\r\n",
                                                "-CLUSTERDOWN no leader, election in progress\r\n",
                                                "-TRYAGAIN a change is under way\r\n", "+OK\r\n"};
    return replies[static_cast<std::size_t>(asked++) % replies.size()];
  });
  const Run result = run_at(node, {"promote", "4"});
  CHECK(result.code == cli::kDone);
  CHECK(result.out == "node 4 is a voter\n");
  CHECK(result.err == "seshat: restoring; trying again for up to 10 s\n");
  CHECK(node.requests().size() == 4);
}

TEST_CASE("a cluster that does not get ready is given up, and what to do is said", "[cli]") {
  const Saying node("-CLUSTERDOWN no leader, election in progress\r\n");
  const Run result = run_at(node, {"members", "--timeout", "0"});
  CHECK(result.code == cli::kRefused);
  CHECK(result.err ==
        "seshat: no leader, election in progress; gave up after 0 s: `seshat status` tells more, "
        "--timeout SECONDS waits longer\n");
  CHECK(node.requests().size() == 1);
}

TEST_CASE("where nobody listens it says so, with exit code 3", "[cli]") {
  std::string address;
  { address = Saying("+OK\r\n").address(); }
  const Run result = run({"status", "--addr", address});
  CHECK(result.code == cli::kNotReachable);
  CHECK(result.err == "seshat: can't reach a node at " + address +
                          ": Connection refused; --addr HOST:PORT names another\n");
}

TEST_CASE("when the answer to a change does not come, nothing is claimed about it", "[cli]") {
  const Saying node("");  // hangs up
  const Run change = run_at(node, {"leave", "3"});
  CHECK(change.code == cli::kNotReachable);
  CHECK(change.err == "seshat: no answer from " + node.address() +
                          ": the connection was closed; it may have been done or not: see `seshat "
                          "status` and `seshat members`\n");
  CHECK_THAT(run_at(node, {"members"}).err, EndsWith(": the connection was closed\n"));
}

TEST_CASE("an answer is not waited for for ever", "[cli]") {
  const Saying node("$100\r\nthe rest never comes");
  auto options = parsed("members", {"--addr", node.address()});
  REQUIRE(options);
  options->answer_timeout_ms = 50;
  std::ostringstream out;
  std::ostringstream err;
  CHECK(cli::execute(*options, out, err) == cli::kNotReachable);
  CHECK_THAT(err.str(), EndsWith(": no answer in time\n"));
}

TEST_CASE("what does not speak RESP is told", "[cli]") {
  const Saying node("HTTP/1.1 400 Bad Request\r\n");
  CHECK_THAT(run_at(node, {"members"}).err, ContainsSubstring("not the Redis protocol"));
}

// ---- Tables and JSON ----------------------------------------------------------------------------

TEST_CASE("seshat status prints a row for each node, of the data group", "[cli]") {
  Host host;
  host.fixed_site.status = three_nodes();
  const FakeNode node([&](const Words& words) { return answer_of(host, words); });
  const Run result = run_at(node, {"status"});
  CHECK(result.code == cli::kDone);
  CHECK(
      result.out ==
      "NODE  ADDRESS        ROLE      TERM  COMMIT  APPLIED  LAG  LOG  LOG-SIZE  SNAPSHOT  STATE\n"
      "   1  10.0.0.1:6379  leader       3     100      100    0   90     4.0kB        10  active\n"
      "   2  10.0.0.2:6379  follower     3      99       98    2   89     4.0kB        10  active\n"
      "   3  10.0.0.3:6379  unknown      -       -        -    -    -         -         -  down\n");
}

TEST_CASE("seshat status --all shows the system group too", "[cli]") {
  Host host;
  host.fixed_site.status = three_nodes();
  const FakeNode node([&](const Words& words) { return answer_of(host, words); });
  const Run result = run_at(node, {"status", "--all"});
  CHECK_THAT(result.out, StartsWith("NODE  ADDRESS        GROUP   ROLE "));
  CHECK_THAT(result.out, ContainsSubstring("   1  10.0.0.1:6379  system  leader "));
  CHECK_THAT(result.out, ContainsSubstring("   1  10.0.0.1:6379  1       leader "));
  CHECK(std::ranges::count(result.out, '\n') == 7);
}

TEST_CASE("seshat members prints a row for each member", "[cli]") {
  Host host;
  host.fixed_site.status = three_nodes();
  const FakeNode node([&](const Words& words) { return answer_of(host, words); });
  CHECK(run_at(node, {"members"}).out ==
        "NODE  ADDRESS        PEER-ADDRESS   STATE   CONNECTED  JOINED                INCARNATION\n"
        "   1  10.0.0.1:6379  10.0.0.1:7379  active  asked      2026-11-21T23:53:01Z  "
        "0000000000000001\n"
        "   2  10.0.0.2:6379  10.0.0.2:7379  active  yes        2026-11-21T23:53:01Z  "
        "0000000000000002\n"
        "   3  10.0.0.3:6379  10.0.0.3:7379  active  no         2026-11-21T23:53:01Z  "
        "0000000000000003\n");
}

TEST_CASE("--json prints one document with stable names", "[cli]") {
  Host host;
  host.fixed_site.status = three_nodes();
  host.fixed_site.status.members.resize(1);
  const FakeNode node([&](const Words& words) { return answer_of(host, words); });
  CHECK(run_at(node, {"members", "--json"}).out ==
        "{\"members\": [{\"id\": 1, \"addr\": \"10.0.0.1:7379\", \"client_addr\": "
        "\"10.0.0.1:6379\", \"state\": \"active\", \"incarnation\": \"0000000000000001\", "
        "\"joined_at_ms\": 1795305181000, \"max_record_version\": 0, \"max_operation_version\": 0, "
        "\"connected\": true, \"self\": true}]}\n");
  const std::string status = run_at(node, {"status", "--json"}).out;
  CHECK_THAT(status, StartsWith("{\"status\": [{\"node\": 1, \"address\": \"10.0.0.1:6379\", "
                                "\"group\": 0, \"role\": \"leader\", \"term\": 3, "));
  CHECK_THAT(status,
             ContainsSubstring("\"log_entries\": 90, \"log_bytes\": 4096, \"snapshot\": 10"));
}

TEST_CASE("a change goes all the way to the database", "[cli]") {
  Host host;
  host.db.admin_reply = call_reply(CallStatus::kRefused, "node 3 is no member");
  const FakeNode node([&](const Words& words) { return answer_of(host, words); });
  CHECK(run_at(node, {"leave", "3", "--force"}).err == "seshat: node 3 is no member\n");
}

TEST_CASE("without members the tables say why", "[cli]") {
  const resp::Value nobody = value_of("*0\r\n");
  CHECK_THAT(cli::members_table(nobody), StartsWith("no members are known yet"));
  CHECK_THAT(cli::status_table(nobody, true), StartsWith("no members are known yet"));
}

TEST_CASE("no cell breaks a table, an answer of another shape no program", "[cli]") {
  cli::Table table({{"A"}, {"B", cli::Align::kRight}});
  table.add({"x y\x1b[2J", ""});
  CHECK(table.text() == "A        B\nx?y?[2J  -\n");
  for (const std::string_view reply : {"*1\r\n:1\r\n", "*1\r\n%1\r\n:1\r\n:2\r\n", "+OK\r\n",
                                       "*2\r\n*0\r\n_\r\n", "*1\r\n*1\r\n$5\r\ngroup\r\n"}) {
    const resp::Value value = value_of(reply);
    CHECK_FALSE(cli::members_table(value).empty());
    CHECK_FALSE(cli::status_table(value, false).empty());
    std::string json;
    cli::append_json(json, value);
    CHECK_FALSE(json.empty());
  }
}

TEST_CASE("sizes and times are for people", "[cli]") {
  CHECK(cli::size_text(0) == "0B");
  CHECK(cli::size_text(999) == "999B");
  CHECK(cli::size_text(1000) == "1.0kB");
  CHECK(cli::size_text(999'999) == "999.9kB");
  CHECK(cli::size_text(1'000'000) == "1.0MB");
  CHECK(cli::size_text(123'456'789'000) == "123.4GB");
  CHECK(cli::size_text(UINT64_MAX) == "18446.7PB");
  CHECK(cli::time_text(0).empty());
  CHECK(cli::time_text(1'795'305'181'999) == "2026-11-21T23:53:01Z");
  CHECK(cli::time_text(UINT64_MAX).empty());
}

TEST_CASE("JSON stays valid whatever a node sends", "[cli]") {
  std::string json;
  cli::append_json(json,
                   value_of("%2\r\n$3\r\na-b\r\n_\r\n$1\r\n\"\r\n*2\r\n#t\r\n$2\r\n\x01\xff\r\n"));
  CHECK(json == "{\"a_b\": null, \"\\\"\": [true, \"\\u0001\xEF\xBF\xBD\"]}");
}
