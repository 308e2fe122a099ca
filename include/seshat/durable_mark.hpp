// seshat/durable_mark.hpp - how far a log was promised to be on disk, kept beside that log.
//
// A log that ends in damage looks the same whether the damaged part was never promised (a power cut
// tore what was not synced) or was promised and has rotted. The mark tells them apart: it is
// written after each sync of the log, and says what that sync made durable.
//
//   found >= mark    nothing promised is missing; what follows the last good record never counted
//   found <  mark    something promised is missing: refuse to go on
//
// The file: two slots, 4,096 bytes apart so that no torn write reaches both.
//
//   offset  size
//        0     8   "SESHMARK"
//        8     4   version, 1                       little-endian, as all numbers here
//       12     8   sequence: the mark
//       20     8   FNV-1a, 64 bits, of the 20 bytes before
//
//   mark 300:  53 45 53 48 4d 41 52 4b  01 00 00 00  2c 01 00 00 00 00 00 00  3d 12 93 3d 8e 4f e4 c5
//
// A slot counts if its first 8 bytes and its checksum are right; the mark is the higher of the two.
// advance() writes one slot only, again and again, and sync() makes it durable and changes to the
// other: so a power cut can tear the newer slot and never the one synced last. A mark that is lost
// with an unsynced slot is older than the truth; it is never ahead of it, as it is written later.
//
// Limit:    what was synced in the last moments before a power cut may not be covered by the mark
//           yet, by as much as the owner waits between two calls of sync(); nor what was synced just
//           before a kill, by as much as it waits with advance().
// Threads:  none inside; one owner makes every call, and all but sequence() may wait for the disk.
// Needs:    result.hpp; RocksDB's Env, which knows each platform's way to sync a file.
#ifndef SESHAT_DURABLE_MARK_HPP
#define SESHAT_DURABLE_MARK_HPP

#include <rocksdb/env.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "seshat/fnv1a.hpp"
#include "seshat/result.hpp"

namespace seshat {

class DurableMark {
 public:
  // Opens the mark at `path`, or makes it, durably, with the value 0: nothing promised yet.
  [[nodiscard]] static Result<DurableMark> open(rocksdb::Env& env, const std::string& path);

  // As it was read, or as it was advanced to since.
  [[nodiscard]] std::uint64_t sequence() const { return sequence_; }

  // Says that everything up to `sequence` is durable. Lasts through a kill at once, and through a
  // power cut after the next sync(). A lower value than the present one changes nothing.
  [[nodiscard]] Result<void> advance(std::uint64_t sequence);
  [[nodiscard]] Result<void> sync();

 private:
  static constexpr std::size_t kSlotDistanceBytes = 4096;
  static constexpr std::size_t kSlotSizeBytes = 28;
  static constexpr std::string_view kMagic = "SESHMARK";
  static constexpr std::uint32_t kVersion = 1;

  struct Slot {
    bool valid = false;
    std::uint32_t version = 0;
    std::uint64_t sequence = 0;
  };

  DurableMark(std::string path, std::unique_ptr<rocksdb::RandomRWFile> file)
      : path_(std::move(path)), file_(std::move(file)) {}

  [[nodiscard]] static std::string encode(std::uint64_t sequence);
  [[nodiscard]] static Slot decode(std::string_view bytes);
  [[nodiscard]] static rocksdb::Status make(rocksdb::Env& env, const std::string& path);
  [[nodiscard]] Result<void> load();
  [[nodiscard]] Result<Slot> read_slot(std::size_t number);
  [[nodiscard]] Error failed(const char* doing, const rocksdb::Status& status) const;

