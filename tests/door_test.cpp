// Who may come in, what is remembered of whom, and what may change while a node runs.
#include "seshat/door.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "seshat/live_settings.hpp"
#include "seshat/server_stats.hpp"
#include "seshat/slow_log.hpp"

namespace {

using namespace seshat;
using Words = std::vector<std::string_view>;

}  // namespace

// ---- Passwords ----------------------------------------------------------------------------------

TEST_CASE("a secret is itself and nothing else", "[door]") {
  CHECK(same_secret("s3cret", "s3cret"));
  for (const char* other : {"", "s", "s3cre", "s3crets", "S3cret", "s3creT", "s3crets3cret"}) {
    INFO(other);
    CHECK_FALSE(same_secret(other, "s3cret"));
  }
  CHECK(same_secret("", ""));
  CHECK_FALSE(same_secret("x", ""));
  CHECK_FALSE(same_secret(std::string_view("\0", 1), ""));
  CHECK_FALSE(same_secret(std::string_view("s3cret\0", 7), "s3cret"));
  const std::string long_secret(10'000, 'x');
  CHECK(same_secret(long_secret, long_secret));
  CHECK_FALSE(same_secret(long_secret + "x", long_secret));
  // Of the same bytes again and again, each stands for one of the secret.
  CHECK_FALSE(same_secret("abab", "ab"));
  CHECK_FALSE(same_secret("ab", "abab"));
}

TEST_CASE("there is one user; without a password, any is right", "[door]") {
  Door door;
  CHECK(door.admits("default", "anything"));
  CHECK_FALSE(door.admits("bob", "anything"));
  door.password = "s3cret";
  CHECK(door.admits("default", "s3cret"));
  CHECK_FALSE(door.admits("default", ""));
  CHECK_FALSE(door.admits("bob", "s3cret"));
  CHECK_FALSE(door.admits("DEFAULT", "s3cret"));
}

TEST_CASE("protected mode keeps out who comes from elsewhere while there is no password",
          "[door]") {
  Door door;
  CHECK(door.refuses("10.0.0.2:50000", "10.0.0.1:6379"));
  CHECK(door.refuses("[2001:db8::2]:50000", "[2001:db8::1]:6379"));
  CHECK(door.refuses("", ""));
  CHECK_FALSE(door.refuses("127.0.0.1:50000", "127.0.0.1:6379"));
  CHECK_FALSE(door.refuses("[::1]:50000", "[::1]:6379"));
  CHECK_FALSE(door.refuses("10.0.0.1:50000", "10.0.0.1:6379"));  // this machine's own address
  door.password = "s3cret";
  CHECK_FALSE(door.refuses("10.0.0.2:50000", "10.0.0.1:6379"));
  door.password.clear();
  door.protected_mode = false;
  CHECK_FALSE(door.refuses("10.0.0.2:50000", "10.0.0.1:6379"));
}

TEST_CASE("a host can't be dressed up as this machine", "[door]") {
  CHECK_FALSE(comes_from_here("128.127.0.1:1", "127.0.0.1:2"));
  CHECK_FALSE(comes_from_here("[::11]:1", "[::1]:2"));
  CHECK_FALSE(comes_from_here("[::ffff:10.0.0.2]:1", "127.0.0.1:2"));
  CHECK(comes_from_here("[::ffff:127.0.0.1]:1", "127.0.0.1:2"));
  CHECK_FALSE(comes_from_here("[fe80::1%eth0]:1", "[::1]:2"));
}

// ---- Pauses -------------------------------------------------------------------------------------

TEST_CASE("of two pauses the wider and the longer holds, as in Redis", "[door]") {
  Door door;
  CHECK_FALSE(door.holds(true));
  door.pause(Door::Pause::kWrites, 500, 100);
  CHECK(door.holds(true));
  CHECK_FALSE(door.holds(false));
  door.pause(Door::Pause::kAll, 300, 100);
  CHECK(door.holds(false));
  CHECK(door.paused_until_ms() == 500);
  door.pause(Door::Pause::kWrites, 400, 200);
  CHECK(door.holds(false));
  CHECK(door.paused_until_ms() == 500);
  door.pause(Door::Pause::kWrites, 700, 600);  // the ones before are over
  CHECK_FALSE(door.holds(false));
  CHECK(door.paused_until_ms() == 700);
  door.unpause();
  CHECK_FALSE(door.holds(true));
}

// ---- Statistics ---------------------------------------------------------------------------------

TEST_CASE("commands are counted with their time and their failures, errors by their first word",
          "[door]") {
  Door door;
  constexpr std::string_view kGet = "get";
  constexpr std::string_view kSet = "set";
  door.count(kGet, 5, false);
  door.count(kGet, 6, true);
  door.count(kSet, 107, false);
  door.count(kGet, 0, false);
  std::string text;
  door.append_command_stats(text);
  CHECK(text ==
        "cmdstat_get:calls=3,usec=11,usec_per_call=3.66,failed_calls=1\r\n"
        "cmdstat_set:calls=1,usec=107,usec_per_call=107.00,failed_calls=0\r\n");
  door.count_error("MOVED 1 a:1");
  door.count_error("ERR syntax error");
  door.count_error("ERR\r\n");
  text.clear();
  door.append_error_stats(text);
  CHECK(text == "errorstat_ERR:count=2\r\nerrorstat_MOVED:count=1\r\n");
  CHECK(door.errors() == 3);
  door.reset_statistics();
  text.clear();
  door.append_command_stats(text);
  door.append_error_stats(text);
  CHECK(text.empty());
  CHECK(door.errors() == 0);
  door.count(kGet, 1, false);
  door.append_command_stats(text);
  CHECK(text == "cmdstat_get:calls=1,usec=1,usec_per_call=1.00,failed_calls=0\r\n");
}

TEST_CASE("kinds of errors are bounded, and all errors counted", "[door]") {
  Door door;
  for (int i = 0; i < 1000; ++i) door.count_error("E" + std::to_string(i) + " x");
  door.count_error(std::string(5000, 'x'));
  CHECK(door.errors() == 1001);
  std::string text;
  door.append_error_stats(text);
  CHECK(text.size() < 128 * 32);
}

// ---- The slow log -------------------------------------------------------------------------------

TEST_CASE("the slow log takes what takes as long as the threshold; 0 takes all, -1 none",
          "[door]") {
  SlowLog log;
  CHECK_FALSE(log.wants(9'999));
  CHECK(log.wants(10'000));
  log.slower_than_us = 0;
  CHECK(log.wants(0));
  log.slower_than_us = -1;
  CHECK_FALSE(log.wants(1'000'000'000));
  log.slower_than_us = 0;
  log.set_max_entries(0);
  CHECK_FALSE(log.wants(5));
}

TEST_CASE("the slow log keeps the newest, and their ids go on", "[door]") {
  SlowLog log;
  log.set_max_entries(3);
  for (std::uint64_t i = 0; i < 5; ++i) log.add({0, i, i, {"get"}, "a:1", ""});
  REQUIRE(log.entries().size() == 3);
  CHECK(log.entries().front().id == 4);
  CHECK(log.entries().front().at_secs == 4);
  CHECK(log.entries().back().id == 2);
  log.set_max_entries(1);
  REQUIRE(log.entries().size() == 1);
  CHECK(log.entries().front().id == 4);
  log.clear();
  log.add({});
  CHECK(log.entries().front().id == 5);
}

TEST_CASE("long requests are cut as Redis cuts them", "[door]") {
  const std::string longest(128, 'v');
  const std::string longer(1000, 'v');
  CHECK(logged_arguments(Words{"set", longest, longer}) ==
        std::vector<std::string>{"set", longest, longest + "... (872 more bytes)"});
  CHECK(logged_arguments(Words(32, "k")).back() == "k");
  const std::vector<std::string> cut = logged_arguments(Words(40, "k"));
  REQUIRE(cut.size() == 32);
  CHECK(cut[30] == "k");
  CHECK(cut[31] == "... (9 more arguments)");
}

TEST_CASE("no password stands in the slow log", "[door]") {
  const std::string hidden = "(redacted)";
  using Logged = std::vector<std::string>;
  CHECK(logged_arguments(Words{"AUTH", "p"}) == Logged{"AUTH", hidden});
  CHECK(logged_arguments(Words{"auth", "default", "p"}) == Logged{"auth", hidden, hidden});
  CHECK(logged_arguments(Words{"hello", "3", "Auth", "default", "p", "SETNAME", "n"}) ==
        Logged{"hello", "3", "Auth", hidden, hidden, "SETNAME", "n"});
  CHECK(logged_arguments(Words{"config", "SET", "timeout", "1", "RequirePass", "p"}) ==
        Logged{"config", "SET", "timeout", "1", "RequirePass", hidden});
  CHECK(logged_arguments(Words{"config", "set", "client.requirepass", "p"}) ==
        Logged{"config", "set", "client.requirepass", hidden});
  CHECK(logged_arguments(Words{"config", "get", "requirepass", "p"}) ==
        Logged{"config", "get", "requirepass", "p"});
  CHECK(logged_arguments(Words{"get", "auth"}) == Logged{"get", "auth"});
}

// ---- Latency ------------------------------------------------------------------------------------

TEST_CASE("latency has a sample a second, of 160 seconds, and remembers the longest", "[door]") {
  LatencyMonitor latency;
  CHECK_FALSE(latency.wants(1'000'000'000));
  latency.threshold_ms = 10;
  CHECK_FALSE(latency.wants(9'999));
  CHECK(latency.wants(10'000));
  latency.add("command", 1, 20'000);
  latency.add("command", 1, 15'000);
  latency.add("command", 1, 30'999);
  const auto& events = latency.events();
  REQUIRE(events.at("command").samples.size() == 1);
  CHECK(events.at("command").samples.back().took_ms == 30);
  for (std::uint64_t second = 2; second < 400; ++second) latency.add("command", second, 10'000);
  CHECK(events.at("command").samples.size() == LatencyMonitor::kMaxSamples);
  CHECK(events.at("command").samples.back().at_secs == 399);
  CHECK(events.at("command").max_ms == 30);
  CHECK(latency.forget("command"));
  CHECK_FALSE(latency.forget("command"));
}

// ---- CONFIG SET ---------------------------------------------------------------------------------

TEST_CASE("every setting that may change is a key, and takes Redis' name or its own", "[door]") {
  for (const LiveSetting& setting : kLiveSettings) {
    INFO(setting.name);
    REQUIRE(config::find_key(setting.path) != nullptr);
    CHECK(find_live_setting(setting.path) == &setting);
    CHECK(find_live_setting(setting.name) == &setting);
    const std::string shown = show_live(setting, Config{});
    Config config;
    CHECK_FALSE(change_live(config, Words{setting.name, shown}));
    CHECK(config == Config{});
  }
  CHECK(find_live_setting("TIMEOUT") != nullptr);
  CHECK(find_live_setting("port") == nullptr);
}

TEST_CASE("every setting that is told can be set, or is refused as what can't change", "[door]") {
  Config config;
  std::set<std::string> told;
  for (const auto& [name, value] : all_settings(config, config)) {
    INFO(name);
    CHECK(told.insert(name).second);
    if (find_live_setting(name) != nullptr) continue;
    const auto problem = change_live(config, Words{name, value});
    REQUIRE(problem);
    CHECK_THAT(*problem, EndsWith("can't set immutable config"));
  }
  CHECK(told.contains("tls-port"));
  CHECK_FALSE(told.contains("cluster.secret"));
}

TEST_CASE("what is told of settings is as it was at the start, and as it was changed since",
          "[door]") {
  Config at_start;
  at_start.node.client_addr = "127.0.0.1:7000";
  Config live = at_start;
  live.client.timeout = 60;
  const auto settings = all_settings(at_start, live);
  const auto has = [&](const std::string& name, const std::string& value) {
    return std::ranges::count(settings, std::pair(name, value)) == 1;
  };
  CHECK(has("port", "7000"));
  CHECK(has("bind", "127.0.0.1"));
  CHECK(has("timeout", "60"));
  CHECK(has("client.timeout", "60"));
}

TEST_CASE("statistics start again where CONFIG RESETSTAT is asked for, the peak of memory does not",
          "[door]") {
  ServerStats stats;
  stats.sample(10'000);
  const std::uint64_t peak_bytes = stats.used_memory_peak_bytes;
  CHECK(peak_bytes > 0);
  stats.commands_processed = stats.bytes_read = stats.longest_turn_us = 7;
  stats.reset();
  CHECK(stats.commands_processed == 0);
  CHECK(stats.bytes_read == 0);
  CHECK(stats.longest_turn_us == 0);
  CHECK(stats.used_memory_peak_bytes == peak_bytes);
}

TEST_CASE("settings change together", "[door]") {
  Config config;
  CHECK_FALSE(change_live(config, Words{"timeout", "60", "requirepass", "a b", "PROTECTED-MODE",
                                        "No", "slowlog-log-slower-than", "-1"}));
  CHECK(config.client.timeout == 60);
  CHECK(config.client.requirepass == "a b");
  CHECK_FALSE(config.client.protected_mode);
  CHECK(config.client.slowlog_slower_than_us == -1);
  CHECK(show_live(*find_live_setting("protected-mode"), config) == "no");
  CHECK_FALSE(change_live(config, Words{"requirepass", ""}));
  CHECK(config.client.requirepass.empty());
}

// The texts of Redis 7.0.15, but for ranges.
TEST_CASE("what can't be set is told in Redis' words, and nothing changes", "[door]") {
  const auto refusal = [](const Words& words) {
    Config config;
    const auto text = change_live(config, words);
    CHECK(config == Config{});
    return text.value_or("changed");
  };
  const auto failed = [](const std::string& name, const std::string& why) {
    return "ERR CONFIG SET failed (possibly related to argument '" + name + "') - " + why;
  };
  CHECK(refusal({"nosuch", "1"}) ==
        "ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'");
  CHECK(refusal({"timeout", "99", "nosuch", "3"}) ==
        "ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'");
  CHECK(refusal({"timeout", "99", "maxclients", "x"}) ==
        failed("maxclients", "argument couldn't be parsed into an integer"));
  CHECK(refusal({"timeout", "1", "timeout", "2"}) == failed("timeout", "duplicate parameter"));
  CHECK(refusal({"timeout", "1", "client.timeout", "2"}) ==
        failed("client.timeout", "duplicate parameter"));
  CHECK(refusal({"timeout", "-1"}) ==
        failed("timeout", "argument must be between 0 and 2147483647 inclusive"));
  CHECK(refusal({"timeout", "9223372036854775808"}) ==
        failed("timeout", "argument couldn't be parsed into an integer"));
  CHECK(refusal({"protected-mode", "maybe"}) ==
        failed("protected-mode", "argument must be 'yes' or 'no'"));
  for (const char* name : {"port", "databases", "appendonly", "raft.lease_ms", "node.id"}) {
    CHECK(refusal({name, "1"}) == failed(name, "can't set immutable config"));
  }
  const std::string huge(100'000, 'x');
  CHECK(refusal({huge, "1"}).size() < 300);
}
