// Where a replay of RocksDB's log ends. What a damaged log means for a store: store_crash_test.cpp.
#include "seshat/wal_check.hpp"

#include <rocksdb/write_batch.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "catch.hpp"

namespace seshat {
namespace {

using Option = rocksdb::WalFilter::WalProcessingOption;

// What `continuity` says of a record of `count` changes from `sequence` on.
Option found(WalContinuity& continuity, std::uint64_t sequence, int count = 1) {
  rocksdb::WriteBatch batch;
  for (int i = 0; i < count; ++i) REQUIRE(batch.Put(std::to_string(i), "v").ok());
  std::string bytes = batch.Data();
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(sequence >> 8 * i);
  bool changed = false;
  return continuity.LogRecordFound(7, "000007.log", rocksdb::WriteBatch(bytes), nullptr, &changed);
}

TEST_CASE("a replay ends at the first record that does not join the one before") {
  WalContinuity continuity(WalContinuity::Mode::kReplay);
  CHECK(found(continuity, 100, 3) == Option::kContinueProcessing);
  CHECK(found(continuity, 103) == Option::kContinueProcessing);
  CHECK(found(continuity, 105) == Option::kStopReplay);
  CHECK(found(continuity, 106) == Option::kStopReplay);
  CHECK(continuity.has_gap());
  CHECK(continuity.first_sequence() == 100);
  CHECK(continuity.next_sequence() == 104);
}

TEST_CASE("a replay doesn't begin at a record that does not join the tables") {
  WalContinuity joins(WalContinuity::Mode::kReplay);
  joins.follow(99);
  CHECK(found(joins, 100) == Option::kContinueProcessing);
  CHECK_FALSE(joins.has_gap());
  WalContinuity overlaps(WalContinuity::Mode::kReplay);
  overlaps.follow(99);
  CHECK(found(overlaps, 90, 20) == Option::kContinueProcessing);
  CHECK(found(overlaps, 110) == Option::kContinueProcessing);
  WalContinuity gap(WalContinuity::Mode::kReplay);
  gap.follow(99);
  CHECK(found(gap, 101) == Option::kStopReplay);
  CHECK(found(gap, 102) == Option::kStopReplay);
  CHECK(gap.has_gap());
}

}  // namespace
}  // namespace seshat
