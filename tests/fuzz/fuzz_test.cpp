// Every file of seeds/ and found/ through its target: what `make fuzz` starts from, and what it once
// found. `make fuzz` mutates them; this keeps them alive.
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "fuzz/target.hpp"
#include "seshat/peer_codec.hpp"
#include "seshat/snapshot.hpp"

namespace {

using namespace seshat;
using fuzz::Target;
namespace fs = std::filesystem;

const fs::path kFolder = fs::path(__FILE__).parent_path();

// In the order of their names.
std::vector<fs::path> files_of(std::string_view kind, std::string_view target) {
  std::vector<fs::path> files;
  const fs::path folder = kFolder / kind / target;
  if (!fs::exists(folder)) return files;
  for (const auto& file : fs::directory_iterator(folder)) files.push_back(file.path());
  std::ranges::sort(files);
  return files;
}

std::string content_of(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  REQUIRE(stream);
  return {std::istreambuf_iterator<char>(stream), {}};
}

void run_all(const Target& target) {
  CHECK(files_of("seeds", target.name).size() >= 12);
  for (const std::string_view kind : {"seeds", "found"}) {
    for (const fs::path& file : files_of(kind, target.name)) {
      INFO(file.string());
      CHECK_NOTHROW(target.run(content_of(file)));
    }
  }
}

// Cuts each seed short at every place, as a network or a torn disk does.
void run_prefixes(const Target& target) {
  for (const fs::path& file : files_of("seeds", target.name)) {
    const std::string content = content_of(file);
    const std::size_t step = 1 + content.size() / 40;
    for (std::size_t size = 0; size < content.size(); size += step) {
      INFO(file.string() << " cut after " << size << " bytes");
      CHECK_NOTHROW(target.run(content.substr(0, size)));
    }
  }
}

}  // namespace

TEST_CASE("hostile input: every seed and everything found is handled", "[fuzz]") {
  for (const Target& target : fuzz::kTargets) {
    DYNAMIC_SECTION(target.name) { run_all(target); }
  }
}

TEST_CASE("hostile input: every seed may end anywhere", "[fuzz]") {
  for (const Target& target : fuzz::kTargets) {
    DYNAMIC_SECTION(target.name) { run_prefixes(target); }
  }
}

// ---- The seeds of the records -------------------------------------------------------------------

