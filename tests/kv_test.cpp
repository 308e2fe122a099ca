// The commands: the table is sound, what clients ask about it has the bytes of Redis 7.0.15 (taken
// from one that ran with --cluster-enabled yes), and errors are those of Redis, word for word.
#include "seshat/kv.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "commands_page.hpp"
#include "memory_database.hpp"
#include "seshat/resp.hpp"

namespace {

using namespace seshat;
using seshat::tests::FixedSite;
using seshat::tests::MemoryMap;

using Words = std::vector<std::string_view>;

Words split(std::string_view line) { return command_detail::split(line, ' '); }

// A client of one node. It sees what a connection would send it, without keys.
struct Client {
  std::string ask(const Words& words) {
    std::string out;
    resp::Writer errors(out, session.protocol);
    const Command* command = kv::check(words, limits, session, errors);
    if (command == nullptr) return out;
    if (command->local == nullptr) return "(" + std::string(command->name) + ")";
    command->local(Call{*command, words, session, site, out});
    return out;
  }
  std::string ask(std::string_view line) { return ask(split(line)); }
  resp::Value reply(std::string_view line) {
    const std::string bytes = ask(line);
    resp::ReplyParser parser;
    INFO(bytes);
    REQUIRE(parser.parse(bytes) == resp::Status::kComplete);
    REQUIRE(parser.consumed() == bytes.size());
    return parser.take();
  }
  Client& resp3() {
    session.protocol = resp::Protocol::kResp3;
    return *this;
  }

  Session session;
  FixedSite site;
  kv::Limits limits;
};

// Every command and subcommand.
std::vector<const Command*> all_commands() {
  std::vector<const Command*> all;
  for (const Command& command : kv::commands()) {
    all.push_back(&command);
    for (const Command& subcommand : command.subcommands) all.push_back(&subcommand);
  }
  return all;
}

// The value of a key of a map, in either protocol.
const resp::Value& at(const resp::Value& map, std::string_view key) {
  for (std::size_t i = 0; i + 1 < map.elements.size(); i += 2) {
    if (map.elements[i].text == key) return map.elements[i + 1];
  }
  FAIL("no " << key);
  return map;
}

std::string bulk(std::string_view text) {
  return "$" + std::to_string(text.size()) + "\r\n" + std::string(text) + "\r\n";
}

constexpr std::string_view kNode1 = "7365736861742d6e6f64652d0000000000000001";
constexpr std::string_view kNode2 = "7365736861742d6e6f64652d0000000000000002";

}  // namespace

// ---- The table ----------------------------------------------------------------------------------

TEST_CASE("commands and subcommands are sorted by name, and named once", "[kv]") {
  const auto by_name = [](const Command& a, const Command& b) { return a.name < b.name; };
  CHECK(std::is_sorted(kv::commands().begin(), kv::commands().end(), by_name));
  std::set<std::string_view> names;
  for (const Command* command : all_commands()) {
    CHECK(names.insert(command->name).second);
    const CommandTable subcommands = command->subcommands;
    CHECK(std::is_sorted(subcommands.begin(), subcommands.end(), by_name));
    for (const Command& subcommand : subcommands) {
      CHECK_THAT(std::string(subcommand.name), StartsWith(std::string(command->name) + "|"));
    }
  }
}

TEST_CASE("every command has one function, every container at most one", "[kv]") {
  for (const Command* command : all_commands()) {
    INFO(command->name);
    const int functions = (command->local != nullptr ? 1 : 0) + (command->read != nullptr ? 1 : 0) +
                          (command->write != nullptr ? 1 : 0) + (command->admin != nullptr ? 1 : 0);
    const bool bare = command->subcommands.empty() || command->arity == -1;
    CHECK(functions == (bare ? 1 : 0));
  }
}

TEST_CASE("flags, keys and functions of a command agree", "[kv]") {
  for (const Command* command : all_commands()) {
    INFO(command->name);
    CHECK(((command->flags & kWrite) != 0) == command->is_write());
    CHECK(((command->flags & kReadOnly) != 0) == (command->read != nullptr));
    const bool is_about_all = (command->flags & kScan) != 0 || command->name == "dbsize" ||
                              command->name.starts_with("flush");
    const bool touches_keys = command->is_write() || command->read != nullptr;
    CHECK((command->keys.first != 0) == (touches_keys && !is_about_all));
    if (command->admin != nullptr) CHECK((command->flags & kAdmin) != 0);
    CHECK((command->keys.first == 0) == (command->keys.step == 0));
    CHECK((command->keys.first == 0) == command->keys.access.empty());
    CHECK(command->arity != 0);
  }
}

TEST_CASE("everything that COMMAND DOCS shows is there", "[kv]") {
  for (const Command* command : all_commands()) {
    INFO(command->name);
    CHECK_FALSE(command->summary.empty());
    CHECK_FALSE(command->since.empty());
    CHECK_FALSE(command->complexity.empty());
    CHECK_FALSE(command->group.empty());
    for (const std::string_view argument : split(command->arguments)) {
      CHECK(command_detail::split(argument, ':').size() >= 2);
    }
  }
}

