// One client's connection over a Database in memory: replies in order, reads after own writes,
// bounds, and requests cut anywhere. The test plays the server, Raft and the disk.
#include "seshat/connection.hpp"

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "memory_database.hpp"

namespace {

using namespace seshat;
using seshat::tests::call_reply;
using seshat::tests::FixedSite;
using seshat::tests::MemoryDatabase;

class Host final : public ConnectionHost {
 public:
  [[nodiscard]] Database& database() override { return db; }
  [[nodiscard]] Site& site() override { return fixed_site; }
  [[nodiscard]] const kv::Limits& limits() const override { return kv_limits; }
  void wants_attention(std::uint64_t) override { attention = true; }
  void count_command() override { ++commands; }

  MemoryDatabase db;
  FixedSite fixed_site;
  kv::Limits kv_limits;
  bool attention = false;
  std::size_t commands = 0;
};

// A client and its end of the wire. `input` is what the server holds and has not dropped.
struct Client {
  Client() : Client(session_of(7)) {}
  explicit Client(Session session) : connection(host, resp::Limits{}, std::move(session)) {}
  static Session session_of(std::uint64_t id) {
    Session session;
    session.id = id;
    return session;
  }
  // The server's turn: consumes what it may, as often as it is asked to look.
  void turn() {
    do {
      host.attention = false;
      input.erase(0, connection.consume(input));
    } while (host.attention);
  }
  Client& send(std::string_view lines) {
    input += lines;
    turn();
    return *this;
  }
  // What it got since it was asked last.
  std::string got() {
    turn();
    std::string got;
    connection.take_output(got);
    return got;
  }

  Host host;
  MemoryDatabase& db = host.db;
  Connection connection;
  std::string input;
};

std::string bulk_command(const std::vector<std::string>& words) {
  std::string request;
  const std::vector<std::string_view> views(words.begin(), words.end());
  resp::append_command(request, views);
  return request;
}

}  // namespace

// ---- Order --------------------------------------------------------------------------------------

TEST_CASE("a local command and a read in memory are answered at once", "[connection]") {
  Client client;
  client.db.memory.set("k", "v");
  client.send("PING\r\nGET k\r\nGET x\r\n");
  CHECK(client.got() == "+PONG\r\n$1\r\nv\r\n$-1\r\n");
  CHECK(client.connection.idle());
}

TEST_CASE("keys that reads look for are counted once each, in memory or on disk", "[connection]") {
  Client client;
  client.db.memory.set("k", "v");
  client.db.disk.set("k", "v");
  const Door& door = client.host.fixed_site.the_door;
  client.send("GET k\r\nMGET k x k\r\n");
  CHECK((door.hits() == 3 && door.misses() == 1));
  client.db.memory.answer = Lookup::kNotInMemory;
  client.send("GET k\r\nGET x\r\n");
  CHECK((door.hits() == 3 && door.misses() == 1));
  client.db.finish_disk_reads();
  CHECK((door.hits() == 4 && door.misses() == 2));
  CHECK(client.got().ends_with("$1\r\nv\r\n$-1\r\n"));
  client.host.fixed_site.reset_statistics();
  CHECK((door.hits() == 0 && door.misses() == 0));
}

TEST_CASE("a node may read for those who said READONLY, and for nobody else", "[connection]") {
  Client client;
  client.db.memory.set("k", "v");
  client.db.has_lease = false;
  client.db.serves_read_only = true;
  client.send("GET k\r\n");
  CHECK(client.got().empty());
  client.db.read_next();
  client.send("READONLY\r\nGET k\r\nREADWRITE\r\n");
  CHECK(client.got() == "$1\r\nv\r\n+OK\r\n$1\r\nv\r\n+OK\r\n");
  client.send("GET k\r\n");
  CHECK(client.got().empty());
  client.db.read_next();
  CHECK(client.got() == "$1\r\nv\r\n");
}

