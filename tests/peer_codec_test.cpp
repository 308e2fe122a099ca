// Calls and snapshots as bytes: what is written is read back, and bytes that nobody wrote are
// refused with words and without harm. Frames: codec_test.cpp.
#include "seshat/peer_codec.hpp"

#include <cstdint>
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

template <class Message>
std::string encoded(const Message& message) {
  std::string out;
  codec::encode(message, out);
  return out;
}

ClusterMembership membership() {
  ClusterMembership membership;
  membership.cluster_id = std::string(32, 'a');
  for (std::uint64_t id = 1; id <= 5; ++id) {
    NodeInfo& info = membership.members[NodeId{id}];
    info.id = NodeId{id};
    info.incarnation = ~id;
    info.addr = "kv-" + std::to_string(id) + ":7379";
    info.state = MemberState::kJoining;
  }
  membership.membership_version = 7;
  return membership;
}

Hello hello() {
  Hello hello;
  hello.cluster_id = std::string(32, 'c');
  hello.node_id = NodeId{3};
  hello.incarnation = 42;
  hello.empty = true;
  hello.addr = "kv-3:7379";
  return hello;
}

CallRequest join_request() {
  CallRequest request;
  request.from = NodeId{3};
  request.join = JoinRequest{hello()};
  return request;
}

CallRequest admin_request(AdminAction action = AdminAction::kPromote) {
  CallRequest request;
  request.from = NodeId{1};
  request.cluster_id = std::string(32, 'a');
  request.admin = AdminRequest{action, NodeId{~0ULL}, true};
  return request;
}

CallReply call_reply() {
  CallReply reply;
  reply.status = CallStatus::kNotLeader;
  reply.reason = "ask the leader";
  reply.leader_addr = "kv-2:7379";
  reply.client_addr = "kv-2:6379";
  reply.membership = membership();
  return reply;
}

SnapshotOffer offer() {
  const raft::Configuration configuration{{NodeId{1}, NodeId{2}}, {NodeId{1}}, {NodeId{7}}};
  const raft::Snapshot snapshot{Index{4000}, Term{12}, configuration, Index{3999}};
  SnapshotOffer offer;
  offer.message = {kFirstDataGroup,
                   {NodeId{1}, NodeId{2}, Term{13}, raft::InstallSnapshot{snapshot}}};
  offer.cluster_id = std::string(32, 'a');
  offer.metadata = {kFirstDataGroup, snapshot, membership(),      1'700'000'000'000,
                    123'456'789,     4711,     0xfedcba9876543210};
  return offer;
}

SnapshotChunk chunk() { return {3, std::string("rows\0with\xff", 10), 0xfedcba9876543210, true}; }

SnapshotReply snapshot_reply() {
  return {SnapshotReply::Status::kGoOn, "because", std::string("after\0key", 9), Index{12}, 34};
}

std::vector<Sample> samples() {
  return {sample("join", encoded(join_request()), codec::decode_call_request),
          sample("admin", encoded(admin_request()), codec::decode_call_request),
          sample("call reply", encoded(call_reply()), codec::decode_call_reply),
          sample("offer", encoded(offer()), codec::decode_snapshot_frame),
          sample("chunk", encoded(chunk()), codec::decode_snapshot_frame),
          sample("snapshot reply", encoded(snapshot_reply()), codec::decode_snapshot_reply)};
}

}  // namespace

TEST_CASE("calls come back: each question and each answer", "[codec]") {
  CHECK(*codec::decode_call_request(encoded(join_request())) == join_request());
  CHECK(*codec::decode_call_request(encoded(CallRequest{})) == CallRequest{});
  for (const AdminAction action : {AdminAction::kLeave, AdminAction::kPromote,
                                   AdminAction::kTransferLeader, AdminAction::kSnapshot}) {
    CHECK(*codec::decode_call_request(encoded(admin_request(action))) == admin_request(action));
  }
  CHECK(*codec::decode_call_reply(encoded(call_reply())) == call_reply());
  for (int status = 0; status <= static_cast<int>(CallStatus::kRefused); ++status) {
    CallReply reply;
    reply.status = static_cast<CallStatus>(status);
    CHECK(*codec::decode_call_reply(encoded(reply)) == reply);
  }
}

