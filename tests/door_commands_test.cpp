// The commands of door.hpp and of whoever runs a node, through a connection as a client has it: texts
// and replies are those of Redis 7.0.15, taken from one that ran.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "memory_database.hpp"
#include "seshat/connection.hpp"
#include "seshat/kv.hpp"
#include "seshat/resp.hpp"

namespace {

using namespace seshat;
using seshat::tests::FixedSite;
using seshat::tests::MemoryDatabase;

class Host final : public ConnectionHost {
 public:
  [[nodiscard]] Database& database() override { return db; }
  [[nodiscard]] Site& site() override { return fixed_site; }
  [[nodiscard]] const kv::Limits& limits() const override { return kv_limits; }
  void wants_attention(std::uint64_t) override { attention = true; }
  void count_command() override {}

  MemoryDatabase db;
  FixedSite fixed_site;
  kv::Limits kv_limits;
  bool attention = false;
};

Session session_of(std::uint64_t id, bool authenticated) {
  Session session;
  session.id = id;
  session.address = "10.0.0.9:50000";
  session.local_address = "10.0.0.1:6379";
  session.authenticated = authenticated;
  return session;
}

// A client of a node with this password, as the server lets it in.
struct Client {
  explicit Client(const std::string& password = "")
      : connection(host, resp::Limits{}, session_of(7, password.empty())) {
    door().password = password;
    site().sessions = {&connection.session()};
  }
  [[nodiscard]] FixedSite& site() { return host.fixed_site; }
  [[nodiscard]] Door& door() { return site().the_door; }
  void turn() {
    do {
      host.attention = false;
      input.erase(0, connection.consume(input));
    } while (host.attention);
  }
  // Sends lines and takes what comes.
  std::string ask(std::string_view lines) {
    input += lines;
    input += "\r\n";
    return got();
  }
  std::string got() {
    turn();
    std::string got;
    connection.take_output(got);
    return got;
  }
  // What the server does when a pause has begun or ended.
  std::string go_on() {
    connection.pause_changed();
    return got();
  }

  Host host;
  MemoryDatabase& db = host.db;
  Connection connection;
  std::string input;
};

std::string bulk(std::string_view text) {
  return "$" + std::to_string(text.size()) + "\r\n" + std::string(text) + "\r\n";
}

const std::string kUnauthenticated = "-NOAUTH Authentication required.\r\n";
const std::string kUnauthenticatedExec =
    "-EXECABORT Transaction discarded because of: NOAUTH Authentication required.\r\n";
const std::string kWrongPassword =
    "-WRONGPASS invalid username-password pair or user is disabled.\r\n";

}  // namespace

// ---- AUTH ---------------------------------------------------------------------------------------

TEST_CASE("without its password, a node does nothing for a client", "[door]") {
  Client client("s3cret");
  // Of every command and subcommand that the table has, whatever arguments it takes.
  for (const Command& command : kv::commands()) {
    if ((command.flags & kNoAuth) != 0) continue;
    const std::size_t arguments = static_cast<std::size_t>(std::abs(command.arity)) - 1;
    const auto with = [&](std::string line, std::size_t count) {
      for (std::size_t i = 0; i < count; ++i) line += " x";
      return line;
    };
    INFO(command.name);
    if (command.name == "exec") {
      CHECK(client.ask("EXEC") == kUnauthenticatedExec);
    } else if (command.subcommands.empty()) {
      CHECK(client.ask(with(std::string(command.name), arguments)) == kUnauthenticated);
    }
    for (const Command& sub : command.subcommands) {
      const std::string line = std::string(command.name) + " " + std::string(sub.short_name);
      INFO(line);
      CHECK(client.ask(with(line, static_cast<std::size_t>(std::abs(sub.arity)) - 2)) ==
            kUnauthenticated);
    }
    if (!command.subcommands.empty()) {
      CHECK(client.ask(std::string(command.name) + " HELP") == kUnauthenticated);
    }
  }
  CHECK(client.db.proposed.empty());
  CHECK(client.db.reads.empty());
  CHECK(client.db.administered.empty());
  CHECK_FALSE(client.site().shutting_down);
}

