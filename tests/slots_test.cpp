#include "seshat/slots.hpp"

#include <random>
#include <string>
#include <string_view>

#include "catch.hpp"

namespace {

using seshat::crc16;
using seshat::hash_tag;
using seshat::kSlotCount;
using seshat::slot_of;

// CRC16/XMODEM a bit at a time, as the definition says: slow, and independent of the table.
unsigned crc16_by_bits(std::string_view bytes) {
  unsigned crc = 0;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned>(static_cast<unsigned char>(c)) << 8U;
    for (int bit = 0; bit < 8; ++bit) {
      crc = ((crc << 1U) ^ ((crc & 0x8000U) != 0 ? 0x1021U : 0U)) & 0xFFFFU;
    }
  }
  return crc;
}

std::string random_bytes(std::mt19937_64& random, std::size_t size) {
  std::string bytes;
  for (std::size_t i = 0; i < size; ++i) bytes += static_cast<char>(random() & 0xFFU);
  return bytes;
}

TEST_CASE("CRC16 of the check string is 0x31C3 (Redis Cluster specification, appendix A)") {
  CHECK(crc16("123456789") == 0x31C3);
  CHECK(crc16("") == 0);
}

TEST_CASE("CRC16 by tables equals CRC16 by bits for any bytes") {
  std::mt19937_64 random(16384);
  for (std::size_t size = 0; size < 20; ++size) {  // four at a time, and what is left over
    const std::string bytes = random_bytes(random, size);
    REQUIRE(crc16(bytes) == crc16_by_bits(bytes));
  }
  for (int round = 0; round < 2000; ++round) {
    const std::string bytes = random_bytes(random, random() % 64);
    REQUIRE(crc16(bytes) == crc16_by_bits(bytes));
  }
}

TEST_CASE("slots are those that CLUSTER KEYSLOT of Redis answers") {
  CHECK(slot_of("foo") == 12182);
  CHECK(slot_of("bar") == 5061);
  CHECK(slot_of("user1000") == 3443);
  CHECK(slot_of("") == 0);
}

TEST_CASE("a slot is known at compile time and is below 16384") {
  static_assert(slot_of("foo") == 12182);
  static_assert(kSlotCount == 16384);
  std::mt19937_64 random(1);
  for (int round = 0; round < 2000; ++round) {
    REQUIRE(slot_of(random_bytes(random, random() % 32)) < kSlotCount);
  }
}

TEST_CASE("keys with the same hash tag share a slot (Redis Cluster specification, hash tags)") {
  CHECK(slot_of("{user1000}.following") == slot_of("user1000"));
  CHECK(slot_of("{user1000}.following") == slot_of("{user1000}.followers"));
}

TEST_CASE("an empty first tag hashes the whole key (hash tags, foo{}{bar})") {
  CHECK(hash_tag("foo{}{bar}") == "foo{}{bar}");
  CHECK(slot_of("foo{}{bar}") == crc16("foo{}{bar}") % kSlotCount);
  CHECK(slot_of("foo{}{bar}") != slot_of("bar"));
}

TEST_CASE("a tag ends at the first closing brace (hash tags, foo{{bar}}zap)") {
  CHECK(hash_tag("foo{{bar}}zap") == "{bar");
  CHECK(slot_of("foo{{bar}}zap") == crc16("{bar") % kSlotCount);
}

TEST_CASE("only the first tag counts (hash tags, foo{bar}{zap})") {
  CHECK(hash_tag("foo{bar}{zap}") == "bar");
  CHECK(slot_of("foo{bar}{zap}") == slot_of("bar"));
}

TEST_CASE("braces that make no pair hash the whole key") {
  CHECK(hash_tag("foo{bar") == "foo{bar");
  CHECK(hash_tag("foo}bar") == "foo}bar");
  CHECK(hash_tag("}foo{") == "}foo{");
  CHECK(hash_tag("}foo{bar}") == "bar");
}

}  // namespace
