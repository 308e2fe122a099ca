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

// Entry i is the CRC of the single byte i; it lets crc16() take eight bits at a step.
constexpr std::array<std::uint16_t, 256> make_crc16_table() {
  std::array<std::uint16_t, 256> table{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    unsigned crc = byte << 8U;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc & 0x8000U) != 0 ? (crc << 1U) ^ 0x1021U : crc << 1U;
    }
    table[byte] = static_cast<std::uint16_t>(crc & 0xFFFFU);
  }
  return table;
}

inline constexpr std::array<std::uint16_t, 256> kCrc16Table = make_crc16_table();

constexpr std::uint16_t crc16(std::string_view bytes) {
  unsigned crc = 0;
  for (const char c : bytes) {
    const unsigned byte = static_cast<unsigned char>(c);
    crc = ((crc << 8U) & 0xFFFFU) ^ kCrc16Table[(crc >> 8U) ^ byte];
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
