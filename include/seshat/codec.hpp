// seshat/codec.hpp - records and operations <-> bytes; peer_codec.hpp: what nodes tell each other.
//
// Protocol Buffers, with neither libprotobuf nor generated C++ classes; proto/seshat.proto is the
// format. What every command writes and reads (log entries, operations, values, hard state, how far
// a state machine is) is written and read by hand, here and in wire_records.hpp: nanopb took 70 %
// of the instructions of a SET. What is rare is left to nanopb and its tables, which need no care.
// A worked example, a log entry with two bytes of data:
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
// Needs:   records.hpp, result.hpp, wire_records.hpp; the nanopb objects of proto/seshat.proto and
//          nanopb's library. The only header that calls nanopb.
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
#include "seshat/wire.hpp"
#include "seshat/wire_records.hpp"

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

[[nodiscard]] std::string encode(const SnapshotMetadata& metadata);
[[nodiscard]] Result<SnapshotMetadata> decode_snapshot_metadata(std::string_view bytes);

[[nodiscard]] std::string encode(const NodeIdentity& identity);
[[nodiscard]] Result<NodeIdentity> decode_identity(std::string_view bytes);

// ---- Operations ---------------------------------------------------------------------------------

[[nodiscard]] std::string encode(const Operation& operation);
[[nodiscard]] Result<Operation> decode_operation(std::string_view bytes);
// The same, into the memory of an older one.
[[nodiscard]] Result<void> decode_operation_into(Operation& operation, std::string_view bytes);

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

// What is wrong with a record that carries a version. The version comes first in every record, so
// that a newer one is named as such even where its other fields can't be read.
inline std::optional<Error> fault_of(const char* name, std::uint32_t version, bool whole,
                                     std::uint32_t newest = kRecordVersion) {
  if (version > newest) {
    return Error{std::string(name) + " has version " + std::to_string(version) +
                 ", but this seshat knows only up to " + std::to_string(newest) +
                 ": run the newer seshat that wrote it"};
  }
  if (!whole) return undecodable(name, "it is not a whole record");
  if (version == 0) return undecodable(name, "it has no version");
  return std::nullopt;
}