TEST_CASE("what is wrong with a request is told before the password is asked for, as in Redis",
          "[door]") {
  Client client("s3cret");
  CHECK(client.ask("NOSUCH") == "-ERR unknown command 'NOSUCH', with args beginning with: \r\n");
  CHECK(client.ask("GET") == "-ERR wrong number of arguments for 'get' command\r\n");
  CHECK(client.ask("CLIENT NOSUCH") == "-ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP.\r\n");
  CHECK(client.ask("QUIT") == "+OK\r\n");
  CHECK(client.connection.closing());
}

TEST_CASE("AUTH lets in who says the password, and nobody else", "[door]") {
  Client client("s3cret");
  CHECK(client.ask("AUTH") == "-ERR wrong number of arguments for 'auth' command\r\n");
  CHECK(client.ask("AUTH a b c") == "-ERR syntax error\r\n");
  for (const char* line : {"AUTH wrong", "AUTH ''", "AUTH default wrong", "AUTH bob s3cret"}) {
    CHECK(client.ask(line) == kWrongPassword);
    CHECK(client.ask("PING") == kUnauthenticated);
  }
  CHECK(client.ask("AUTH s3cret") == "+OK\r\n");
  CHECK(client.ask("PING") == "+PONG\r\n");
  CHECK(client.ask("AUTH wrong") == kWrongPassword);
  CHECK(client.ask("PING") == "+PONG\r\n");  // and stays in, as in Redis
  CHECK(client.ask("RESET") == "+RESET\r\n");
  CHECK(client.ask("PING") == kUnauthenticated);
  CHECK(client.ask("AUTH default s3cret") == "+OK\r\n");
  CHECK(client.ask("PING") == "+PONG\r\n");
}

TEST_CASE("AUTH where there is no password says so; with a user, any password is right", "[door]") {
  Client client;
  CHECK(client.ask("AUTH x") ==
        "-ERR AUTH <password> called without any password configured for the default user. Are "
        "you sure your configuration is correct?\r\n");
  CHECK(client.ask("AUTH default x") == "+OK\r\n");
  CHECK(client.ask("AUTH bob x") == kWrongPassword);
  CHECK(client.ask("RESET") == "+RESET\r\n");
  CHECK(client.ask("PING") == "+PONG\r\n");
}

TEST_CASE("HELLO lets in as AUTH does, or changes nothing", "[door]") {
  Client client("s3cret");
  const std::string must =
      "-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO "
      "AUTH <user> <pass> option can be used to authenticate the client and select the RESP "
      "protocol version at the same time\r\n";
  CHECK(client.ask("HELLO") == must);
  CHECK(client.ask("HELLO 3 SETNAME x") == must);
  CHECK(client.ask("HELLO 9") == "-NOPROTO unsupported protocol version\r\n");
  CHECK(client.ask("HELLO 3 AUTH default wrong") == kWrongPassword);
  CHECK(client.ask("HELLO 3 AUTH default s3cret SETNAME") ==
        "-ERR Syntax error in HELLO option 'SETNAME'\r\n");
  CHECK(client.connection.session().protocol == resp::Protocol::kResp2);
  CHECK(client.connection.session().name.empty());
  CHECK(client.ask("PING") == kUnauthenticated);
  CHECK_THAT(client.ask("HELLO 3 AUTH default s3cret SETNAME n"), StartsWith("%7\r\n"));
  CHECK(client.ask("PING") == "+PONG\r\n");
  CHECK(client.connection.session().name == "n");
}

TEST_CASE("who has not said the password can't make a node take in much", "[door]") {
  const auto answer = [](std::string_view bytes) {
    Client client("s3cret");
    client.input = bytes;
    const std::string got = client.got();
    CHECK(client.connection.closing() == !got.empty());
    return got;
  };
  CHECK(answer("*11\r\n") == "-ERR Protocol error: unauthenticated multibulk length\r\n");
  CHECK(answer("*2\r\n$16385\r\n") == "-ERR Protocol error: unauthenticated bulk length\r\n");
  CHECK(answer("*10\r\n$16384\r\n").empty());
  Client client("s3cret");
  client.ask("AUTH s3cret");
  client.input = "*11\r\n$20000\r\n";
  CHECK(client.got().empty());
  CHECK_FALSE(client.connection.closing());
}

