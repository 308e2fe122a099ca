// The state machines over a map in memory: what operations do, and that all replicas do the same.
#include "seshat/state_machine.hpp"

#include <initializer_list>
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

using seshat::tests::MemoryMap;
using Bytes = decltype(MemoryMap::bytes);

class MemoryBatch final : public Batch {
 public:
  explicit MemoryBatch(MemoryMap& map) : map_(map), changed_(map) {}
  [[nodiscard]] Lookup get(std::string_view key, std::string& value) const override {
    return changed_.get(key, value);
  }
  void put(std::string_view key, std::string_view value) override {
    changed_.bytes[std::string(key)] = value;
  }
  void erase(std::string_view key) override { changed_.bytes.erase(std::string(key)); }
  void erase_all() override { changed_.bytes.clear(); }
  void commit() { map_ = changed_; }

 private:
  MemoryMap& map_;
  MemoryMap changed_;
};

raft::Entry entry(std::uint64_t index, const Operation& operation) {
  return {Term{1}, Index{index}, raft::EntryType::kNormal,
          std::make_shared<const std::string>(codec::encode(operation))};
}

raft::Entry no_op(std::uint64_t index) {
  return {Term{1}, Index{index}, raft::EntryType::kNoOp, nullptr};
}

raft::Entry configuration_change(std::uint64_t index, raft::Configuration configuration) {
  return {Term{1}, Index{index}, raft::EntryType::kConfigChange, nullptr,
          std::make_shared<const raft::Configuration>(std::move(configuration))};
}

Operation set_op(std::string_view key, std::string_view value, std::uint64_t time_ms = 0) {
  return {OperationType::kSet, time_ms, {key, value}};
}

Operation del_op(std::vector<std::string_view> keys) {
  return {OperationType::kDelete, 0, std::move(keys)};
}

// A machine and its map; each operation is the next log entry.
template <class Machine>
struct Applied {
  Result<std::vector<Outcome>> apply(const std::vector<raft::Entry>& entries) {
    MemoryBatch batch(map);
    auto outcomes = machine.apply(batch, entries);
    if (outcomes) batch.commit();
    return outcomes;
  }
  Outcome run(const Operation& operation) {
    const auto outcomes = apply({entry(++index, operation)});
    return outcomes ? outcomes->at(0) : Outcome{Outcome::Kind::kInteger, -1};
  }
  [[nodiscard]] MachineState state() const {
    Machine fresh;
    return *fresh.restore(map);
  }

  Machine machine;
  MemoryMap map;
  std::uint64_t index = 0;
};
using Data = Applied<KeyValueMachine>;
using System = Applied<SystemMachine>;

// "(absent)" where there is nothing.
std::string value_of(const OrderedMap& map, std::string_view key) {
  std::string storage;
  StoredValue value;
  return read_value(map, key, storage, value) == Lookup::kFound ? std::string(value.data)
                                                                : "(absent)";
}

Outcome integer(std::int64_t n) { return {Outcome::Kind::kInteger, n}; }

ClusterMembership membership(std::uint64_t version, std::string cluster_id = "id") {
  ClusterMembership membership;
  membership.cluster_id = std::move(cluster_id);
  membership.membership_version = version;
  membership.members[NodeId{1}].id = NodeId{1};
  return membership;
}

Outcome propose(System& system, const ClusterMembership& membership) {
  const std::string record = codec::encode(membership);
  return system.run({OperationType::kSetMembership, 0, {record}});
}

// Sets and deletes of a few keys, so that they meet each other.
std::vector<raft::Entry> random_log(std::uint64_t size) {
  std::mt19937_64 random(17);
  std::vector<raft::Entry> log;
  for (std::uint64_t index = 1; index <= size; ++index) {
    const std::string key = "k" + std::to_string(random() % 5);
    const std::string other = "k" + std::to_string(random() % 5);
    const std::string value = std::to_string(random());
    if (random() % 7 == 0) {
      log.push_back(no_op(index));
    } else if (random() % 3 == 0) {
      log.push_back(entry(index, del_op({key, other})));
    } else {
      log.push_back(entry(index, set_op(key, value, random() % 1000)));
    }
  }
  return log;
}

}  // namespace

TEST_CASE("a value's key is prefix, slot, hash and the user's key (state_machine.hpp)",
          "[state_machine]") {
  std::string key;
  value_key("foo", key);
  CHECK(key == std::string("\x10\x2f\x96\x75\x18\xfe\xd9\xd5\x77"
                           "foo"));
  CHECK(key_hash("") == 0xcbf29ce484222325);  // FNV-1a's own test vectors
  CHECK(key_hash("a") == 0xaf63dc4c8601ec8c);
  CHECK(key_hash("foobar") == 0x85944171f73967e8);
}

TEST_CASE("keys of a slot lie together, in the order of the slots", "[state_machine]") {
  std::string low;
  std::string high;
  value_key("foo", high);          // slot 12182
  value_key("{user1000}.a", low);  // slot 3443
  CHECK(low < high);
  std::string same_tag;
  value_key("{user1000}.b", same_tag);
  CHECK(same_tag.substr(0, 3) == low.substr(0, 3));
}

