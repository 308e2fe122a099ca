// seshat/wal_room.hpp - room ahead in the write-ahead log, so that a sync of it has only data to sync.
//
//   │ records ..................... │ zeros: the room │        what RocksDB has reserved
//                                   ^ the next record goes here    ^ size of the file
//
// A file that grows with each write makes each fdatasync commit its new size as well: to the file
// system's journal, which is one for all, whose commits wait for one another and for the data of other
// files (a flush of tables). Reserved space (fallocate) doesn't help: its extents are marked as
// unwritten, and that is changed in the journal. So zeros are written ahead, kRoomSizeBytes at a time,
// and records overwrite them in place. Measured: docs/performance.md.
//
// Keeps:    RocksDB's own bytes, at their own places. It passes over zeros to the next block of 32 KB,
//           and at last to the end; wal_check.hpp ends the log where something is missing in between.
// Cost:     small records are written twice. Appends that are larger than kLargestSizeBytes get no room.
// Threads:  as RocksDB's writers: one appends, one syncs. Needs: RocksDB.
#ifndef SESHAT_WAL_ROOM_HPP
#define SESHAT_WAL_ROOM_HPP

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <rocksdb/io_status.h>
#include <rocksdb/slice.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace seshat {

// The Env over `env`'s files in which logs get their room; `env` must outlive it.
[[nodiscard]] std::unique_ptr<rocksdb::Env> env_with_wal_room(rocksdb::Env& env);

// =================================================================================================
// Bodies
// =================================================================================================

namespace wal_detail {

inline constexpr std::size_t kRoomSizeBytes = 64 * 1024;
inline constexpr std::size_t kLargestSizeBytes = 16 * 1024;

class WalFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  using Status = rocksdb::IOStatus;
  using Options = rocksdb::IOOptions;
  using Debug = rocksdb::IODebugContext;

  WalFile(std::unique_ptr<rocksdb::FSWritableFile> file,
          std::unique_ptr<rocksdb::FSRandomRWFile> ahead)
      : FSWritableFileOwnerWrapper(std::move(file)), ahead_(std::move(ahead)) {}

  Status Append(const rocksdb::Slice& bytes, const Options& options, Debug* debug) override {
    Status room = make_room(bytes.size(), options, debug);
    if (!room.ok()) return room;
    return noted(FSWritableFileOwnerWrapper::Append(bytes, options, debug));
  }
  Status Append(const rocksdb::Slice& bytes, const Options& options,
                const rocksdb::DataVerificationInfo& verification, Debug* debug) override {
    Status room = make_room(bytes.size(), options, debug);
    if (!room.ok()) return room;
    return noted(FSWritableFileOwnerWrapper::Append(bytes, options, verification, debug));
  }
  // What is left of the room goes.
  Status Close(const Options& options, Debug* debug) override {
    if (room_end_ > size_) {
      Status cut = Truncate(size_, options, debug);
      if (!cut.ok()) return cut;
    }
    return FSWritableFileOwnerWrapper::Close(options, debug);
  }

 private:
  Status make_room(std::size_t size_bytes, const Options& options, Debug* debug) {
    const std::uint64_t from = std::max(size_, room_end_);
    size_ += size_bytes;
    if (size_ <= room_end_ || size_bytes > kLargestSizeBytes || full_) return Status::OK();
    // It ends where a block does: of a header that is cut short RocksDB says that it is damaged.
    const std::uint64_t end = (size_ / kRoomSizeBytes + 1) * kRoomSizeBytes;
    static constexpr std::array<char, 2 * kRoomSizeBytes> kZeros{};
    const rocksdb::Slice zeros(kZeros.data(), end - from);
    const Status made = ahead_->Write(from, zeros, options, debug);
    if (made.ok()) room_end_ = end;
    // The record itself may fit yet.
    full_ = made.IsNoSpace();
    return full_ ? Status::OK() : noted(made);
  }
  // A log that could not be written is left as it is.
  Status noted(Status written) {
    if (!written.ok()) room_end_ = 0;
    return written;
  }

  const std::unique_ptr<rocksdb::FSRandomRWFile> ahead_;  // the same file
  std::uint64_t size_ = 0;                                // that RocksDB has written
  std::uint64_t room_end_ = 0;
  bool full_ = false;  // the disk was, and nothing more is tried
};

class WalRoom final : public rocksdb::FileSystemWrapper {
 public:
  using FileSystemWrapper::FileSystemWrapper;

  const char* Name() const override { return "seshat.WalRoom"; }

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* result,
                                    rocksdb::IODebugContext* debug) override {
    rocksdb::IOStatus made = FileSystemWrapper::NewWritableFile(path, options, result, debug);
    if (!made.ok() || !std::string_view(path).ends_with(".log")) return made;
    std::unique_ptr<rocksdb::FSRandomRWFile> ahead;
    if (FileSystemWrapper::NewRandomRWFile(path, options, &ahead, debug).ok()) {
      *result = std::make_unique<WalFile>(std::move(*result), std::move(ahead));
    }
    return made;
  }
};

}  // namespace wal_detail

inline std::unique_ptr<rocksdb::Env> env_with_wal_room(rocksdb::Env& env) {
  return rocksdb::NewCompositeEnv(std::make_shared<wal_detail::WalRoom>(env.GetFileSystem()));
}

}  // namespace seshat

#endif  // SESHAT_WAL_ROOM_HPP
