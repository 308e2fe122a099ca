// keyspace.hpp, transaction.hpp and the commands of kv.hpp as entries apply them: values, times to
// live, the index of what expires, watched keys.
#include "seshat/keyspace.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "fuzz/direct_batch.hpp"
#include "memory_database.hpp"
#include "seshat/codec.hpp"
#include "seshat/decimal.hpp"
#include "seshat/expiry.hpp"
#include "seshat/kv.hpp"
#include "seshat/leader_clock.hpp"
#include "seshat/state_machine.hpp"
#include "seshat/transaction.hpp"

namespace seshat {
namespace {

using Words = std::vector<std::string_view>;

Words split(std::string_view line) { return command_detail::split(line, ' '); }

// A machine and its map. Each entry is stamped with `time_ms`.
class Replica1 {
 public:
  Outcome apply(Operation operation) {
    operation.time_ms = time_ms;
    operation.max_value_size_bytes = 1000;
    fuzz::DirectBatch batch(map);
    const raft::Entry entry{Term{1}, Index{++index}, raft::EntryType::kNormal,
                            std::make_shared<const std::string>(codec::encode(operation))};
    auto outcomes = machine.apply(batch, {entry});
    REQUIRE(outcomes);
    return outcomes->at(0);
  }
  // The reply in RESP3, without line ends.
  std::string run(const Words& words) {
    Operation operation;
    operation.type = OperationType::kCommand;
    operation.arguments = words;
    std::string reply = apply(std::move(operation)).reply;
    std::string shown;
    for (const char c : reply) {
      if (c == '\n') continue;
      shown += c == '\r' ? ' ' : c;
    }
    if (!shown.empty()) shown.pop_back();
    return shown;
  }
  std::string run(std::string_view line) { return run(split(line)); }
  [[nodiscard]] MachineState state() const {
    KeyValueMachine fresh;
    return *fresh.restore(map);
  }
  [[nodiscard]] std::size_t rows(char prefix) const {
    std::size_t count = 0;
    for (const auto& [key, value] : map.bytes) count += key[0] == prefix ? 1U : 0U;
    return count;
  }
  [[nodiscard]] WatchToken token(std::string_view key) const {
    WatchToken token;
    REQUIRE(read_watch_token(map, key, {time_ms, time_ms}, token) == Lookup::kFound);
    return token;
  }
  Outcome exec(const std::vector<WatchedKey>& watched, std::string_view line) {
    const Words words = split(line);
    const TransactionQueue::Words command(words.begin(), words.end());
    std::vector<std::string> numbers;
    Operation operation;
    operation.type = OperationType::kTransaction;
    operation.arguments = write_transaction(watched, {&command}, numbers);
    return apply(std::move(operation));
  }