TEST_CASE("the offer of a snapshot comes back whole", "[codec]") {
  const auto frame = codec::decode_snapshot_frame(encoded(offer()));
  REQUIRE(frame);
  const auto& read = std::get<SnapshotOffer>(*frame);
  const raft::Message& message = read.message.message;
  CHECK(read.metadata == offer().metadata);
  CHECK(read.cluster_id == offer().cluster_id);
  CHECK(read.message.group == kFirstDataGroup);
  CHECK(message.from == NodeId{1});
  CHECK(message.to == NodeId{2});
  CHECK(message.term == Term{13});
  CHECK(std::get<raft::InstallSnapshot>(message.body).snapshot == offer().metadata.snapshot);
}

TEST_CASE("chunks come back, empty ones and of 3 MB, and so do replies", "[codec]") {
  SnapshotChunk large = chunk();
  large.rows = std::string(3 << 20, '\xfe');
  for (const SnapshotChunk& each : {chunk(), SnapshotChunk{}, large}) {
    const auto frame = codec::decode_snapshot_frame(encoded(each));
    REQUIRE(frame);
    CHECK((std::get<SnapshotChunk>(*frame) == each));
  }
  CHECK(*codec::decode_snapshot_reply(encoded(snapshot_reply())) == snapshot_reply());
  for (int status = 0; status <= 2; ++status) {
    SnapshotReply reply;
    reply.status = static_cast<SnapshotReply::Status>(status);
    reply.after_key = std::string(65'536, 'k');
    CHECK((*codec::decode_snapshot_reply(encoded(reply)) == reply));
  }
}

TEST_CASE("a reason that is too long for its field is cut to what fits", "[codec]") {
  CallReply call;
  call.reason = std::string(5000, 'x');
  CHECK(codec::decode_call_reply(encoded(call))->reason.size() == 1000);
  SnapshotReply reply;
  reply.reason = std::string(5000, 'x');
  CHECK(codec::decode_snapshot_reply(encoded(reply))->reason.size() == 1000);
}

TEST_CASE("numbers that no enum names are refused", "[codec]") {
  CHECK_FALSE(codec::decode_call_request(encoded(admin_request(static_cast<AdminAction>(5)))));
  CHECK_FALSE(codec::decode_call_request(encoded(admin_request(static_cast<AdminAction>(0)))));
  CallReply call;
  call.status = static_cast<CallStatus>(6);
  CHECK_FALSE(codec::decode_call_reply(encoded(call)));
  SnapshotReply reply;
  reply.status = static_cast<SnapshotReply::Status>(3);
  CHECK_FALSE(codec::decode_snapshot_reply(encoded(reply)));
}

TEST_CASE("a frame of a snapshot holds an offer or a chunk, and an offer an InstallSnapshot",
          "[codec]") {
  CHECK_FALSE(codec::decode_snapshot_frame(""));
  CHECK_FALSE(codec::decode_snapshot_frame(encoded(offer()) + encoded(chunk())));
  SnapshotOffer another = offer();
  another.message.message.body = raft::TimeoutNow{};
  CHECK_FALSE(codec::decode_snapshot_frame(encoded(another)));
}

TEST_CASE("a message cut short anywhere does no harm", "[codec]") { check_cut_short(samples()); }

TEST_CASE("bits of a message that are flipped at random do no harm", "[codec]") {
  check_flipped(samples(), 20'250'102);
}

TEST_CASE("a message of bytes with no meaning does no harm", "[codec]") {
  check_meaningless(samples(), 8);
}

// nanopb hands such a field to the callback from a buffer on its stack.
TEST_CASE("a number where rows or a key should be is refused", "[codec]") {
  CHECK_FALSE(codec::decode_snapshot_frame(std::string("\x12\x04\x08\x01\x10\x7f", 6)));
  CHECK_FALSE(codec::decode_snapshot_reply(std::string("\x18\x7f", 2)));
}
