// seshat/codec.hpp - records, operations and peer messages <-> bytes.
//
// Protocol Buffers by nanopb, which needs neither libprotobuf nor generated C++ classes. The wire
// format is proto/seshat.proto. A worked example, a log entry with two bytes of data:
//
//   08 01         version     1
//   10 07         term        7
//   18 2a         index       42
//   2a 02 4f 4b   data        "OK"  (entry_type normal = 0 is left out)
//
// Decoding takes bytes from outside: it never throws, never trusts a length, and says what it could
// not read. A newer version than this program knows is an error that says so. What is decoded into
// a std::string_view looks into the bytes it was decoded from.
//
// Threads: none inside; every function may run anywhere.
// Needs:   records.hpp, result.hpp; the nanopb objects of proto/seshat.proto and nanopb's library.
//          The only header that includes nanopb.
#ifndef SESHAT_CODEC_HPP
#define SESHAT_CODEC_HPP

#include <pb_decode.h>
#include <pb_encode.h>
#include <seshat.pb.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/result.hpp"

namespace seshat::codec {

// ---- Persisted records --------------------------------------------------------------------------

// VersionedLogEntry; appended to `out`.
void encode(const raft::Entry& entry, std::string& out);
[[nodiscard]] Result<raft::Entry> decode_entry(std::string_view bytes);

[[nodiscard]] std::string encode(const raft::HardState& state);
[[nodiscard]] Result<raft::HardState> decode_hard_state(std::string_view bytes);

// StoredValue; replaces `out`.
void encode(const StoredValue& value, std::string& out);
[[nodiscard]] Result<StoredValue> decode_stored_value(std::string_view bytes);

[[nodiscard]] std::string encode(const MachineState& state);
[[nodiscard]] Result<MachineState> decode_machine_state(std::string_view bytes);

[[nodiscard]] std::string encode(const ClusterMembership& membership);
[[nodiscard]] Result<ClusterMembership> decode_membership(std::string_view bytes);

[[nodiscard]] std::string encode(const ShardMap& shard_map);
[[nodiscard]] Result<ShardMap> decode_shard_map(std::string_view bytes);

[[nodiscard]] std::string encode(const NodeIdentity& identity);
[[nodiscard]] Result<NodeIdentity> decode_identity(std::string_view bytes);

// ---- Operations ---------------------------------------------------------------------------------

[[nodiscard]] std::string encode(const Operation& operation);
[[nodiscard]] Result<Operation> decode_operation(std::string_view bytes);

// ---- Peer channel -------------------------------------------------------------------------------

// Appended to `out`.
void encode(const Frame& frame, std::string& out);
[[nodiscard]] Result<Frame> decode_frame(std::string_view bytes);

// =================================================================================================
// Bodies
// =================================================================================================

namespace detail {

// ---- Streams over std::string and std::string_view

inline bool append_to_string(pb_ostream_t* stream, const pb_byte_t* bytes, std::size_t count) {
  static_cast<std::string*>(stream->state)->append(reinterpret_cast<const char*>(bytes), count);
  return true;
}

// Failing to encode is a mistake of ours: a text longer than its field.
inline void append_message(std::string& out, const pb_msgdesc_t* fields, const void* message) {
  pb_ostream_t stream{};
  stream.callback = &append_to_string;
  stream.state = &out;
  stream.max_size = SIZE_MAX;
  raft::require(pb_encode(&stream, fields, message), "a record could not be encoded");
}

inline Error undecodable(const char* record, const char* why) {
  return Error{std::string(record) + " is damaged: " + why};
}

inline bool decode_message(std::string_view bytes, const pb_msgdesc_t* fields, void* message) {
  pb_istream_t stream =
      pb_istream_from_buffer(reinterpret_cast<const pb_byte_t*>(bytes.data()), bytes.size());
  return pb_decode(&stream, fields, message);
}

// Decodes a record that carries a version. The version comes first in every record, so that a newer
// one is named as such even where its other fields can't be read.
template <class Record>
std::optional<Error> decode_record(const char* name, std::string_view bytes,
                                   const pb_msgdesc_t* fields, Record& record,
                                   std::uint32_t newest = kRecordVersion) {
  const bool whole = decode_message(bytes, fields, &record);
  if (record.version > newest) {
    return Error{std::string(name) + " has version " + std::to_string(record.version) +
                 ", but this seshat knows only up to " + std::to_string(newest) +
                 ": run the newer seshat that wrote it"};
  }
  if (!whole) return undecodable(name, "it is not a whole record");
  if (record.version == 0) return undecodable(name, "it has no version");
  return std::nullopt;
}

// A C enum may hold any number that came in; C++ must not look at one it doesn't name.
template <class Enum>
std::uint32_t number_of(const Enum& value) {
  static_assert(sizeof(Enum) == sizeof(std::uint32_t));
  std::uint32_t number = 0;
  std::memcpy(&number, &value, sizeof(number));
  return number;
}

// ---- Fields of any length: callbacks that see a std::string_view or a vector of something

// What is left of the field. A stream over a buffer keeps its position in `state`.
inline std::string_view take_rest(pb_istream_t* stream) {
  const std::string_view rest(static_cast<const char*>(stream->state), stream->bytes_left);
  if (!pb_read(stream, nullptr, rest.size())) return {};
  return rest;
}

// Where views go, and the bytes they must look into: nanopb hands over a number, where bytes should
// be, in a buffer of its own that is gone when the callback returns.
template <class Views>
struct ViewTarget {
  std::string_view whole;
  Views& into;

