// seshat/peer_codec.hpp - what nodes tell each other <-> bytes: frames, calls, snapshots.
//
// As codec.hpp, which encodes the records inside: Raft messages and what is forwarded by hand, the rest
// by nanopb. All of
// these come from outside the process: what can't be read is an error, never a crash, and no length
// is trusted.
//
// Threads: none inside; every function may run anywhere.
// Needs:   codec.hpp.
#ifndef SESHAT_PEER_CODEC_HPP
#define SESHAT_PEER_CODEC_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "seshat/codec.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/result.hpp"
#include "seshat/wire.hpp"
#include "seshat/wire_records.hpp"

namespace seshat::codec {

// All encode() here append to `out`.
void encode(const Frame& frame, std::string& out);
[[nodiscard]] Result<Frame> decode_frame(std::string_view bytes);

void encode(const CallRequest& request, std::string& out);
[[nodiscard]] Result<CallRequest> decode_call_request(std::string_view bytes);
void encode(const CallReply& reply, std::string& out);
[[nodiscard]] Result<CallReply> decode_call_reply(std::string_view bytes);

// A SnapshotFrame with the one or the other.
void encode(const SnapshotOffer& offer, std::string& out);
void encode(const SnapshotChunk& chunk, std::string& out);
[[nodiscard]] Result<SnapshotFrame> decode_snapshot_frame(std::string_view bytes);
void encode(const SnapshotReply& reply, std::string& out);
[[nodiscard]] Result<SnapshotReply> decode_snapshot_reply(std::string_view bytes);

// =================================================================================================
// Bodies
// =================================================================================================

namespace detail {

// A reason may be longer than its field; it is for people.
template <std::size_t N>
void copy_beginning(const std::string& from, char (&to)[N]) {
  copy_text(from.substr(0, N - 1), to);
}

// ---- Raft messages: a struct for each on our side, one flat message on the wire

inline void fill(seshat_proto_RaftMessage& out, const raft::RequestVote& body) {
  out.type = seshat_proto_RaftMessageType_RAFT_REQUEST_VOTE;
  out.log_index = body.last_log_index.value;
  out.log_term = body.last_log_term.value;
  out.pre_vote = body.pre_vote;
  out.transfer = body.transfer;
}

inline void fill(seshat_proto_RaftMessage& out, const raft::RequestVoteReply& body) {
  out.type = seshat_proto_RaftMessageType_RAFT_REQUEST_VOTE_REPLY;
  out.success = body.granted;
  out.pre_vote = body.pre_vote;
}

inline void fill(seshat_proto_RaftMessage& out, const raft::AppendEntries& body) {
  out.type = seshat_proto_RaftMessageType_RAFT_APPEND_ENTRIES;
  out.log_index = body.prev_log_index.value;
  out.log_term = body.prev_log_term.value;
  out.commit_index = body.commit_index.value;
  out.round = body.round;
  out.compactable_index = body.compactable_index.value;
}

inline void fill(seshat_proto_RaftMessage& out, const raft::AppendEntriesReply& body) {
  out.type = seshat_proto_RaftMessageType_RAFT_APPEND_ENTRIES_REPLY;
  out.success = body.success;
  out.log_index = body.success ? body.match_index.value : body.rejected_index.value;
  out.log_term = body.conflict_term.value;
  out.round = body.round;
  out.withhold_ms = body.withhold_ms;
  out.conflict_index = body.conflict_index.value;
}

inline void fill(seshat_proto_RaftMessage& out, const raft::TimeoutNow&) {
  out.type = seshat_proto_RaftMessageType_RAFT_TIMEOUT_NOW;
}

inline void fill(seshat_proto_RaftMessage& out, const raft::InstallSnapshot& body) {
  out.type = seshat_proto_RaftMessageType_RAFT_INSTALL_SNAPSHOT;
  out.log_index = body.snapshot.last_included_index.value;
  out.log_term = body.snapshot.last_included_term.value;
  out.has_configuration = true;
  out.configuration = to_proto(body.snapshot.configuration);
  out.configuration_index = body.snapshot.configuration_index.value;
}

// All but entries. Looks into `message`, which must stay until it is encoded.
inline seshat_proto_RaftMessage to_proto(const PeerMessage& message) {
  seshat_proto_RaftMessage out = seshat_proto_RaftMessage_init_zero;
  out.group = message.group.value;
  out.from = message.message.from.value;
  out.to = message.message.to.value;
  out.term = message.message.term.value;
  std::visit([&](const auto& body) { fill(out, body); }, message.message.body);
  return out;
}

inline raft::AppendEntriesReply to_append_reply(const seshat_proto_RaftMessage& in) {
  raft::AppendEntriesReply reply;
  reply.success = in.success;
  (in.success ? reply.match_index : reply.rejected_index) = Index{in.log_index};
  reply.round = in.round;
  reply.withhold_ms = in.withhold_ms;
  reply.conflict_index = Index{in.conflict_index};
  reply.conflict_term = Term{in.log_term};
  return reply;
}

// What a RaftMessage holds beside numbers.
struct RaftMessageParts {
  std::vector<raft::Entry> entries;
  raft::Configuration configuration;
};

// For nanopb. Entries are skipped.
inline seshat_proto_RaftMessage message_decoder(RaftMessageParts& parts) {
  seshat_proto_RaftMessage in = seshat_proto_RaftMessage_init_zero;
  in.configuration = configuration_decoder(parts.configuration);
  return in;
}

// False: of a type that this program doesn't know.
inline bool from_proto(const seshat_proto_RaftMessage& in, RaftMessageParts parts,
                       PeerMessage& out) {
  out.group = GroupId{in.group};
  out.message.from = NodeId{in.from};
  out.message.to = NodeId{in.to};
  out.message.term = Term{in.term};
  switch (number_of(in.type)) {
    case seshat_proto_RaftMessageType_RAFT_REQUEST_VOTE:
      out.message.body =
          raft::RequestVote{Index{in.log_index}, Term{in.log_term}, in.pre_vote, in.transfer};
      return true;
    case seshat_proto_RaftMessageType_RAFT_REQUEST_VOTE_REPLY:
      out.message.body = raft::RequestVoteReply{in.success, in.pre_vote};
      return true;
    case seshat_proto_RaftMessageType_RAFT_APPEND_ENTRIES:
      out.message.body = raft::AppendEntries{Index{in.log_index},         Term{in.log_term},
                                             Index{in.commit_index},      in.round,
                                             Index{in.compactable_index}, std::move(parts.entries)};
      return true;
    case seshat_proto_RaftMessageType_RAFT_APPEND_ENTRIES_REPLY:
      out.message.body = to_append_reply(in);
      return true;
    case seshat_proto_RaftMessageType_RAFT_TIMEOUT_NOW:
      out.message.body = raft::TimeoutNow{};
      return true;
    case seshat_proto_RaftMessageType_RAFT_INSTALL_SNAPSHOT:
      out.message.body =
          raft::InstallSnapshot{{Index{in.log_index}, Term{in.log_term},
                                 std::move(parts.configuration), Index{in.configuration_index}}};
      return true;
    default:
      return false;
  }
}

// ---- Raft messages by hand

// A message as it is written.
struct FlatMessage {
  seshat_proto_RaftMessage fields;           // the numbers
  const std::vector<raft::Entry>* entries;   // null: none
  const raft::Configuration* configuration;  // null: none
};

// Looks into `message`.
inline FlatMessage flat(const PeerMessage& message) {
  const auto* append = std::get_if<raft::AppendEntries>(&message.message.body);
  const auto* install = std::get_if<raft::InstallSnapshot>(&message.message.body);
  return {to_proto(message), append ? &append->entries : nullptr,
          install ? &install->snapshot.configuration : nullptr};
}

template <class Out>
void put_numbers(Out& out, const seshat_proto_RaftMessage& fields) {
  out.number(seshat_proto_RaftMessage_type_tag, number_of(fields.type));
  out.number(seshat_proto_RaftMessage_group_tag, fields.group);
  out.number(seshat_proto_RaftMessage_from_tag, fields.from);
  out.number(seshat_proto_RaftMessage_to_tag, fields.to);
  out.number(seshat_proto_RaftMessage_term_tag, fields.term);
  out.number(seshat_proto_RaftMessage_log_index_tag, fields.log_index);
  out.number(seshat_proto_RaftMessage_log_term_tag, fields.log_term);
  out.number(seshat_proto_RaftMessage_commit_index_tag, fields.commit_index);
  out.number(seshat_proto_RaftMessage_round_tag, fields.round);
  out.number(seshat_proto_RaftMessage_withhold_ms_tag, fields.withhold_ms);
  out.number(seshat_proto_RaftMessage_conflict_index_tag, fields.conflict_index);
  out.number(seshat_proto_RaftMessage_success_tag, fields.success);
  out.number(seshat_proto_RaftMessage_pre_vote_tag, fields.pre_vote);
  out.number(seshat_proto_RaftMessage_transfer_tag, fields.transfer);
}

template <class Out>
void put(Out& out, const FlatMessage& message) {
  put_numbers(out, message.fields);
  if (message.entries != nullptr) {
    for (const raft::Entry& entry : *message.entries) {
      std::string scratch;
      const std::string_view data = data_of(entry, scratch);
      out.head(seshat_proto_RaftMessage_entries_tag, size_of(entry, data));
      put(out, entry, data);
    }
  }
  out.number(seshat_proto_RaftMessage_compactable_index_tag, message.fields.compactable_index);
  if (message.configuration != nullptr) {
    std::string configuration;
    append_configuration(configuration, *message.configuration);
    out.element(seshat_proto_RaftMessage_configuration_tag, configuration);
  }
  out.number(seshat_proto_RaftMessage_configuration_index_tag, message.fields.configuration_index);
}

inline void append_messages(std::string& out, const std::vector<PeerMessage>& messages) {
  for (const PeerMessage& message : messages) {
    const FlatMessage fields = flat(message);
    const std::size_t size_bytes = size_of(fields);
    wire::Size head;
    head.head(seshat_proto_Frame_messages_tag, size_bytes);
    wire::Writer writer(out, head.size_bytes() + size_bytes);
    writer.head(seshat_proto_Frame_messages_tag, size_bytes);
    put(writer, fields);
  }
}

inline void take_entry(wire::Reader& in, std::vector<raft::Entry>& entries) {
  std::string_view bytes;
  in.take(bytes);
  if (!in.whole()) return;
  Result<raft::Entry> entry = decode_entry(bytes);
  if (!entry) return in.refuse();
  entries.push_back(std::move(*entry));
}

template <class Enum>
void take_enum(wire::Reader& in, Enum& value) {
  static_assert(sizeof(Enum) == sizeof(std::uint32_t));
  std::uint32_t number = 0;
  in.take(number);
  std::memcpy(&value, &number, sizeof(number));  // read by number_of() alone
}

// The field that `in` stands at.
inline void take_field(wire::Reader& in, seshat_proto_RaftMessage& fields,
                       RaftMessageParts& parts) {
  switch (in.field()) {
    case seshat_proto_RaftMessage_type_tag:
      return take_enum(in, fields.type);
    case seshat_proto_RaftMessage_group_tag:
      return in.take(fields.group);
    case seshat_proto_RaftMessage_from_tag:
      return in.take(fields.from);
    case seshat_proto_RaftMessage_to_tag:
      return in.take(fields.to);
    case seshat_proto_RaftMessage_term_tag:
      return in.take(fields.term);
    case seshat_proto_RaftMessage_log_index_tag:
      return in.take(fields.log_index);
    case seshat_proto_RaftMessage_log_term_tag:
      return in.take(fields.log_term);
    case seshat_proto_RaftMessage_commit_index_tag:
      return in.take(fields.commit_index);
    case seshat_proto_RaftMessage_round_tag:
      return in.take(fields.round);
    case seshat_proto_RaftMessage_withhold_ms_tag:
      return in.take(fields.withhold_ms);
    case seshat_proto_RaftMessage_conflict_index_tag:
      return in.take(fields.conflict_index);
    case seshat_proto_RaftMessage_success_tag:
      return in.take(fields.success);
    case seshat_proto_RaftMessage_pre_vote_tag:
      return in.take(fields.pre_vote);
    case seshat_proto_RaftMessage_transfer_tag:
      return in.take(fields.transfer);
    case seshat_proto_RaftMessage_entries_tag:
      return take_entry(in, parts.entries);
    case seshat_proto_RaftMessage_compactable_index_tag:
      return in.take(fields.compactable_index);
    case seshat_proto_RaftMessage_configuration_tag:
      return take(in, parts.configuration);
    case seshat_proto_RaftMessage_configuration_index_tag:
      return in.take(fields.configuration_index);
  }
}

// The message that `frame` stands at.
inline void take_message(wire::Reader& frame, std::vector<PeerMessage>& messages) {
  std::string_view bytes;
  frame.take(bytes);
  if (!frame.whole()) return;
  seshat_proto_RaftMessage fields = seshat_proto_RaftMessage_init_zero;
  RaftMessageParts parts;
  wire::Reader in(bytes);
  while (in.next()) take_field(in, fields, parts);
  if (!in.whole()) return frame.refuse();
  PeerMessage message;
  // A type from a newer node is skipped: the protocol version says what both understand.
  if (from_proto(fields, std::move(parts), message)) messages.push_back(std::move(message));
}

// ---- What is forwarded, by hand

template <class Out>
void put(Out& out, const ForwardedRequest& request) {
  out.number(seshat_proto_ForwardedRequest_id_tag, request.id);
  out.number(seshat_proto_ForwardedRequest_group_tag, request.group.value);
  out.bytes(seshat_proto_ForwardedRequest_operation_tag, request.operation);
  out.number(seshat_proto_ForwardedRequest_after_id_tag, request.after_id);
  out.number(seshat_proto_ForwardedRequest_term_tag, request.term.value);
}

template <class Out>
void put(Out& out, const ForwardedReply& reply) {
  out.number(seshat_proto_ForwardedReply_id_tag, reply.id);
  out.number(seshat_proto_ForwardedReply_refusal_tag, reply.refusal);
  out.number(seshat_proto_ForwardedReply_index_tag, reply.index.value);
  out.number(seshat_proto_ForwardedReply_time_ms_tag, reply.time_ms);
  out.number(seshat_proto_ForwardedReply_outcome_tag, reply.outcome);
  out.number(seshat_proto_ForwardedReply_integer_tag, static_cast<std::uint64_t>(reply.integer));
  out.bytes(seshat_proto_ForwardedReply_reply_tag, reply.reply);
}

template <class Body>
void append_forwarded(std::string& out, std::uint32_t tag, const std::vector<Body>& all) {
  for (const Body& body : all) {
    wire::Size size;
    put(size, body);
    wire::Size head;
    head.head(tag, size.size_bytes());
    wire::Writer writer(out, head.size_bytes() + size.size_bytes());
    writer.head(tag, size.size_bytes());
    put(writer, body);
  }
}

inline void take_text(wire::Reader& in, std::string& text) {
  std::string_view bytes;
  in.take(bytes);
  text.assign(bytes);
}

inline void take_field(wire::Reader& in, ForwardedRequest& request) {
  switch (in.field()) {
    case seshat_proto_ForwardedRequest_id_tag:
      return in.take(request.id);
    case seshat_proto_ForwardedRequest_group_tag:
      return in.take(request.group.value);
    case seshat_proto_ForwardedRequest_operation_tag:
      return take_text(in, request.operation);
    case seshat_proto_ForwardedRequest_after_id_tag:
      return in.take(request.after_id);
    case seshat_proto_ForwardedRequest_term_tag:
      return in.take(request.term.value);
  }
}

inline void take_field(wire::Reader& in, ForwardedReply& reply) {
  std::uint64_t integer = 0;
  switch (in.field()) {
    case seshat_proto_ForwardedReply_id_tag:
      return in.take(reply.id);
    case seshat_proto_ForwardedReply_refusal_tag:
      return in.take(reply.refusal);
    case seshat_proto_ForwardedReply_index_tag:
      return in.take(reply.index.value);
    case seshat_proto_ForwardedReply_time_ms_tag:
      return in.take(reply.time_ms);
    case seshat_proto_ForwardedReply_outcome_tag:
      return in.take(reply.outcome);
    case seshat_proto_ForwardedReply_integer_tag:
      in.take(integer);
      reply.integer = static_cast<std::int64_t>(integer);
      return;
    case seshat_proto_ForwardedReply_reply_tag:
      return take_text(in, reply.reply);
  }
}

// In one frame: those of nobody's id would take far more memory than bytes.
inline constexpr std::size_t kMaxForwarded = 65536;

// What `frame` stands at.
template <class Body>
void take_forwarded(wire::Reader& frame, std::vector<Body>& all) {
  std::string_view bytes;
  frame.take(bytes);
  if (!frame.whole()) return;
  Body body;
  wire::Reader in(bytes);
  while (in.next()) take_field(in, body);
  if (!in.whole() || body.id == 0 || all.size() >= kMaxForwarded) return frame.refuse();
  all.push_back(std::move(body));
}

// ---- Handshakes

inline seshat_proto_Hello to_proto(const Hello& hello) {
  seshat_proto_Hello out = seshat_proto_Hello_init_zero;
  out.min_protocol_version = hello.min_protocol_version;
  out.max_protocol_version = hello.max_protocol_version;
  copy_text(hello.cluster_id, out.cluster_id);
  out.members_hash = hello.members_hash;
  out.node_id = hello.node_id.value;
  out.incarnation = hello.incarnation;
  out.empty = hello.empty;
  copy_text(hello.client_addr, out.client_addr);
  copy_text(hello.addr, out.addr);
  out.membership_version = hello.membership_version;
  out.max_record_version = hello.max_record_version;
  out.max_operation_version = hello.max_operation_version;
  out.client_tls_port = hello.client_tls_port;
  return out;
}

inline Hello from_proto(const seshat_proto_Hello& in) {
  Hello hello;
  hello.min_protocol_version = in.min_protocol_version;
  // Version 0.1 speaks one version only, and names it there.
  hello.max_protocol_version = std::max(in.min_protocol_version, in.max_protocol_version);
  hello.cluster_id = in.cluster_id;
  hello.members_hash = in.members_hash;
  hello.node_id = NodeId{in.node_id};
  hello.incarnation = in.incarnation;
  hello.empty = in.empty;
  hello.client_addr = in.client_addr;
  hello.addr = in.addr;
  hello.membership_version = in.membership_version;
  hello.max_record_version = in.max_record_version;
  hello.max_operation_version = in.max_operation_version;
  hello.client_tls_port =
      in.client_tls_port > 65'535 ? 0 : static_cast<std::uint16_t>(in.client_tls_port);
  return hello;
}

// ---- What a node says of itself

inline bool encode_group_statuses(pb_ostream_t* stream, const pb_field_t* field, void* const* arg) {
  for (const GroupStatus& status : *static_cast<const std::vector<GroupStatus>*>(*arg)) {
    seshat_proto_GroupStatus out = seshat_proto_GroupStatus_init_zero;
    out.group = status.group.value;
    out.role = static_cast<seshat_proto_RaftRole>(status.role);
    out.term = status.term.value;
    out.leader = status.leader.value;
    out.commit_index = status.commit_index.value;
    out.applied_index = status.applied_index.value;
    out.first_index = status.first_index.value;
    out.last_index = status.last_index.value;
    out.log_size_bytes = status.log_size_bytes;
    out.snapshot_index = status.snapshot_index.value;
    out.restoring = status.restoring;
    if (!pb_encode_tag_for_field(stream, field)) return false;
    if (!pb_encode_submessage(stream, seshat_proto_GroupStatus_fields, &out)) return false;
  }
  return true;
}

inline bool decode_group_statuses(pb_istream_t* stream, const pb_field_t*, void** arg) {
  seshat_proto_GroupStatus in = seshat_proto_GroupStatus_init_zero;
  if (!pb_decode(stream, seshat_proto_GroupStatus_fields, &in)) return false;
  if (number_of(in.role) > seshat_proto_RaftRole_ROLE_LEADER) return false;
  GroupStatus status;
  status.group = GroupId{in.group};
  status.role = static_cast<raft::Role>(number_of(in.role));
  status.term = Term{in.term};
  status.leader = NodeId{in.leader};
  status.commit_index = Index{in.commit_index};
  status.applied_index = Index{in.applied_index};
  status.first_index = Index{in.first_index};
  status.last_index = Index{in.last_index};
  status.log_size_bytes = in.log_size_bytes;
  status.snapshot_index = Index{in.snapshot_index};
  status.restoring = in.restoring;
  auto& statuses = *static_cast<std::vector<GroupStatus>*>(*arg);
  statuses.push_back(status);
  return statuses.size() <= kMaxIds;
}

inline seshat_proto_NodeStatus to_proto(const NodeStatus& status) {
  seshat_proto_NodeStatus out = seshat_proto_NodeStatus_init_zero;
  out.disk_low = status.disk_low;
  copy_text(status.version, out.version);
  out.groups = encoder(&encode_group_statuses, status.groups);
  return out;
}

// ---- Frames: what is no message

inline void append_handshake(std::string& out, const Frame& frame) {
  seshat_proto_Frame record = seshat_proto_Frame_init_zero;
  record.has_hello = frame.hello.has_value();
  if (frame.hello) record.hello = to_proto(*frame.hello);
  record.has_hello_reply = frame.hello_reply.has_value();
  if (frame.hello_reply) {
    record.hello_reply.accepted = frame.hello_reply->accepted;
    copy_beginning(frame.hello_reply->reason, record.hello_reply.reason);
    record.hello_reply.removed = frame.hello_reply->removed;
    record.hello_reply.has_self = true;
    record.hello_reply.self = to_proto(frame.hello_reply->self);
  }
  append_message(out, seshat_proto_Frame_fields, &record);
}

inline void append_status(std::string& out, const NodeStatus& status) {
  seshat_proto_Frame record = seshat_proto_Frame_init_zero;
  record.has_status = true;
  record.status = to_proto(status);
  append_message(out, seshat_proto_Frame_fields, &record);
}

// Messages and what is forwarded, which have no decoder here, are skipped.
inline bool read_the_rest(std::string_view bytes, Frame& frame) {
  seshat_proto_Frame record = seshat_proto_Frame_init_zero;
  NodeStatus status;
  record.status.groups = decoder(&decode_group_statuses, status.groups);
  if (!decode_message(bytes, seshat_proto_Frame_fields, &record)) return false;
  if (record.has_hello) frame.hello = from_proto(record.hello);
  if (record.has_hello_reply) {
    frame.hello_reply = HelloReply{record.hello_reply.accepted, record.hello_reply.reason,
                                   from_proto(record.hello_reply.self), record.hello_reply.removed};
  }
  if (record.has_status) {
    status.disk_low = record.status.disk_low;
    status.version = record.status.version;
    frame.status = std::move(status);
  }
  return true;
}

}  // namespace detail

// ---- Frames -------------------------------------------------------------------------------------

inline void encode(const Frame& frame, std::string& out) {
  if (frame.hello || frame.hello_reply) detail::append_handshake(out, frame);
  detail::append_messages(out, frame.messages);
  if (frame.status) detail::append_status(out, *frame.status);
  detail::append_forwarded(out, seshat_proto_Frame_forwarded_tag, frame.forwarded);
  detail::append_forwarded(out, seshat_proto_Frame_forwarded_replies_tag, frame.forwarded_replies);
}

inline Result<Frame> decode_frame(std::string_view bytes) {
  Frame frame;
  bool rare = false;  // it holds something else
  wire::Reader in(bytes);
  while (in.next()) {
    switch (in.field()) {
      case seshat_proto_Frame_messages_tag:
        detail::take_message(in, frame.messages);
        break;
      case seshat_proto_Frame_forwarded_tag:
        detail::take_forwarded(in, frame.forwarded);
        break;
      case seshat_proto_Frame_forwarded_replies_tag:
        detail::take_forwarded(in, frame.forwarded_replies);
        break;
      default:
        rare = true;
    }
  }
  if (!in.whole() || (rare && !detail::read_the_rest(bytes, frame))) {
    return detail::undecodable("Frame", "it is not a whole message");
  }
  return frame;
}

// ---- Calls --------------------------------------------------------------------------------------

inline void encode(const CallRequest& request, std::string& out) {
  seshat_proto_CallRequest record = seshat_proto_CallRequest_init_zero;
  record.from = request.from.value;
  detail::copy_text(request.cluster_id, record.cluster_id);
  record.has_join = request.join.has_value();
  if (request.join) {
    record.join.has_hello = true;
    record.join.hello = detail::to_proto(request.join->hello);
  }
  record.has_admin = request.admin.has_value();
  if (request.admin) {
    record.admin.action = static_cast<std::uint32_t>(request.admin->action);
    record.admin.node = request.admin->node.value;
    record.admin.force = request.admin->force;
  }
  detail::append_message(out, seshat_proto_CallRequest_fields, &record);
}

inline Result<CallRequest> decode_call_request(std::string_view bytes) {
  seshat_proto_CallRequest record = seshat_proto_CallRequest_init_zero;
  if (!detail::decode_message(bytes, seshat_proto_CallRequest_fields, &record)) {
    return detail::undecodable("CallRequest", "it is not a whole message");
  }
  CallRequest request;
  request.from = NodeId{record.from};
  request.cluster_id = record.cluster_id;
  if (record.has_join) request.join = JoinRequest{detail::from_proto(record.join.hello)};
  if (record.has_admin) {
    const std::uint32_t action = record.admin.action;
    if (action == 0 || action > static_cast<std::uint32_t>(AdminAction::kSnapshot)) {
      return detail::undecodable("CallRequest", "its action is unknown");
    }
    request.admin = AdminRequest{static_cast<AdminAction>(action), NodeId{record.admin.node},
                                 record.admin.force};
  }
  return request;
}

inline void encode(const CallReply& reply, std::string& out) {
  seshat_proto_CallReply record = seshat_proto_CallReply_init_zero;
  record.status = static_cast<seshat_proto_CallStatus>(reply.status);
  detail::copy_beginning(reply.reason, record.reason);
  detail::copy_text(reply.leader_addr, record.leader_addr);
  detail::copy_text(reply.client_addr, record.client_addr);
  record.has_membership = reply.membership.has_value();
  if (reply.membership) record.membership = detail::to_proto(*reply.membership);
  detail::append_message(out, seshat_proto_CallReply_fields, &record);
}

inline Result<CallReply> decode_call_reply(std::string_view bytes) {
  seshat_proto_CallReply record = seshat_proto_CallReply_init_zero;
  ClusterMembership membership;
  record.membership.members = detail::decoder(&detail::decode_members, membership.members);
  if (!detail::decode_message(bytes, seshat_proto_CallReply_fields, &record)) {
    return detail::undecodable("CallReply", "it is not a whole message");
  }
  if (detail::number_of(record.status) > seshat_proto_CallStatus_CALL_REFUSED) {
    return detail::undecodable("CallReply", "its status is unknown");
  }
  CallReply reply;
  reply.status = static_cast<CallStatus>(detail::number_of(record.status));
  reply.reason = record.reason;
  reply.leader_addr = record.leader_addr;
  reply.client_addr = record.client_addr;
  if (record.has_membership) {
    membership.membership_version = record.membership.membership_version;
    membership.cluster_id = record.membership.cluster_id;
    reply.membership = std::move(membership);
  }
  return reply;
}

// ---- Snapshots ----------------------------------------------------------------------------------

inline void encode(const SnapshotOffer& offer, std::string& out) {
  seshat_proto_SnapshotFrame record = seshat_proto_SnapshotFrame_init_zero;
  record.has_offer = true;
  record.offer.has_message = true;
  record.offer.message = detail::to_proto(offer.message);
  detail::copy_text(offer.cluster_id, record.offer.cluster_id);
  record.offer.has_metadata = true;
  record.offer.metadata = detail::to_proto(offer.metadata);
  detail::append_message(out, seshat_proto_SnapshotFrame_fields, &record);
}

inline void encode(const SnapshotChunk& chunk, std::string& out) {
  const std::string_view rows = chunk.rows;
  seshat_proto_SnapshotFrame record = seshat_proto_SnapshotFrame_init_zero;
  record.has_chunk = true;
  record.chunk.number = chunk.number;
  record.chunk.rows = detail::encoder(&detail::encode_view, rows);
  record.chunk.checksum = chunk.checksum;
  record.chunk.last = chunk.last;
  detail::append_message(out, seshat_proto_SnapshotFrame_fields, &record);
}

inline Result<SnapshotFrame> decode_snapshot_frame(std::string_view bytes) {
  seshat_proto_SnapshotFrame record = seshat_proto_SnapshotFrame_init_zero;
  SnapshotOffer offer;
  detail::RaftMessageParts parts;
  record.offer.message = detail::message_decoder(parts);
  record.offer.metadata = detail::metadata_decoder(offer.metadata);
  std::string_view rows;
  detail::ViewTarget<std::string_view> target{bytes, rows};
  record.chunk.rows = detail::decoder(&detail::decode_view, target);
  if (!detail::decode_message(bytes, seshat_proto_SnapshotFrame_fields, &record)) {
    return detail::undecodable("SnapshotFrame", "it is not a whole message");
  }
  if (record.has_offer == record.has_chunk) {
    return detail::undecodable("SnapshotFrame", "it holds neither an offer nor a chunk, or both");
  }
  if (record.has_chunk) {
    return SnapshotFrame(SnapshotChunk{record.chunk.number, std::string(rows),
                                       record.chunk.checksum, record.chunk.last});
  }
  const bool known = detail::from_proto(record.offer.message, std::move(parts), offer.message);
  if (!known || !std::holds_alternative<raft::InstallSnapshot>(offer.message.message.body)) {
    return detail::undecodable("SnapshotFrame", "its offer is no InstallSnapshot");
  }
  if (record.offer.metadata.version > kRecordVersion) {
    return Error{"SnapshotMetadata has version " + std::to_string(record.offer.metadata.version) +
                 ", but this seshat knows only up to " + std::to_string(kRecordVersion) +
                 ": update it first"};
  }
  offer.cluster_id = record.offer.cluster_id;
  detail::from_proto(record.offer.metadata, offer.metadata);
  return SnapshotFrame(std::move(offer));
}

inline void encode(const SnapshotReply& reply, std::string& out) {
  const std::string_view after_key = reply.after_key;
  seshat_proto_SnapshotReply record = seshat_proto_SnapshotReply_init_zero;
  record.status = static_cast<seshat_proto_SnapshotStatus>(reply.status);
  detail::copy_beginning(reply.reason, record.reason);
  record.after_key = detail::encoder(&detail::encode_view, after_key);
  record.index = reply.index.value;
  record.received_chunk = reply.received_chunk;
  detail::append_message(out, seshat_proto_SnapshotReply_fields, &record);
}

inline Result<SnapshotReply> decode_snapshot_reply(std::string_view bytes) {
  seshat_proto_SnapshotReply record = seshat_proto_SnapshotReply_init_zero;
  std::string_view after_key;
  detail::ViewTarget<std::string_view> target{bytes, after_key};
  record.after_key = detail::decoder(&detail::decode_view, target);
  if (!detail::decode_message(bytes, seshat_proto_SnapshotReply_fields, &record)) {
    return detail::undecodable("SnapshotReply", "it is not a whole message");
  }
  if (detail::number_of(record.status) > seshat_proto_SnapshotStatus_SNAPSHOT_REFUSED) {
    return detail::undecodable("SnapshotReply", "its status is unknown");
  }
  SnapshotReply reply;
  reply.status = static_cast<SnapshotReply::Status>(detail::number_of(record.status));
  reply.reason = record.reason;
  reply.after_key = after_key;
  reply.index = Index{record.index};
  reply.received_chunk = record.received_chunk;
  return reply;
}

}  // namespace seshat::codec

#endif  // SESHAT_PEER_CODEC_HPP