TEST_CASE("commands are found in any case, subcommands only behind their container", "[kv]") {
  CHECK(find_command(kv::commands(), "gEt")->name == "get");
  CHECK(find_command(kv::commands(), "") == nullptr);
  CHECK(find_command(kv::commands(), "list") == nullptr);
  CHECK(find_command(kv::commands(), "client|list") == nullptr);
  CHECK(Client().ask("cLiEnT iD") == ":0\r\n");
}

TEST_CASE("every command is found by its hash in any case, and no other name is", "[kv]") {
  for (const Command& command : kv::commands()) {
    CHECK(kv::kCommandNames.find(command.name) == &command);
    CHECK(kv::kCommandNames.find(to_upper(command.name)) == &command);
    const std::string longer = std::string(command.name) + "x";
    CHECK(kv::kCommandNames.find(longer) == find_command(kv::commands(), longer));
    const std::string_view shorter = command.name.substr(1);  // "get" of "mget"
    CHECK(kv::kCommandNames.find(shorter) == find_command(kv::commands(), shorter));
  }
  CHECK(kv::kCommandNames.find("") == nullptr);
  CHECK(kv::kCommandNames.find(std::string_view("\0", 1)) == nullptr);
  CHECK(kv::kCommandNames.find("g\xC5t") == nullptr);
  CHECK(kv::kCommandNames.find("client|list") == nullptr);
}

TEST_CASE("a table of names finds all also where their places collide", "[kv]") {
  static constexpr std::array kColliding = {Command{"ab", 1}, Command{"acb", 1}, Command{"ba", 1},
                                            Command{"x|ab2", 1}};
  static constexpr CommandNames<5> kNames{kColliding};
  CHECK(kNames.find("AB") == &kColliding[0]);
  for (const Command& command : kColliding) CHECK(kNames.find(command.short_name) == &command);
  CHECK(kNames.find("abb") == nullptr);
  CHECK(kNames.find("x|ab2") == nullptr);
}

TEST_CASE("keys are found where the table says", "[kv]") {
  const auto keys = [](std::string_view line) {
    const Words words = split(line);
    std::vector<std::string_view> found;
    for_each_key(*find_command(kv::commands(), words[0]), words,
                 [&](std::string_view key) { found.push_back(key); });
    return found;
  };
  CHECK(keys("get a") == Words{"a"});
  CHECK(keys("set a b") == Words{"a"});
  CHECK(keys("del a b c") == Words{"a", "b", "c"});
  CHECK(keys("ping a").empty());
  Command pairs;
  pairs.keys = {1, -1, 2, "OW"};
  Words visited;
  const Words words = {"pairs", "a", "1", "b", "2"};
  for_each_key(pairs, words, [&](std::string_view key) { visited.push_back(key); });
  CHECK(visited == Words{"a", "b"});
  CHECK((is_key(pairs, 1, 5) && !is_key(pairs, 2, 5) && is_key(pairs, 3, 5)));
  CHECK_FALSE((is_key(pairs, 0, 5) || is_key(pairs, 5, 5)));
}

// ---- Errors before anything runs ----------------------------------------------------------------

TEST_CASE("unknown commands get Redis' words", "[kv]") {
  Client client;
  CHECK(client.ask("NOSUCH") == "-ERR unknown command 'NOSUCH', with args beginning with: \r\n");
  CHECK(client.ask("NOSUCH a bc") ==
        "-ERR unknown command 'NOSUCH', with args beginning with: 'a' 'bc' \r\n");
  CHECK(client.ask("CLIENT NOSUCH") == "-ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP.\r\n");
}

TEST_CASE("what an unknown command brings is cut and can't forge a reply", "[kv]") {
  const std::string long_name(9000, 'y');
  const std::string text = Client().ask({"X\r\n+OK", long_name, "z"});
  CHECK(text == "-ERR unknown command 'X  +OK', with args beginning with: '" +
                    std::string(128, 'y') + "' \r\n");
  CHECK(Client().ask(Words{std::string_view(long_name)}).size() < 300);
}

TEST_CASE("wrong arity gets Redis' words", "[kv]") {
  Client client;
  for (const char* line : {"get", "get a b", "set a", "del", "exists", "echo", "ping a b", "client",
                           "config", "cluster", "readonly x", "multi x"}) {
    const std::string name = std::string(split(line)[0]);
    CHECK(client.ask(line) == "-ERR wrong number of arguments for '" + name + "' command\r\n");
  }
  for (const auto& [line, name] :
       {std::pair("CLIENT ID x", "client|id"), std::pair("CLUSTER KEYSLOT", "cluster|keyslot"),
        std::pair("CONFIG GET", "config|get"),
        std::pair("COMMAND GETKEYS get", "command|getkeys")}) {
    CHECK(client.ask(line) ==
          "-ERR wrong number of arguments for '" + std::string(name) + "' command\r\n");
  }
}