  std::string path_;
  std::unique_ptr<rocksdb::RandomRWFile> file_;
  std::uint64_t sequence_ = 0;
  std::size_t next_slot_ = 0;  // the one that may be torn
  bool dirty_ = false;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline Result<DurableMark> DurableMark::open(rocksdb::Env& env, const std::string& path) {
  rocksdb::Status status = env.FileExists(path);
  if (status.IsNotFound()) status = make(env, path);
  std::unique_ptr<rocksdb::RandomRWFile> file;
  if (status.ok()) status = env.NewRandomRWFile(path, &file, rocksdb::EnvOptions());
  DurableMark mark(path, std::move(file));
  if (!status.ok()) return mark.failed("open", status);
  if (Result<void> loaded = mark.load(); !loaded) return loaded.error();
  return mark;
}

// Under another name first: under its own, the file is whole from the beginning.
inline rocksdb::Status DurableMark::make(rocksdb::Env& env, const std::string& path) {
  const std::string new_path = path + ".new";
  std::string content = encode(0);
  content.resize(kSlotDistanceBytes);
  content += encode(0);
  rocksdb::Status status =
      rocksdb::WriteStringToFile(&env, content, new_path, /*should_sync=*/true);
  if (status.ok()) status = env.RenameFile(new_path, path);
  std::unique_ptr<rocksdb::Directory> directory;
  const std::string parent = std::filesystem::path(path).parent_path().string();
  if (status.ok()) status = env.NewDirectory(parent, &directory);
  if (status.ok()) status = directory->Fsync();
  return status;
}

inline Result<void> DurableMark::load() {
  std::array<Slot, 2> slots;
  for (std::size_t number = 0; number < slots.size(); ++number) {
    Result<Slot> slot = read_slot(number);
    if (!slot) return slot.error();
    slots[number] = *slot;
    if (slot->valid && slot->version > kVersion) {
      return Error{path_ + " has version " + std::to_string(slot->version) +
                   ", but this seshat knows only up to " + std::to_string(kVersion) +
                   ": run the newer seshat that wrote it"};
    }
  }
  if (!slots[0].valid && !slots[1].valid) {
    return Error{path_ +
                 " is damaged: neither of its two records can be read, so nothing says how much "
                 "of the log was promised"};
  }
  const bool second = !slots[0].valid || (slots[1].valid && slots[1].sequence > slots[0].sequence);
  sequence_ = slots[second ? 1 : 0].sequence;
  next_slot_ = second ? 0 : 1;
  // What was read may be in the page cache only: a process was killed before its sync().
  if (const rocksdb::Status status = file_->Sync(); !status.ok()) return failed("sync", status);
  return {};
}

inline Result<void> DurableMark::advance(std::uint64_t sequence) {
  if (sequence <= sequence_) return {};
  const rocksdb::Status status = file_->Write(next_slot_ * kSlotDistanceBytes, encode(sequence));
  if (!status.ok()) return failed("write", status);
  sequence_ = sequence;
  dirty_ = true;
  return {};
}

inline Result<void> DurableMark::sync() {
  if (!dirty_) return {};
  const rocksdb::Status status = file_->Sync();
  if (!status.ok()) return failed("sync", status);
  next_slot_ = 1 - next_slot_;
  dirty_ = false;
  return {};
}

inline Result<DurableMark::Slot> DurableMark::read_slot(std::size_t number) {
  std::array<char, kSlotSizeBytes> buffer{};
  rocksdb::Slice bytes;
  const rocksdb::Status status =
      file_->Read(number * kSlotDistanceBytes, buffer.size(), &bytes, buffer.data());
  if (!status.ok()) return failed("read", status);
  return decode(std::string_view(bytes.data(), bytes.size()));
}

inline std::string DurableMark::encode(std::uint64_t sequence) {
  std::string bytes(kMagic);
  const auto append = [&bytes](std::uint64_t number, std::size_t size_bytes) {
    for (std::size_t i = 0; i < size_bytes; ++i) {
      bytes.push_back(static_cast<char>(number >> (8 * i) & 0xff));
    }
  };
  append(kVersion, 4);
  append(sequence, 8);
  append(fnv1a(bytes), 8);
  return bytes;
}

inline DurableMark::Slot DurableMark::decode(std::string_view bytes) {
  Slot slot;
  if (bytes.size() != kSlotSizeBytes || !bytes.starts_with(kMagic)) return slot;
  const auto number = [bytes](std::size_t offset, std::size_t size_bytes) {
    std::uint64_t value = 0;
    for (std::size_t i = size_bytes; i > 0; --i) {
      value = value << 8 | static_cast<unsigned char>(bytes[offset + i - 1]);
    }
    return value;
  };
  slot.version = static_cast<std::uint32_t>(number(8, 4));
  slot.sequence = number(12, 8);
  slot.valid = number(20, 8) == fnv1a(bytes.substr(0, 20));
  return slot;
}

inline Error DurableMark::failed(const char* doing, const rocksdb::Status& status) const {
  return Error{"could not " + std::string(doing) + " " + path_ + ": " + status.ToString()};
}

}  // namespace seshat

#endif  // SESHAT_DURABLE_MARK_HPP