template <class Record>
std::optional<Error> decode_record(const char* name, std::string_view bytes,
                                   const pb_msgdesc_t* fields, Record& record) {
  const bool whole = decode_message(bytes, fields, &record);
  return fault_of(name, record.version, whole);
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

// ---- Node ids and configurations

// Far more than a cluster has, so that what comes in can't fill the memory with them.
inline constexpr std::size_t kMaxIds = 1024;

inline bool encode_ids(pb_ostream_t* stream, const pb_field_t* field, void* const* arg) {
  for (const NodeId node : *static_cast<const std::vector<NodeId>*>(*arg)) {
    if (!pb_encode_tag(stream, PB_WT_VARINT, field->tag)) return false;
    if (!pb_encode_varint(stream, node.value)) return false;
  }
  return true;
}

// Numbers come one by one or packed, as the protocol allows: nanopb hands us a stream of either.
inline bool decode_ids(pb_istream_t* stream, const pb_field_t*, void** arg) {
  if (stream->bytes_left == 0) return true;  // packed, and none of them
  std::uint64_t id = 0;
  if (!pb_decode_varint(stream, &id)) return false;
  auto& ids = *static_cast<std::vector<NodeId>*>(*arg);
  ids.push_back(NodeId{id});
  return ids.size() <= kMaxIds;
}

// Looks into `configuration`, which must stay until the message is encoded.
inline seshat_proto_RaftConfiguration to_proto(const raft::Configuration& configuration) {
  seshat_proto_RaftConfiguration out = seshat_proto_RaftConfiguration_init_zero;
  out.voters = encoder(&encode_ids, configuration.voters);
  out.outgoing = encoder(&encode_ids, configuration.outgoing);
  out.learners = encoder(&encode_ids, configuration.learners);
  return out;
}

// Has what is decoded into the result put into `configuration`.
inline seshat_proto_RaftConfiguration configuration_decoder(raft::Configuration& configuration) {
  seshat_proto_RaftConfiguration in = seshat_proto_RaftConfiguration_init_zero;
  in.voters = decoder(&decode_ids, configuration.voters);
  in.outgoing = decoder(&decode_ids, configuration.outgoing);
  in.learners = decoder(&decode_ids, configuration.learners);
  return in;
}

inline void append_configuration(std::string& out, const raft::Configuration& configuration) {
  const seshat_proto_RaftConfiguration record = to_proto(configuration);
  append_message(out, seshat_proto_RaftConfiguration_fields, &record);
}

// Adds to what is there: a message that comes in parts is all of them, says the protocol.
inline bool read(std::string_view bytes, raft::Configuration& configuration) {
  seshat_proto_RaftConfiguration record = configuration_decoder(configuration);
  return decode_message(bytes, seshat_proto_RaftConfiguration_fields, &record);
}

inline void take(wire::Reader& in, raft::Configuration& configuration) {
  std::string_view bytes;
  in.take(bytes);
  if (in.whole() && !read(bytes, configuration)) in.refuse();
}

// ---- Log entries

inline std::string_view payload_of(const raft::Entry& entry) {
  return entry.data ? std::string_view(*entry.data) : std::string_view();
}

// What an entry carries: its payload, or its configuration encoded into `scratch`.
inline std::string_view data_of(const raft::Entry& entry, std::string& scratch) {
  if (!entry.configuration) return payload_of(entry);
  append_configuration(scratch, *entry.configuration);
  return scratch;
}

// ---- How far a state machine is

// A MachineState with its configuration as bytes, if one was ever applied.
struct ConfiguredState {
  const MachineState& state;
  std::optional<std::string_view> configuration;
};

// Looks into `state` and `scratch`.
inline ConfiguredState configured(const MachineState& state, std::string& scratch) {
  if (state.configuration_index == Index{}) return {state, {}};
  append_configuration(scratch, state.configuration);
  return {state, scratch};
}

inline std::uint32_t version_of(const ConfiguredState& record) {
  if (record.state.expiring_count != 0 || record.state.last_removal != Index{}) {
    return kKeyspaceRecordVersion;
  }
  return record.configuration ? kConfigurationRecordVersion : 1;
}

template <class Out>
void put(Out& out, const ConfiguredState& record) {
  const MachineState& state = record.state;
  out.number(seshat_proto_MachineState_version_tag, version_of(record));
  out.number(seshat_proto_MachineState_applied_index_tag, state.applied_index.value);
  out.number(seshat_proto_MachineState_applied_term_tag, state.applied_term.value);
  out.number(seshat_proto_MachineState_key_count_tag, state.key_count);
  out.number(seshat_proto_MachineState_time_ms_tag, state.time_ms);
  out.number(seshat_proto_MachineState_configuration_index_tag, state.configuration_index.value);
  if (record.configuration) {
    out.element(seshat_proto_MachineState_configuration_tag, *record.configuration);
  }
  out.number(seshat_proto_MachineState_expiring_count_tag, state.expiring_count);
  out.number(seshat_proto_MachineState_last_removal_tag, state.last_removal.value);
}

inline bool read(std::string_view bytes, std::uint32_t& version, MachineState& state) {
  wire::Reader in(bytes);
  while (in.next()) {
    switch (in.field()) {
      case seshat_proto_MachineState_version_tag:
        in.take(version);
        break;
      case seshat_proto_MachineState_applied_index_tag:
        in.take(state.applied_index.value);
        break;
      case seshat_proto_MachineState_applied_term_tag:
        in.take(state.applied_term.value);
        break;
      case seshat_proto_MachineState_key_count_tag:
        in.take(state.key_count);
        break;
      case seshat_proto_MachineState_time_ms_tag:
        in.take(state.time_ms);
        break;
      case seshat_proto_MachineState_configuration_index_tag:
        in.take(state.configuration_index.value);
        break;
      case seshat_proto_MachineState_configuration_tag:
        take(in, state.configuration);
        break;
      case seshat_proto_MachineState_expiring_count_tag:
        in.take(state.expiring_count);
        break;
      case seshat_proto_MachineState_last_removal_tag:
        in.take(state.last_removal.value);
        break;
    }
  }
  return in.whole();
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
    out.value.client_tls_port = info.client_tls_port;
    out.value.state = static_cast<seshat_proto_MemberState>(info.state);
    out.value.joined_at = info.joined_at_ms;
    out.value.promoted_at = info.promoted_at_ms;
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
  if (in.value.client_tls_port > 65'535) return false;
  NodeInfo info;
  info.id = NodeId{in.value.id};
  info.incarnation = in.value.incarnation;
  info.addr = in.value.addr;
  info.client_addr = in.value.client_addr;
  info.client_tls_port = static_cast<std::uint16_t>(in.value.client_tls_port);
  info.state = static_cast<MemberState>(state);
  info.joined_at_ms = in.value.joined_at;
  info.promoted_at_ms = in.value.promoted_at;
  info.max_record_version = in.value.max_record_version;
  info.max_operation_version = in.value.max_operation_version;
  (*static_cast<std::map<NodeId, NodeInfo>*>(*arg))[NodeId{in.key}] = std::move(info);
  return true;
}

// Looks into `membership`, as with configurations.
inline seshat_proto_ClusterMembership to_proto(const ClusterMembership& membership) {
  seshat_proto_ClusterMembership out = seshat_proto_ClusterMembership_init_zero;
  out.version = 1;
  out.members = encoder(&encode_members, membership.members);
  out.membership_version = membership.membership_version;
  copy_text(membership.cluster_id, out.cluster_id);
  return out;
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

inline bool encode_shards(pb_ostream_t* stream, const pb_field_t* field, void* const* arg) {
  for (const ShardInfo& shard : *static_cast<const std::vector<ShardInfo>*>(*arg)) {
    seshat_proto_ShardInfo out = seshat_proto_ShardInfo_init_zero;
    out.id = shard.id.value;
    out.slots = encoder(&encode_slots, shard.slots);
    out.replicas = encoder(&encode_ids, shard.replicas);
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
  in.replicas = decoder(&decode_ids, shard.replicas);
  if (!pb_decode(stream, seshat_proto_ShardInfo_fields, &in)) return false;
  shard.id = GroupId{in.id};
  if (number_of(in.state) != seshat_proto_ShardState_SHARD_ACTIVE) return false;
  static_cast<std::vector<ShardInfo>*>(*arg)->push_back(std::move(shard));
  return true;
}

// ---- Snapshots

// Looks into `metadata`, as with configurations.
inline seshat_proto_SnapshotMetadata to_proto(const SnapshotMetadata& metadata) {
  seshat_proto_SnapshotMetadata out = seshat_proto_SnapshotMetadata_init_zero;
  out.version = kConfigurationRecordVersion;
  out.last_included_index = metadata.snapshot.last_included_index.value;
  out.last_included_term = metadata.snapshot.last_included_term.value;
  out.has_membership = true;
  out.membership = to_proto(metadata.membership);
  out.created_at = metadata.created_at_ms;
  out.size_bytes = metadata.size_bytes;
  out.group = metadata.group.value;
  out.has_configuration = true;
  out.configuration = to_proto(metadata.snapshot.configuration);
  out.configuration_index = metadata.snapshot.configuration_index.value;
  out.row_count = metadata.row_count;
  out.checksum = metadata.checksum;
  return out;
}

// In two steps: what has callbacks goes straight into `metadata`, from_proto() adds the rest.
inline seshat_proto_SnapshotMetadata metadata_decoder(SnapshotMetadata& metadata) {
  seshat_proto_SnapshotMetadata in = seshat_proto_SnapshotMetadata_init_zero;
  in.membership.members = decoder(&decode_members, metadata.membership.members);
  in.configuration = configuration_decoder(metadata.snapshot.configuration);
  return in;
}

inline void from_proto(const seshat_proto_SnapshotMetadata& in, SnapshotMetadata& metadata) {
  metadata.snapshot.last_included_index = Index{in.last_included_index};
  metadata.snapshot.last_included_term = Term{in.last_included_term};
  metadata.snapshot.configuration_index = Index{in.configuration_index};
  metadata.membership.membership_version = in.membership.membership_version;
  metadata.membership.cluster_id = in.membership.cluster_id;
  metadata.created_at_ms = in.created_at;
  metadata.size_bytes = in.size_bytes;
  metadata.group = GroupId{in.group};
  metadata.row_count = in.row_count;
  metadata.checksum = in.checksum;
}

}  // namespace detail

// ---- Log entries and hard state -----------------------------------------------------------------

inline void encode(const raft::Entry& entry, std::string& out) {
  std::string scratch;
  const std::string_view data = detail::data_of(entry, scratch);
  wire::Writer writer(out, detail::size_of(entry, data));
  detail::put(writer, entry, data);
}

inline Result<raft::Entry> decode_entry(std::string_view bytes) {
  detail::EntryFields fields;
  const bool whole = detail::read(bytes, fields);
  if (auto fault = detail::fault_of("VersionedLogEntry", fields.version, whole)) return *fault;
  if (fields.type > seshat_proto_EntryType_ENTRY_NO_OP) {
    return detail::undecodable("VersionedLogEntry", "its entry type is unknown");
  }
  raft::Entry entry{Term{fields.term}, Index{fields.index},
                    static_cast<raft::EntryType>(fields.type), nullptr};
  if (entry.type != raft::EntryType::kConfigChange) {
    if (!fields.data.empty()) entry.data = std::make_shared<const std::string>(fields.data);
    return entry;
  }
  raft::Configuration configuration;
  if (!detail::read(fields.data, configuration) || configuration.voters.empty()) {
    return detail::undecodable("VersionedLogEntry", "it holds no configuration");
  }
  entry.configuration = std::make_shared<const raft::Configuration>(std::move(configuration));
  return entry;
}

inline std::string encode(const raft::HardState& state) {
  std::string out;
  detail::append_record(out, state);
  return out;
}

inline Result<raft::HardState> decode_hard_state(std::string_view bytes) {
  std::uint32_t version = 0;
  raft::HardState state;
  const bool whole = detail::read(bytes, version, state);
  if (auto fault = detail::fault_of("RaftHardState", version, whole)) return *fault;
  return state;
}

// ---- Values and state machines ------------------------------------------------------------------

inline void encode(const StoredValue& value, std::string& out) {
  out.clear();
  detail::append_record(out, value);
}

inline Result<StoredValue> decode_stored_value(std::string_view bytes) {
  std::uint32_t version = 0;
  std::uint32_t type = 0;
  StoredValue value;
  const bool whole = detail::read(bytes, version, type, value);
  if (auto fault = detail::fault_of("StoredValue", version, whole)) return *fault;
  if (type != seshat_proto_ValueType_VALUE_STRING) {
    return detail::undecodable("StoredValue", "its type is unknown");
  }
  return value;
}

inline std::string encode(const MachineState& state) {
  std::string scratch;
  const detail::ConfiguredState configured = detail::configured(state, scratch);
  std::string out;
  detail::append_record(out, configured);
  return out;
}

inline Result<MachineState> decode_machine_state(std::string_view bytes) {
  std::uint32_t version = 0;
  MachineState state;
  const bool whole = detail::read(bytes, version, state);
  if (auto fault = detail::fault_of("MachineState", version, whole)) return *fault;
  return state;
}

// ---- The cluster --------------------------------------------------------------------------------

inline std::string encode(const ClusterMembership& membership) {
  const seshat_proto_ClusterMembership record = detail::to_proto(membership);
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
  record.version = 1;
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

inline std::string encode(const SnapshotMetadata& metadata) {
  const seshat_proto_SnapshotMetadata record = detail::to_proto(metadata);
  std::string out;
  detail::append_message(out, seshat_proto_SnapshotMetadata_fields, &record);
  return out;
}

inline Result<SnapshotMetadata> decode_snapshot_metadata(std::string_view bytes) {
  SnapshotMetadata metadata;
  seshat_proto_SnapshotMetadata record = detail::metadata_decoder(metadata);
  if (auto error = detail::decode_record("SnapshotMetadata", bytes,
                                         seshat_proto_SnapshotMetadata_fields, record)) {
    return *error;
  }
  detail::from_proto(record, metadata);
  return metadata;
}

inline std::string encode(const NodeIdentity& identity) {
  seshat_proto_NodeIdentity record = seshat_proto_NodeIdentity_init_zero;
  record.version = 1;
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
  std::string out;
  detail::append_record(out, operation);
  return out;
}

inline Result<Operation> decode_operation(std::string_view bytes) {
  Operation operation;
  if (Result<void> read = decode_operation_into(operation, bytes); !read) return read.error();
  return operation;
}

inline Result<void> decode_operation_into(Operation& operation, std::string_view bytes) {
  std::uint32_t version = 0;
  std::uint32_t type = 0;
  operation.arguments.clear();
  operation = Operation{.arguments = std::move(operation.arguments)};
  const bool whole = detail::read(bytes, version, type, operation);
  if (auto fault = detail::fault_of("Operation", version, whole, kOperationVersion)) return *fault;
  if (type == 0 || type > 0xff) return detail::undecodable("Operation", "its type is unknown");
  operation.type = static_cast<OperationType>(type);
  return {};
}

}  // namespace seshat::codec

#endif  // SESHAT_CODEC_HPP