TEST_CASE("a key of 256 bytes and a value of 65,536 pass, one byte more is too large", "[kv]") {
  Client client;
  const std::string key(256, 'k');
  const std::string value(65'536, 'v');
  CHECK(client.ask({"set", key, value}) == "(set)");
  CHECK(client.ask({"get", key + "k"}) == "-ERR key too large\r\n");
  CHECK(client.ask({"del", "a", key + "k"}) == "-ERR key too large\r\n");
  CHECK(client.ask({"del", key + "k", "a"}) == "-ERR key too large\r\n");
  CHECK(client.ask({"set", key + "k", value + "v"}) == "-ERR key too large\r\n");
  CHECK(client.ask({"set", key, value + "v"}) == "-ERR value too large\r\n");
  CHECK(client.ask({"echo", value + "v"}).size() > value.size());
}

TEST_CASE("a million keys are checked in one pass", "[kv]") {
  std::vector<std::string_view> words(1'048'576, "k");
  words[0] = "del";
  CHECK(Client().ask(words) == "(del)");
  words[0] = "set";
  CHECK(Client().ask(words) == "(set)");
}

TEST_CASE("SET and DEL without options are operations of version 1, all else is of version 2",
          "[kv]") {
  const auto operation_of = [](const Words& words) {
    return kv::operation_of(*kv::find(words), words, {});
  };
  const Operation set = operation_of({"SET", "k", "v"});
  CHECK(set.type == OperationType::kSet);
  CHECK(set.arguments == Words{"k", "v"});
  const Operation del = operation_of({"del", "a", "b"});
  CHECK(del.type == OperationType::kDelete);
  CHECK(del.arguments == Words{"a", "b"});
  const Operation set_nx = operation_of({"SET", "k", "v", "NX"});
  CHECK(set_nx.type == OperationType::kCommand);
  CHECK(set_nx.arguments == Words{"SET", "k", "v", "NX"});
  CHECK(set_nx.max_value_size_bytes == kv::Limits{}.max_value_size_bytes);
  CHECK(operation_version_of(set.type) == 1);
  CHECK(operation_version_of(set_nx.type) == 2);
}

TEST_CASE("what is wrong with the arguments of a write is said before it is proposed", "[kv]") {
  const auto problem = [](const Words& words) {
    return kv::check_write(*kv::find(words), words, {});
  };
  CHECK(problem({"set", "k", "v"}).empty());
  CHECK(problem({"set", "k", "v", "EX", "10", "NX", "GET"}).empty());
  CHECK(problem({"set", "k", "v", "EX"}) == "-ERR syntax error\r\n");
  CHECK(problem({"set", "k", "v", "NX", "XX"}) == "-ERR syntax error\r\n");
  CHECK(problem({"set", "k", "v", "EX", "0"}) == "-ERR invalid expire time in 'set' command\r\n");
  CHECK(problem({"incrby", "k", "x"}) == "-ERR value is not an integer or out of range\r\n");
  CHECK(problem({"expire", "k", "1", "NX", "GT"}) ==
        "-ERR NX and XX, GT or LT options at the same time are not compatible\r\n");
  CHECK(problem({"mset", "a", "1", "b"}) ==
        "-ERR wrong number of arguments for 'mset' command\r\n");
}

// ---- MULTI --------------------------------------------------------------------------------------

TEST_CASE("DISCARD and RESET end a transaction", "[kv]") {
  for (const auto& [line, reply] :
       {std::pair("DISCARD", "+OK\r\n"), std::pair("RESET", "+RESET\r\n")}) {
    Client client;
    CHECK(client.ask("MULTI") == "+OK\r\n");
    CHECK(client.session.transaction.active());
    CHECK(client.ask("MULTI") == "-ERR MULTI calls can not be nested\r\n");
    CHECK(client.ask(line) == reply);
    CHECK_FALSE(client.session.transaction.active());
  }
}

TEST_CASE("EXEC and DISCARD without MULTI get Redis' words", "[kv]") {
  CHECK(Client().ask("EXEC") == "-ERR EXEC without MULTI\r\n");
  CHECK(Client().ask("DISCARD") == "-ERR DISCARD without MULTI\r\n");
}

// ---- The connection -----------------------------------------------------------------------------

TEST_CASE("PING, ECHO, SELECT and QUIT answer as Redis", "[kv]") {
  Client client;
  CHECK(client.ask("PING") == "+PONG\r\n");
  CHECK(client.ask("PING a") == "$1\r\na\r\n");
  CHECK(client.ask("ECHO a") == "$1\r\na\r\n");
  CHECK(client.ask("SELECT 0") == "+OK\r\n");
  CHECK(client.ask("SELECT 1") == "-ERR SELECT is not allowed in cluster mode\r\n");
  CHECK(client.ask("SELECT x") == "-ERR value is not an integer or out of range\r\n");
  CHECK(client.ask("SELECT 99999999999") ==
        "-ERR value is out of range, value must between -2147483648 and 2147483647\r\n");
  CHECK_FALSE(client.session.close_after_reply);
  CHECK(client.ask("QUIT x") == "+OK\r\n");
  CHECK(client.session.close_after_reply);
}

TEST_CASE("HELLO greets with the bytes of Redis, in the protocol it chooses", "[kv]") {
  Client client;
  client.session.id = 14;
  const std::string rest = bulk("server") + bulk("redis") + bulk("version") + bulk("7.0.15") +
                           bulk("proto") + ":3\r\n" + bulk("id") + ":14\r\n" + bulk("mode") +
                           bulk("cluster") + bulk("role") + bulk("replica") + bulk("modules") +
                           "*0\r\n";
  CHECK(client.ask("HELLO 3") == "%7\r\n" + rest);
  CHECK(client.ask("HELLO") == "%7\r\n" + rest);
  CHECK_THAT(client.ask("HELLO 2"), StartsWith("*14\r\n" + bulk("server")));
  CHECK(client.session.protocol == resp::Protocol::kResp2);
  client.site.shown.shards[0].leader = NodeId{1};
  CHECK_THAT(client.ask("HELLO"), ContainsSubstring(bulk("role") + bulk("master")));
}

TEST_CASE("HELLO refuses with Redis' words, and then changes nothing", "[kv]") {
  Client client;
  CHECK(client.ask("HELLO 4") == "-NOPROTO unsupported protocol version\r\n");
  CHECK(client.ask("HELLO x") == "-ERR Protocol version is not an integer or out of range\r\n");
  CHECK(client.ask("HELLO 3 SETNAME") == "-ERR Syntax error in HELLO option 'SETNAME'\r\n");
  CHECK(client.ask("HELLO 3 SETNAME n AUTH bob x") ==
        "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
  CHECK(client.session.protocol == resp::Protocol::kResp2);
  CHECK(client.session.name.empty());
  CHECK_THAT(client.ask("HELLO 3 AUTH default any SETNAME n"), StartsWith("%7\r\n"));
  CHECK(client.session.name == "n");
}

TEST_CASE("CLIENT SETNAME and SETINFO keep a name, CLIENT GETNAME and LIST show it", "[kv]") {
  Client client;
  CHECK(client.ask("CLIENT GETNAME") == "$-1\r\n");
  CHECK(client.ask("CLIENT SETNAME me") == "+OK\r\n");
  CHECK(client.ask("CLIENT GETNAME") == "$2\r\nme\r\n");
  CHECK(client.ask("CLIENT SETINFO LIB-NAME redis-py") == "+OK\r\n");
  CHECK(client.ask("CLIENT SETINFO lib-ver 8") == "+OK\r\n");
  client.session.id = 5;
  client.session.connected_at_ms = 90'000;
  client.session.last_active_ms = 98'000;
  client.site.sessions = {&client.session};
  for (const char* line : {"CLIENT LIST", "CLIENT INFO"}) {
    CHECK_THAT(client.ask(line), ContainsSubstring(" name=me age=10 idle=2 flags=N db=0 "));
    CHECK_THAT(client.ask(line), ContainsSubstring(" lib-name=redis-py lib-ver=8\n"));
  }
  CHECK(client.ask("CLIENT LIST x") == "-ERR syntax error\r\n");
}

TEST_CASE("a client's name can neither break CLIENT LIST nor grow memory", "[kv]") {
  Client client;
  CHECK(client.ask({"CLIENT", "SETNAME", "a b"}) ==
        "-ERR Client names cannot contain spaces, newlines or special characters.\r\n");
  CHECK(client.ask({"HELLO", "2", "SETNAME", "a\nb"}) ==
        "-ERR Client names cannot contain spaces, newlines or special characters.\r\n");
  const std::string longest(1024, 'n');
  CHECK(client.ask({"CLIENT", "SETNAME", longest}) == "+OK\r\n");
  CHECK_THAT(client.ask({"CLIENT", "SETNAME", longest + "n"}), StartsWith("-ERR Client names"));
  CHECK_THAT(client.ask({"CLIENT", "SETINFO", "lib-ver", longest + "n"}), StartsWith("-ERR lib-v"));
  CHECK(client.ask({"CLIENT", "SETINFO", "nosuch", "1"}) ==
        "-ERR Unrecognized option 'nosuch'\r\n");
}

TEST_CASE("RESET makes the connection as new", "[kv]") {
  Client client;
  client.ask("HELLO 3 SETNAME me");
  client.ask("READONLY");
  client.ask("MULTI");
  CHECK(client.ask("RESET") == "+RESET\r\n");
  CHECK(client.session.protocol == resp::Protocol::kResp2);
  CHECK(client.session.name.empty());
  CHECK_FALSE((client.session.read_only || client.session.transaction.active()));
}

// ---- COMMAND ------------------------------------------------------------------------------------

TEST_CASE("COMMAND INFO get has the bytes of Redis 7.0.15, in both protocols", "[kv]") {
  Client client;
  CHECK(client.ask("COMMAND INFO get nosuch") ==
        "*2\r\n*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*3\r\n"
        "+@read\r\n+@string\r\n+@fast\r\n*0\r\n*1\r\n*6\r\n$5\r\nflags\r\n*2\r\n+RO\r\n+access\r\n"
        "$12\r\nbegin_search\r\n*4\r\n$4\r\ntype\r\n$5\r\nindex\r\n$4\r\nspec\r\n*2\r\n$5\r\nindex"
        "\r\n:1\r\n$9\r\nfind_keys\r\n*4\r\n$4\r\ntype\r\n$5\r\nrange\r\n$4\r\nspec\r\n*6\r\n$7\r\n"
        "lastkey\r\n:0\r\n$7\r\nkeystep\r\n:1\r\n$5\r\nlimit\r\n:0\r\n*0\r\n$-1\r\n");
  CHECK(client.resp3().ask("COMMAND INFO get nosuch") ==
        "*2\r\n*10\r\n$3\r\nget\r\n:2\r\n~2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n~3\r\n"
        "+@read\r\n+@string\r\n+@fast\r\n~0\r\n~1\r\n%3\r\n$5\r\nflags\r\n~2\r\n+RO\r\n+access\r\n"
        "$12\r\nbegin_search\r\n%2\r\n$4\r\ntype\r\n$5\r\nindex\r\n$4\r\nspec\r\n%1\r\n$5\r\nindex"
        "\r\n:1\r\n$9\r\nfind_keys\r\n%2\r\n$4\r\ntype\r\n$5\r\nrange\r\n$4\r\nspec\r\n%3\r\n$7\r\n"
        "lastkey\r\n:0\r\n$7\r\nkeystep\r\n:1\r\n$5\r\nlimit\r\n:0\r\n~0\r\n_\r\n");
}

TEST_CASE("COMMAND INFO of a subcommand names its container", "[kv]") {
  CHECK(
      Client().ask("COMMAND INFO client|id") ==
      "*1\r\n*10\r\n$9\r\nclient|id\r\n:2\r\n*3\r\n+noscript\r\n+loading\r\n+stale\r\n:0\r\n:0\r\n"
      ":0\r\n*2\r\n+@slow\r\n+@connection\r\n*0\r\n*0\r\n*0\r\n");
}

TEST_CASE("flags and categories are those of Redis 7.0.15", "[kv]") {
  const auto words = [](std::string_view name) {
    const Command* command = server_commands::detail::find_full_name(kv::commands(), name);
    std::string text;
    for (const auto flag : command_detail::flag_names(*command)) text += std::string(flag) + " ";
    for (const auto category : command_detail::categories(*command)) {
      text += std::string(category) + " ";
    }
    return text;
  };
  CHECK(words("asking") == "fast @fast @connection ");
  CHECK(words("client") == "@slow ");
  CHECK(words("client|list") ==
        "admin noscript loading stale @admin @slow @dangerous @connection ");
  CHECK(words("cluster|slots") == "stale @slow ");
  CHECK(words("command|docs") == "loading stale @slow @connection ");
  CHECK(words("config|get") == "admin noscript loading stale @admin @slow @dangerous ");
  CHECK(words("del") == "write @keyspace @write @slow ");
  CHECK(words("discard") == "noscript loading stale fast allow_busy @fast @transaction ");
  CHECK(words("exec") == "noscript loading stale skip_slowlog @slow @transaction ");
  CHECK(words("exists") == "readonly fast @keyspace @read @fast ");
  CHECK(words("hello") == "noscript loading stale fast no_auth allow_busy @fast @connection ");
  CHECK(words("info") == "loading stale @slow @dangerous ");
  CHECK(words("readonly") == "loading stale fast @fast @connection ");
  CHECK(words("seshat.leave") == "admin noscript loading stale @admin @slow @dangerous ");
  CHECK(words("set") == "write denyoom @write @string @slow ");
}

TEST_CASE("COMMAND DOCS get differs from Redis in the summary alone", "[kv]") {
  Client client;
  const std::string rest = bulk("get") + "%5\r\n" + bulk("summary") +
                           bulk("Gets the value of a key") + bulk("since") + bulk("1.0.0") +
                           bulk("group") + bulk("string") + bulk("complexity") + bulk("O(1)") +
                           bulk("arguments") + "*1\r\n%3\r\n" + bulk("name") + bulk("key") +
                           bulk("type") + bulk("key") + bulk("key_spec_index") + ":0\r\n";
  CHECK(client.resp3().ask("COMMAND DOCS get") == "%1\r\n" + rest);
  CHECK(client.ask("COMMAND DOCS nosuch") == "%0\r\n");
}

TEST_CASE("COMMAND and COMMAND DOCS tell of every command, in replies that parse", "[kv]") {
  for (const bool resp3 : {false, true}) {
    Client client;
    if (resp3) client.resp3();
    const resp::Value all = client.reply("COMMAND");
    CHECK(all.elements.size() == kv::commands().size());
    for (const resp::Value& entry : all.elements) CHECK(entry.elements.size() == 10);
    const resp::Value docs = client.reply("COMMAND DOCS");
    CHECK(docs.elements.size() == 2 * kv::commands().size());
    CHECK(at(at(at(docs, "client"), "subcommands"), "client|list").elements.size() >= 8);
    CHECK(client.reply("COMMAND COUNT").integer == static_cast<int>(kv::commands().size()));
    CHECK(client.reply("COMMAND LIST").elements.size() == kv::commands().size());
  }
}

TEST_CASE("HELP of every container lists its subcommands, as Redis", "[kv]") {
  Client client;
  for (const Command& command : kv::commands()) {
    if (command.subcommands.empty()) continue;
    const resp::Value value = client.reply(std::string(command.name) + " help");
    CHECK(value.elements.size() == 3 + 2 * command.subcommands.size());
    CHECK(value.elements[0].text == to_upper(command.name) +
                                        " <subcommand> [<arg> [value] [opt] ...]. "
                                        "Subcommands are:");
  }
}

TEST_CASE("COMMAND GETKEYS finds keys or says why not, in Redis' words", "[kv]") {
  Client client;
  CHECK(client.ask("COMMAND GETKEYS del a b") == "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
  CHECK(client.ask("COMMAND GETKEYS ping x") == "-ERR The command has no key arguments\r\n");
  CHECK(client.ask("COMMAND GETKEYS nosuch x") == "-ERR Invalid command specified\r\n");
  CHECK(client.ask("COMMAND GETKEYS get a b") ==
        "-ERR Invalid number of arguments specified for command\r\n");
  CHECK(client.ask("COMMAND LIST FILTERBY") == "-ERR syntax error\r\n");
}

// ---- INFO, CONFIG, CLUSTER ----------------------------------------------------------------------

TEST_CASE("INFO shows all sections, or those asked for, as Redis lays them out", "[kv]") {
  Client client;
  CHECK(client.ask("INFO nosuch") == "$0\r\n\r\n");
  CHECK(client.ask("INFO cluster") == bulk("# Cluster\r\nabout:cluster\r\n"));
  CHECK(client.ask("INFO RAFT cluster") ==
        bulk("# Raft\r\nabout:raft\r\n\r\n# Cluster\r\nabout:cluster\r\n"));
  for (const char* line : {"INFO", "INFO everything", "INFO ALL", "INFO default"}) {
    const std::string text = client.reply(line).text;
    CHECK_THAT(text, StartsWith("# Server\r\nabout:server\r\n\r\n# Clients\r\n"));
    CHECK_THAT(text, EndsWith("# Keyspace\r\nabout:keyspace\r\n"));
  }
  CHECK(client.resp3().ask("INFO nosuch") == "=4\r\ntxt:\r\n");
}

TEST_CASE("CONFIG GET answers patterns in any case, each setting once", "[kv]") {
  Client client;
  CHECK(client.ask("CONFIG GET save") == "*2\r\n$4\r\nsave\r\n$0\r\n\r\n");
  CHECK(client.ask("CONFIG GET nosuch") == "*0\r\n");
  CHECK(client.reply("CONFIG GET MAX* m* maxclients").elements.size() == 2);
  CHECK(client.resp3().ask("CONFIG GET save") == "%1\r\n$4\r\nsave\r\n$0\r\n\r\n");
  CHECK(client.ask("CONFIG GET nosuch") == "%0\r\n");
}

TEST_CASE("CLUSTER KEYSLOT, MYID and INFO answer as Redis", "[kv]") {
  Client client;
  CHECK(client.ask("CLUSTER KEYSLOT foo") == ":12182\r\n");
  CHECK(client.ask("CLUSTER MYID") == bulk(kNode1));
  CHECK(client.ask("CLUSTER INFO") ==
        bulk("cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\n"
             "cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:3\r\n"
             "cluster_size:1\r\ncluster_current_epoch:7\r\ncluster_my_epoch:7\r\n"
             "cluster_stats_messages_sent:0\r\ncluster_stats_messages_received:0\r\n"
             "total_cluster_links_buffer_limit_exceeded:0\r\n"));
  client.site.shown.ok = false;
  CHECK_THAT(client.ask("CLUSTER INFO"), ContainsSubstring("cluster_state:fail\r\n"));
}

TEST_CASE("CLUSTER NODES: one master with all slots, the others its replicas", "[kv]") {
  const std::string id2(kNode2);
  CHECK(Client().reply("CLUSTER NODES").text ==
        std::string(kNode1) + " 10.0.0.1:6379@7379 myself,slave " + id2 + " 0 0 7 connected\n" +
            id2 + " 10.0.0.2:6380@7380 master - 0 0 7 connected 0-16383\n" +
            "7365736861742d6e6f64652d0000000000000003 10.0.0.3:6381@7381 slave,fail? " + id2 +
            " 0 0 7 disconnected\n");
}

TEST_CASE("CLUSTER SLOTS names the leader first, and no node that is down", "[kv]") {
  Client client;
  const std::string nodes = "*4\r\n$8\r\n10.0.0.2\r\n:6380\r\n" + bulk(kNode2) + "*0\r\n" +
                            "*4\r\n$8\r\n10.0.0.1\r\n:6379\r\n" + bulk(kNode1) + "*0\r\n";
  CHECK(client.ask("CLUSTER SLOTS") == "*1\r\n*4\r\n:0\r\n:16383\r\n" + nodes);
  CHECK_THAT(client.resp3().ask("CLUSTER SLOTS"), EndsWith(bulk(kNode1) + "%0\r\n"));
}

TEST_CASE("without a leader that can be named, CLUSTER SLOTS guesses none", "[kv]") {
  Client client;
  client.site.shown.nodes[1].host.clear();
  CHECK(client.ask("CLUSTER SLOTS") == "*0\r\n");
  client.site.shown.shards[0].leader = {};
  CHECK(client.ask("CLUSTER SLOTS") == "*0\r\n");
  const resp::Value shards = client.reply("CLUSTER SHARDS");
  CHECK(at(shards.elements[0], "slots").elements.size() == 2);
  CHECK_THAT(client.reply("CLUSTER NODES").text, !ContainsSubstring("master"));
}

TEST_CASE("a leader that was lost goes on being listed, and says itself that it leads nothing",
          "[kv]") {
  Client client;
  client.site.shown.shards[0].leader = NodeId{1};
  client.site.shown.shards[0].is_led = false;
  CHECK_THAT(client.ask("CLUSTER SLOTS"), StartsWith("*1\r\n*4\r\n:0\r\n:16383\r\n"));
  CHECK_THAT(client.ask("HELLO"), ContainsSubstring(bulk("role") + bulk("replica")));
}

TEST_CASE("CLUSTER SHARDS has the shape of Redis, in both protocols", "[kv]") {
  for (const bool resp3 : {false, true}) {
    Client client;
    if (resp3) client.resp3();
    const resp::Value shards = client.reply("CLUSTER SHARDS");
    REQUIRE(shards.elements.size() == 1);
    CHECK(shards.elements[0].kind == (resp3 ? resp::Kind::kMap : resp::Kind::kArray));
    const resp::Value& nodes = at(shards.elements[0], "nodes");
    REQUIRE(nodes.elements.size() == 2);
    CHECK(nodes.elements[0].elements.size() == 14);
    CHECK(at(nodes.elements[0], "role").text == "master");
    CHECK(at(nodes.elements[0], "endpoint").text == "10.0.0.2");
    CHECK(at(nodes.elements[1], "role").text == "replica");
    CHECK(at(nodes.elements[1], "health").text == "online");
  }
}

// ---- Keys and values ----------------------------------------------------------------------------

namespace {

Lookup read(ReadFunction function, const MemoryMap& map, const Words& words, resp::Writer& reply) {
  ReadScratch scratch;
  return function({map, words, slot_of(words[1]), scratch, {}}, reply);
}

}  // namespace

TEST_CASE("GET and EXISTS answer from the map, and count repeats", "[kv]") {
  MemoryMap map;
  map.set("a", "1");
  std::string out;
  resp::Writer reply(out, resp::Protocol::kResp2);
  CHECK(read(&string_commands::get, map, {"get", "a"}, reply) == Lookup::kFound);
  CHECK(read(&string_commands::get, map, {"get", "x"}, reply) == Lookup::kFound);
  CHECK(read(&key_commands::exists, map, {"exists", "a", "x", "a"}, reply) == Lookup::kFound);
  CHECK(out == "$1\r\n1\r\n$-1\r\n:2\r\n");
}

TEST_CASE("EXISTS finds keys of several slots, an empty one among them", "[kv]") {
  MemoryMap map;
  for (const char* key : {"", "a", "b"}) map.set(key, "1");
  std::string out;
  resp::Writer reply(out, resp::Protocol::kResp2);
  const std::string_view text = "ab";  // views that begin at the same byte, as of a quoted ""
  const Words words = {"exists", text.substr(0, 0), text.substr(0, 1), text.substr(1), text};
  CHECK(read(&key_commands::exists, map, words, reply) == Lookup::kFound);
  CHECK(out == ":3\r\n");
}

TEST_CASE("a read that can't answer writes nothing", "[kv]") {
  MemoryMap map;
  for (const Lookup answer : {Lookup::kNotInMemory, Lookup::kFailed}) {
    map.answer = answer;
    std::string out;
    resp::Writer reply(out, resp::Protocol::kResp2);
    CHECK(read(&string_commands::get, map, {"get", "a"}, reply) == answer);
    CHECK(read(&key_commands::exists, map, {"exists", "a", "b"}, reply) == answer);
    CHECK(out.empty());
  }
}

TEST_CASE("outcomes become OK or a number", "[kv]") {
  std::string out;
  resp::Writer reply(out, resp::Protocol::kResp2);
  kv::reply_outcome({}, reply);
  kv::reply_outcome({Outcome::Kind::kInteger, 3}, reply);
  CHECK(out == "+OK\r\n:3\r\n");
}

// SESHAT_WRITE_DOCS=1 writes it anew.
TEST_CASE("docs/commands.md is what the table says", "[kv]") {
  const std::string page = tests::commands_page();
  if (std::getenv("SESHAT_WRITE_DOCS") != nullptr) std::ofstream("docs/commands.md") << page;
  std::ifstream file("docs/commands.md");
  const std::string written((std::istreambuf_iterator<char>(file)), {});
  CHECK(written == page);
}

// ---- What comes from another node ---------------------------------------------------------------

namespace {

Operation operation(OperationType type, std::vector<std::string_view> arguments) {
  Operation operation;
  operation.type = type;
  operation.arguments = std::move(arguments);
  operation.max_value_size_bytes = 10;
  return operation;
}

}  // namespace

TEST_CASE("an operation of another node is taken if a client could have asked for it", "[kv]") {
  const kv::Limits limits{5, 10, 1000};
  const auto taken = [&](OperationType type, std::vector<std::string_view> arguments) {
    return kv::is_proposable(operation(type, std::move(arguments)), limits);
  };
  CHECK(taken(OperationType::kSet, {"key", "value"}));
  CHECK(taken(OperationType::kDelete, {"key", "other"}));
  CHECK(taken(OperationType::kCommand, {"INCRBY", "key", "1"}));
  CHECK(taken(OperationType::kCommand, {"set", "key", "v", "NOSUCH"}));  // it answers an error
  CHECK(taken(OperationType::kTime, {}));
  CHECK_FALSE(taken(OperationType::kSet, {"key"}));
  CHECK_FALSE(taken(OperationType::kSet, {"key", "value", "PX"}));
  CHECK_FALSE(taken(OperationType::kSet, {"longkey", "value"}));
  CHECK_FALSE(taken(OperationType::kSet, {"key", "a long value"}));
  CHECK_FALSE(taken(OperationType::kDelete, {}));
  CHECK_FALSE(taken(OperationType::kDelete, {"longkey"}));
  CHECK_FALSE(taken(OperationType::kCommand, {}));
  CHECK_FALSE(taken(OperationType::kCommand, {"nosuch", "key"}));
  CHECK_FALSE(taken(OperationType::kCommand, {"incrby", "key"}));
  CHECK_FALSE(taken(OperationType::kCommand, {"get", "key"}));
  CHECK_FALSE(taken(OperationType::kCommand, {"ping"}));
  CHECK_FALSE(taken(OperationType::kCommand, {"object", "help"}));
  CHECK_FALSE(taken(OperationType::kTime, {"x"}));
  CHECK_FALSE(taken(OperationType::kRemoveExpired, {"x"}));
  CHECK_FALSE(taken(OperationType::kSetMembership, {"x"}));
  CHECK_FALSE(taken(static_cast<OperationType>(200), {}));
  Operation large = operation(OperationType::kCommand, {"append", "key", "v"});
  large.max_value_size_bytes = 11;
  CHECK_FALSE(kv::is_proposable(large, limits));
}

TEST_CASE("a transaction of another node is taken if all of it could have been queued", "[kv]") {
  const kv::Limits limits{5, 10, 1000};
  using Queued = TransactionQueue::Words;
  const auto taken = [&](const std::vector<WatchedKey>& watched,
                         const std::vector<Queued>& commands) {
    std::vector<const Queued*> views;
    for (const Queued& words : commands) views.push_back(&words);
    std::vector<std::string> numbers;
    Operation transaction = operation(OperationType::kTransaction, {});
    transaction.arguments = write_transaction(watched, views, numbers);
    return kv::is_proposable(transaction, limits);
  };
  CHECK(taken({{"key", {}}}, {{"set", "key", "1"}, {"get", "key"}, {"incr", "key"}}));
  CHECK(taken({}, {}));
  CHECK_FALSE(taken({{"longkey", {}}}, {}));
  CHECK_FALSE(taken({}, {{"set", "key", "a long value"}}));
  CHECK_FALSE(taken({}, {{"nosuch"}}));
  CHECK_FALSE(taken({}, {{"ping"}}));
  CHECK_FALSE(taken({}, {{"watch", "key"}}));
  CHECK_FALSE(taken({}, {{"keys", "*"}}));
  CHECK_FALSE(taken(std::vector<WatchedKey>(TransactionQueue::kMaxWatched + 1), {}));
  CHECK_FALSE(kv::is_proposable(operation(OperationType::kTransaction, {"1", "key"}), limits));
}

TEST_CASE("an outcome of another node is taken if it is one of what was asked", "[kv]") {
  using Kind = Outcome::Kind;
  CHECK(kv::is_outcome({Kind::kOk, 0, {}}, false, 1));
  CHECK(kv::is_outcome({Kind::kInteger, 3, {}}, false, 1));
  CHECK(kv::is_outcome({Kind::kReply, 0, "*2\r\n:1\r\n_\r\n"}, false, 1));
  CHECK(kv::is_outcome({Kind::kReply, 0, "+OK\r\n:1\r\n"}, true, 2));
  CHECK(kv::is_outcome({Kind::kReply, 0, ""}, true, 0));
  CHECK(kv::is_outcome({Kind::kNone, 0, {}}, true, 2));
  CHECK_FALSE(kv::is_outcome({Kind::kNone, 0, {}}, false, 1));
  CHECK_FALSE(kv::is_outcome({Kind::kOk, 0, {}}, true, 1));
  CHECK_FALSE(kv::is_outcome({Kind::kReply, 0, ""}, false, 1));
  CHECK_FALSE(kv::is_outcome({Kind::kReply, 0, "*2\r\n:1\r\n"}, false, 1));
  CHECK_FALSE(kv::is_outcome({Kind::kReply, 0, "+OK\r\n+OK\r\n"}, false, 1));
  CHECK_FALSE(kv::is_outcome({Kind::kReply, 0, "+OK\r\n"}, true, 2));
  CHECK_FALSE(kv::is_outcome({Kind::kReply, 0, "nonsense"}, false, 1));
}