TEST_CASE("SET makes and replaces, and any bytes will do", "[state_machine]") {
  Data data;
  CHECK(data.run(set_op("k", "one")) == Outcome{});
  CHECK(data.run(set_op("k", std::string_view("\0\r\n", 3))) == Outcome{});
  CHECK(value_of(data.map, "k") == std::string("\0\r\n", 3));
  CHECK(data.run(set_op("", "")) == Outcome{});
  CHECK(value_of(data.map, "").empty());
  CHECK(data.state().key_count == 2);
}

TEST_CASE("a value knows the log entry and the leader's time that made it", "[state_machine]") {
  Data data;
  data.run(set_op("a", "1", 500));
  data.run(set_op("b", "2", 400));  // a new leader's clock is behind: time never goes back
  std::string storage;
  StoredValue value;
  REQUIRE(read_value(data.map, "b", storage, value) == Lookup::kFound);
  CHECK(value.created_at_ms == 500);
  CHECK(value.mod_index == Index{2});
  CHECK(data.state().time_ms == 500);
}

TEST_CASE("DEL counts the keys that were there, a repeated one once", "[state_machine]") {
  Data data;
  for (const char* key : {"a", "b", "c"}) data.run(set_op(key, "1"));
  CHECK(data.run(del_op({"a", "x", "a", "b"})) == integer(2));
  CHECK(value_of(data.map, "a") == "(absent)");
  CHECK(value_of(data.map, "c") == "1");
  CHECK(data.state().key_count == 1);
  CHECK(data.run(del_op({"a"})) == integer(0));
}

TEST_CASE("a no-op changes nothing but how far the machine is", "[state_machine]") {
  Data data;
  REQUIRE(data.apply({no_op(1), no_op(2)}));
  CHECK(data.state() == MachineState{Index{2}, Term{1}, 0, 0});
  CHECK(data.map.bytes.size() == 1);
}

TEMPLATE_TEST_CASE("a change of the configuration is kept with how far the machine is",
                   "[state_machine]", KeyValueMachine, SystemMachine) {
  Applied<TestType> group;
  const raft::Configuration joint{{NodeId{1}, NodeId{2}}, {NodeId{1}}, {NodeId{3}}};
  const raft::Configuration after{{NodeId{1}, NodeId{2}}, {}, {NodeId{3}}};
  const auto outcomes =
      group.apply({no_op(1), configuration_change(2, joint), configuration_change(3, after)});
  REQUIRE(outcomes);
  CHECK(outcomes->size() == 3);
  CHECK(group.state().configuration == after);
  CHECK(group.state().configuration_index == Index{3});
  REQUIRE(group.apply({no_op(4)}));  // which changes nothing of it
  CHECK(group.state().applied_index == Index{4});
  CHECK(group.state().configuration == after);
  CHECK(group.state().configuration_index == Index{3});
  TestType fresh;
  REQUIRE(fresh.restore(group.map));
  MemoryBatch batch(group.map);
  REQUIRE(fresh.apply(batch, {no_op(5)}));
  batch.commit();
  CHECK(group.state().configuration == after);
}

TEST_CASE("a change of the configuration that names none is refused", "[state_machine]") {
  Data data;
  const auto outcome =
      data.apply({{Term{1}, Index{1}, raft::EntryType::kConfigChange, nullptr, nullptr}});
  REQUIRE_FALSE(outcome);
  CHECK_THAT(outcome.error().text, ContainsSubstring("log entry 1"));
}

TEST_CASE("each entry has its outcome, in one batch with how far the machine is (etcd#13766)",
          "[state_machine]") {
  Data data;
  const auto outcomes =
      data.apply({no_op(1), entry(2, set_op("k", "v")), entry(3, del_op({"k", "j"}))});
  REQUIRE(outcomes);
  CHECK(*outcomes == std::vector<Outcome>{{}, {}, integer(1)});
  CHECK(data.state().applied_index == Index{3});
}

TEST_CASE("the same entries leave the same bytes, however they are batched", "[state_machine]") {
  const std::vector<raft::Entry> log = random_log(300);
  Data whole;
  REQUIRE(whole.apply(log));
  std::mt19937_64 random(3);
  for (int round = 0; round < 20; ++round) {
    Data split;
    for (auto from = log.begin(); from != log.end();) {
      const auto left = static_cast<std::uint64_t>(log.end() - from);
      const auto to = from + static_cast<std::ptrdiff_t>(1 + random() % left);
      REQUIRE(split.apply({from, to}));
      from = to;
    }
    CHECK(split.map.bytes == whole.map.bytes);
  }
}