// In one piece: the bound ends with the AUTH before it.
TEST_CASE("a pipeline behind AUTH is bounded as any other", "[door]") {
  Client client("s3cret");
  std::string request = "AUTH s3cret\r\n*2\r\n$4\r\nECHO\r\n" + bulk(std::string(20'000, 'v'));
  client.input = request;
  CHECK(client.got() == "+OK\r\n" + bulk(std::string(20'000, 'v')));
}

TEST_CASE("with a password, members are changed from any machine, and only by who said it",
          "[door]") {
  Client client;
  client.db.admin_reply = tests::call_reply(CallStatus::kAccepted);
  CHECK_THAT(client.ask("SESHAT.LEAVE 3"), StartsWith("-DENIED "));
  CHECK(client.ask("AUTH default anything") == "+OK\r\n");
  CHECK_THAT(client.ask("SESHAT.LEAVE 3"), StartsWith("-DENIED "));
  client.door().password = "s3cret";  // who was in stays in, and has not said it
  CHECK_THAT(client.ask("SESHAT.LEAVE 3"), StartsWith("-DENIED "));
  CHECK(client.ask("AUTH s3cret") == "+OK\r\n");
  CHECK(client.ask("SESHAT.LEAVE 3") == "+OK\r\n");
  client.ask("RESET");
  CHECK(client.ask("SESHAT.LEAVE 3") == kUnauthenticated);
}

// ---- CLIENT -------------------------------------------------------------------------------------

TEST_CASE("CLIENT LIST chooses by type and by id", "[door]") {
  Client client;
  Session other = session_of(8, true);
  client.site().sessions.push_back(&other);
  const auto ids = [&](std::string_view line) {
    const std::string got = client.ask(line);
    return std::pair(got.find("id=7 ") != std::string::npos,
                     got.find("id=8 ") != std::string::npos);
  };
  CHECK(ids("CLIENT LIST") == std::pair(true, true));
  CHECK(ids("CLIENT LIST TYPE Normal") == std::pair(true, true));
  CHECK(ids("CLIENT LIST ID 8 9 -4 0") == std::pair(false, true));
  for (const char* type : {"master", "replica", "slave", "pubsub"}) {
    CHECK(client.ask("CLIENT LIST TYPE " + std::string(type)) == "$0\r\n\r\n");
  }
  CHECK(client.ask("CLIENT LIST TYPE x") == "-ERR Unknown client type 'x'\r\n");
  CHECK(client.ask("CLIENT LIST ID 7 x") == "-ERR Invalid client ID\r\n");
  for (const char* wrong : {"ID", "TYPE", "TYPE normal x", "foo bar", "x"}) {
    CHECK(client.ask("CLIENT LIST " + std::string(wrong)) == "-ERR syntax error\r\n");
  }
}

TEST_CASE("CLIENT KILL finds by every filter, all of them together", "[door]") {
  Client client;
  Session other = session_of(8, true);
  other.address = "10.0.0.8:1";
  client.site().sessions.push_back(&other);
  const auto killed = [&](std::string_view line) {
    client.site().killed.clear();
    (void)client.ask("CLIENT KILL " + std::string(line));
    return client.site().killed;
  };
  using Ids = std::vector<std::uint64_t>;
  CHECK(killed("10.0.0.8:1") == Ids{8});
  CHECK(killed("ID 8") == Ids{8});
  CHECK(killed("ID 7").empty());  // this one itself: SKIPME is yes
  CHECK(killed("ADDR 10.0.0.8:1 ID 8") == Ids{8});
  CHECK(killed("ADDR 10.0.0.8:1 ID 9").empty());
  CHECK(killed("LADDR 10.0.0.1:6379") == Ids{8});
  CHECK(killed("USER default") == Ids{8});
  CHECK(killed("TYPE normal") == Ids{8});
  CHECK(killed("TYPE pubsub").empty());
  CHECK(killed("TYPE normal SKIPME yes") == Ids{8});
  CHECK_FALSE(client.connection.closing());
  CHECK(killed("TYPE normal SKIPME no") == Ids{7, 8});
  CHECK(client.connection.closing());
}

TEST_CASE("CLIENT KILL answers as Redis", "[door]") {
  Client client;
  CHECK(client.ask("CLIENT KILL 1.2.3.4:5") == "-ERR No such client\r\n");
  CHECK(client.ask("CLIENT KILL ID 999") == ":0\r\n");
  CHECK(client.ask("CLIENT KILL TYPE normal") == ":0\r\n");
  for (const char* id : {"x", "0", "-1", "9223372036854775808"}) {
    CHECK(client.ask("CLIENT KILL ID " + std::string(id)) ==
          "-ERR client-id should be greater than 0\r\n");
  }
  CHECK(client.ask("CLIENT KILL TYPE x") == "-ERR Unknown client type 'x'\r\n");
  CHECK(client.ask("CLIENT KILL USER nobody") == "-ERR No such user 'nobody'\r\n");
  for (const char* wrong : {"SKIPME x", "FOO x", "ADDR 1:1 LADDR"}) {
    CHECK(client.ask("CLIENT KILL " + std::string(wrong)) == "-ERR syntax error\r\n");
  }
  CHECK(client.ask("CLIENT KILL") ==
        "-ERR wrong number of arguments for 'client|kill' command\r\n");
  CHECK(client.ask("CLIENT KILL 10.0.0.9:50000") == "+OK\r\n");  // oneself, by the old form
  CHECK(client.connection.closing());
}

TEST_CASE("CLIENT REPLY: replies are left out, in their places", "[door]") {
  Client client;
  client.db.memory.set("k", "v");
  CHECK(client.ask("CLIENT REPLY SKIP\r\nPING\r\nECHO a") == "$1\r\na\r\n");
  CHECK(client.ask("CLIENT REPLY SKIP\r\nGET k\r\nGET k") == "$1\r\nv\r\n");
  CHECK(client.ask("CLIENT REPLY SKIP\r\nNOSUCH\r\nPING") == "+PONG\r\n");
  CHECK(client.ask("CLIENT REPLY OFF\r\nPING\r\nGET k\r\nNOSUCH\r\nCLIENT REPLY SKIP\r\nPING") ==
        "");
  CHECK(client.ask("CLIENT REPLY ON\r\nPING") == "+OK\r\n+PONG\r\n");
  CHECK(client.ask("CLIENT REPLY x") == "-ERR syntax error\r\n");
  CHECK(client.ask("CLIENT REPLY on x") ==
        "-ERR wrong number of arguments for 'client|reply' command\r\n");
}

TEST_CASE("CLIENT REPLY holds for what has to wait, and is done in order", "[door]") {
  Client client;
  const std::string lines =
      "SET a 1\r\nCLIENT REPLY OFF\r\nSET b 2\r\nECHO c\r\nCLIENT REPLY ON\r\nSET d 4\r\n"
      "CLIENT REPLY SKIP\r\nSET e 5\r\nECHO f";
  CHECK(client.ask(lines) == "");
  REQUIRE(client.db.proposed.size() == 4);  // silent writes are done as well
  while (!client.db.proposed.empty()) client.db.apply_next();
  CHECK(client.got() == "+OK\r\n+OK\r\n+OK\r\n$1\r\nf\r\n");
}

TEST_CASE("RESET turns replies on again", "[door]") {
  Client client;
  CHECK(client.ask("CLIENT REPLY OFF\r\nRESET\r\nPING") == "+RESET\r\n+PONG\r\n");
}

TEST_CASE("CLIENT NO-EVICT is remembered and shown", "[door]") {
  Client client;
  CHECK(client.ask("CLIENT NO-EVICT x") == "-ERR syntax error\r\n");
  CHECK(client.ask("CLIENT NO-EVICT on") == "+OK\r\n");
  CHECK_THAT(client.ask("CLIENT INFO"), ContainsSubstring(" flags=e "));
  CHECK(client.ask("CLIENT NO-EVICT off") == "+OK\r\n");
  CHECK_THAT(client.ask("CLIENT INFO"), ContainsSubstring(" flags=N "));
}

TEST_CASE("what no client here does is answered as a Redis where none does it", "[door]") {
  Client client;
  CHECK(client.ask("CLIENT UNBLOCK 5") == ":0\r\n");
  CHECK(client.ask("CLIENT UNBLOCK 5 ERROR") == ":0\r\n");
  CHECK(client.ask("CLIENT UNBLOCK x") == "-ERR value is not an integer or out of range\r\n");
  CHECK(client.ask("CLIENT UNBLOCK 5 x") ==
        "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n");
  CHECK(client.ask("CLIENT GETREDIR") == ":-1\r\n");
  CHECK(
      client.ask("CLIENT TRACKINGINFO") ==
      "*6\r\n$5\r\nflags\r\n*1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n*0\r\n");
  CHECK(client.ask("CLIENT NO-TOUCH on") ==
        "-ERR unknown subcommand 'NO-TOUCH'. Try CLIENT HELP.\r\n");
}

// ---- CLIENT PAUSE -------------------------------------------------------------------------------

TEST_CASE("a pause holds commands back in their order, and none is lost or done twice", "[door]") {
  Client client;
  CHECK(client.ask("CLIENT PAUSE 1000") == "+OK\r\n");
  CHECK(client.site().pause_changes == 1);
  CHECK(client.door().paused_until_ms() == 101'000);
  CHECK(client.ask("SET k v\r\nPING\r\nCLIENT UNPAUSE") == "");
  CHECK(client.connection.is_paused());
  CHECK_FALSE(client.connection.may_consume());
  CHECK(client.connection.owes_answer());
  CHECK(client.go_on() == "");  // it is not over yet
  CHECK(client.connection.is_paused());
  CHECK(client.db.proposed.empty());
  client.door().unpause();
  CHECK(client.go_on() == "");
  REQUIRE(client.db.proposed.size() == 1);
  client.db.apply_next();
  CHECK(client.got() == "+OK\r\n+PONG\r\n+OK\r\n");
}

TEST_CASE("CLIENT PAUSE WRITE holds back writes, and what comes behind them", "[door]") {
  Client client;
  CHECK(client.ask("CLIENT PAUSE 1000 write") == "+OK\r\n");
  CHECK(client.ask("GET k\r\nPING") == "$-1\r\n+PONG\r\n");
  CHECK(client.ask("SET k v\r\nGET k") == "");
  CHECK(client.db.proposed.empty());
  client.door().unpause();
  CHECK(client.go_on() == "");
  CHECK(client.db.proposed.size() == 1);
}

TEST_CASE("what is wrong is told during a pause too", "[door]") {
  Client client;
  client.ask("CLIENT PAUSE 1000");
  CHECK(client.ask("NOSUCH") == "-ERR unknown command 'NOSUCH', with args beginning with: \r\n");
}

TEST_CASE("CLIENT PAUSE and UNPAUSE answer as Redis", "[door]") {
  Client client;
  CHECK(client.ask("CLIENT PAUSE x") == "-ERR timeout is not an integer or out of range\r\n");
  CHECK(client.ask("CLIENT PAUSE 9223372036854775807") ==
        "-ERR timeout is not an integer or out of range\r\n");
  CHECK(client.ask("CLIENT PAUSE -1") == "-ERR timeout is negative\r\n");
  CHECK(client.ask("CLIENT PAUSE 1 x") == "-ERR CLIENT PAUSE mode must be WRITE or ALL\r\n");
  CHECK(client.ask("CLIENT PAUSE 1 ALL y") ==
        "-ERR unknown subcommand or wrong number of arguments for 'PAUSE'. Try CLIENT HELP.\r\n");
  CHECK_FALSE(client.door().is_paused());
  CHECK(client.ask("CLIENT UNPAUSE") == "+OK\r\n");
}

// ---- WAIT ---------------------------------------------------------------------------------------

TEST_CASE("WAIT answers when all before it is answered, with what is known then", "[door]") {
  Client client;
  client.site().replicas = 0;
  CHECK(client.ask("SET k v\r\nWAIT 1 0\r\nPING") == "");
  CHECK_FALSE(client.connection.may_consume());
  client.site().replicas = 2;
  client.db.apply_next();
  CHECK(client.got() == "+OK\r\n:2\r\n+PONG\r\n");
  CHECK(client.ask("WAIT 5 100") == ":2\r\n");  // no more than there is, and at once
}

TEST_CASE("WAIT goes on when what it waits for is refused", "[door]") {
  Client client;
  client.site().replicas = 1;
  client.db.has_lease = false;
  CHECK(client.ask("GET k\r\nSET k v\r\nWAIT 1 0") == "");
  client.db.fail_next_read(Refusal::kTimeout);
  client.turn();
  client.db.fail_next(Refusal::kUnknown);
  CHECK_THAT(client.got(), EndsWith("\r\n:1\r\n"));
}

// Were it not held, the server would look at it again in every turn until the read is served.
TEST_CASE("EXEC behind a read that waits is held as a write is", "[door]") {
  Client client;
  client.db.has_lease = false;
  CHECK(client.ask("GET k\r\nEXEC") == "");
  CHECK_FALSE(client.connection.may_consume());
  client.db.read_next();
  CHECK(client.connection.may_consume());
  CHECK(client.got() == "$-1\r\n-ERR EXEC without MULTI\r\n");
}

TEST_CASE("WAIT refuses what Redis refuses, in its words", "[door]") {
  Client client;
  CHECK_THAT(client.ask("WAIT 0 0"),
             StartsWith("-ERR WAIT cannot be used with replica instances."));
  client.site().replicas = 1;
  CHECK(client.ask("WAIT x 0") == "-ERR value is not an integer or out of range\r\n");
  CHECK(client.ask("WAIT 0 x") == "-ERR timeout is not an integer or out of range\r\n");
  CHECK(client.ask("WAIT 1 -1") == "-ERR timeout is negative\r\n");
  CHECK(client.ask("WAIT -1 0") == ":1\r\n");
}

// ---- SLOWLOG, LATENCY ---------------------------------------------------------------------------

TEST_CASE("the slow log has who asked what, and how long that took", "[door]") {
  Client client;
  client.door().slow_log.slower_than_us = 100;
  client.ask("CLIENT SETNAME me");
  client.site().tick_us = 100;  // every look at the clock finds it so much later
  client.ask("ECHO a");
  client.site().tick_us = 0;
  client.ask("ECHO b");
  CHECK(client.ask("SLOWLOG LEN") == ":1\r\n");
  CHECK(client.ask("SLOWLOG GET") ==
        "*1\r\n*6\r\n:0\r\n:1700000000\r\n:100\r\n*2\r\n$4\r\nECHO\r\n$1\r\na\r\n" +
            bulk("10.0.0.9:50000") + "$2\r\nme\r\n");
  CHECK(client.ask("SLOWLOG GET 0") == "*0\r\n");
  CHECK(client.ask("SLOWLOG RESET") == "+OK\r\n");
  CHECK(client.ask("SLOWLOG GET -1") == "*0\r\n");
  for (const char* wrong : {"x", "-2"}) {
    CHECK(client.ask("SLOWLOG GET " + std::string(wrong)) ==
          "-ERR count should be greater than or equal to -1\r\n");
  }
  CHECK(client.ask("SLOWLOG GET 1 2") ==
        "-ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP.\r\n");
}

TEST_CASE("a write's time ends when it is applied, a read's when it is served", "[door]") {
  Client client;
  client.door().slow_log.slower_than_us = 1000;
  client.ask("SET key value");
  client.site().clock_us += 5000;
  client.db.apply_next();
  client.db.has_lease = false;
  client.ask("EXISTS " + std::string(200, 'k') + " b c");
  client.site().clock_us += 7000;
  client.db.read_next();
  const auto& entries = client.door().slow_log.entries();
  REQUIRE(entries.size() == 2);
  using Logged = std::vector<std::string>;
  CHECK(entries[1].took_us == 5000);
  CHECK(entries[1].arguments == Logged{"set", "key", "... (1 more arguments)"});
  CHECK(entries[0].took_us == 7000);
  CHECK(entries[0].arguments ==
        Logged{"exists", std::string(64, 'k') + "... (136 more bytes)", "... (2 more arguments)"});
}

TEST_CASE("passwords in requests are not in the slow log", "[door]") {
  Client client("s3cret");
  client.door().slow_log.slower_than_us = 0;
  client.ask(
      "AUTH wr0ng\r\nAUTH s3cret\r\nHELLO 2 AUTH default s3cret\r\nCONFIG SET requirepass n3w");
  const std::string log = client.ask("SLOWLOG GET -1");
  CHECK_THAT(log, StartsWith("*4\r\n"));
  CHECK_THAT(log, !ContainsSubstring("wr0ng") && !ContainsSubstring("s3cret") &&
                      !ContainsSubstring("n3w"));
}

TEST_CASE("LATENCY tells of what took long, in the shapes of Redis", "[door]") {
  Client client;
  CHECK_THAT(client.ask("LATENCY DOCTOR"), ContainsSubstring("disabled"));
  client.door().latency.threshold_ms = 5;
  CHECK(client.ask("LATENCY LATEST") == "*0\r\n");
  client.site().tick_us = 6000;
  client.ask("ECHO a");  // one of the fast ones
  client.site().tick_us = 0;
  CHECK(client.ask("LATENCY LATEST") ==
        "*1\r\n*4\r\n$12\r\nfast-command\r\n:1700000000\r\n:6\r\n:6\r\n");
  CHECK(client.ask("LATENCY HISTORY fast-command") == "*1\r\n*2\r\n:1700000000\r\n:6\r\n");
  CHECK(client.ask("LATENCY HISTORY nosuch") == "*0\r\n");
  CHECK_THAT(client.ask("LATENCY DOCTOR"), ContainsSubstring("longest ever 6 ms"));
  CHECK(client.ask("LATENCY RESET nosuch command") == ":0\r\n");
  CHECK(client.ask("LATENCY RESET fast-command") == ":1\r\n");
  CHECK(client.ask("LATENCY RESET") == ":0\r\n");
}

// ---- What INFO counts ---------------------------------------------------------------------------

TEST_CASE("each request is counted once, with its end: at once, waiting, refused, wrong",
          "[door]") {
  Client client;
  client.ask("PING\r\nGET k\r\nSET a 1\r\nGET a\r\nPING\r\nSET b 2 EX\r\nNOSUCH\r\nGET");
  std::string stats;
  client.door().append_command_stats(stats);
  CHECK_THAT(stats, ContainsSubstring("cmdstat_get:calls=1,"));  // the other waits for SET a
  CHECK_THAT(stats, !ContainsSubstring("cmdstat_set:calls=2"));
  client.db.fail_next(Refusal::kUnknown);
  client.db.applied[kFirstDataGroup] = client.db.last_index;
  client.db.read_next();
  client.got();
  stats.clear();
  client.door().append_command_stats(stats);
  CHECK(stats ==
        "cmdstat_get:calls=2,usec=0,usec_per_call=0.00,failed_calls=0\r\n"
        "cmdstat_ping:calls=2,usec=0,usec_per_call=0.00,failed_calls=0\r\n"
        "cmdstat_set:calls=2,usec=0,usec_per_call=0.00,failed_calls=2\r\n");
  std::string errors;
  client.door().append_error_stats(errors);
  CHECK(errors == "errorstat_ERR:count=3\r\nerrorstat_REFUSED:count=1\r\n");
}

TEST_CASE("INFO leaves the long sections to all and everything", "[door]") {
  Client client;
  CHECK_THAT(client.ask("INFO"), !ContainsSubstring("# Commandstats"));
  CHECK_THAT(client.ask("INFO default"), !ContainsSubstring("# Commandstats"));
  CHECK_THAT(client.ask("INFO"),
             ContainsSubstring("# CPU\r\n") && ContainsSubstring("# Errorstats"));
  CHECK_THAT(client.ask("INFO all"), ContainsSubstring("# Commandstats"));
  CHECK_THAT(client.ask("INFO everything"), ContainsSubstring("# Commandstats"));
  CHECK_THAT(client.ask("INFO commandstats"), StartsWith("$"));
}

// ---- CONFIG, TIME, SHUTDOWN, CLUSTER, COMMAND ----------------------------------------------------

TEST_CASE("CONFIG SET takes pairs, and says what the node says of them", "[door]") {
  Client client;
  CHECK(client.ask("CONFIG SET timeout 1 maxclients 2") == "+OK\r\n");
  CHECK(client.site().changed == std::vector<std::string>{"timeout", "1", "maxclients", "2"});
  CHECK(client.ask("CONFIG SET timeout 0 foo") == "-ERR syntax error\r\n");
  CHECK(client.ask("CONFIG SET a") ==
        "-ERR wrong number of arguments for 'config|set' command\r\n");
  client.site().change_error = "ERR no";
  CHECK(client.ask("CONFIG SET timeout 1") == "-ERR no\r\n");
  CHECK_THAT(client.ask("CONFIG REWRITE"), StartsWith("-ERR Rewriting config file: not supported"));
  client.door().count("ping", 1, false);
  CHECK(client.ask("CONFIG RESETSTAT") == "+OK\r\n");
  std::string stats;
  client.door().append_command_stats(stats);
  CHECK_THAT(stats, !ContainsSubstring("ping"));
}

TEST_CASE("TIME has seconds and microseconds", "[door]") {
  CHECK(Client().ask("TIME") == "*2\r\n$10\r\n1700000000\r\n$6\r\n123456\r\n");
}

TEST_CASE("SHUTDOWN asks the node to stop, and is not answered", "[door]") {
  for (const char* line : {"SHUTDOWN", "SHUTDOWN NOSAVE", "shutdown save now force"}) {
    Client client;
    CHECK(client.ask(line) == "");
    CHECK(client.site().shutting_down);
  }
  Client client;
  for (const char* wrong : {"x", "NOSAVE SAVE", "ABORT NOW", "now x"}) {
    CHECK(client.ask("SHUTDOWN " + std::string(wrong)) == "-ERR syntax error\r\n");
  }
  CHECK(client.ask("SHUTDOWN ABORT") == "-ERR No shutdown in progress.\r\n");
  CHECK_FALSE(client.site().shutting_down);
  client.ask("SHUTDOWN");
  CHECK_THAT(client.ask("SHUTDOWN ABORT"), StartsWith("-ERR Shutdown can't be aborted any more"));
}

TEST_CASE("CLUSTER LINKS lists the nodes that are connected, this one not among them", "[door]") {
  CHECK(Client().ask("CLUSTER LINKS") ==
        "*1\r\n*4\r\n$9\r\ndirection\r\n$2\r\nto\r\n$4\r\nnode\r\n" +
            bulk("7365736861742d6e6f64652d0000000000000002"));
}

TEST_CASE("COMMAND LIST filters as Redis does", "[door]") {
  Client client;
  CHECK(client.ask("COMMAND LIST FILTERBY PATTERN client|k*") == "*1\r\n$11\r\nclient|kill\r\n");
  CHECK(client.ask("COMMAND LIST FILTERBY pattern AUT?") == "*1\r\n$4\r\nauth\r\n");
  CHECK_THAT(client.ask("COMMAND LIST FILTERBY ACLCAT transaction"),
             ContainsSubstring("$4\r\nexec"));
  CHECK(client.ask("COMMAND LIST FILTERBY ACLCAT nosuch") == "*0\r\n");
  CHECK(client.ask("COMMAND LIST FILTERBY MODULE x") == "*0\r\n");
  for (const char* wrong : {"FILTERBY", "FILTERBY x y", "x PATTERN get", "FILTERBY PATTERN a b"}) {
    CHECK(client.ask("COMMAND LIST " + std::string(wrong)) == "-ERR syntax error\r\n");
  }
  CHECK(client.ask("COMMAND GETKEYSANDFLAGS set a b") ==
        "*1\r\n*2\r\n$1\r\na\r\n*4\r\n+RW\r\n+access\r\n+update\r\n+variable_flags\r\n");
  CHECK(client.ask("COMMAND GETKEYSANDFLAGS ping a") ==
        "-ERR The command has no key arguments\r\n");
}

// As Redis 7.0.15 shows them.
TEST_CASE("flags and categories of the commands of operators are those of Redis", "[door]") {
  Client client;
  const auto words = [](std::string_view name) {
    const Command* command = server_commands::detail::find_full_name(kv::commands(), name);
    std::string text;
    for (const auto flag : command_detail::flag_names(*command)) text += std::string(flag) + " ";
    for (const auto category : command_detail::categories(*command)) {
      text += std::string(category) + " ";
    }
    return text;
  };
  CHECK(words("auth") == "noscript loading stale fast no_auth allow_busy @fast @connection ");
  const std::string of_clients =
      "admin noscript loading stale @admin @slow @dangerous @connection ";
  for (const char* name : {"kill", "list", "pause", "unpause", "no-evict", "unblock"}) {
    CHECK(words("client|" + std::string(name)) == of_clients);
  }
  for (const char* name : {"reply", "getredir", "trackinginfo"}) {
    CHECK(words("client|" + std::string(name)) == "noscript loading stale @slow @connection ");
  }
  for (const char* name : {"config|set", "config|resetstat", "config|rewrite", "latency|latest",
                           "latency|history", "latency|reset", "latency|doctor"}) {
    CHECK(words(name) == "admin noscript loading stale @admin @slow @dangerous ");
  }
  for (const char* name : {"slowlog|get", "slowlog|len", "slowlog|reset"}) {
    CHECK(words(name) == "admin loading stale @admin @slow @dangerous ");
  }
  CHECK(words("shutdown") ==
        "admin noscript loading stale no_multi allow_busy @admin @slow @dangerous ");
  CHECK(words("time") == "loading stale fast @fast ");
  CHECK(words("wait") == "noscript @slow @connection ");
  CHECK(words("cluster|links") == "stale @slow ");
}