  KeyValueMachine machine{&kv::apply_command};
  tests::MemoryMap map;
  std::uint64_t index = 0;
  std::uint64_t time_ms = 1'000'000;
};

}  // namespace

TEST_CASE("keys and what expires are counted exactly, whatever happens to them", "[keyspace]") {
  Replica1 r;
  const auto check = [&](std::uint64_t keys, std::uint64_t expiring) {
    CHECK(r.state().key_count == keys);
    CHECK(r.state().expiring_count == expiring);
    CHECK(r.rows(kValuePrefix) == keys);
    CHECK(r.rows(kExpiryPrefix) == expiring);
  };
  r.run("set a 1 EX 10");
  check(1, 1);
  r.run("set a 2 EX 20");
  check(1, 1);
  r.run("incr a");
  check(1, 1);
  r.run("rename a b");
  check(1, 1);
  r.run("copy b c");
  check(2, 2);
  r.run("persist b");
  check(2, 1);
  r.run("expire b 5");
  check(2, 2);
  r.run("set b 1");
  check(2, 1);
  r.run("getex c PERSIST");
  check(2, 0);
  r.run("mset a 1 b 2 d 3");
  check(4, 0);
  r.run("pexpireat a 1");  // long ago
  check(3, 0);
  r.run("set e 1 PXAT 1");
  check(3, 0);
  r.run("flushall");
  check(0, 0);
}

TEST_CASE("a key whose time is over by the state's time is absent, and its rows go", "[keyspace]") {
  Replica1 r;
  CHECK(r.run("set k v PX 100") == "+OK");
  r.time_ms += 99;
  CHECK(r.run("get k") == "$1 v");
  CHECK(r.run("pttl k") == ":1");
  r.time_ms += 1;
  CHECK(r.run("get k") == "_");
  CHECK(r.run("ttl k") == ":-2");
  CHECK(r.run("exists k") == ":0");
  CHECK(r.run("del k") == ":0");
  CHECK(r.rows(kValuePrefix) == 0);
  CHECK(r.rows(kExpiryPrefix) == 0);
  r.run("set k v PX 100");
  r.time_ms += 100;
  CHECK(r.run("set k w NX GET") == "_");
  CHECK(r.run("ttl k") == ":-1");
  CHECK(r.state().key_count == 1);
}

TEST_CASE("time never goes back: an entry with an older stamp brings nothing back", "[keyspace]") {
  Replica1 r;
  r.run("set k v PX 100");
  r.time_ms += 100;
  CHECK(r.run("get k") == "_");
  r.time_ms -= 30'000;  // a new leader, whose clock is behind
  CHECK(r.run("get k") == "_");
  CHECK(r.run("set j v PX 100") == "+OK");
  CHECK(r.run("pttl j") == ":100");
}

TEST_CASE("a read tells what is due by the leader's clock from what is gone", "[keyspace]") {
  Replica1 r;
  r.run("set k v PX 100");
  ReadScratch scratch;
  const auto read = [&](std::uint64_t state_ms, std::uint64_t now_ms) {
    const Words words = {"get", "k"};
    StoredValue value;
    return ReadCall{r.map, words, slot_of("k"), scratch, ReadTimes{state_ms, now_ms}}.get("k",
                                                                                          value);
  };
  const std::uint64_t due = r.time_ms + 100;
  CHECK(read(due - 1, due - 1) == Lookup::kFound);
  CHECK(read(due - 1, due) == Lookup::kDue);
  CHECK(read(due, due) == Lookup::kAbsent);
  CHECK(read(due, due - 1) == Lookup::kAbsent);
}

TEST_CASE("the entry that removes what has expired removes nothing else", "[keyspace]") {
  Replica1 r;
  r.run("set a 1 PX 100");
  r.run("set b 1 PX 100");
  r.run("set c 1 PX 200");
  r.run("set d 1");
  r.time_ms += 100;
  r.run("set b 2 PX 500");  // alive again since the keys were listed
  Operation removal;
  removal.type = OperationType::kRemoveExpired;
  removal.arguments = {"a", "b", "c", "d", "nosuch"};
  CHECK(r.apply(removal) == Outcome{Outcome::Kind::kInteger, 1, {}});
  CHECK(r.state().key_count == 3);
  CHECK(r.run("mget b c d") == "*3 $1 2 $1 1 $1 1");
}

TEST_CASE("a watched key must be as it was, there or not", "[keyspace][transaction]") {
  const auto changed = [](const std::vector<std::string_view>& before, std::string_view key,
                          const std::vector<std::string_view>& between,
                          std::uint64_t later_ms = 0) {
    Replica1 r;
    r.run("set other 1");
    for (const std::string_view line : before) r.run(line);
    const WatchedKey watched{std::string(key), r.token(key)};
    for (const std::string_view line : between) r.run(line);
    r.time_ms += later_ms;
    const Outcome outcome = r.exec({watched}, "set done 1");
    CHECK((r.run("exists done") == ":1") == (outcome.kind == Outcome::Kind::kReply));
    return outcome.kind == Outcome::Kind::kNone;
  };
  CHECK_FALSE(changed({"set k 1"}, "k", {}));
  CHECK_FALSE(changed({"set k 1"}, "k", {"set other 2", "get k"}));
  CHECK(changed({"set k 1"}, "k", {"set k 1"}));
  CHECK(changed({"set k 1"}, "k", {"expire k 100"}));
  CHECK(changed({"set k 1 PXAT 9000000000000"}, "k", {"getex k PXAT 9000000000000"}));
  CHECK_FALSE(changed({"set k 1"}, "k", {"getex k", "getex k PERSIST"}));
  CHECK(changed({"set k 1"}, "k", {"del k"}));
  CHECK(changed({"set k 1"}, "k", {"del k", "set k 1"}));
  CHECK(changed({"set k 1"}, "k", {"flushall"}));
  CHECK(changed({"set k 1 PX 50"}, "k", {}, 50));  // over, and not removed
  CHECK_FALSE(changed({}, "k", {}));
  CHECK_FALSE(changed({}, "k", {"set other 2"}));
  CHECK(changed({}, "k", {"set k 1"}));
  CHECK(changed({}, "k", {"set k 1", "del k"}));
  CHECK(changed({}, "k", {"set k 1 PX 50"}, 50));
  CHECK(changed({}, "k", {"set k 1 PXAT 1"}));  // it was there for no time
  CHECK(changed({"set k 1"}, "k", {"rename k j", "rename j k"}));
}

TEST_CASE("what another version would not have noticed counts as a change",
          "[keyspace][transaction]") {
  Replica1 r;
  const WatchedKey watched{"k", r.token("k")};  // nothing of version 2 was ever applied
  r.apply({OperationType::kSet, 0, {"k", "1"}});
  r.apply({OperationType::kDelete, 0, {"k"}});  // leaves a state of version 1
  CHECK(r.state().last_removal == Index{});
  CHECK(r.exec({watched}, "set done 1").kind == Outcome::Kind::kNone);
  r.apply({OperationType::kSet, 0, {"k", "1"}});
  r.apply({OperationType::kDelete, 0, {"k"}});
  CHECK(r.state().last_removal == Index{r.index});
}

TEST_CASE("a transaction is read as it was written, and nothing else is", "[transaction]") {
  const std::vector<WatchedKey> watched = {{"a", {Index{7}, true, Index{3}}}, {"", {}}};
  const TransactionQueue::Words first = {"set", "", "3"};
  const TransactionQueue::Words second = {"get", "a"};
  std::vector<std::string> numbers;
  const Words words = write_transaction(watched, {&first, &second}, numbers);
  const auto record = read_transaction(words);
  REQUIRE(record);
  REQUIRE(record->watched.size() == 2);
  CHECK(record->watched[0].first == "a");
  CHECK(record->watched[0].second == watched[0].token);
  REQUIRE(record->commands.size() == 2);
  CHECK(Words(record->commands[0].begin(), record->commands[0].end()) == Words{"set", "", "3"});
  for (std::size_t size = 0; size < words.size(); ++size) {
    const bool at_a_border = size == words.size() - 3;  // without the second command
    const bool no_commands = size == words.size() - 7;
    const auto cut = read_transaction(std::span(words).first(size));
    CHECK(cut.has_value() == (at_a_border || no_commands));
  }
  CHECK_FALSE(read_transaction(Words{"x"}));
  CHECK_FALSE(read_transaction(Words{"0", "99999999999999999999"}));
}

TEST_CASE("an unknown command in the log stops the machine", "[keyspace]") {
  Replica1 r;
  Operation operation;
  operation.type = OperationType::kCommand;
  operation.arguments = {"zadd", "k", "1", "a"};
  fuzz::DirectBatch batch(r.map);
  const raft::Entry entry{Term{1}, Index{1}, raft::EntryType::kNormal,
                          std::make_shared<const std::string>(codec::encode(operation))};
  const auto outcomes = r.machine.apply(batch, {entry});
  REQUIRE_FALSE(outcomes);
  CHECK_THAT(outcomes.error().text, Catch::Contains("run the newer seshat"));
}

TEST_CASE("values grow up to what the entry says, on every replica alike", "[keyspace]") {
  Replica1 r;  // 1,000 bytes
  CHECK(r.run("setrange k 990 0123456789") == ":1000");
  CHECK(r.run("append k x") == "-ERR value too large");
  CHECK(r.run("setrange k 991 0123456789") == "-ERR value too large");
  CHECK(r.run("setrange k 536870912 x") ==
        "-ERR string exceeds maximum allowed size (proto-max-bulk-len)");
  CHECK(r.run("strlen k") == ":1000");
}

TEST_CASE("numbers with a fraction are added as people do it", "[decimal]") {
  const auto add = [](std::string_view left, std::string_view right) -> std::string {
    const auto a = Decimal::parse(left);
    const auto b = Decimal::parse(right);
    if (!a || !b) return "not a number";
    const auto total = sum(*a, *b);
    return total ? total->text() : "not finite";
  };
  CHECK(add("0.1", "0.2") == "0.3");
  CHECK(add("10.5", "0.1") == "10.6");
  CHECK(add("5.0e3", "2.0e2") == "5200");
  CHECK(add("-1.5", "1.5") == "0");
  CHECK(add("3", "-0.00000000000000001") == "2.99999999999999999");
  CHECK(add("1e-18", "0") == "0");
  CHECK(add("6e-18", "0") == "0.00000000000000001");
  CHECK(add("9223372036854775807", "2.25") == "9223372036854775809.25");
  CHECK(add("1e30", "1") == "1000000000000000019884624838656");
  CHECK(add("+3", ".5") == "3.5");
  CHECK(add("3.", "0x10") == "19");
  CHECK(add("1e308", "1e308") == "not finite");
  CHECK(add("1e-400", "1") == "1");
  CHECK(add("inf", "1") == "not finite");
  for (const char* wrong :
       {"", "-", "+-1", " 1", "1 ", "nan", "1e", "--1", "0x", "1.2.3", "1e4932"}) {
    CHECK(add(wrong, "1") == "not a number");
  }
}

TEST_CASE("a leader's stamps go on from its wall clock at the start of its term",
          "[leader_clock]") {
  std::uint64_t wall_ms = 5'000;
  LeaderClock clock([&] { return wall_ms; });
  CHECK(clock.stamp_ms(Term{1}, 100, 0) == 5'000);
  wall_ms = 90'000;  // set while it leads: nothing happens
  CHECK(clock.stamp_ms(Term{1}, 150, 0) == 5'050);
  wall_ms = 1;
  CHECK(clock.stamp_ms(Term{1}, 160, 0) == 5'060);
  CHECK(clock.stamp_ms(Term{2}, 170, 5'060) == 5'060);  // a clock behind: goes on from there
  CHECK(clock.stamp_ms(Term{2}, 180, 5'060) == 5'070);
  CHECK(clock.stamp_ms(Term{2}, 181, 7'000) == 7'000);  // entries of the leader before
  // ... and from there: that it came late is no reason to stand still until its own clock is there.
  CHECK(clock.stamp_ms(Term{2}, 191, 7'000) == 7'010);
  wall_ms = 40'000;
  CHECK(clock.stamp_ms(Term{3}, 195, 7'010) == 40'000);
}

TEST_CASE("keys that expire are found in the order of their times, so many at once", "[expiry]") {
  Replica1 r;
  class Rows final : public OrderedMap {
   public:
    explicit Rows(const tests::MemoryMap& map) : map_(map) {}
    [[nodiscard]] Lookup get(std::string_view key, std::string& value) const override {
      return map_.get(key, value);
    }
    [[nodiscard]] Lookup scan(std::string_view from, std::string_view to,
                              const Visit& visit) const override {
      for (auto row = map_.bytes.lower_bound(from); row != map_.bytes.end() && row->first < to;
           ++row) {
        if (!visit(row->first, row->second)) break;
      }
      return Lookup::kFound;
    }

   private:
    const tests::MemoryMap& map_;
  };
  r.run("set late 1 PX 300");
  r.run("set soon 1 PX 100");
  r.run("set never 1");
  const Rows rows(r.map);
  const std::uint64_t now = r.time_ms;
  const auto found = [&](std::uint64_t from_ms, std::uint64_t until_ms) {
    return expired_keys(rows, {from_ms, until_ms});
  };
  using Keys = std::vector<std::string>;
  CHECK(found(0, now + 99).keys.empty());
  CHECK(found(0, now + 99).next_ms == now + 100);
  CHECK(found(0, now + 100).keys == Keys{"soon"});
  CHECK(found(0, now + 100).next_ms == now + 300);
  CHECK(found(0, now + 300).keys == Keys{"soon", "late"});
  CHECK(found(0, now + 300).next_ms == Keyspace::kNever);
  CHECK(found(now + 101, now + 300).keys == Keys{"late"});
  for (int i = 0; i < 600; ++i) {
    const std::string key = "k" + std::to_string(i);
    r.run(Words{"set", key, "1", "PX", "50"});
  }
  CHECK(found(0, now + 400).keys.size() == ExpiryScan::kMaxKeys);
  CHECK(found(0, now + 400).next_ms == now + 50);  // of the same moment
  CHECK(expired_keys(FailedMap(), {0, now + 400}).next_ms == 0);
}

TEST_CASE("keys that expire are looked for when the time of the next is over", "[expiry]") {
  constexpr std::uint64_t kNever = Keyspace::kNever;
  constexpr std::uint64_t kNow = 1'000'000;
  const std::vector<std::string> full(ExpiryScan::kMaxKeys, "k");
  Expiry expiry;
  const auto first = expiry.begin(0, kNow, kNever);  // a new leader knows of none: it looks
  REQUIRE(first);
  CHECK(first->from_ms == 0);
  CHECK(first->until_ms == kNow);
  CHECK_FALSE(expiry.begin(10'000, kNow, kNever));  // one at a time
  expiry.found(*first, {full, kNow}, 0);
  expiry.done({});
  const auto more = expiry.begin(0, kNow, kNever);  // there were more: at once
  REQUIRE(more);
  CHECK(more->from_ms == 0);
  expiry.found(*more, {{"k"}, kNow + 900}, 0);
  expiry.done({});
  CHECK_FALSE(expiry.begin(1, kNow + 1, kNow + 1));  // not twice in a moment
  CHECK_FALSE(expiry.begin(800, kNow + 800, kNever));
  const auto given = expiry.begin(801, kNow + 801, kNow + 801);  // another was given a time
  REQUIRE(given);
  CHECK(given->from_ms > 0);
  CHECK(given->from_ms < kNow);
  expiry.found(*given, {{"k"}, kNow + 900}, 801);
  expiry.failed(Refusal::kUnknown);  // they may be there still
  REQUIRE(expiry.begin(1'001, kNow + 802, kNever));
  expiry.found(*given, {{}, kNever}, 1'001);
  expiry.end();
  CHECK_FALSE(expiry.begin(1'000'000, kNow + 1'000'000, kNever));
  expiry.not_leading();
  const auto again = expiry.begin(1'000'000, kNow + 1'000'000, kNever);
  REQUIRE(again);
  CHECK(again->from_ms == 0);
}

}  // namespace seshat
