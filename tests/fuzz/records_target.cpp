// Bytes that should be a record of the disk or a frame of a peer. The first says which: see kReaders.
//
// Claims: they are decoded or refused with a reason; what is decoded holds no number that its enum
// does not name, and no view beyond the bytes; encoded and decoded again it is the same; and a state
// machine that applied an operation can be restored from what it wrote.
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

#include "fuzz/direct_batch.hpp"
#include "fuzz/target.hpp"
#include "memory_database.hpp"
#include "seshat/peer_codec.hpp"
#include "seshat/snapshot.hpp"
#include "seshat/state_machine.hpp"

namespace seshat::fuzz {

namespace {

// ---- What must hold of anything that was decoded ------------------------------------------------

void check_view(std::string_view bytes, std::string_view view) {
  const std::less_equal<> not_after;
  check(view.empty() || (not_after(bytes.data(), view.data()) &&
                         not_after(view.data() + view.size(), bytes.data() + bytes.size())),
        "a view looks past the bytes");
}

void check_value(std::string_view, const raft::Entry& entry) {
  check(entry.type <= raft::EntryType::kNoOp, "an entry of no type");
}
void check_value(std::string_view, const raft::HardState&) {}
void check_value(std::string_view, const MachineState&) {}
void check_value(std::string_view, const NodeIdentity&) {}
void check_value(std::string_view bytes, const StoredValue& value) {
  check(value.type == ValueType::kString, "a value of no type");
  check_view(bytes, value.data);
}
void check_value(std::string_view, const ClusterMembership& membership) {
  for (const auto& [id, member] : membership.members) {
    check(id == member.id && id != NodeId{}, "a member under another's id");
    check(member.state <= MemberState::kRemoved, "a member in no state");
  }
}
void check_value(std::string_view, const ShardMap& map) {
  for (const ShardInfo& shard : map.shards) {
    check(shard.state == ShardState::kActive, "a shard in no state");
    for (const SlotRange& range : shard.slots) {
      check(range.first <= range.last && range.last < kSlotCount, "a slot that is none");
    }
  }
}
void check_value(std::string_view bytes, const Operation& operation) {
  check(static_cast<int>(operation.type) != 0, "an operation of no type");
  for (const std::string_view argument : operation.arguments) check_view(bytes, argument);
}
void check_value(std::string_view, const Frame& frame) {
  for (const PeerMessage& message : frame.messages) {
    const auto* append = std::get_if<raft::AppendEntries>(&message.message.body);
    if (append == nullptr) continue;
    for (const raft::Entry& entry : append->entries) check_value({}, entry);
  }
}

void check_value(std::string_view, const CallRequest& request) {
  if (!request.admin) return;
  check(request.admin->action >= AdminAction::kLeave &&
            request.admin->action <= AdminAction::kSnapshot,
        "an action that is none");
}
void check_value(std::string_view, const CallReply& reply) {
  check(reply.status <= CallStatus::kRefused, "a status that is none");
  if (reply.membership) check_value({}, *reply.membership);
}
void check_value(std::string_view, const SnapshotReply& reply) {
  check(reply.status <= SnapshotReply::Status::kRefused, "a status that is none");
}
void check_value(std::string_view, const SnapshotMetadata& metadata) {
  check_value({}, metadata.membership);
}

// ---- There and back -----------------------------------------------------------------------------

template <class Record>
std::string encoded(const Record& record) {
  if constexpr (requires(std::string out) { codec::encode(record, out); }) {
    std::string out;
    codec::encode(record, out);
    return out;
  } else {
    return codec::encode(record);
  }
}

template <class Record, Result<Record> (*decode)(std::string_view)>
void there_and_back(std::string_view input) {
  const Exact bytes(input);
  const Result<Record> record = decode(bytes.view());
  if (!record) return check(!record.error().text.empty(), "refused without a word");
  check_value(bytes.view(), *record);
  const std::string once = encoded(*record);
  const Result<Record> again = decode(once);
  check(static_cast<bool>(again), "what was encoded can't be read");
  check(encoded(*again) == once, "encoded again it is another");
  if constexpr (requires { *record == *again; }) check(*record == *again, "a field was lost");
}

// A variant: each kind is encoded as itself.
void snapshot_frame(std::string_view input) {
  const Exact bytes(input);
  const Result<SnapshotFrame> frame = codec::decode_snapshot_frame(bytes.view());
  if (!frame) return check(!frame.error().text.empty(), "refused without a word");
  const auto encode = [](const auto& kind) { return encoded(kind); };
  const std::string once = std::visit(encode, *frame);
  const Result<SnapshotFrame> again = codec::decode_snapshot_frame(once);
  check(again && again->index() == frame->index(), "what was encoded can't be read");
  check(std::visit(encode, *again) == once, "encoded again it is another");
  if (const auto* offer = std::get_if<SnapshotOffer>(&*frame)) check_value({}, offer->metadata);
  if (const auto* chunk = std::get_if<SnapshotChunk>(&*frame)) {
    check(*chunk == std::get<SnapshotChunk>(*again), "a field was lost");
  }
}

// Rows are taken off until nothing is left, or nothing whole.
void rows(std::string_view input) {
  const Exact bytes(input);
  std::string_view rest = bytes.view();
  std::string_view key;
  std::string_view value;
  std::string again;
  while (take_row(rest, key, value)) {
    check_view(bytes.view(), key);
    check_view(bytes.view(), value);
    append_row(key, value, again);
  }
  check(again + std::string(rest) == bytes.view(), "rows that are not those that were there");
}

// ---- State machines -----------------------------------------------------------------------------

// The bytes as an operation of a log: twice, so that the second finds what the first did.
template <class Machine>
void apply(std::string_view input) {
  Machine machine;
  tests::MemoryMap map;
  DirectBatch batch(map);
  for (std::uint64_t index = 1; index <= 2; ++index) {
    const raft::Entry entry{Term{1}, Index{index}, raft::EntryType::kNormal,
                            std::make_shared<const std::string>(input)};
    const auto outcomes = machine.apply(batch, {entry});
    if (!outcomes) return check(!outcomes.error().text.empty(), "refused without a word");
    check(outcomes->size() == 1, "one entry, one outcome");
    Machine fresh;
    const Result<MachineState> state = fresh.restore(map);
    check(state && state->applied_index == Index{index}, "applied, but it can't be restored");
  }
}

// The bytes where a state machine keeps its own records.
void restore(std::string_view input) {
  for (const std::string_view key : {kSystemStateKey, kMembershipKey, kShardMapKey}) {
    SystemMachine machine;
    tests::MemoryMap map;
    map.bytes[std::string(key)] = input;
    const Result<MachineState> state = machine.restore(map);
    check(state || !state.error().text.empty(), "refused without a word");
  }
}

struct Reader {
  char letter;
  void (*read)(std::string_view bytes);
};

constexpr std::array kReaders = {
    Reader{'e', &there_and_back<raft::Entry, &codec::decode_entry>},
    Reader{'h', &there_and_back<raft::HardState, &codec::decode_hard_state>},
    Reader{'v', &there_and_back<StoredValue, &codec::decode_stored_value>},
    Reader{'a', &there_and_back<MachineState, &codec::decode_machine_state>},
    Reader{'m', &there_and_back<ClusterMembership, &codec::decode_membership>},
    Reader{'s', &there_and_back<ShardMap, &codec::decode_shard_map>},
    Reader{'i', &there_and_back<NodeIdentity, &codec::decode_identity>},
    Reader{'o', &there_and_back<Operation, &codec::decode_operation>},
    Reader{'f', &there_and_back<Frame, &codec::decode_frame>},
    Reader{'j', &there_and_back<CallRequest, &codec::decode_call_request>},
    Reader{'q', &there_and_back<CallReply, &codec::decode_call_reply>},
    Reader{'t', &there_and_back<SnapshotMetadata, &codec::decode_snapshot_metadata>},
    Reader{'n', &snapshot_frame},
    Reader{'p', &there_and_back<SnapshotReply, &codec::decode_snapshot_reply>},
    Reader{'w', &rows},
    Reader{'k', &apply<KeyValueMachine>},
    Reader{'y', &apply<SystemMachine>},
    Reader{'r', &restore},
};

}  // namespace

void records(std::string_view input) {
  for (const Reader& reader : kReaders) {
    if (!input.empty() && input[0] == reader.letter) reader.read(input.substr(1));
  }
}

}  // namespace seshat::fuzz
