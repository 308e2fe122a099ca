// seshat/snapshot.hpp - a group's state as rows: what a snapshot's two ends must offer, and the form
// of the rows between them.
//
//   a checkpoint ──> SnapshotReader ── rows ──> (peer channel) ──> SnapshotWriter ──> a new state
//
//   one row:   4 bytes  length of the key, little-endian
//              4 bytes  length of the value
//              the key, the value
//
// Rows stand in the order of their keys, so "after this key" names a place to go on at, whatever
// happened to the connection.
//
// Threads: none inside; who implements the interfaces says where they may be called.
// Needs:   records.hpp, result.hpp, fnv1a.hpp.
#ifndef SESHAT_SNAPSHOT_HPP
#define SESHAT_SNAPSHOT_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "seshat/fnv1a.hpp"
#include "seshat/records.hpp"
#include "seshat/result.hpp"

namespace seshat {

inline constexpr std::size_t kSnapshotChunkSizeBytes = 1 << 20;

struct SnapshotRows {
  std::string rows;
  std::string last_key;
  bool last = false;  // nothing follows
};

// A snapshot that is complete on this node's disk. Calls wait for the disk and come one at a time.
class SnapshotReader {
 public:
  virtual ~SnapshotReader() = default;
  [[nodiscard]] virtual const SnapshotMetadata& metadata() const = 0;
  // Rows that follow `after_key` (empty: from the first on), at least one if there is any, then
  // until `max_size_bytes`.
  [[nodiscard]] virtual Result<SnapshotRows> read(std::string_view after_key,
                                                  std::size_t max_size_bytes) = 0;
};

// A snapshot that comes in, kept in a temporary place which the destructor clears unless it was
// installed. Calls wait for the disk and come one at a time.
class SnapshotWriter {
 public:
  virtual ~SnapshotWriter() = default;
  [[nodiscard]] virtual const SnapshotMetadata& metadata() const = 0;
  // Rows that follow the last ones. After an error nothing but the destructor may be called.
  [[nodiscard]] virtual Result<void> write(std::string_view rows) = 0;
  // Up to where rows are there; empty: none yet.
  [[nodiscard]] virtual const std::string& last_key() const = 0;
  // All rows are there: checks them against the metadata and makes them durable.
  [[nodiscard]] virtual Result<void> finish() = 0;
};

// ---- Rows ---------------------------------------------------------------------------------------

void append_row(std::string_view key, std::string_view value, std::string& rows);

// Takes the first row off `rows`; false: there is none, or it is not whole (then `rows` is not
// empty).
[[nodiscard]] bool take_row(std::string_view& rows, std::string_view& key, std::string_view& value);

// =================================================================================================
// Bodies
// =================================================================================================

namespace snapshot_detail {

inline constexpr std::size_t kLengthsSizeBytes = 8;

inline void append_length(std::size_t length, std::string& rows) {
  for (int shift = 0; shift < 32; shift += 8) rows.push_back(static_cast<char>(length >> shift));
}

inline std::size_t length_at(std::string_view bytes) {
  std::size_t length = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    length |= static_cast<std::size_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  }
  return length;
}

}  // namespace snapshot_detail

inline void append_row(std::string_view key, std::string_view value, std::string& rows) {
  snapshot_detail::append_length(key.size(), rows);
  snapshot_detail::append_length(value.size(), rows);
  rows.append(key).append(value);
}

inline bool take_row(std::string_view& rows, std::string_view& key, std::string_view& value) {
  using snapshot_detail::kLengthsSizeBytes;
  using snapshot_detail::length_at;
  if (rows.size() < kLengthsSizeBytes) return false;
  const std::size_t key_size = length_at(rows);
  const std::size_t value_size = length_at(rows.substr(4));
  if (rows.size() - kLengthsSizeBytes < key_size + value_size) return false;
  key = rows.substr(kLengthsSizeBytes, key_size);
  value = rows.substr(kLengthsSizeBytes + key_size, value_size);
  rows.remove_prefix(kLengthsSizeBytes + key_size + value_size);
  return true;
}

}  // namespace seshat

#endif  // SESHAT_SNAPSHOT_HPP
