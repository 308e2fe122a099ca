// seshat/wire_records.hpp - the records of every command, field by field over wire.hpp.
//
// For each one put(), which writes it or counts its bytes, and read(), which is true if the bytes
// are whole. What their numbers mean (a version, a type) is for codec.hpp to judge; only codec.hpp
// and peer_codec.hpp call these. A field that proto/seshat.proto adds to one of these records is
// added here to both; tests/wire_codec_test.cpp then finds out whether nanopb agrees.
//
// Threads: none inside. Needs: records.hpp, wire.hpp; of nanopb only the numbers of fields.
#ifndef SESHAT_WIRE_RECORDS_HPP
#define SESHAT_WIRE_RECORDS_HPP

#include <seshat.pb.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/wire.hpp"

namespace seshat::codec::detail {

// `out` of every put() is a wire::Writer, or a wire::Size that counts what it would write.

// ---- Log entries

// The lowest version that can express it: nodes of the last release read all but configurations.
inline std::uint32_t version_of(const raft::Entry& entry) {
  return entry.type == raft::EntryType::kConfigChange ? kConfigurationRecordVersion : 1;
}

template <class Out>
void put(Out& out, const raft::Entry& entry, std::string_view data) {
  out.number(seshat_proto_VersionedLogEntry_version_tag, version_of(entry));
  out.number(seshat_proto_VersionedLogEntry_term_tag, entry.term.value);
  out.number(seshat_proto_VersionedLogEntry_index_tag, entry.index.value);
  out.number(seshat_proto_VersionedLogEntry_entry_type_tag, static_cast<std::uint32_t>(entry.type));
  out.bytes(seshat_proto_VersionedLogEntry_data_tag, data);
}

inline std::size_t size_of(const raft::Entry& entry, std::string_view data) {
  wire::Size size;
  put(size, entry, data);
  return size.size_bytes();
}

struct EntryFields {
  std::uint32_t version = 0;
  std::uint64_t term = 0;
  std::uint64_t index = 0;
  std::uint32_t type = 0;
  std::string_view data;
};

inline bool read(std::string_view bytes, EntryFields& entry) {
  wire::Reader in(bytes);
  while (in.next()) {
    switch (in.field()) {
      case seshat_proto_VersionedLogEntry_version_tag:
        in.take(entry.version);
        break;
      case seshat_proto_VersionedLogEntry_term_tag:
        in.take(entry.term);
        break;
      case seshat_proto_VersionedLogEntry_index_tag:
        in.take(entry.index);
        break;
      case seshat_proto_VersionedLogEntry_entry_type_tag:
        in.take(entry.type);
        break;
      case seshat_proto_VersionedLogEntry_data_tag:
        in.take(entry.data);
        break;
    }
  }
  return in.whole();
}

// ---- Hard state

template <class Out>
void put(Out& out, const raft::HardState& state) {
  out.number(seshat_proto_RaftHardState_version_tag, 1);
  out.number(seshat_proto_RaftHardState_term_tag, state.term.value);
  out.number(seshat_proto_RaftHardState_vote_tag, state.vote.value);
  out.number(seshat_proto_RaftHardState_commit_tag, state.commit.value);
}

inline bool read(std::string_view bytes, std::uint32_t& version, raft::HardState& state) {
  wire::Reader in(bytes);
  while (in.next()) {
    switch (in.field()) {
      case seshat_proto_RaftHardState_version_tag:
        in.take(version);
        break;
      case seshat_proto_RaftHardState_term_tag:
        in.take(state.term.value);
        break;
      case seshat_proto_RaftHardState_vote_tag:
        in.take(state.vote.value);
        break;
      case seshat_proto_RaftHardState_commit_tag:
        in.take(state.commit.value);
        break;
    }
  }
  return in.whole();
}

// ---- Values

template <class Out>
void put(Out& out, const StoredValue& value) {
  out.number(seshat_proto_StoredValue_version_tag, 1);
  out.number(seshat_proto_StoredValue_type_tag, static_cast<std::uint32_t>(value.type));
  out.bytes(seshat_proto_StoredValue_data_tag, value.data);
  out.number(seshat_proto_StoredValue_created_at_tag, value.created_at_ms);
  out.number(seshat_proto_StoredValue_expires_at_tag, value.expires_at_ms);
  out.number(seshat_proto_StoredValue_mod_index_tag, value.mod_index.value);
}

inline bool read(std::string_view bytes, std::uint32_t& version, std::uint32_t& type,
                 StoredValue& value) {
  wire::Reader in(bytes);
  while (in.next()) {
    switch (in.field()) {
      case seshat_proto_StoredValue_version_tag:
        in.take(version);
        break;
      case seshat_proto_StoredValue_type_tag:
        in.take(type);
        break;
      case seshat_proto_StoredValue_data_tag:
        in.take(value.data);
        break;
      case seshat_proto_StoredValue_created_at_tag:
        in.take(value.created_at_ms);
        break;
      case seshat_proto_StoredValue_expires_at_tag:
        in.take(value.expires_at_ms.emplace());
        break;
      case seshat_proto_StoredValue_mod_index_tag:
        in.take(value.mod_index.value);
        break;
    }
  }
  return in.whole();
}

// ---- Operations

template <class Out>
void put(Out& out, const Operation& operation) {
  out.number(seshat_proto_Operation_version_tag, operation_version_of(operation.type));
  out.number(seshat_proto_Operation_type_tag, static_cast<std::uint32_t>(operation.type));
  out.number(seshat_proto_Operation_time_ms_tag, operation.time_ms);
  for (const std::string_view argument : operation.arguments) {
    out.element(seshat_proto_Operation_arguments_tag, argument);
  }
  out.number(seshat_proto_Operation_max_value_size_bytes_tag, operation.max_value_size_bytes);
}

inline bool read(std::string_view bytes, std::uint32_t& version, std::uint32_t& type,
                 Operation& operation) {
  wire::Reader in(bytes);
  while (in.next()) {
    switch (in.field()) {
      case seshat_proto_Operation_version_tag:
        in.take(version);
        break;
      case seshat_proto_Operation_type_tag:
        in.take(type);
        break;
      case seshat_proto_Operation_time_ms_tag:
        in.take(operation.time_ms);
        break;
      case seshat_proto_Operation_arguments_tag:
        in.take(operation.arguments.emplace_back());
        break;
      case seshat_proto_Operation_max_value_size_bytes_tag:
        in.take(operation.max_value_size_bytes);
        break;
    }
  }
  return in.whole();
}

// ---- Any of them

template <class Record>
[[nodiscard]] std::size_t size_of(const Record& record) {
  wire::Size size;
  put(size, record);
  return size.size_bytes();
}

// Appends a record that has a put().
template <class Record>
void append_record(std::string& out, const Record& record) {
  wire::Writer writer(out, size_of(record));
  put(writer, record);
}

}  // namespace seshat::codec::detail

#endif  // SESHAT_WIRE_RECORDS_HPP