TEST_CASE("values of any size are read one after another, each as it is", "[connection]") {
  Client client;
  const std::vector<std::size_t> sizes = {1, 65'536, 0, 4'096, 4'097, 100};
  std::string requests;
  std::string replies;
  for (const std::size_t size : sizes) {
    const std::string key = "key" + std::to_string(size);
    client.db.memory.set(key, std::string(size, 'v'));
    requests += "GET " + key + "\r\nGET nothing\r\n";
    replies += "$" + std::to_string(size) + "\r\n" + std::string(size, 'v') + "\r\n$-1\r\n";
  }
  CHECK(client.send(requests).got() == replies);
}

TEST_CASE("a write is answered when it is applied", "[connection]") {
  Client client;
  client.send("SET k v\r\nDEL k j\r\n");
  CHECK(client.got().empty());
  CHECK_FALSE(client.connection.idle());
  REQUIRE(client.db.proposed.size() == 2);
  client.db.apply_next();
  client.db.apply_next({Outcome::Kind::kInteger, 2});
  CHECK(client.got() == "+OK\r\n:2\r\n");
}

TEST_CASE("replies keep the order of requests, errors among them", "[connection]") {
  Client client;
  client.send("SET a 1\r\nPING\r\nNOSUCH\r\nGET\r\nSET a 1 EX\r\nSET b 2\r\nECHO x\r\n");
  CHECK(client.got().empty());
  client.db.apply_next();
  CHECK(client.got() ==
        "+OK\r\n+PONG\r\n-ERR unknown command 'NOSUCH', with args beginning with: \r\n"
        "-ERR wrong number of arguments for 'get' command\r\n-ERR syntax error\r\n");
  client.db.apply_next();
  CHECK(client.got() == "+OK\r\n$1\r\nx\r\n");
}

TEST_CASE("answers that come out of order leave in order", "[connection]") {
  Client client;
  client.db.two_groups = true;
  client.send("SET {user1000}a 1\r\nSET foo 2\r\n");  // slots of two groups
  REQUIRE(client.db.proposed.size() == 2);
  std::swap(client.db.proposed[0], client.db.proposed[1]);
  client.db.fail_next(Refusal::kTimeout);
  CHECK(client.got().empty());
  client.db.apply_next();
  CHECK(client.got() == "+OK\r\n-REFUSED 12182 5\r\n");
}

TEST_CASE("a read waits for the connection's own writes", "[connection]") {
  Client client;
  client.send("SET k v\r\nGET k\r\n");
  REQUIRE(client.db.reads.size() == 1);
  CHECK(client.db.reads[0].after == client.db.proposed[0].index);
  client.db.apply_next();
  client.db.read_next();
  CHECK(client.got() == "+OK\r\n$1\r\nv\r\n");
  client.send("GET k\r\n");
  CHECK(client.got() == "$1\r\nv\r\n");
}

TEST_CASE("a read waits for its own group's writes and no other's", "[connection]") {
  Client client;
  client.db.two_groups = true;
  client.send("SET {user1000}a 1\r\nGET foo\r\n");
  CHECK(client.db.reads.empty());  // nothing was written in foo's group
  client.db.apply_next();
  CHECK(client.got() == "+OK\r\n$-1\r\n");
}

TEST_CASE("a write does not overtake the reads before it", "[connection]") {
  Client client;
  client.db.has_lease = false;
  client.db.memory.set("k", "old");
  client.send("GET k\r\nSET k new\r\nGET k\r\n");
  CHECK(client.db.proposed.empty());
  client.db.has_lease = true;
  client.db.read_next();
  client.turn();
  REQUIRE(client.db.proposed.size() == 1);
  client.db.apply_next();
  client.db.read_next();
  CHECK(client.got() == "$3\r\nold\r\n+OK\r\n$3\r\nnew\r\n");
}

TEST_CASE("a command behind a waiting write waits too, and is done once", "[connection]") {
  Client client;
  client.db.has_lease = false;
  client.send("GET k\r\nSET k v\r\nCLIENT SETNAME me\r\n");
  for (int i = 0; i < 3; ++i) client.turn();
  CHECK(client.connection.session().name.empty());
  CHECK(client.host.commands == 1);
  client.db.read_next();
  client.turn();
  CHECK(client.connection.session().name == "me");
  CHECK(client.host.commands == 3);
  CHECK(client.db.proposed.size() == 1);
}

TEST_CASE("a reply is written in the protocol its request came in", "[connection]") {
  Client client;
  client.db.has_lease = false;
  client.send("GET x\r\nHELLO 3\r\nGET x\r\n");
  client.db.read_next();
  client.db.read_next();
  const std::string got = client.got();
  CHECK_THAT(got, StartsWith("$-1\r\n%7\r\n"));
  CHECK_THAT(got, EndsWith("*0\r\n_\r\n"));
}

// ---- Reads from the disk ------------------------------------------------------------------------

TEST_CASE("what is not in memory is read by the pool, and answered in its place", "[connection]") {
  Client client;
  client.db.disk.set("k", "cold");
  client.db.memory.answer = Lookup::kNotInMemory;
  client.send("GET k\r\nPING\r\nEXISTS k k x\r\n");
  CHECK(client.got().empty());
  client.db.finish_disk_reads();
  CHECK(client.got() == "$4\r\ncold\r\n+PONG\r\n:2\r\n");
}

TEST_CASE("a disk that can't be read says so", "[connection]") {
  Client client;
  client.db.memory.answer = Lookup::kFailed;
  CHECK(client.send("GET k\r\n").got() == "-ERR storage failure\r\n");
  client.db.memory.answer = Lookup::kNotInMemory;
  client.db.disk.answer = Lookup::kFailed;
  client.send("GET k\r\n");
  client.db.finish_disk_reads();
  CHECK(client.got() == "-ERR storage failure\r\n");
}

// ---- Refusals -----------------------------------------------------------------------------------

TEST_CASE("a refusal at once is answered with the words for its slot", "[connection]") {
  Client client;
  client.db.refusal = Refusal::kNotLeader;
  client.db.has_lease = false;
  client.send("SET foo v\r\nGET foo\r\nDEL a b\r\n");
  CHECK(client.got() == "-REFUSED 12182 1\r\n-REFUSED 12182 1\r\n-REFUSED 15495 1\r\n");
  CHECK(client.connection.idle());
}

TEST_CASE("a write that failed is nothing that later reads wait for", "[connection]") {
  Client client;
  client.send("SET k v\r\n");
  client.db.fail_next(Refusal::kUnknown);
  client.db.applied[kFirstDataGroup] = client.db.last_index;
  CHECK(client.send("GET k\r\n").got() == "-REFUSED 7629 6\r\n$-1\r\n");
}

TEST_CASE("a read waits for the later write, whatever became of the one before it",
          "[connection]") {
  Client client;
  client.send("SET k 1\r\nSET k 2\r\n");
  client.db.fail_next(Refusal::kUnknown);
  client.send("GET k\r\n");
  REQUIRE(client.db.reads.size() == 1);
  CHECK(client.db.reads[0].after == client.db.proposed[0].index);
  client.db.apply_next();
  client.db.read_next();
  CHECK(client.got() == "-REFUSED 7629 6\r\n+OK\r\n$1\r\n2\r\n");
}

TEST_CASE("keys of several groups are refused before anything is done", "[connection]") {
  Client client;
  client.db.two_groups = true;
  const std::string crossed = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
  CHECK(client.send("DEL {user1000}a foo\r\nEXISTS foo {user1000}a\r\n").got() ==
        crossed + crossed);
  client.db.unserved = {12182};
  CHECK(client.send("GET foo\r\nSET foo 1\r\n").got() ==
        "-CLUSTERDOWN Hash slot not served\r\n-CLUSTERDOWN Hash slot not served\r\n");
  CHECK(client.send("DEL foo foo\r\n").got() == "-CLUSTERDOWN Hash slot not served\r\n");
  CHECK(client.send("DEL {user1000}a foo foo\r\n").got() == crossed);
  CHECK(client.db.proposed.empty());
}

TEST_CASE("a full disk refuses what grows, and nothing else", "[connection]") {
  Client client;
  client.db.disk_full = true;
  client.send("SET k v\r\nDEL k\r\nGET k\r\n");
  CHECK_THAT(client.got(), StartsWith("-ERR disk full: "));
  REQUIRE(client.db.proposed.size() == 1);
  CHECK(client.db.proposed[0].type == OperationType::kDelete);
}

// ---- Transactions -----------------------------------------------------------------------------------

TEST_CASE("a transaction is one proposal, and its replies come in order", "[connection]") {
  Client client;
  client.send("MULTI\r\nSET k v\r\nPING\r\nGET k\r\nEXEC\r\n");
  CHECK(client.got() == "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n");
  REQUIRE(client.db.proposed.size() == 1);
  CHECK(client.db.proposed[0].type == OperationType::kTransaction);
  CHECK(client.db.proposed[0].arguments ==
        std::vector<std::string>{"0", "3", "SET", "k", "v", "2", "GET", "k"});
  client.db.apply_next({Outcome::Kind::kReply, 0, "+OK\r\n_\r\n"});
  CHECK(client.got() == "*3\r\n+OK\r\n+PONG\r\n$-1\r\n");
}

TEST_CASE("what could not be queued makes EXEC refuse it all", "[connection]") {
  for (const char* wrong : {"GET", "NOSUCH", "KEYS *", "SESHAT.SNAPSHOT"}) {
    Client client;
    client.send("MULTI\r\nSET k v\r\n" + std::string(wrong) + "\r\nEXEC\r\nPING\r\n");
    CHECK(client.db.proposed.empty());
    CHECK_THAT(client.got(),
               EndsWith("\r\n-EXECABORT Transaction discarded because of previous errors.\r\n"
                        "+PONG\r\n"));
  }
}

TEST_CASE("EXEC after WATCH carries what was read, and answers null if it has changed",
          "[connection]") {
  Client client;
  client.db.memory.set("k", "v");
  client.send("WATCH k absent\r\nMULTI\r\nSET k w\r\nEXEC\r\n");
  CHECK(client.got() == "+OK\r\n+OK\r\n+QUEUED\r\n");
  REQUIRE(client.db.proposed.size() == 1);
  CHECK(client.db.proposed[0].arguments == std::vector<std::string>{"2", "k", "0", "1", "0",
                                                                    "absent", "0", "0", "0", "3",
                                                                    "SET", "k", "w"});
  client.db.apply_next({Outcome::Kind::kNone, 0, {}});
  CHECK(client.got() == "*-1\r\n");
  client.send("MULTI\r\nSET k w\r\nEXEC\r\n");  // nothing is watched any more
  REQUIRE(client.db.proposed.size() == 1);
  CHECK(client.db.proposed[0].arguments == std::vector<std::string>{"0", "3", "SET", "k", "w"});
}

TEST_CASE("a reply of a transaction may be larger than any request", "[connection]") {
  Client client;
  client.send("MULTI\r\nGET k\r\nEXEC\r\n");
  const std::string value(9 << 20, 'v');
  client.db.apply_next(
      {Outcome::Kind::kReply, 0, "$" + std::to_string(value.size()) + "\r\n" + value + "\r\n"});
  CHECK(client.got().size() > value.size());
}

TEST_CASE("a transaction whose commands could take too much memory is refused", "[connection]") {
  Client client;
  client.send("MULTI\r\n");
  std::string mget = "MGET";
  for (int i = 0; i < 1000; ++i) mget += " k";
  for (int i = 0; i < 8; ++i) client.send(mget + "\r\n");
  CHECK_THAT(client.got(), EndsWith("+QUEUED\r\n"));
  client.send(mget + "\r\nEXEC\r\n");
  CHECK_THAT(client.got(), StartsWith("-ERR transaction too large"));
  CHECK(client.db.proposed.empty());
}

TEST_CASE("after a WATCH that failed, EXEC does nothing", "[connection]") {
  for (const char* forget : {"", "UNWATCH\r\n"}) {
    Client client;
    client.db.has_lease = false;
    client.send("WATCH k\r\n");
    client.db.fail_next_read(Refusal::kNoQuorum);
    client.got();
    client.send(std::string(forget) + "MULTI\r\nSET k v\r\nEXEC\r\n");
    const bool refused = client.got().find("EXECABORT") != std::string::npos;
    CHECK(refused == (*forget == '\0'));
    CHECK(client.db.proposed.empty() == refused);
  }
}

TEST_CASE("so many keys can be watched, and no more", "[connection]") {
  Client client;
  std::string watch = "WATCH";
  for (std::size_t i = 0; i <= TransactionQueue::kMaxWatched; ++i) watch += " k";
  client.send(watch + "\r\nMULTI\r\nSET k v\r\nEXEC\r\n");
  CHECK_THAT(client.got(), StartsWith("-ERR too many watched keys"));
  CHECK(client.db.proposed.empty());
}

TEST_CASE("what forgets a WATCH waits until it is answered", "[connection]") {
  Client client;
  client.db.has_lease = false;
  client.send("WATCH k\r\nUNWATCH\r\nMULTI\r\nSET k v\r\nEXEC\r\n");
  CHECK(client.db.proposed.empty());
  client.db.read_next();
  client.send("");
  REQUIRE(client.db.proposed.size() == 1);
  CHECK(client.db.proposed[0].arguments[0] == "0");  // nothing is watched
}

TEST_CASE("a transaction of other groups is refused; one of nothing is answered at once",
          "[connection]") {
  Client client;
  client.db.two_groups = true;
  client.send("MULTI\r\nSET a 1\r\nSET b 1\r\nEXEC\r\nMULTI\r\nPING\r\nEXEC\r\n");
  CHECK_THAT(client.got(), ContainsSubstring("\r\n-CROSSSLOT "));
  client.db.two_groups = false;
  client.send("MULTI\r\nEXEC\r\n");
  CHECK(client.got() == "+OK\r\n*0\r\n");
}

// ---- The end ------------------------------------------------------------------------------------

TEST_CASE("QUIT is answered after what came before, and nothing after it is done", "[connection]") {
  Client client;
  client.send("SET k v\r\nQUIT\r\nSET k w\r\n");
  CHECK(client.db.proposed.size() == 1);
  CHECK(client.connection.closing());
  CHECK_FALSE(client.connection.idle());
  client.db.apply_next();
  CHECK(client.got() == "+OK\r\n+OK\r\n");
  CHECK(client.connection.idle());
}

TEST_CASE("broken RESP is answered in its place, then the connection ends", "[connection]") {
  Client client;
  client.send("SET k v\r\n*1\r\n+x\r\nPING\r\n");
  CHECK(client.connection.closing());
  client.db.apply_next();
  CHECK(client.got() == "+OK\r\n-ERR Protocol error: expected '$', got '+'\r\n");
}

TEST_CASE("a browser that was tricked into calling is hung up on, as Redis does", "[connection]") {
  for (const char* line : {"POST / HTTP/1.1\r\nSET k v\r\n", "Host: 127.0.0.1\r\nSET k v\r\n"}) {
    Client client;
    CHECK(client.send(line).got().empty());
    CHECK(client.connection.closing());
    CHECK(client.db.proposed.empty());
  }
}

TEST_CASE("answers that come after the socket is gone are dropped", "[connection]") {
  Client client;
  client.send("SET a 1\r\nSET b 2\r\n");
  client.connection.disconnected();
  client.db.apply_next();
  CHECK_FALSE(client.connection.idle());  // somebody still holds a Waiter
  client.db.fail_next(Refusal::kUnknown);
  CHECK(client.got().empty());
  CHECK(client.connection.idle());
  CHECK_FALSE(client.connection.may_consume());
}

// ---- Bounds -------------------------------------------------------------------------------------

TEST_CASE("a client with too many requests under way is not read from", "[connection]") {
  Client client;
  std::string lines;
  for (std::size_t i = 0; i < Connection::kMaxPending + 100; ++i) lines += "DEL k\r\n";
  client.send(lines);
  CHECK(client.db.proposed.size() == Connection::kMaxPending);
  CHECK_FALSE(client.connection.may_consume());
  client.db.apply_next({Outcome::Kind::kInteger, 0});
  client.turn();
  CHECK(client.db.proposed.size() == Connection::kMaxPending);
  while (!client.db.proposed.empty()) {
    client.db.apply_next({Outcome::Kind::kInteger, 0});
    client.turn();
  }
  CHECK(client.got().size() == 4 * (Connection::kMaxPending + 100));
}

TEST_CASE("values under way are bounded by their bytes", "[connection]") {
  Client client;
  const std::string request = bulk_command({"SET", "k", std::string(65'536, 'v')});
  std::string lines;
  for (int i = 0; i < 200; ++i) lines += request;
  client.send(lines);
  CHECK(client.db.proposed.size() <= Connection::kMaxPendingSizeBytes / 65'536 + 1);
  CHECK_FALSE(client.connection.may_consume());
}

// Small requests, large replies: the room must be taken before the replies come.
TEST_CASE("reads that wait are bounded by the replies they may bring", "[connection]") {
  Client client;
  client.db.has_lease = false;
  client.db.memory.set("k", std::string(65'536, 'v'));
  std::string lines;
  for (int i = 0; i < 1000; ++i) lines += "GET k\r\n";
  client.send(lines);
  CHECK(client.db.reads.size() <= Connection::kMaxPendingSizeBytes / 65'536 + 1);
  CHECK_FALSE(client.connection.may_consume());
  std::size_t size_bytes = 0;
  while (!client.db.reads.empty()) {
    // All are answered at once, and nobody takes a reply.
    while (!client.db.reads.empty()) client.db.read_next();
    CHECK(client.connection.output().size() < Connection::kMaxOutputSizeBytes + 70'000);
    CHECK_FALSE(client.connection.may_consume());
    for (std::string got = client.got(); !got.empty(); got = client.got()) size_bytes += got.size();
  }
  CHECK(client.connection.idle());
  CHECK(size_bytes == 1000 * (65'536 + 10));
}

TEST_CASE("who is gone leaves nothing behind, however much was to be sent", "[connection]") {
  Client client;
  client.db.has_lease = false;
  client.db.memory.set("k", std::string(65'536, 'v'));
  std::string lines;
  for (int i = 0; i < 40; ++i) lines += "GET k\r\n";
  client.send(lines);
  while (!client.db.reads.empty()) client.db.read_next();
  CHECK_FALSE(client.connection.idle());
  client.connection.disconnected();
  CHECK(client.connection.idle());
}

TEST_CASE("a client that does not read its replies is not read from", "[connection]") {
  Client client;
  client.db.memory.set("k", std::string(65'536, 'v'));
  std::string lines;
  for (int i = 0; i < 1000; ++i) lines += "GET k\r\n";
  client.send(lines);
  CHECK(client.connection.output().size() < Connection::kMaxOutputSizeBytes + 70'000);
  CHECK_FALSE(client.connection.may_consume());
  std::size_t size_bytes = 0;
  for (std::string got = client.got(); !got.empty(); got = client.got()) size_bytes += got.size();
  CHECK(size_bytes == 1000 * (65'536 + 10));
}

// Its bytes stay in the input: without this the server would read on, and on.
TEST_CASE("while a write waits for reads, the client is not read from", "[connection]") {
  Client client;
  client.db.has_lease = false;
  client.send("GET a\r\nGET b\r\nSET k v\r\n");
  CHECK_FALSE(client.connection.may_consume());
  client.db.read_next();
  CHECK_FALSE(client.connection.may_consume());
  client.db.fail_next_read(Refusal::kTimeout);
  CHECK(client.connection.may_consume());
  client.turn();
  CHECK(client.db.proposed.size() == 1);
}

// ---- Administration -----------------------------------------------------------------------------

namespace {

// A client whose own address and the one it connected to are given.
struct Administrator : Client {
  explicit Administrator(const std::string& address = "127.0.0.1:50000",
                         const std::string& local_address = "127.0.0.1:6379")
      : Client(session_at(address, local_address)) {}
  static Session session_at(const std::string& address, const std::string& local_address) {
    Session session = session_of(8);
    session.address = address;
    session.local_address = local_address;
    return session;
  }
};

}  // namespace

TEST_CASE("what is administered is answered when the cluster has done it", "[connection]") {
  Administrator client;
  client.send("SESHAT.LEAVE 3 force\r\nseshat.promote 4\r\nPING\r\n");
  CHECK(client.got().empty());
  REQUIRE(client.db.administered.size() == 2);
  CHECK(client.db.administered[0].request == AdminRequest{AdminAction::kLeave, NodeId{3}, true});
  CHECK(client.db.administered[1].request == AdminRequest{AdminAction::kPromote, NodeId{4}, false});
  client.db.finish_admin(call_reply(CallStatus::kAccepted));
  CHECK(client.got() == "+OK\r\n");
  CHECK_FALSE(client.connection.idle());
  client.db.finish_admin(call_reply(CallStatus::kRefused, "node 4 is no member"));
  CHECK(client.got() == "-ERR node 4 is no member\r\n+PONG\r\n");
  CHECK(client.connection.idle());
}

TEST_CASE("an answer that comes before administer() returns keeps its place", "[connection]") {
  Administrator client;
  client.db.admin_reply = call_reply(CallStatus::kNotReady, "a change is under way");
  client.send("SET k v\r\nSESHAT.SNAPSHOT\r\nPING\r\n");
  CHECK(client.got().empty());
  client.db.apply_next();
  CHECK(client.got() == "+OK\r\n-TRYAGAIN a change is under way\r\n+PONG\r\n");
}

TEST_CASE("administration goes on when its client is gone, and is answered to nobody",
          "[connection]") {
  Administrator client;
  client.send("SESHAT.TRANSFER-LEADER 2\r\n");
  client.connection.disconnected();
  CHECK_FALSE(client.connection.idle());  // so that the server keeps it
  client.db.finish_admin(call_reply(CallStatus::kAccepted));
  CHECK(client.connection.idle());
  CHECK(client.got().empty());
}

TEST_CASE("without a password, changes are for clients of this machine", "[connection]") {
  const auto is_allowed = [](const std::string& address, const std::string& local_address) {
    Administrator client(address, local_address);
    client.db.admin_reply = call_reply(CallStatus::kAccepted);
    client.send("SESHAT.LEAVE 3\r\n");
    const std::string got = client.got();
    if (got == "+OK\r\n") return true;
    CHECK(got ==
          "-DENIED SESHAT.LEAVE is allowed from this machine only while no password is set: log in "
          "to the machine of any node and send it from there, to an address of that machine\r\n");
    CHECK(client.db.administered.empty());
    return false;
  };
  CHECK(is_allowed("127.0.0.1:50000", "127.0.0.1:6379"));
  CHECK(is_allowed("127.0.0.1:50000", "127.0.0.2:6379"));
  CHECK(is_allowed("[::1]:50000", "[::1]:6379"));
  CHECK(is_allowed("[::ffff:127.0.0.1]:50000", "[::ffff:127.0.0.1]:6379"));
  CHECK(is_allowed("10.0.0.1:50000", "10.0.0.1:6379"));
  CHECK(is_allowed("[fe80::1%eth0]:50000", "[fe80::1%eth0]:6379"));
  CHECK_FALSE(is_allowed("10.0.0.2:50000", "10.0.0.1:6379"));
  CHECK_FALSE(is_allowed("10.0.0.2:50000", "127.0.0.1:6379"));
  CHECK_FALSE(is_allowed("127.0.0.1:50000", "10.0.0.1:6379"));
  CHECK_FALSE(is_allowed("[::ffff:10.0.0.2]:50000", "[::ffff:10.0.0.1]:6379"));
  CHECK_FALSE(is_allowed("[::11]:50000", "[::1]:6379"));
  CHECK_FALSE(is_allowed("", ""));
}

TEST_CASE("everybody may look at the cluster", "[connection]") {
  Administrator client("10.0.0.2:50000", "10.0.0.1:6379");
  client.send("SESHAT.MEMBERS\r\nSESHAT.STATUS\r\n");
  CHECK(client.got() == "*0\r\n*0\r\n");
}

TEST_CASE("what can't be meant is not asked of the cluster", "[connection]") {
  Administrator client;
  client.send("SESHAT.LEAVE three\r\n");
  CHECK(client.got() ==
        "-ERR invalid node id 'three': must be a number from 1 to 9223372036854775807; "
        "SESHAT.MEMBERS lists the members\r\n");
  for (const std::string id : {"0", "-1", "9223372036854775808", "1.5", "''"}) {
    client.send("SESHAT.PROMOTE " + id + "\r\n");
    CHECK_THAT(client.got(), StartsWith("-ERR invalid node id "));
  }
  client.send("SESHAT.LEAVE 3 FORCED\r\n");
  CHECK(client.got() == "-ERR syntax error at 'FORCED': SESHAT.LEAVE node-id [FORCE]\r\n");
  client.send("SESHAT.LEAVE 3 FORCE now\r\n");
  CHECK(client.got() == "-ERR syntax error at 'now': SESHAT.LEAVE node-id [FORCE]\r\n");
  client.send("SESHAT.TRANSFER-LEADER 3 FORCE\r\nSESHAT.SNAPSHOT 1\r\n");
  CHECK(client.got() ==
        "-ERR wrong number of arguments for 'seshat.transfer-leader' command\r\n"
        "-ERR wrong number of arguments for 'seshat.snapshot' command\r\n");
  CHECK(client.db.administered.empty());
}

// ---- Whatever comes -----------------------------------------------------------------------------

TEST_CASE("cut anywhere, the same requests get the same replies", "[connection]") {
  const std::string wire = bulk_command({"SET", "k", "a\r\nb"}) + "GET k\r\nPING\r\n\r\n" +
                           bulk_command({"NOSUCH", ""}) + "DEL k x\r\n" +
                           bulk_command({"GET", "k"});
  const auto reply_to = [&](std::size_t cut) {
    Client client;
    const auto serve = [&](std::string_view part) {
      client.send(part);
      while (!client.db.proposed.empty() || !client.db.reads.empty()) {
        client.db.proposed.empty() ? client.db.read_next() : client.db.apply_next();
        client.turn();
      }
    };
    serve(std::string_view(wire).substr(0, cut));
    serve(std::string_view(wire).substr(cut));
    return client.got();
  };
  const std::string whole = reply_to(0);
  for (std::size_t cut = 1; cut < wire.size(); ++cut) CHECK(reply_to(cut) == whole);
}

TEST_CASE("every request gets one reply, in order, whatever Raft and the disk do", "[connection]") {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    std::mt19937_64 random(seed);
    Client client;
    std::uint64_t sent = 0;
    const auto act = [&](std::uint64_t action) {
      client.db.has_lease = random() % 2 == 0;
      client.db.memory.answer = random() % 3 == 0 ? Lookup::kNotInMemory : Lookup::kFound;
      if (action == 0 && !client.db.proposed.empty()) client.db.apply_next();
      if (action == 1 && !client.db.proposed.empty()) client.db.fail_next(Refusal::kUnknown);
      if (action == 2 && !client.db.reads.empty()) client.db.read_next();
      if (action == 3) client.db.finish_disk_reads();
      const std::vector<std::string> lines = {"SET k v", "GET k", "EXISTS k", "PING", "NOSUCH"};
      if (action > 3)
        client.input += lines[random() % 5] + "\r\nECHO " + std::to_string(sent++) + "\r\n";
      client.turn();
    };
    for (int step = 0; step < 200; ++step) act(random() % 8);
    for (int step = 0; step < 5000 && !client.input.empty(); ++step) act(random() % 4);
    for (int step = 0; step < 5000 && !client.connection.idle(); ++step) act(random() % 4);
    const std::string got = client.got();
    std::size_t at = 0;
    for (std::uint64_t i = 0; i < sent; ++i) {  // each echo is there, after the one before it
      const std::string text = std::to_string(i);
      at = got.find("$" + std::to_string(text.size()) + "\r\n" + text + "\r\n", at);
      REQUIRE(at != std::string::npos);
    }
  }
}