  [[nodiscard]] bool take(pb_istream_t* stream, std::string_view& view) const {
    view = take_rest(stream);
    const std::less_equal<> not_after;
    return view.empty() || (not_after(whole.data(), view.data()) &&
                            not_after(view.data() + view.size(), whole.data() + whole.size()));
  }
};

inline bool encode_view(pb_ostream_t* stream, const pb_field_t* field, void* const* arg) {
  const auto& view = *static_cast<const std::string_view*>(*arg);
  if (view.empty()) return true;
  return pb_encode_tag_for_field(stream, field) &&
         pb_encode_string(stream, reinterpret_cast<const pb_byte_t*>(view.data()), view.size());
}

inline bool decode_view(pb_istream_t* stream, const pb_field_t*, void** arg) {
  const auto& target = *static_cast<const ViewTarget<std::string_view>*>(*arg);
  return target.take(stream, target.into);
}

inline bool encode_views(pb_ostream_t* stream, const pb_field_t* field, void* const* arg) {
  for (const std::string_view view : *static_cast<const std::vector<std::string_view>*>(*arg)) {
    if (!pb_encode_tag_for_field(stream, field)) return false;
    const auto* bytes = reinterpret_cast<const pb_byte_t*>(view.data());
    if (!pb_encode_string(stream, bytes, view.size())) return false;
  }
  return true;
}

inline bool decode_views(pb_istream_t* stream, const pb_field_t*, void** arg) {
  const auto& target = *static_cast<const ViewTarget<std::vector<std::string_view>>*>(*arg);
  return target.take(stream, target.into.emplace_back());
}

template <class T>
pb_callback_t encoder(bool (*encode)(pb_ostream_t*, const pb_field_t*, void* const*), const T& of) {
  pb_callback_t callback{};
  callback.funcs.encode = encode;
  callback.arg = const_cast<T*>(&of);  // nanopb hands it back to `encode`, which only reads
  return callback;
}

template <class T>
pb_callback_t decoder(bool (*decode)(pb_istream_t*, const pb_field_t*, void**), T& into) {
  pb_callback_t callback{};
  callback.funcs.decode = decode;
  callback.arg = &into;
  return callback;
}

template <std::size_t N>
void copy_text(const std::string& from, char (&to)[N]) {
  raft::require(from.size() < N, "a text is longer than its field in proto/seshat.options");
  std::copy(from.begin(), from.end(), to);
  to[from.size()] = '\0';
}

// ---- Log entries

inline seshat_proto_VersionedLogEntry to_proto(const raft::Entry& entry,
                                               const std::string_view& data) {
  seshat_proto_VersionedLogEntry record = seshat_proto_VersionedLogEntry_init_zero;
  record.version = kRecordVersion;
  record.term = entry.term.value;
  record.index = entry.index.value;
  record.entry_type = static_cast<seshat_proto_EntryType>(entry.type);
  record.data = encoder(&encode_view, data);
  return record;
}

inline std::string_view payload_of(const raft::Entry& entry) {
  return entry.data ? std::string_view(*entry.data) : std::string_view();
}

inline bool encode_entries(pb_ostream_t* stream, const pb_field_t* field, void* const* arg) {
  for (const raft::Entry& entry : *static_cast<const std::vector<raft::Entry>*>(*arg)) {
    const std::string_view data = payload_of(entry);
    const seshat_proto_VersionedLogEntry record = to_proto(entry, data);
    if (!pb_encode_tag_for_field(stream, field)) return false;
    if (!pb_encode_submessage(stream, seshat_proto_VersionedLogEntry_fields, &record)) return false;
  }
  return true;
}

inline bool decode_entries(pb_istream_t* stream, const pb_field_t*, void** arg) {
  Result<raft::Entry> entry = decode_entry(take_rest(stream));
  if (!entry) PB_RETURN_ERROR(stream, "an entry can't be read");
  static_cast<std::vector<raft::Entry>*>(*arg)->push_back(std::move(*entry));
  return true;
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
  out.entries = encoder(&encode_entries, body.entries);
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

inline bool from_proto(const seshat_proto_RaftMessage& in, std::vector<raft::Entry> entries,
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
      out.message.body = raft::AppendEntries{Index{in.log_index}, Term{in.log_term},
                                             Index{in.commit_index}, in.round, std::move(entries)};
      return true;
    case seshat_proto_RaftMessageType_RAFT_APPEND_ENTRIES_REPLY:
      out.message.body = to_append_reply(in);
      return true;
    case seshat_proto_RaftMessageType_RAFT_TIMEOUT_NOW:
      out.message.body = raft::TimeoutNow{};
      return true;
    default:
      return false;
  }
}

inline bool encode_messages(pb_ostream_t* stream, const pb_field_t* field, void* const* arg) {
  for (const PeerMessage& message : *static_cast<const std::vector<PeerMessage>*>(*arg)) {
    const seshat_proto_RaftMessage out = to_proto(message);
    if (!pb_encode_tag_for_field(stream, field)) return false;
    if (!pb_encode_submessage(stream, seshat_proto_RaftMessage_fields, &out)) return false;
  }
  return true;
}

inline bool decode_messages(pb_istream_t* stream, const pb_field_t*, void** arg) {
  seshat_proto_RaftMessage in = seshat_proto_RaftMessage_init_zero;
  std::vector<raft::Entry> entries;
  in.entries = decoder(&decode_entries, entries);
  if (!pb_decode(stream, seshat_proto_RaftMessage_fields, &in)) return false;
  PeerMessage message;
  // A type from a newer node is skipped: the protocol version says what both understand.
  if (from_proto(in, std::move(entries), message)) {
    static_cast<std::vector<PeerMessage>*>(*arg)->push_back(std::move(message));
  }
  return true;
}

inline seshat_proto_Hello to_proto(const Hello& hello) {
  seshat_proto_Hello out = seshat_proto_Hello_init_zero;
  out.protocol_version = hello.protocol_version;
  copy_text(hello.cluster_id, out.cluster_id);
  out.members_hash = hello.members_hash;
  out.node_id = hello.node_id.value;
  out.incarnation = hello.incarnation;
  out.empty = hello.empty;
  copy_text(hello.client_addr, out.client_addr);
  out.max_record_version = hello.max_record_version;
  out.max_operation_version = hello.max_operation_version;
  return out;
}

inline Hello from_proto(const seshat_proto_Hello& in) {
  Hello hello;
  hello.protocol_version = in.protocol_version;
  hello.cluster_id = in.cluster_id;
  hello.members_hash = in.members_hash;
  hello.node_id = NodeId{in.node_id};
  hello.incarnation = in.incarnation;
  hello.empty = in.empty;
  hello.client_addr = in.client_addr;
  hello.max_record_version = in.max_record_version;
  hello.max_operation_version = in.max_operation_version;
  return hello;
}

// ---- Membership and shard map

inline bool encode_members(pb_ostream_t* stream, const pb_field_t* field, void* const* arg) {
  for (const auto& [id, info] : *static_cast<const std::map<NodeId, NodeInfo>*>(*arg)) {
    seshat_proto_ClusterMembership_MembersEntry out =
        seshat_proto_ClusterMembership_MembersEntry_init_zero;
    out.key = id.value;
    out.has_value = true;
    out.value.id = info.id.value;
    out.value.incarnation = info.incarnation;
    copy_text(info.addr, out.value.addr);
    copy_text(info.client_addr, out.value.client_addr);
    out.value.state = static_cast<seshat_proto_MemberState>(info.state);
    out.value.joined_at = info.joined_at_ms;
    out.value.max_record_version = info.max_record_version;
    out.value.max_operation_version = info.max_operation_version;
    if (!pb_encode_tag_for_field(stream, field)) return false;
    if (!pb_encode_submessage(stream, seshat_proto_ClusterMembership_MembersEntry_fields, &out)) {
      return false;
    }
  }
  return true;
}

inline bool decode_members(pb_istream_t* stream, const pb_field_t*, void** arg) {
  seshat_proto_ClusterMembership_MembersEntry in =
      seshat_proto_ClusterMembership_MembersEntry_init_zero;
  if (!pb_decode(stream, seshat_proto_ClusterMembership_MembersEntry_fields, &in)) return false;
  const std::uint32_t state = number_of(in.value.state);
  if (in.key == 0 || in.value.id != in.key) return false;
  if (state > seshat_proto_MemberState_MEMBER_REMOVED) return false;
  NodeInfo info;
  info.id = NodeId{in.value.id};
  info.incarnation = in.value.incarnation;
  info.addr = in.value.addr;
  info.client_addr = in.value.client_addr;
  info.state = static_cast<MemberState>(state);
  info.joined_at_ms = in.value.joined_at;
  info.max_record_version = in.value.max_record_version;
  info.max_operation_version = in.value.max_operation_version;
  (*static_cast<std::map<NodeId, NodeInfo>*>(*arg))[NodeId{in.key}] = std::move(info);
  return true;
}

inline bool encode_slots(pb_ostream_t* stream, const pb_field_t* field, void* const* arg) {
  for (const SlotRange& range : *static_cast<const std::vector<SlotRange>*>(*arg)) {
    const seshat_proto_SlotRange out{range.first, range.last};
    if (!pb_encode_tag_for_field(stream, field)) return false;
    if (!pb_encode_submessage(stream, seshat_proto_SlotRange_fields, &out)) return false;
  }
  return true;
}

inline bool decode_slots(pb_istream_t* stream, const pb_field_t*, void** arg) {
  seshat_proto_SlotRange in = seshat_proto_SlotRange_init_zero;
  if (!pb_decode(stream, seshat_proto_SlotRange_fields, &in)) return false;
  if (in.first > in.last || in.last >= kSlotCount) return false;
  static_cast<std::vector<SlotRange>*>(*arg)->push_back(
      {static_cast<Slot>(in.first), static_cast<Slot>(in.last)});
  return true;
}

inline bool encode_replicas(pb_ostream_t* stream, const pb_field_t* field, void* const* arg) {
  for (const NodeId node : *static_cast<const std::vector<NodeId>*>(*arg)) {
    if (!pb_encode_tag(stream, PB_WT_VARINT, field->tag)) return false;
    if (!pb_encode_varint(stream, node.value)) return false;
  }
  return true;
}

// Numbers come one by one or packed, as the protocol allows: nanopb hands us a stream of either.
inline bool decode_replicas(pb_istream_t* stream, const pb_field_t*, void** arg) {
  if (stream->bytes_left == 0) return true;  // packed, and none of them
  std::uint64_t id = 0;
  if (!pb_decode_varint(stream, &id)) return false;
  static_cast<std::vector<NodeId>*>(*arg)->push_back(NodeId{id});
  return true;
}

inline bool encode_shards(pb_ostream_t* stream, const pb_field_t* field, void* const* arg) {
  for (const ShardInfo& shard : *static_cast<const std::vector<ShardInfo>*>(*arg)) {
    seshat_proto_ShardInfo out = seshat_proto_ShardInfo_init_zero;
    out.id = shard.id.value;
    out.slots = encoder(&encode_slots, shard.slots);
    out.replicas = encoder(&encode_replicas, shard.replicas);
    out.state = static_cast<seshat_proto_ShardState>(shard.state);
    if (!pb_encode_tag_for_field(stream, field)) return false;
    if (!pb_encode_submessage(stream, seshat_proto_ShardInfo_fields, &out)) return false;
  }
  return true;
}

inline bool decode_shards(pb_istream_t* stream, const pb_field_t*, void** arg) {
  seshat_proto_ShardInfo in = seshat_proto_ShardInfo_init_zero;
  ShardInfo shard;
  in.slots = decoder(&decode_slots, shard.slots);
  in.replicas = decoder(&decode_replicas, shard.replicas);
  if (!pb_decode(stream, seshat_proto_ShardInfo_fields, &in)) return false;
  shard.id = GroupId{in.id};
  if (number_of(in.state) != seshat_proto_ShardState_SHARD_ACTIVE) return false;
  static_cast<std::vector<ShardInfo>*>(*arg)->push_back(std::move(shard));
  return true;
}

}  // namespace detail

// ---- Log entries and hard state -----------------------------------------------------------------

inline void encode(const raft::Entry& entry, std::string& out) {
  const std::string_view data = detail::payload_of(entry);
  const seshat_proto_VersionedLogEntry record = detail::to_proto(entry, data);
  detail::append_message(out, seshat_proto_VersionedLogEntry_fields, &record);
}

inline Result<raft::Entry> decode_entry(std::string_view bytes) {
  seshat_proto_VersionedLogEntry record = seshat_proto_VersionedLogEntry_init_zero;
  std::string_view data;
  detail::ViewTarget<std::string_view> target{bytes, data};
  record.data = detail::decoder(&detail::decode_view, target);
  if (auto error = detail::decode_record("VersionedLogEntry", bytes,
                                         seshat_proto_VersionedLogEntry_fields, record)) {
    return *error;
  }
  const std::uint32_t type = detail::number_of(record.entry_type);
  if (type > seshat_proto_EntryType_ENTRY_NO_OP) {
    return detail::undecodable("VersionedLogEntry", "its entry type is unknown");
  }
  raft::Entry entry{Term{record.term}, Index{record.index}, static_cast<raft::EntryType>(type),
                    nullptr};
  if (!data.empty()) entry.data = std::make_shared<const std::string>(data);
  return entry;
}

inline std::string encode(const raft::HardState& state) {
  seshat_proto_RaftHardState record = seshat_proto_RaftHardState_init_zero;
  record.version = kRecordVersion;
  record.term = state.term.value;
  record.vote = state.vote.value;
  record.commit = state.commit.value;
  std::string out;
  detail::append_message(out, seshat_proto_RaftHardState_fields, &record);
  return out;
}

inline Result<raft::HardState> decode_hard_state(std::string_view bytes) {
  seshat_proto_RaftHardState record = seshat_proto_RaftHardState_init_zero;
  if (auto error = detail::decode_record("RaftHardState", bytes, seshat_proto_RaftHardState_fields,
                                         record)) {
    return *error;
  }
  return raft::HardState{Term{record.term}, NodeId{record.vote}, Index{record.commit}};
}

// ---- Values and state machines ------------------------------------------------------------------

inline void encode(const StoredValue& value, std::string& out) {
  seshat_proto_StoredValue record = seshat_proto_StoredValue_init_zero;
  record.version = kRecordVersion;
  record.type = static_cast<seshat_proto_ValueType>(value.type);
  record.data = detail::encoder(&detail::encode_view, value.data);
  record.created_at = value.created_at_ms;
  record.has_expires_at = value.expires_at_ms.has_value();
  record.expires_at = value.expires_at_ms.value_or(0);
  record.mod_index = value.mod_index.value;
  out.clear();
  detail::append_message(out, seshat_proto_StoredValue_fields, &record);
}

inline Result<StoredValue> decode_stored_value(std::string_view bytes) {
  seshat_proto_StoredValue record = seshat_proto_StoredValue_init_zero;
  StoredValue value;
  detail::ViewTarget<std::string_view> target{bytes, value.data};
  record.data = detail::decoder(&detail::decode_view, target);
  if (auto error =
          detail::decode_record("StoredValue", bytes, seshat_proto_StoredValue_fields, record)) {
    return *error;
  }
  if (detail::number_of(record.type) != seshat_proto_ValueType_VALUE_STRING) {
    return detail::undecodable("StoredValue", "its type is unknown");
  }
  value.created_at_ms = record.created_at;
  if (record.has_expires_at) value.expires_at_ms = record.expires_at;
  value.mod_index = Index{record.mod_index};
  return value;
}

inline std::string encode(const MachineState& state) {
  seshat_proto_MachineState record = seshat_proto_MachineState_init_zero;
  record.version = kRecordVersion;
  record.applied_index = state.applied_index.value;
  record.applied_term = state.applied_term.value;
  record.key_count = state.key_count;
  record.time_ms = state.time_ms;
  std::string out;
  detail::append_message(out, seshat_proto_MachineState_fields, &record);
  return out;
}

inline Result<MachineState> decode_machine_state(std::string_view bytes) {
  seshat_proto_MachineState record = seshat_proto_MachineState_init_zero;
  if (auto error =
          detail::decode_record("MachineState", bytes, seshat_proto_MachineState_fields, record)) {
    return *error;
  }
  return MachineState{Index{record.applied_index}, Term{record.applied_term}, record.key_count,
                      record.time_ms};
}

// ---- The cluster --------------------------------------------------------------------------------

inline std::string encode(const ClusterMembership& membership) {
  seshat_proto_ClusterMembership record = seshat_proto_ClusterMembership_init_zero;
  record.version = kRecordVersion;
  record.members = detail::encoder(&detail::encode_members, membership.members);
  record.membership_version = membership.membership_version;
  detail::copy_text(membership.cluster_id, record.cluster_id);
  std::string out;
  detail::append_message(out, seshat_proto_ClusterMembership_fields, &record);
  return out;
}

inline Result<ClusterMembership> decode_membership(std::string_view bytes) {
  seshat_proto_ClusterMembership record = seshat_proto_ClusterMembership_init_zero;
  ClusterMembership membership;
  record.members = detail::decoder(&detail::decode_members, membership.members);
  if (auto error = detail::decode_record("ClusterMembership", bytes,
                                         seshat_proto_ClusterMembership_fields, record)) {
    return *error;
  }
  membership.membership_version = record.membership_version;
  membership.cluster_id = record.cluster_id;
  return membership;
}

inline std::string encode(const ShardMap& shard_map) {
  seshat_proto_ShardMap record = seshat_proto_ShardMap_init_zero;
  record.version = kRecordVersion;
  record.shards = detail::encoder(&detail::encode_shards, shard_map.shards);
  record.replication_factor = shard_map.replication_factor;
  std::string out;
  detail::append_message(out, seshat_proto_ShardMap_fields, &record);
  return out;
}

inline Result<ShardMap> decode_shard_map(std::string_view bytes) {
  seshat_proto_ShardMap record = seshat_proto_ShardMap_init_zero;
  ShardMap shard_map;
  record.shards = detail::decoder(&detail::decode_shards, shard_map.shards);
  if (auto error = detail::decode_record("ShardMap", bytes, seshat_proto_ShardMap_fields, record)) {
    return *error;
  }
  shard_map.replication_factor = record.replication_factor;
  return shard_map;
}

inline std::string encode(const NodeIdentity& identity) {
  seshat_proto_NodeIdentity record = seshat_proto_NodeIdentity_init_zero;
  record.version = kRecordVersion;
  record.id = identity.id.value;
  record.incarnation = identity.incarnation;
  detail::copy_text(identity.cluster_id, record.cluster_id);
  std::string out;
  detail::append_message(out, seshat_proto_NodeIdentity_fields, &record);
  return out;
}

inline Result<NodeIdentity> decode_identity(std::string_view bytes) {
  seshat_proto_NodeIdentity record = seshat_proto_NodeIdentity_init_zero;
  if (auto error =
          detail::decode_record("NodeIdentity", bytes, seshat_proto_NodeIdentity_fields, record)) {
    return *error;
  }
  return NodeIdentity{NodeId{record.id}, record.incarnation, record.cluster_id};
}

// ---- Operations ---------------------------------------------------------------------------------

inline std::string encode(const Operation& operation) {
  seshat_proto_Operation record = seshat_proto_Operation_init_zero;
  record.version = kOperationVersion;
  record.type = static_cast<std::uint32_t>(operation.type);
  record.time_ms = operation.time_ms;
  record.arguments = detail::encoder(&detail::encode_views, operation.arguments);
  std::string out;
  detail::append_message(out, seshat_proto_Operation_fields, &record);
  return out;
}

inline Result<Operation> decode_operation(std::string_view bytes) {
  seshat_proto_Operation record = seshat_proto_Operation_init_zero;
  Operation operation;
  detail::ViewTarget<std::vector<std::string_view>> target{bytes, operation.arguments};
  record.arguments = detail::decoder(&detail::decode_views, target);
  if (auto error = detail::decode_record("Operation", bytes, seshat_proto_Operation_fields, record,
                                         kOperationVersion)) {
    return *error;
  }
  if (record.type == 0 || record.type > 0xff) {
    return detail::undecodable("Operation", "its type is unknown");
  }
  operation.type = static_cast<OperationType>(record.type);
  operation.time_ms = record.time_ms;
  return operation;
}

// ---- Peer channel -------------------------------------------------------------------------------

inline void encode(const Frame& frame, std::string& out) {
  seshat_proto_Frame record = seshat_proto_Frame_init_zero;
  record.has_hello = frame.hello.has_value();
  if (frame.hello) record.hello = detail::to_proto(*frame.hello);
  record.has_hello_reply = frame.hello_reply.has_value();
  if (frame.hello_reply) {
    record.hello_reply.accepted = frame.hello_reply->accepted;
    const std::size_t longest = sizeof(record.hello_reply.reason) - 1;
    detail::copy_text(frame.hello_reply->reason.substr(0, longest), record.hello_reply.reason);
    record.hello_reply.has_self = true;
    record.hello_reply.self = detail::to_proto(frame.hello_reply->self);
  }
  record.messages = detail::encoder(&detail::encode_messages, frame.messages);
  record.has_status = frame.status.has_value();
  if (frame.status) record.status.disk_low = frame.status->disk_low;
  detail::append_message(out, seshat_proto_Frame_fields, &record);
}

inline Result<Frame> decode_frame(std::string_view bytes) {
  seshat_proto_Frame record = seshat_proto_Frame_init_zero;
  Frame frame;
  record.messages = detail::decoder(&detail::decode_messages, frame.messages);
  if (!detail::decode_message(bytes, seshat_proto_Frame_fields, &record)) {
    return detail::undecodable("Frame", "it is not a whole message");
  }
  if (record.has_hello) frame.hello = detail::from_proto(record.hello);
  if (record.has_hello_reply) {
    frame.hello_reply = HelloReply{record.hello_reply.accepted, record.hello_reply.reason,
                                   detail::from_proto(record.hello_reply.self)};
  }
  if (record.has_status) frame.status = NodeStatus{record.status.disk_low};
  return frame;
}

}  // namespace seshat::codec

#endif  // SESHAT_CODEC_HPP
