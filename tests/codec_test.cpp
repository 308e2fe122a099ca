// Records, operations and peer messages: what is written is read back, and bytes that nobody wrote
// (cut short, flipped, of a newer seshat) are refused with words and without harm.
#include "seshat/peer_codec.hpp"

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "catch.hpp"
#include "codec_samples.hpp"

namespace {

using namespace seshat;
using namespace seshat::tests;

std::string bytes_of(std::initializer_list<int> values) {
  std::string bytes;
  for (const int value : values) bytes += static_cast<char>(value);
  return bytes;
}

raft::Entry entry_of(std::uint64_t term, std::uint64_t index, std::string data) {
  return {Term{term}, Index{index}, raft::EntryType::kNormal,
          std::make_shared<const std::string>(std::move(data))};
}

std::string encoded(const raft::Entry& entry) {
  std::string out;
  codec::encode(entry, out);
  return out;
}

std::string encoded(const StoredValue& value) {
  std::string out;
  codec::encode(value, out);
  return out;
}

std::string encoded(const Frame& frame) {
  std::string out;
  codec::encode(frame, out);
  return out;
}

bool same(const raft::Entry& a, const raft::Entry& b) {
  const auto text = [](const raft::Entry& e) { return e.data ? *e.data : std::string(); };
  return a.term == b.term && a.index == b.index && a.type == b.type && text(a) == text(b);
}

NodeInfo node_info(std::uint64_t id) {
  NodeInfo info;
  info.id = NodeId{id};
  info.incarnation = std::numeric_limits<std::uint64_t>::max() - id;
  info.addr = "kvstore-" + std::to_string(id) + ":7379";
  info.client_addr = "kvstore-" + std::to_string(id) + ":6379";
  info.client_tls_port = static_cast<std::uint16_t>(6380 + id);
  info.state = MemberState::kRemoved;
  info.joined_at_ms = 1'700'000'000'000;
  info.promoted_at_ms = 1'700'000'000'001;
  info.max_record_version = 1;
  info.max_operation_version = 2;
  return info;
}

ClusterMembership membership() {
  ClusterMembership membership;
  membership.cluster_id = std::string(32, 'a');
  for (std::uint64_t id = 1; id <= 5; ++id) membership.members[NodeId{id}] = node_info(id);
  membership.membership_version = 7;
  return membership;
}

ShardMap shard_map() {
  ShardMap map;
  map.shards = {{GroupId{1}, {{0, 5}, {7, 16383}}, {NodeId{1}, NodeId{2}, NodeId{300}}},
                {GroupId{2}, {{6, 6}}, {}}};
  map.replication_factor = 3;
  return map;
}

Hello hello() {
  Hello hello;
  hello.cluster_id = std::string(32, 'c');
  hello.members_hash = 0xfedcba9876543210;
  hello.node_id = NodeId{3};
  hello.incarnation = 42;
  hello.empty = true;
  hello.client_addr = "kvstore-3:6379";
  hello.client_tls_port = 6380;
  hello.addr = "kvstore-3:7379";
  hello.membership_version = 9;
  return hello;
}

template <class Body>
PeerMessage message(Body body) {
  return {GroupId{1}, {NodeId{1}, NodeId{2}, Term{9}, std::move(body)}};
}

raft::AppendEntriesReply append_reply(bool success) {
  raft::AppendEntriesReply reply;
  reply.success = success;
  (success ? reply.match_index : reply.rejected_index) = Index{70'000};
  reply.round = 11;
  reply.withhold_ms = 300;
  reply.conflict_index = Index{12};
  reply.conflict_term = Term{3};
  return reply;
}

raft::Configuration joint() {
  return {{NodeId{1}, NodeId{2}, NodeId{~0ULL}}, {NodeId{1}}, {NodeId{7}, NodeId{8}}};
}

raft::Entry config_change(std::uint64_t term, std::uint64_t index) {
  return {Term{term}, Index{index}, raft::EntryType::kConfigChange, nullptr,
          std::make_shared<const raft::Configuration>(joint())};
}

NodeStatus node_status() {
  GroupStatus group{kFirstDataGroup, raft::Role::kLeader, Term{3}, NodeId{2}, Index{40}, Index{39},
                    Index{12},       Index{41},           12345,   Index{10}, true};
  return {true, "0.2.0", {GroupStatus{}, group}};
}

Frame full_frame() {
  Frame frame;
  frame.hello = hello();
  frame.hello_reply = HelloReply{false, "wiped: put its old data directory back", hello()};
  frame.messages = {
      message(raft::RequestVote{Index{5}, Term{4}, true, true}),
      message(raft::RequestVoteReply{true, true}),
      message(raft::AppendEntries{Index{5},
                                  Term{4},
                                  Index{3},
                                  8,
                                  Index{2},
                                  {entry_of(4, 6, "six"),
                                   entry_of(9, 7, std::string(300, '7')),
                                   {Term{9}, Index{8}, raft::EntryType::kNoOp, nullptr, nullptr},
                                   config_change(9, 9)}}),
      message(append_reply(true)),
      message(append_reply(false)),
      message(raft::TimeoutNow{})};
  frame.status = node_status();
  return frame;
}

// Looks at every byte that a decoded view claims, so that ASan sees one that looks elsewhere.
bool touch(std::string_view view) { return std::count(view.begin(), view.end(), '\1') >= 0; }

Result<void> read_operation(std::string_view bytes) {
  const auto operation = codec::decode_operation(bytes);
  if (!operation) return operation.error();
  for (const std::string_view argument : operation->arguments) (void)touch(argument);
  return {};
}

Result<void> read_value(std::string_view bytes) {
  const auto value = codec::decode_stored_value(bytes);
  if (!value) return value.error();
  (void)touch(value->data);
  return {};
}

std::vector<Sample> samples() {
  const StoredValue value{ValueType::kString, "value", 1, 2, Index{3}};
  const Operation operation{OperationType::kDelete, 12, {"a", "", "ccc"}};
  const raft::HardState hard_state{Term{3}, NodeId{2}, Index{1}};
  return {
      sample("entry", encoded(entry_of(7, 42, "data")), codec::decode_entry),
      sample("hard state", codec::encode(hard_state), codec::decode_hard_state),
      sample("value", encoded(value), read_value),
      sample("state", codec::encode(MachineState{Index{1}, Term{2}, 3, 4}),
             codec::decode_machine_state),
      sample("membership", codec::encode(membership()), codec::decode_membership),
      sample("shard map", codec::encode(shard_map()), codec::decode_shard_map),
      sample("identity", codec::encode(NodeIdentity{NodeId{1}, 2, "c"}), codec::decode_identity),
      sample("operation", codec::encode(operation), read_operation),
      sample("frame", encoded(full_frame()), codec::decode_frame)};
}

const std::string kNewer = bytes_of({0x08, 0x63});  // field 1, the version: 99

}  // namespace

TEST_CASE("a log entry has the bytes of the worked example (codec.hpp)", "[codec]") {
  const std::string bytes = bytes_of({0x08, 1, 0x10, 7, 0x18, 0x2a, 0x2a, 2, 'O', 'K'});
  CHECK(encoded(entry_of(7, 42, "OK")) == bytes);
  const auto entry = codec::decode_entry(bytes);
  REQUIRE(entry);
  CHECK(same(*entry, entry_of(7, 42, "OK")));
}

TEST_CASE("log entries of each type come back, with data and without", "[codec]") {
  for (const auto type : {raft::EntryType::kNormal, raft::EntryType::kNoOp}) {
    for (const std::string& data : {std::string(), std::string("\0x\xff", 3)}) {
      raft::Entry entry = entry_of(~0ULL, ~0ULL, data);
      entry.type = type;
      const auto decoded = codec::decode_entry(encoded(entry));
      REQUIRE(decoded);
      CHECK(same(*decoded, entry));
    }
  }
}

TEST_CASE("a change of configuration comes back, and only it needs record version 2", "[codec]") {
  const auto decoded = codec::decode_entry(encoded(config_change(4, 9)));
  REQUIRE(decoded);
  REQUIRE(decoded->configuration);
  CHECK(*decoded->configuration == joint());
  CHECK(encoded(config_change(4, 9)).substr(0, 2) == bytes_of({0x08, 2}));
  CHECK(encoded(entry_of(4, 9, "x")).substr(0, 2) == bytes_of({0x08, 1}));
  const std::string no_voters = bytes_of({0x08, 2, 0x10, 4, 0x18, 9, 0x20, 1});
  CHECK(codec::decode_entry(no_voters).error().text ==
        "VersionedLogEntry is damaged: it holds no configuration");
}

TEST_CASE("a value of 65,536 bytes passes, though nanopb's own sizes end at 65,535", "[codec]") {
  const std::string data(65'536, 'v');
  const std::string bytes = encoded(StoredValue{ValueType::kString, data, 1, {}, Index{2}});
  const auto value = codec::decode_stored_value(bytes);
  REQUIRE(value);
  CHECK(value->data == data);
  const std::string operation = codec::encode(Operation{OperationType::kSet, 1, {"k", data}});
  const auto decoded = codec::decode_operation(operation);
  REQUIRE(decoded);
  CHECK(decoded->arguments == std::vector<std::string_view>{"k", data});
}

TEST_CASE("a stored value comes back, expiring or not", "[codec]") {
  for (const std::optional<std::uint64_t> expires :
       {std::optional<std::uint64_t>(), std::optional<std::uint64_t>(0),
        std::optional<std::uint64_t>(1'800'000'000'000)}) {
    const std::string bytes = encoded(StoredValue{ValueType::kString, "v", 17, expires, Index{5}});
    const auto value = codec::decode_stored_value(bytes);
    REQUIRE(value);
    CHECK(value->data == "v");
    CHECK(value->created_at_ms == 17);
    CHECK(value->expires_at_ms == expires);
    CHECK(value->mod_index == Index{5});
  }
}

TEST_CASE("hard state, machine state and identity come back", "[codec]") {
  const raft::HardState hard_state{Term{~0ULL}, NodeId{3}, Index{77}};
  CHECK(*codec::decode_hard_state(codec::encode(hard_state)) == hard_state);
  CHECK(codec::encode(MachineState{Index{7}, Term{2}, 3, 4}).substr(0, 2) == bytes_of({0x08, 1}));
  const MachineState state{Index{~0ULL}, Term{2}, 3, 4, Index{11}, joint()};
  CHECK(*codec::decode_machine_state(codec::encode(state)) == state);
  const NodeIdentity identity{NodeId{9}, ~0ULL, std::string(64, 'f')};
  CHECK(*codec::decode_identity(codec::encode(identity)) == identity);
}

TEST_CASE("membership and shard map come back", "[codec]") {
  CHECK(*codec::decode_membership(codec::encode(membership())) == membership());
  CHECK(*codec::decode_shard_map(codec::encode(shard_map())) == shard_map());
}

TEST_CASE("an operation keeps its arguments, empty ones among them", "[codec]") {
  const std::string bytes =
      codec::encode(Operation{OperationType::kDelete, 99, {"", "b", "", "d"}});
  const auto operation = codec::decode_operation(bytes);
  REQUIRE(operation);
  CHECK(operation->type == OperationType::kDelete);
  CHECK(operation->time_ms == 99);
  CHECK(operation->arguments == std::vector<std::string_view>{"", "b", "", "d"});
}

TEST_CASE("what is decoded into views looks into the bytes it came from", "[codec]") {
  const std::string bytes = codec::encode(Operation{OperationType::kSet, 1, {"key", "value"}});
  const auto operation = codec::decode_operation(bytes);
  REQUIRE(operation);
  for (const std::string_view argument : operation->arguments) {
    CHECK(argument.data() > bytes.data());
    CHECK(argument.data() + argument.size() <= bytes.data() + bytes.size());
  }
}

TEST_CASE("a handshake comes back", "[codec]") {
  const auto frame = codec::decode_frame(encoded(full_frame()));
  REQUIRE(frame);
  CHECK(frame->hello == hello());
  CHECK(frame->hello_reply == full_frame().hello_reply);
  CHECK(frame->status == node_status());
  const auto empty = codec::decode_frame("");
  REQUIRE(empty);
  CHECK(!empty->hello);
  CHECK(!empty->hello_reply);
  CHECK(!empty->status);
  CHECK(empty->messages.empty());
}

TEST_CASE("every Raft message comes back", "[codec]") {
  const auto frame = codec::decode_frame(encoded(full_frame()));
  REQUIRE(frame);
  REQUIRE(frame->messages.size() == 6);
  for (const PeerMessage& m : frame->messages) {
    CHECK(m.group == GroupId{1});
    CHECK(m.message.from == NodeId{1});
    CHECK(m.message.to == NodeId{2});
    CHECK(m.message.term == Term{9});
  }
  const auto& vote = std::get<raft::RequestVote>(frame->messages[0].message.body);
  CHECK((vote.last_log_index == Index{5} && vote.last_log_term == Term{4}));
  CHECK((vote.pre_vote && vote.transfer));
  const auto& vote_reply = std::get<raft::RequestVoteReply>(frame->messages[1].message.body);
  CHECK((vote_reply.granted && vote_reply.pre_vote));
  CHECK(std::holds_alternative<raft::TimeoutNow>(frame->messages[5].message.body));
}

TEST_CASE("AppendEntries and its reply come back whole", "[codec]") {
  const Frame sent = full_frame();
  const auto frame = codec::decode_frame(encoded(sent));
  REQUIRE(frame);
  const auto& append = std::get<raft::AppendEntries>(frame->messages[2].message.body);
  const auto& original = std::get<raft::AppendEntries>(sent.messages[2].message.body);
  CHECK((append.prev_log_index == Index{5} && append.prev_log_term == Term{4}));
  CHECK((append.commit_index == Index{3} && append.round == 8));
  CHECK(std::equal(append.entries.begin(), append.entries.end(), original.entries.begin(),
                   original.entries.end(), same));
  for (const bool success : {true, false}) {
    const auto& reply =
        std::get<raft::AppendEntriesReply>(frame->messages[success ? 3 : 4].message.body);
    CHECK(reply.success == success);
    CHECK(reply.match_index == Index{success ? 70'000U : 0U});
    CHECK(reply.rejected_index == Index{success ? 0U : 70'000U});
    CHECK((reply.round == 11 && reply.withhold_ms == 300));
    CHECK((reply.conflict_index == Index{12} && reply.conflict_term == Term{3}));
  }
}

TEST_CASE("a record cut short anywhere does no harm", "[codec]") { check_cut_short(samples()); }

TEST_CASE("bits flipped at random do no harm", "[codec]") { check_flipped(samples(), 20'250'101); }

TEST_CASE("bytes of no meaning do no harm", "[codec]") { check_meaningless(samples(), 7); }

// nanopb hands such a field to the callback from a buffer on its stack.
TEST_CASE("a number where bytes should be is refused, and no view looks at it", "[codec]") {
  const std::string version = bytes_of({0x08, 1});
  CHECK_FALSE(codec::decode_entry(version + bytes_of({0x28, 0x7f})));         // data
  CHECK_FALSE(codec::decode_stored_value(version + bytes_of({0x18, 0x7f})));  // data
  CHECK_FALSE(codec::decode_operation(version + bytes_of({0x10, 1, 0x20, 0x7f})));
  CHECK_FALSE(codec::decode_operation(version + bytes_of({0x10, 1, 0x25, 1, 2, 3, 4})));
}

TEST_CASE("a newer record is refused with its name, its version and what to do", "[codec]") {
  CHECK(codec::decode_entry(kNewer).error().text ==
        "VersionedLogEntry has version 99, but this seshat knows only up to 3: run the newer "
        "seshat that wrote it");
  CHECK_THAT(codec::decode_hard_state(kNewer).error().text, StartsWith("RaftHardState has ver"));
  CHECK_THAT(codec::decode_stored_value(kNewer).error().text, StartsWith("StoredValue has ver"));
  CHECK_THAT(codec::decode_machine_state(kNewer).error().text, StartsWith("MachineState has ver"));
  CHECK_THAT(codec::decode_membership(kNewer).error().text, StartsWith("ClusterMembership has"));
  CHECK_THAT(codec::decode_shard_map(kNewer).error().text, StartsWith("ShardMap has version 99"));
  CHECK_THAT(codec::decode_identity(kNewer).error().text, StartsWith("NodeIdentity has version"));
  CHECK_THAT(codec::decode_operation(kNewer).error().text, StartsWith("Operation has version 99"));
}

TEST_CASE("a newer record is named as newer even if it can't be read further", "[codec]") {
  const std::string unreadable = kNewer + bytes_of({0x22, 0x7f, 'x'});
  CHECK_THAT(codec::decode_membership(unreadable).error().text, ContainsSubstring("version 99"));
  CHECK_THAT(codec::decode_operation(unreadable).error().text, ContainsSubstring("version 99"));
}

TEST_CASE("fields that a newer minor version added are skipped", "[codec]") {
  const std::string added = bytes_of({0xfa, 1, 3, 'n', 'e', 'w'});  // field 31, bytes
  for (const Sample& s : samples()) {
    INFO(s.name);
    CHECK(s.decodes(s.bytes + added));
  }
}

TEST_CASE("a record without a version is damaged", "[codec]") {
  CHECK(codec::decode_entry("").error().text == "VersionedLogEntry is damaged: it has no version");
  CHECK_FALSE(codec::decode_operation(""));
  CHECK_FALSE(codec::decode_membership(""));
}

TEST_CASE("types that nobody knows are refused", "[codec]") {
  const std::string version = bytes_of({0x08, 1});
  CHECK_FALSE(codec::decode_entry(version + bytes_of({0x20, 3})));
  CHECK_FALSE(codec::decode_entry(version + bytes_of({0x20, 0x80, 0x80, 0x80, 0x80, 0x08})));
  CHECK_FALSE(codec::decode_stored_value(version + bytes_of({0x10, 1})));
  CHECK_FALSE(codec::decode_operation(version));                              // type 0
  CHECK_FALSE(codec::decode_operation(version + bytes_of({0x10, 0x80, 2})));  // type 256
}

TEST_CASE("a Raft message of an unknown type is skipped, and those around it are taken",
          "[codec]") {
  const std::string known = encoded(Frame{{}, {}, {message(raft::TimeoutNow{})}, {}, {}, {}});
  const std::string unknown = bytes_of({0x1a, 2, 0x08, 7});
  const auto frame = codec::decode_frame(known + unknown + known);
  REQUIRE(frame);
  CHECK(frame->messages.size() == 2);
}

TEST_CASE("a member that stands under another id is damage", "[codec]") {
  const auto member = [](int key, int id, int state) {
    return bytes_of({0x08, 1, 0x12, 8, 0x08, key, 0x12, 4, 0x08, id, 0x28, state});
  };
  CHECK(codec::decode_membership(member(3, 3, 0)));
  CHECK_FALSE(codec::decode_membership(member(3, 4, 0)));
  CHECK_FALSE(codec::decode_membership(member(0, 0, 0)));
  CHECK_FALSE(codec::decode_membership(member(3, 3, 9)));  // no such state
}

TEST_CASE("slots out of range or in the wrong order are damage", "[codec]") {
  const auto range = [](int first, std::initializer_list<int> last) {
    std::string slots = bytes_of({0x08, first, 0x10}) + bytes_of(last);
    std::string shard = bytes_of({0x12, static_cast<int>(slots.size())}) + slots;
    return bytes_of({0x08, 1, 0x12, static_cast<int>(shard.size())}) + shard;
  };
  CHECK(codec::decode_shard_map(range(5, {5})));
  CHECK(codec::decode_shard_map(range(0, {0xff, 0x7f})));           // 16,383
  CHECK_FALSE(codec::decode_shard_map(range(0, {0x80, 0x80, 1})));  // 16,384
  CHECK_FALSE(codec::decode_shard_map(range(6, {5})));
}

TEST_CASE("replicas are read one by one and packed, as the protocol allows", "[codec]") {
  const std::string single = bytes_of({0x08, 1, 0x12, 5, 0x18, 1, 0x18, 0xac, 2});
  const std::string packed = bytes_of({0x08, 1, 0x12, 5, 0x1a, 3, 1, 0xac, 2});
  const std::string none = bytes_of({0x08, 1, 0x12, 2, 0x1a, 0});
  for (const std::string& bytes : {single, packed}) {
    const auto map = codec::decode_shard_map(bytes);
    REQUIRE(map);
    CHECK(map->shards[0].replicas == std::vector<NodeId>{NodeId{1}, NodeId{300}});
  }
  CHECK(codec::decode_shard_map(none));
}

TEST_CASE("texts as long as their fields pass, longer ones from outside are refused", "[codec]") {
  Frame frame;
  frame.hello = hello();
  frame.hello->cluster_id = std::string(64, 'c');
  frame.hello->client_addr = std::string(300, 'a');
  const std::string bytes = encoded(frame);
  const auto decoded = codec::decode_frame(bytes);
  REQUIRE(decoded);
  CHECK(decoded->hello == frame.hello);

  const std::string id = bytes_of({0x12, 65}) + std::string(65, 'c');
  CHECK_FALSE(codec::decode_frame(bytes_of({0x0a, static_cast<int>(id.size())}) + id));
}

TEST_CASE("a long refusal is cut to what fits", "[codec]") {
  Frame frame;
  frame.hello_reply = HelloReply{false, std::string(5000, 'r'), {}};
  const auto decoded = codec::decode_frame(encoded(frame));
  REQUIRE(decoded);
  CHECK(decoded->hello_reply->reason == std::string(1000, 'r'));
}

TEST_CASE("the version comes first, so that every later seshat finds it", "[codec]") {
  for (const Sample& s : samples()) {
    if (std::string_view(s.name) == "frame") continue;  // has one in its Hello
    CHECK(s.bytes.substr(0, 2) == bytes_of({0x08, 1}));
  }
}
