// tests/nanopb_codec.hpp - nanopb's word on the records that Seshat writes and reads by hand.
//
// As Seshat had it before wire.hpp: what codec.hpp writes must be these bytes, and what it reads
// must mean the same. Each decode_*() stands beside the one of codec.hpp that has its name, and
// encoded() beside encode().
#ifndef SESHAT_TESTS_NANOPB_CODEC_HPP
#define SESHAT_TESTS_NANOPB_CODEC_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "seshat/peer_codec.hpp"

namespace seshat::tests::reference {

namespace detail = codec::detail;

// ---- Views and entries --------------------------------------------------------------------------

inline bool encode_views(pb_ostream_t* stream, const pb_field_t* field, void* const* arg) {
  for (const std::string_view view : *static_cast<const std::vector<std::string_view>*>(*arg)) {
    if (!pb_encode_tag_for_field(stream, field)) return false;
    const auto* bytes = reinterpret_cast<const pb_byte_t*>(view.data());
    if (!pb_encode_string(stream, bytes, view.size())) return false;
  }
  return true;
}

inline bool decode_views(pb_istream_t* stream, const pb_field_t*, void** arg) {
  const auto& target = *static_cast<const detail::ViewTarget<std::vector<std::string_view>>*>(*arg);
  return target.take(stream, target.into.emplace_back());
}

template <class Record>
std::optional<Error> decode_record(const char* name, std::string_view bytes,
                                   const pb_msgdesc_t* fields, Record& record,
                                   std::uint32_t newest = kRecordVersion) {
  const bool whole = detail::decode_message(bytes, fields, &record);
  return detail::fault_of(name, record.version, whole, newest);
}

inline seshat_proto_VersionedLogEntry to_proto(const raft::Entry& entry,
                                               const std::string_view& data) {
  seshat_proto_VersionedLogEntry record = seshat_proto_VersionedLogEntry_init_zero;
  record.version = detail::version_of(entry);
  record.term = entry.term.value;
  record.index = entry.index.value;
  record.entry_type = static_cast<seshat_proto_EntryType>(entry.type);
  record.data = detail::encoder(&detail::encode_view, data);
  return record;
}

inline std::string encoded(const raft::Entry& entry) {
  std::string scratch;
  const std::string_view data = detail::data_of(entry, scratch);
  const seshat_proto_VersionedLogEntry record = to_proto(entry, data);
  std::string out;
  detail::append_message(out, seshat_proto_VersionedLogEntry_fields, &record);
  return out;
}

inline Result<raft::Entry> decode_entry(std::string_view bytes) {
  seshat_proto_VersionedLogEntry record = seshat_proto_VersionedLogEntry_init_zero;
  std::string_view data;
  detail::ViewTarget<std::string_view> target{bytes, data};
  record.data = detail::decoder(&detail::decode_view, target);
  if (auto error = decode_record("VersionedLogEntry", bytes, seshat_proto_VersionedLogEntry_fields,
                                 record)) {
    return *error;
  }
  const std::uint32_t type = detail::number_of(record.entry_type);
  if (type > seshat_proto_EntryType_ENTRY_NO_OP) {
    return detail::undecodable("VersionedLogEntry", "its entry type is unknown");
  }
  raft::Entry entry{Term{record.term}, Index{record.index}, static_cast<raft::EntryType>(type),
                    nullptr};
  if (entry.type != raft::EntryType::kConfigChange) {
    if (!data.empty()) entry.data = std::make_shared<const std::string>(data);
    return entry;
  }
  raft::Configuration configuration;
  seshat_proto_RaftConfiguration in = detail::configuration_decoder(configuration);
  if (!detail::decode_message(data, seshat_proto_RaftConfiguration_fields, &in) ||
      configuration.voters.empty()) {
    return detail::undecodable("VersionedLogEntry", "it holds no configuration");
  }
  entry.configuration = std::make_shared<const raft::Configuration>(std::move(configuration));
  return entry;
}

// ---- Hard state, values, state machines, operations ---------------------------------------------

inline std::string encoded(const raft::HardState& state) {
  seshat_proto_RaftHardState record = seshat_proto_RaftHardState_init_zero;
  record.version = 1;
  record.term = state.term.value;
  record.vote = state.vote.value;
  record.commit = state.commit.value;
  std::string out;
  detail::append_message(out, seshat_proto_RaftHardState_fields, &record);
  return out;
}

inline Result<raft::HardState> decode_hard_state(std::string_view bytes) {
  seshat_proto_RaftHardState record = seshat_proto_RaftHardState_init_zero;
  if (auto error =
          decode_record("RaftHardState", bytes, seshat_proto_RaftHardState_fields, record)) {
    return *error;
  }
  return raft::HardState{Term{record.term}, NodeId{record.vote}, Index{record.commit}};
}

inline std::string encoded(const StoredValue& value) {
  seshat_proto_StoredValue record = seshat_proto_StoredValue_init_zero;
  record.version = 1;
  record.type = static_cast<seshat_proto_ValueType>(value.type);
  record.data = detail::encoder(&detail::encode_view, value.data);
  record.created_at = value.created_at_ms;
  record.has_expires_at = value.expires_at_ms.has_value();
  record.expires_at = value.expires_at_ms.value_or(0);
  record.mod_index = value.mod_index.value;
  std::string out;
  detail::append_message(out, seshat_proto_StoredValue_fields, &record);
  return out;
}

inline Result<StoredValue> decode_stored_value(std::string_view bytes) {
  seshat_proto_StoredValue record = seshat_proto_StoredValue_init_zero;
  StoredValue value;
  detail::ViewTarget<std::string_view> target{bytes, value.data};
  record.data = detail::decoder(&detail::decode_view, target);
  if (auto error = decode_record("StoredValue", bytes, seshat_proto_StoredValue_fields, record)) {
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

inline std::string encoded(const MachineState& state) {
  seshat_proto_MachineState record = seshat_proto_MachineState_init_zero;
  const bool configured = state.configuration_index != Index{};
  const bool is_newest = state.expiring_count != 0 || state.last_removal != Index{};
  record.version = is_newest    ? kKeyspaceRecordVersion
                   : configured ? kConfigurationRecordVersion
                                : 1;
  record.applied_index = state.applied_index.value;
  record.applied_term = state.applied_term.value;
  record.key_count = state.key_count;
  record.time_ms = state.time_ms;
  record.configuration_index = state.configuration_index.value;
  record.has_configuration = configured;
  if (configured) record.configuration = detail::to_proto(state.configuration);
  record.expiring_count = state.expiring_count;
  record.last_removal = state.last_removal.value;
  std::string out;
  detail::append_message(out, seshat_proto_MachineState_fields, &record);
  return out;
}

inline Result<MachineState> decode_machine_state(std::string_view bytes) {
  seshat_proto_MachineState record = seshat_proto_MachineState_init_zero;
  MachineState state;
  record.configuration = detail::configuration_decoder(state.configuration);
  if (auto error = decode_record("MachineState", bytes, seshat_proto_MachineState_fields, record)) {
    return *error;
  }
  state.applied_index = Index{record.applied_index};
  state.applied_term = Term{record.applied_term};
  state.key_count = record.key_count;
  state.time_ms = record.time_ms;
  state.configuration_index = Index{record.configuration_index};
  state.expiring_count = record.expiring_count;
  state.last_removal = Index{record.last_removal};
  return state;
}

inline std::string encoded(const Operation& operation) {
  seshat_proto_Operation record = seshat_proto_Operation_init_zero;
  record.version = operation_version_of(operation.type);
  record.type = static_cast<std::uint32_t>(operation.type);
  record.time_ms = operation.time_ms;
  record.arguments = detail::encoder(&encode_views, operation.arguments);
  record.max_value_size_bytes = operation.max_value_size_bytes;
  std::string out;
  detail::append_message(out, seshat_proto_Operation_fields, &record);
  return out;
}

inline Result<Operation> decode_operation(std::string_view bytes) {
  seshat_proto_Operation record = seshat_proto_Operation_init_zero;
  Operation operation;
  detail::ViewTarget<std::vector<std::string_view>> target{bytes, operation.arguments};
  record.arguments = detail::decoder(&decode_views, target);
  if (auto error = decode_record("Operation", bytes, seshat_proto_Operation_fields, record,
                                 kOperationVersion)) {
    return *error;
  }
  if (record.type == 0 || record.type > 0xff) {
    return detail::undecodable("Operation", "its type is unknown");
  }
  operation.type = static_cast<OperationType>(record.type);
  operation.time_ms = record.time_ms;
  operation.max_value_size_bytes = record.max_value_size_bytes;
  return operation;
}

// ---- Frames -------------------------------------------------------------------------------------

inline bool encode_entries(pb_ostream_t* stream, const pb_field_t* field, void* const* arg) {
  for (const raft::Entry& entry : *static_cast<const std::vector<raft::Entry>*>(*arg)) {
    std::string scratch;
    const std::string_view data = detail::data_of(entry, scratch);
    const seshat_proto_VersionedLogEntry record = to_proto(entry, data);
    if (!pb_encode_tag_for_field(stream, field)) return false;
    if (!pb_encode_submessage(stream, seshat_proto_VersionedLogEntry_fields, &record)) return false;
  }
  return true;
}

inline bool decode_entries(pb_istream_t* stream, const pb_field_t*, void** arg) {
  Result<raft::Entry> entry = decode_entry(detail::take_rest(stream));
  if (!entry) return false;
  static_cast<std::vector<raft::Entry>*>(*arg)->push_back(std::move(*entry));
  return true;
}

inline bool encode_messages(pb_ostream_t* stream, const pb_field_t* field, void* const* arg) {
  for (const PeerMessage& message : *static_cast<const std::vector<PeerMessage>*>(*arg)) {
    seshat_proto_RaftMessage out = detail::to_proto(message);
    if (const auto* append = std::get_if<raft::AppendEntries>(&message.message.body)) {
      out.entries = detail::encoder(&encode_entries, append->entries);
    }
    if (!pb_encode_tag_for_field(stream, field)) return false;
    if (!pb_encode_submessage(stream, seshat_proto_RaftMessage_fields, &out)) return false;
  }
  return true;
}

inline bool decode_messages(pb_istream_t* stream, const pb_field_t*, void** arg) {
  detail::RaftMessageParts parts;
  seshat_proto_RaftMessage in = detail::message_decoder(parts);
  in.entries = detail::decoder(&decode_entries, parts.entries);
  if (!pb_decode(stream, seshat_proto_RaftMessage_fields, &in)) return false;
  PeerMessage message;
  if (detail::from_proto(in, std::move(parts), message)) {
    static_cast<std::vector<PeerMessage>*>(*arg)->push_back(std::move(message));
  }
  return true;
}

inline bool encode_text(pb_ostream_t* stream, const pb_field_t* field, void* const* arg) {
  const auto& text = *static_cast<const std::string*>(*arg);
  if (text.empty()) return true;
  return pb_encode_tag_for_field(stream, field) &&
         pb_encode_string(stream, reinterpret_cast<const pb_byte_t*>(text.data()), text.size());
}

inline bool decode_text(pb_istream_t* stream, const pb_field_t*, void** arg) {
  const auto& target = *static_cast<const detail::ViewTarget<std::string>*>(*arg);
  std::string_view text;
  if (!target.take(stream, text)) return false;
  target.into = text;
  return true;
}

inline bool encode_forwarded(pb_ostream_t* stream, const pb_field_t* field, void* const* arg) {
  for (const auto& request : *static_cast<const std::vector<ForwardedRequest>*>(*arg)) {
    seshat_proto_ForwardedRequest out = seshat_proto_ForwardedRequest_init_zero;
    out.id = request.id;
    out.group = request.group.value;
    out.operation = detail::encoder(&encode_text, request.operation);
    out.after_id = request.after_id;
    out.term = request.term.value;
    if (!pb_encode_tag_for_field(stream, field)) return false;
    if (!pb_encode_submessage(stream, seshat_proto_ForwardedRequest_fields, &out)) return false;
  }
  return true;
}

inline bool decode_forwarded(pb_istream_t* stream, const pb_field_t*, void** arg) {
  const auto& target = *static_cast<const detail::ViewTarget<std::vector<ForwardedRequest>>*>(*arg);
  ForwardedRequest request;
  detail::ViewTarget<std::string> operation{target.whole, request.operation};
  seshat_proto_ForwardedRequest in = seshat_proto_ForwardedRequest_init_zero;
  in.operation = detail::decoder(&decode_text, operation);
  if (!pb_decode(stream, seshat_proto_ForwardedRequest_fields, &in)) return false;
  request.id = in.id;
  request.group = GroupId{in.group};
  request.after_id = in.after_id;
  request.term = Term{in.term};
  if (request.id == 0) return false;
  target.into.push_back(std::move(request));
  return true;
}

inline bool encode_forwarded_replies(pb_ostream_t* stream, const pb_field_t* field,
                                     void* const* arg) {
  for (const auto& reply : *static_cast<const std::vector<ForwardedReply>*>(*arg)) {
    seshat_proto_ForwardedReply out = seshat_proto_ForwardedReply_init_zero;
    out.id = reply.id;
    out.refusal = reply.refusal;
    out.index = reply.index.value;
    out.time_ms = reply.time_ms;
    out.outcome = reply.outcome;
    out.integer = static_cast<std::uint64_t>(reply.integer);
    out.reply = detail::encoder(&encode_text, reply.reply);
    if (!pb_encode_tag_for_field(stream, field)) return false;
    if (!pb_encode_submessage(stream, seshat_proto_ForwardedReply_fields, &out)) return false;
  }
  return true;
}

inline bool decode_forwarded_replies(pb_istream_t* stream, const pb_field_t*, void** arg) {
  const auto& target = *static_cast<const detail::ViewTarget<std::vector<ForwardedReply>>*>(*arg);
  ForwardedReply reply;
  detail::ViewTarget<std::string> text{target.whole, reply.reply};
  seshat_proto_ForwardedReply in = seshat_proto_ForwardedReply_init_zero;
  in.reply = detail::decoder(&decode_text, text);
  if (!pb_decode(stream, seshat_proto_ForwardedReply_fields, &in)) return false;
  reply.id = in.id;
  reply.refusal = in.refusal;
  reply.index = Index{in.index};
  reply.time_ms = in.time_ms;
  reply.outcome = in.outcome;
  reply.integer = static_cast<std::int64_t>(in.integer);
  if (reply.id == 0) return false;
  target.into.push_back(std::move(reply));
  return true;
}

inline std::string encoded(const Frame& frame) {
  seshat_proto_Frame record = seshat_proto_Frame_init_zero;
  record.has_hello = frame.hello.has_value();
  if (frame.hello) record.hello = detail::to_proto(*frame.hello);
  record.has_hello_reply = frame.hello_reply.has_value();
  if (frame.hello_reply) {
    record.hello_reply.accepted = frame.hello_reply->accepted;
    detail::copy_beginning(frame.hello_reply->reason, record.hello_reply.reason);
    record.hello_reply.removed = frame.hello_reply->removed;
    record.hello_reply.has_self = true;
    record.hello_reply.self = detail::to_proto(frame.hello_reply->self);
  }
  record.messages = detail::encoder(&encode_messages, frame.messages);
  record.has_status = frame.status.has_value();
  if (frame.status) record.status = detail::to_proto(*frame.status);
  record.forwarded = detail::encoder(&encode_forwarded, frame.forwarded);
  record.forwarded_replies = detail::encoder(&encode_forwarded_replies, frame.forwarded_replies);
  std::string out;
  detail::append_message(out, seshat_proto_Frame_fields, &record);
  return out;
}

inline Result<Frame> decode_frame(std::string_view bytes) {
  seshat_proto_Frame record = seshat_proto_Frame_init_zero;
  Frame frame;
  record.messages = detail::decoder(&decode_messages, frame.messages);
  detail::ViewTarget<std::vector<ForwardedRequest>> requests{bytes, frame.forwarded};
  detail::ViewTarget<std::vector<ForwardedReply>> replies{bytes, frame.forwarded_replies};
  record.forwarded = detail::decoder(&decode_forwarded, requests);
  record.forwarded_replies = detail::decoder(&decode_forwarded_replies, replies);
  NodeStatus status;
  record.status.groups = detail::decoder(&detail::decode_group_statuses, status.groups);
  if (!detail::decode_message(bytes, seshat_proto_Frame_fields, &record)) {
    return detail::undecodable("Frame", "it is not a whole message");
  }
  if (record.has_hello) frame.hello = detail::from_proto(record.hello);
  if (record.has_hello_reply) {
    frame.hello_reply =
        HelloReply{record.hello_reply.accepted, record.hello_reply.reason,
                   detail::from_proto(record.hello_reply.self), record.hello_reply.removed};
  }
  if (record.has_status) {
    status.disk_low = record.status.disk_low;
    status.version = record.status.version;
    frame.status = std::move(status);
  }
  return frame;
}

}  // namespace seshat::tests::reference

#endif  // SESHAT_TESTS_NANOPB_CODEC_HPP