TEST_CASE("a machine restored from its map goes on as if it had never stopped", "[state_machine]") {
  const std::vector<raft::Entry> log = random_log(200);
  Data whole;
  REQUIRE(whole.apply(log));
  for (const std::ptrdiff_t cut : {1, 50, 199}) {
    Data before;
    REQUIRE(before.apply({log.begin(), log.begin() + cut}));
    Data after;
    after.map = before.map;
    REQUIRE(after.machine.restore(after.map));
    REQUIRE(after.apply({log.begin() + cut, log.end()}));
    CHECK(after.map.bytes == whole.map.bytes);
  }
}

TEST_CASE("an entry twice, or one after a gap, is refused and nothing is written",
          "[state_machine]") {
  Data data;
  data.run(set_op("k", "v"));
  const Bytes before = data.map.bytes;
  CHECK(data.apply({entry(1, del_op({"k"}))}).error().text ==
        "log entry 1 came after entry 1 was applied: out of order");
  CHECK_FALSE(data.apply({entry(3, del_op({"k"}))}));
  CHECK(data.map.bytes == before);
}

TEST_CASE("what can't be applied says which entry and why", "[state_machine]") {
  Data data;
  const Operation foreign{OperationType::kSetMembership, 0, {"x"}};
  CHECK(data.apply({entry(1, foreign)}).error().text ==
        "log entry 1 can't be applied: operation type 3 does not belong to a data group");
  const Operation incomplete{OperationType::kSet, 0, {"key"}};
  CHECK_FALSE(Data().apply({entry(1, incomplete)}));
  raft::Entry damaged = entry(1, set_op("k", "v"));
  damaged.data = std::make_shared<const std::string>("\xff\xff");
  CHECK_THAT(Data().apply({damaged}).error().text, ContainsSubstring("Operation is damaged"));
}

TEST_CASE("a disk that can't say whether a key is there stops the machine", "[state_machine]") {
  for (const Lookup answer : {Lookup::kFailed, Lookup::kNotInMemory}) {
    Data set, del;
    set.map.answer = del.map.answer = answer;
    CHECK_FALSE(set.apply({entry(1, set_op("k", "v"))}));
    CHECK_FALSE(del.apply({entry(1, del_op({"k"}))}));
    CHECK_FALSE(KeyValueMachine().restore(set.map));
  }
}

TEST_CASE("reading tells absent, not in memory and damaged apart", "[state_machine]") {
  Data data;
  data.run(set_op("k", "v"));
  std::string storage;
  StoredValue value;
  CHECK(read_value(data.map, "x", storage, value) == Lookup::kAbsent);
  MemoryMap map = data.map;
  map.answer = Lookup::kNotInMemory;
  CHECK(read_value(map, "k", storage, value) == Lookup::kNotInMemory);
  std::string key;
  value_key("k", key);
  map = data.map;
  map.bytes[key] = "rot";
  CHECK(read_value(map, "k", storage, value) == Lookup::kFailed);
}

// ---- The system group ---------------------------------------------------------------------------

TEST_CASE("a membership is kept if it follows the one that stands", "[state_machine]") {
  System system;
  CHECK(propose(system, membership(1)) == integer(1));
  CHECK(propose(system, membership(2)) == integer(1));
  CHECK(**read_membership(system.map) == membership(2));
}

TEST_CASE("of two memberships built on the same one, the first is kept", "[state_machine]") {
  System system;
  propose(system, membership(1, "first"));
  CHECK(propose(system, membership(1, "second")) == integer(0));
  CHECK((*read_membership(system.map))->cluster_id == "first");
  CHECK(propose(system, membership(3, "too early")) == integer(0));
}

TEST_CASE("the shard map is kept as it was proposed", "[state_machine]") {
  System system;
  ShardMap map;
  map.shards = {{kFirstDataGroup, {{0, 16383}}, {NodeId{1}}}};
  map.replication_factor = 1;
  const std::string record = codec::encode(map);
  CHECK(system.run({OperationType::kSetShardMap, 0, {record}}) == Outcome{});
  CHECK(**read_shard_map(system.map) == map);
}

TEST_CASE("a record that could not be read again is not kept", "[state_machine]") {
  for (const auto type : {OperationType::kSetMembership, OperationType::kSetShardMap}) {
    System system;
    CHECK_FALSE(system.apply({entry(1, {type, 0, {"rot"}})}));
    CHECK_FALSE(system.apply({entry(1, {type, 0, {}})}));
  }
}

TEST_CASE("a restored system machine tells what it found", "[state_machine]") {
  System system;
  SystemMachine fresh;
  REQUIRE(fresh.restore(system.map));
  CHECK_FALSE(fresh.restored_membership());
  propose(system, membership(1));
  REQUIRE(fresh.restore(system.map));
  CHECK(fresh.restored_membership() == membership(1));
  CHECK_FALSE(fresh.restored_shard_map());
  system.map.bytes[std::string(kMembershipKey)] = "rot";
  CHECK_THAT(fresh.restore(system.map).error().text,
             StartsWith("record 'membership' can't be read: ClusterMembership is damaged"));
}

TEST_CASE("a key's operation does not belong to the system group", "[state_machine]") {
  System system;
  CHECK_FALSE(system.apply({entry(1, del_op({"k"}))}));
}
