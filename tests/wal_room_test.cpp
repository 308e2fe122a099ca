// The room ahead in RocksDB's log: where it is, that it costs no record, and that it goes at the end.
#include "seshat/wal_room.hpp"

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <rocksdb/options.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>

#include "catch.hpp"
#include "memory_disk.hpp"

namespace seshat {
namespace {

using tests::DiskOperation;
using tests::MemoryDisk;

constexpr std::size_t kRoom = wal_detail::kRoomSizeBytes;
constexpr std::size_t kLargest = wal_detail::kLargestSizeBytes;

// A file of RocksDB's on a disk in memory, with whatever room it gets.
struct Opened {
  explicit Opened(const std::string& name) : path("/" + name) {
    REQUIRE(env->GetFileSystem()->NewWritableFile(path, {}, &file, nullptr).ok());
  }
  void append(const std::string& bytes) { REQUIRE(file->Append(bytes, {}, nullptr).ok()); }
  [[nodiscard]] std::string content() const { return disk.content(path); }

  MemoryDisk disk;
  std::unique_ptr<rocksdb::Env> on_disk = disk.env();
  std::unique_ptr<rocksdb::Env> env = env_with_wal_room(*on_disk);
  std::string path;
  std::unique_ptr<rocksdb::FSWritableFile> file;
};

TEST_CASE("small records of a log overwrite zeros that were written ahead of them") {
  Opened log("000007.log");
  log.append("first");
  CHECK(log.content() == "first" + std::string(kRoom - 5, '\0'));
  log.append("second");
  CHECK(log.content() == "firstsecond" + std::string(kRoom - 11, '\0'));
  std::string all = "firstsecond";
  while (all.size() <= kRoom) {
    log.append(std::string(1000, 'x'));
    all += std::string(1000, 'x');
  }
  CHECK(log.content() == all + std::string(2 * kRoom - all.size(), '\0'));
  REQUIRE(log.file->Close({}, nullptr).ok());
  CHECK(log.content() == all);
}

TEST_CASE("large records get no room, and what follows them goes behind them") {
  Opened log("000007.log");
  const std::string large(kLargest + 1, 'l');
  log.append(large);
  CHECK(log.content() == large);
  log.append("small");
  std::string all = large + "small";
  CHECK(log.content() == all + std::string(kRoom - all.size(), '\0'));
  while (all.size() <= kRoom) {  // over the end of the room
    log.append(large);
    all += large;
  }
  CHECK(log.content() == all);
  log.append("small");
  all += "small";
  CHECK(log.content() == all + std::string(2 * kRoom - all.size(), '\0'));
  REQUIRE(log.file->Close({}, nullptr).ok());
  CHECK(log.content() == all);
}

TEST_CASE("files that are no logs get no room") {
  Opened table("000008.sst");
  table.append("rows");
  CHECK(table.content() == "rows");
}

TEST_CASE("a record that ends near a room's end has the next room behind it, up to a block's end") {
  for (std::size_t left = 0; left < 8; ++left) {
    Opened log("000007.log");
    log.append(std::string(kLargest + 1, 'l'));
    log.append(std::string(kRoom - left - 2 * kLargest - 1, 'm'));
    log.append(std::string(kLargest, 's'));
    CAPTURE(left);
    CHECK(log.content().size() % kRoom == 0);
    CHECK(log.content().size() > kRoom - left);
  }
}

TEST_CASE("a log goes on without room on a disk that has none for it") {
  Opened log("000007.log");
  int writes = 0;
  log.disk.set_hook([&](DiskOperation operation, const std::string&) {
    if (operation != DiskOperation::kWrite || ++writes > 1) return rocksdb::IOStatus::OK();
    return rocksdb::IOStatus::NoSpace("no room");
  });
  log.append("record");
  log.append("another");
  CHECK(writes == 3);  // of zeros once
  CHECK(log.content() == "recordanother");
}

TEST_CASE("a log whose room can't be written can't be written, and is left as it is") {
  Opened log("000007.log");
  log.append(std::string(kLargest + 1, 'l'));
  int writes = 0;
  log.disk.set_hook([&](DiskOperation, const std::string&) {
    ++writes;
    return rocksdb::IOStatus::IOError("input/output error");
  });
  CHECK(log.file->Append("record", {}, nullptr).IsIOError());
  CHECK(writes == 1);
  CHECK(log.file->Close({}, nullptr).ok());
  CHECK(writes == 1);
  CHECK(log.content() == std::string(kLargest + 1, 'l'));
}

TEST_CASE("RocksDB finds its records in front of the room after a kill and a power cut") {
  MemoryDisk disk;
  const auto write = [](MemoryDisk& on, int from, int to) {
    const auto on_disk = on.env();
    const auto env = env_with_wal_room(*on_disk);
    rocksdb::Options options;
    options.env = env.get();
    options.create_if_missing = true;
    options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
    rocksdb::DB* opened = nullptr;
    REQUIRE(rocksdb::DB::Open(options, "/db", &opened).ok());
    const std::unique_ptr<rocksdb::DB> db(opened);
    std::unique_ptr<rocksdb::FSDirectory> root;
    REQUIRE(on.NewDirectory("/", {}, &root, nullptr).ok());
    REQUIRE(root->Fsync({}, nullptr).ok());
    rocksdb::WriteOptions synced;
    synced.sync = true;
    for (int i = from; i < to; ++i) {
      REQUIRE(db->Put(synced, std::to_string(i), std::string(700, 'v')).ok());
    }
    for (int i = 0; i < to; ++i) {
      CAPTURE(from, i);
      std::string value;
      REQUIRE(db->Get({}, std::to_string(i), &value).ok());
      CHECK(value == std::string(700, 'v'));
    }
    const auto files = on.files();
    const bool has_room = std::any_of(files.begin(), files.end(), [&](const std::string& file) {
      return file.ends_with(".log") && on.content(file).ends_with(std::string(100, '\0'));
    });
    CHECK(has_room);
    return on.after_kill();
  };
  MemoryDisk killed = write(disk, 0, 150);  // more than one room
  MemoryDisk again = write(killed, 150, 200);
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    MemoryDisk cut = again.after_kill().after_cut(seed);
    write(cut, 200, 201);
  }
}

}  // namespace
}  // namespace seshat