namespace {

void write_seed(const std::string& name, char letter, const std::string& bytes) {
  const fs::path folder = kFolder / "seeds" / "records";
  fs::create_directories(folder);
  std::ofstream stream(folder / name, std::ios::binary);
  stream << letter << bytes;
  REQUIRE(stream.flush());
}

template <class Record>
std::string bytes_of(const Record& record) {
  std::string out;
  codec::encode(record, out);
  return out;
}

raft::Entry entry_of(std::uint64_t index, const std::string& data) {
  return {Term{7}, Index{index}, raft::EntryType::kNormal,
          std::make_shared<const std::string>(data)};
}

template <class Body>
std::string frame_with(Body body) {
  Frame frame;
  frame.messages.push_back(
      {kFirstDataGroup, {NodeId{1}, NodeId{2}, Term{7}, raft::Message{}.body}});
  frame.messages[0].message.body = std::move(body);
  return bytes_of(frame);
}

const ClusterMembership kMembership{
    .cluster_id = "0123456789abcdef0123456789abcdef",
    .members = {{NodeId{1}, {NodeId{1}, 11, "a:7379", "a:6379", MemberState::kActive, 5, 1, 1}},
                {NodeId{2}, {NodeId{2}, 12, "b:7379", "", MemberState::kJoining, 6, 1, 1}}},
    .membership_version = 1};
const ShardMap kShardMap{.shards = {{kFirstDataGroup,
                                     {{0, 5}, {7, 16383}},
                                     {NodeId{1}, NodeId{2}},
                                     ShardState::kActive}},
                         .replication_factor = 3};

void write_record_seeds() {
  write_seed("hard_state", 'h', codec::encode(raft::HardState{Term{7}, NodeId{2}, Index{42}}));
  StoredValue value{ValueType::kString, "v", 1'700'000'000'000, std::nullopt, Index{42}};
  write_seed("value", 'v', bytes_of(value));
  value.expires_at_ms = 1'700'000'000'001;
  write_seed("value_that_expires", 'v', bytes_of(value));
  const std::string applied = codec::encode(MachineState{Index{42}, Term{7}, 3, 1'700'000'000'000});
  write_seed("machine_state", 'a', applied);
  write_seed("restored", 'r', applied);
  write_seed("identity", 'i', codec::encode(NodeIdentity{NodeId{1}, 11, kMembership.cluster_id}));
  const std::string membership = codec::encode(kMembership);
  write_seed("membership", 'm', membership);
  write_seed("restored_membership", 'r', membership);
  const std::string shard_map = codec::encode(kShardMap);
  write_seed("shard_map", 's', shard_map);
  write_seed("restored_shard_map", 'r', shard_map);
  const std::string set = codec::encode(Operation{OperationType::kSet, 9, {"k", "v"}});
  write_seed("operation", 'o', set);
  write_seed("set", 'k', set);
  write_seed("delete", 'k', codec::encode(Operation{OperationType::kDelete, 9, {"k", "j", "k"}}));
  write_seed("set_membership", 'y',
             codec::encode(Operation{OperationType::kSetMembership, 9, {membership}}));
  write_seed("set_shard_map", 'y',
             codec::encode(Operation{OperationType::kSetShardMap, 9, {shard_map}}));
  write_seed("entry", 'e', bytes_of(entry_of(42, set)));
  write_seed("no_op", 'e',
             bytes_of(raft::Entry{Term{7}, Index{1}, raft::EntryType::kNoOp, nullptr}));
}

// Whole messages that must be refused all the same: mutation alone seldom gets lengths right that
// stand inside lengths.
void write_refused_seeds() {
  ShardMap beyond = kShardMap;
  beyond.shards[0].slots[1].last = kSlotCount;
  write_seed("refused_slot", 's', codec::encode(beyond));
  ShardMap reversed = kShardMap;
  reversed.shards[0].slots[1] = {9, 8};
  write_seed("refused_slot_range", 's', codec::encode(reversed));
  ClusterMembership stateless = kMembership;
  stateless.members.at(NodeId{2}).state = static_cast<MemberState>(4);
  write_seed("refused_member_state", 'm', codec::encode(stateless));
  raft::Entry typeless = entry_of(42, "OK");
  typeless.type = static_cast<raft::EntryType>(3);
  write_seed("refused_entry_type", 'e', bytes_of(typeless));
  write_seed("refused_entry_in_a_frame", 'f',
             frame_with(raft::AppendEntries{Index{41}, Term{6}, Index{40}, 3, {}, {typeless}}));
  std::string newer = codec::encode(kShardMap);
  newer[1] = kRecordVersion + 1;  // behind the tag of field 1, the version
  write_seed("refused_version", 's', newer);
}

void write_frame_seeds() {
  const Hello hello{.cluster_id = kMembership.cluster_id,
                    .members_hash = 0x1122334455667788,
                    .node_id = NodeId{1},
                    .incarnation = 11,
                    .empty = true,
                    .client_addr = "a:6379",
                    .addr = "a:7379"};
  Frame first;
  first.hello = hello;
  write_seed("hello", 'f', bytes_of(first));
  Frame answer;
  answer.hello_reply = HelloReply{false, "another cluster", hello};
  write_seed("hello_reply", 'f', bytes_of(answer));
  Frame sign;
  sign.status = NodeStatus{true};
  write_seed("status", 'f', bytes_of(sign));
  write_seed("request_vote", 'f', frame_with(raft::RequestVote{Index{41}, Term{6}, true, false}));
  write_seed("request_vote_reply", 'f', frame_with(raft::RequestVoteReply{true, true}));
  write_seed("append_entries", 'f',
             frame_with(raft::AppendEntries{
                 Index{41}, Term{6}, Index{40}, 3, {}, {entry_of(42, "OK"), entry_of(43, "")}}));
  raft::AppendEntriesReply reply;
  reply.rejected_index = Index{41};
  reply.conflict_index = Index{30};
  reply.conflict_term = Term{5};
  reply.withhold_ms = 300;
  write_seed("append_entries_reply", 'f', frame_with(reply));
  write_seed("timeout_now", 'f', frame_with(raft::TimeoutNow{}));
}

void write_call_seeds() {
  CallRequest join;
  join.from = NodeId{3};
  join.join.emplace();
  join.join->hello.node_id = NodeId{3};
  join.join->hello.addr = "c:7379";
  write_seed("join", 'j', bytes_of(join));
  CallRequest admin;
  admin.cluster_id = kMembership.cluster_id;
  admin.admin = AdminRequest{AdminAction::kLeave, NodeId{2}, true};
  write_seed("admin", 'j', bytes_of(admin));
  admin.admin->action = static_cast<AdminAction>(5);
  write_seed("refused_action", 'j', bytes_of(admin));
  CallReply accepted;
  accepted.status = CallStatus::kAccepted;
  accepted.membership = kMembership;
  write_seed("call_reply", 'q', bytes_of(accepted));
  CallReply elsewhere;
  elsewhere.status = CallStatus::kNotLeader;
  elsewhere.leader_addr = "b:7379";
  elsewhere.client_addr = "b:6379";
  write_seed("call_reply_not_leader", 'q', bytes_of(elsewhere));
}

void write_snapshot_seeds() {
  const raft::Snapshot snapshot{
      Index{42}, Term{7}, {{NodeId{1}, NodeId{2}}, {NodeId{1}}, {NodeId{3}}}, Index{40}};
  SnapshotOffer offer;
  offer.message = {kFirstDataGroup,
                   {NodeId{1}, NodeId{2}, Term{7}, raft::InstallSnapshot{snapshot}}};
  offer.cluster_id = kMembership.cluster_id;
  offer.metadata = {kFirstDataGroup, snapshot, kMembership, 9, 21, 2, 0x1122334455667788};
  write_seed("snapshot_metadata", 't', codec::encode(offer.metadata));
  write_seed("snapshot_offer", 'n', bytes_of(offer));
  offer.message.message.body = raft::TimeoutNow{};
  write_seed("refused_offer", 'n', bytes_of(offer));
  std::string rows;
  append_row("k", "v", rows);
  append_row("key", "", rows);
  write_seed("rows", 'w', rows);
  write_seed("snapshot_chunk", 'n', bytes_of(SnapshotChunk{1, rows, fnv1a(rows), true}));
  SnapshotReply reply;
  reply.status = SnapshotReply::Status::kGoOn;
  reply.after_key = "k";
  reply.received_chunk = 1;
  write_seed("snapshot_reply", 'p', bytes_of(reply));
  write_seed("snapshot_reply_installed", 'p',
             bytes_of(SnapshotReply{SnapshotReply::Status::kInstalled, "", "", Index{42}, 0}));
}

}  // namespace

// Not run unless asked for by its tag, when a record gets a new field: unit_tests '[.write-seeds]'
TEST_CASE("the seeds of the records are written anew", "[.write-seeds]") {
  write_record_seeds();
  write_refused_seeds();
  write_frame_seeds();
  write_call_seeds();
  write_snapshot_seeds();
}
