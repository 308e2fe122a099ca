// seshat/slots.hpp - which hash slot a key belongs to, as in Redis Cluster.
//
//   key ──> its hash tag, or the whole key ──> CRC16/XMODEM ──> modulo 16384 ──> slot
//
//   user1000                 CRC16("user1000") % 16384  =  3443
//   {user1000}.following     the same: only what stands in the first {...} is hashed
//
// Keeps:    keys with the same hash tag share a slot, so that one command may name them all.
// Threads:  pure functions; any thread.
// Alone:    copy this file; it needs only the standard library.
//
// From the Redis Cluster specification, "Key distribution model" and "Hash tags".

#ifndef SESHAT_SLOTS_HPP
#define SESHAT_SLOTS_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace seshat {

using Slot = std::uint16_t;

inline constexpr unsigned kSlotCount = 16384;

// CRC16/XMODEM: polynomial 0x1021, initial value 0, nothing reflected, no final xor.
// crc16("123456789") is 0x31C3.
[[nodiscard]] constexpr std::uint16_t crc16(std::string_view bytes);

// The part of a key that is hashed: what stands between the first '{' and the first '}' after it,
// or the whole key if there is no such pair or nothing in between.
//
//   {a}.b ──> a      {a}{b} ──> a      {{a}}b ──> {a      {}a ──> {}a      {a ──> {a
[[nodiscard]] constexpr std::string_view hash_tag(std::string_view key);

// The slot of a key, below kSlotCount.
[[nodiscard]] constexpr Slot slot_of(std::string_view key);

// ---------------------------------------------------------------------------------------------
// Bodies
// ---------------------------------------------------------------------------------------------

// Entry i of table n is the CRC of byte i with n zero bytes behind it. Table 0 alone takes one byte
// at a step; together they take four, none of which waits for another ("slicing").
using Crc16Tables = std::array<std::array<std::uint16_t, 256>, 4>;

constexpr Crc16Tables make_crc16_tables() {
  Crc16Tables tables{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    unsigned crc = byte << 8U;
    for (auto& table : tables) {
      for (int bit = 0; bit < 8; ++bit) {
        crc = ((crc << 1U) ^ ((crc & 0x8000U) != 0 ? 0x1021U : 0U)) & 0xFFFFU;
      }
      table[byte] = static_cast<std::uint16_t>(crc);
    }
  }
  return tables;
}

inline constexpr Crc16Tables kCrc16Tables = make_crc16_tables();

constexpr std::uint16_t crc16(std::string_view bytes) {
  const auto byte_at = [&](std::size_t i) -> unsigned {
    return static_cast<unsigned char>(bytes[i]);
  };
  const Crc16Tables& tables = kCrc16Tables;
  unsigned crc = 0;
  std::size_t i = 0;
  for (; bytes.size() - i >= 4; i += 4) {
    crc = unsigned{tables[3][(crc >> 8U) ^ byte_at(i)]} ^
          tables[2][(crc & 0xFFU) ^ byte_at(i + 1)] ^ tables[1][byte_at(i + 2)] ^
          tables[0][byte_at(i + 3)];
  }
  for (; i < bytes.size(); ++i) {
    crc = ((crc << 8U) & 0xFFFFU) ^ tables[0][(crc >> 8U) ^ byte_at(i)];
  }
  return static_cast<std::uint16_t>(crc);
}

constexpr std::string_view hash_tag(std::string_view key) {
  const std::size_t open = key.find('{');
  if (open == std::string_view::npos) return key;
  const std::size_t close = key.find('}', open + 1);
  if (close == std::string_view::npos || close == open + 1) return key;
  return key.substr(open + 1, close - open - 1);
}

constexpr Slot slot_of(std::string_view key) {
  return static_cast<Slot>(crc16(hash_tag(key)) % kSlotCount);
}

}  // namespace seshat

#endif  // SESHAT_SLOTS_HPP
